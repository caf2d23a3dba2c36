//! From domain objects to documents.

use lb_core::model::{
    Affinity, Algorithm, Backend, CookieAffinity, Kind, LeastConnections, Limit, Listener, Pool,
    Resource, Route,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{DeclaredBackend, DeclaredLimit, DeclaredListener, DeclaredPool, DeclaredRoute};

/// The kinds of objects that can be declared, in the order of a document.
pub const DECLARED_KINDS: [Kind; 5] =
    [Kind::Pool, Kind::Backend, Kind::Listener, Kind::Route, Kind::Limit];

/// All that can be declared.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(title = "Declared state of the load balancer")]
pub struct Document {
    /// Sets of backends under one policy each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<DeclaredPool>,
    /// Addresses that serve requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<DeclaredBackend>,
    /// How proxies treat the connections that they accept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<DeclaredListener>,
    /// Which requests go to which pool.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<DeclaredRoute>,
    /// How many requests may pass.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<DeclaredLimit>,
}

impl Document {
    /// Declares these objects: with every key, or with those that differ from the
    /// defaults. A status cannot be declared and is left out, and so are keys.
    #[must_use]
    pub fn of<'a>(resources: impl IntoIterator<Item = &'a Resource>, all: bool) -> Self {
        let mut document = Self::default();
        for resource in resources {
            match resource {
                Resource::Pool(pool) => document.pools.push(chosen(pool.into(), resource, all)),
                // A source tells it; whoever declares it too would have it twice.
                Resource::Backend(backend) if backend.source.is_some() => {}
                Resource::Backend(backend) => {
                    document.backends.push(chosen(backend.into(), resource, all));
                }
                Resource::Listener(listener) => {
                    document.listeners.push(chosen(listener.into(), resource, all));
                }
                Resource::Route(route) => document.routes.push(chosen(route.into(), resource, all)),
                Resource::Limit(limit) => document.limits.push(chosen(limit.into(), resource, all)),
                Resource::Status(_) | Resource::SessionKeys(_) => {}
            }
        }
        document
    }

    /// As a file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("tables have text keys and integers of 32 bits")
    }

    /// As a file, or for a program.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("maps have text keys")
    }
}

/// The kind of a document's list.
pub(super) fn kind_of_list(list: &str) -> Option<Kind> {
    DECLARED_KINDS.into_iter().find(|kind| list.strip_suffix('s') == Some(kind.name()))
}

/// The keys without which an object means nothing.
pub(super) fn required(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Pool | Kind::Listener | Kind::Route => &["name"],
        Kind::Backend => &["address"],
        Kind::Limit => &["name", "rate"],
        Kind::Status | Kind::SessionKeys => &[],
    }
}

/// All keys of an object with their values, as they are declared.
pub(super) fn fields(resource: &Resource) -> Map<String, Value> {
    match resource {
        Resource::Pool(pool) => to_map(&DeclaredPool::from(pool)),
        Resource::Backend(backend) => to_map(&DeclaredBackend::from(backend)),
        Resource::Listener(listener) => to_map(&DeclaredListener::from(listener)),
        Resource::Route(route) => to_map(&DeclaredRoute::from(route)),
        Resource::Limit(limit) => to_map(&DeclaredLimit::from(limit)),
        Resource::Status(_) | Resource::SessionKeys(_) => Map::new(),
    }
}

/// The values that keys have which are left out, taken from the model.
pub(super) fn defaults(kind: Kind) -> Map<String, Value> {
    const NAME: &str = "default";
    let mut defaults = match kind {
        Kind::Pool => {
            let pool = DeclaredPool { name: NAME.to_owned(), ..DeclaredPool::default() };
            let pool = Pool::try_from(pool).expect("defaults are valid");
            let mut map = to_map(&DeclaredPool::from(&pool));
            let least = Algorithm::LeastConnections(LeastConnections::default());
            let least = to_map(&DeclaredPool::from(&Pool { algorithm: least, ..pool.clone() }));
            let cookie = Affinity::Cookie(CookieAffinity::default());
            let cookie = to_map(&DeclaredPool::from(&Pool { affinity: cookie, ..pool }));
            // These belong to one algorithm, or to one affinity, and have defaults whenever it
            // is chosen.
            for (key, value) in least.into_iter().chain(cookie) {
                map.entry(key).or_insert(value);
            }
            map
        }
        Kind::Backend => {
            let address = "localhost:1".to_owned();
            let backend = DeclaredBackend { address, ..DeclaredBackend::default() };
            let backend = Backend::try_from(backend).expect("defaults are valid");
            to_map(&DeclaredBackend::from(&backend))
        }
        Kind::Listener => {
            let listener = DeclaredListener { name: NAME.to_owned(), ..Default::default() };
            let listener = Listener::try_from(listener).expect("defaults are valid");
            to_map(&DeclaredListener::from(&listener))
        }
        Kind::Route => {
            let (name, pool) = (NAME.to_owned(), Some(NAME.to_owned()));
            let route = DeclaredRoute { name, pool, ..DeclaredRoute::default() };
            let route = Route::try_from(route).expect("defaults are valid");
            let mut map = to_map(&DeclaredRoute::from(&route));
            // Where to is always chosen.
            map.remove("pool");
            map
        }
        Kind::Limit => {
            let (name, rate) = (NAME.to_owned(), "1/s".to_owned());
            let limit = DeclaredLimit { name, rate, ..DeclaredLimit::default() };
            let limit = Limit::try_from(limit).expect("defaults are valid");
            let mut map = to_map(&DeclaredLimit::from(&limit));
            // It is made from the rate.
            map.remove("burst");
            map
        }
        Kind::Status | Kind::SessionKeys => Map::new(),
    };
    defaults.remove("id");
    for key in required(kind) {
        defaults.remove(*key);
    }
    defaults
}

/// The keys of an object that somebody chose: its names, and what is not the default.
pub(super) fn chosen_fields(resource: &Resource) -> Map<String, Value> {
    let mut fields = fields(resource);
    for (key, value) in defaults(resource.kind()) {
        if fields.get(&key) == Some(&value) {
            fields.remove(&key);
        }
    }
    if let Resource::Limit(limit) = resource
        && limit.burst() == limit.rate.one_second()
    {
        fields.remove("burst");
    }
    fields
}

fn chosen<T: Serialize + DeserializeOwned>(full: T, resource: &Resource, all: bool) -> T {
    if all {
        return full;
    }
    serde_json::from_value(Value::Object(chosen_fields(resource))).unwrap_or(full)
}

fn to_map<T: Serialize>(value: &T) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}
