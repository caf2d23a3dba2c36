//! What must be done so that there is what is declared.

use std::collections::{BTreeMap, HashMap, HashSet};

use lb_core::model::{
    Address, BackendId, Key, Kind, ListenerName, PoolName, Resource, Route, RouteName,
    natural_order,
};
use serde_json::{Map, Value};

use super::{
    Declaration, DeclaredBackend, DeclaredLimit, DeclaredListener, DeclaredPool, DeclaredRoute,
    Place, Wish,
    export::{chosen_fields, fields},
    keys::keys,
};

/// What becomes of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its kind.
    pub kind: Kind,
    /// Its name; of a backend that is yet to get an id, its address.
    pub name: String,
    /// What is done.
    pub action: Action,
    /// The keys that change; of a new object, those that differ from the defaults.
    pub fields: Vec<Field>,
    /// The object as it will be; none when it is removed.
    pub resource: Option<Resource>,
    /// It is a backend that is yet to get an id.
    pub without_id: bool,
    /// Where it is declared; nowhere, when it is removed.
    pub place: Option<Place>,
}

/// What is done to an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// It is added.
    Created,
    /// Some keys change.
    Changed,
    /// It is what is declared already.
    Unchanged,
    /// It is not declared, and goes.
    Removed,
}

/// A key that changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Field {
    /// The key.
    pub key: String,
    /// The former value; none when the object is new or the key had none.
    pub old: Option<Value>,
    /// The value from now on; none when the key gets none.
    pub new: Option<Value>,
}

impl Action {
    /// As it is spelled in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
        }
    }
}

impl Change {
    /// Whether anything is done at all.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.action != Action::Unchanged
    }

    /// The changes of its keys in words: `weight: 1 -> 3, state: enabled -> draining`.
    #[must_use]
    pub fn details(&self) -> String {
        let words: Vec<String> = self.fields.iter().map(Field::to_string).collect();
        words.join(", ")
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (key, none) = (&self.key, || "none".to_owned());
        let new = self.new.as_ref().map_or_else(none, text);
        match &self.old {
            Some(old) => write!(f, "{key}: {} -> {new}", text(old)),
            None => write!(f, "{key}: {new}"),
        }
    }
}

/// What differs between two values of one object, in words as [`Change::details`].
#[must_use]
pub fn details_between(former: &Resource, new: &Resource) -> String {
    let differing = changed_fields(former, new);
    differing.iter().map(Field::to_string).collect::<Vec<_>>().join(", ")
}

/// Compares what is declared with what there is. Objects that are not declared stay,
/// unless `prune` asks for their removal. Then, too, the pool, the listener and the route
/// that a fresh control plane holds stay; but the route goes when a declared one matches
/// the very same requests, since only one of them could get any.
#[must_use]
pub fn changes(declared: &Declaration, current: &[Resource], prune: bool) -> Vec<Change> {
    let stored: BTreeMap<Key, &Resource> =
        current.iter().map(|resource| (resource.key(), resource)).collect();
    let ids = ids_by_address(declared, current);
    let mut kept: HashSet<Key> = HashSet::new();
    let mut changes: Vec<Change> = Vec::new();
    for wish in &declared.wishes {
        let mut wish = wish.clone();
        if wish.without_id
            && let Resource::Backend(backend) = &mut wish.resource
            && let Some(id) = ids.get(&(&backend.pool, &backend.address))
        {
            backend.id = (*id).clone();
            wish.without_id = false;
        }
        let former = if wish.without_id { None } else { stored.get(&wish.resource.key()).copied() };
        if !wish.without_id {
            kept.insert(wish.resource.key());
        }
        changes.push(change(wish, former));
    }
    if prune {
        let mut gone: Vec<&Resource> = current
            .iter()
            .filter(|resource| {
                !matches!(resource.kind(), Kind::Status | Kind::SessionKeys)
                    && !kept.contains(&resource.key())
            })
            .filter(|resource| !stays_anyway(resource, declared))
            // What a source discovered is not declared, and would come back.
            .filter(|resource| resource.as_backend().is_none_or(|b| b.source.is_none()))
            .collect();
        gone.sort_by(|a, b| {
            a.kind().cmp(&b.kind()).then_with(|| natural_order(a.name(), b.name()))
        });
        changes.extend(gone.into_iter().map(|resource| Change {
            kind: resource.kind(),
            name: resource.name().to_owned(),
            action: Action::Removed,
            fields: Vec::new(),
            resource: None,
            without_id: false,
            place: None,
        }));
    }
    changes
}

/// The backends that a declaration without an id may mean: none that another names.
fn ids_by_address<'a>(
    declared: &Declaration,
    current: &'a [Resource],
) -> HashMap<(&'a PoolName, &'a Address), &'a BackendId> {
    let named: HashSet<&str> = declared
        .wishes
        .iter()
        .filter(|wish| wish.resource.kind() == Kind::Backend && !wish.without_id)
        .map(|wish| wish.resource.name())
        .collect();
    let backends = current.iter().filter_map(|resource| match resource {
        Resource::Backend(backend) if !named.contains(backend.id.as_str()) => Some(backend),
        _ => None,
    });
    backends.map(|backend| ((&backend.pool, &backend.address), &backend.id)).collect()
}

fn change(wish: Wish, former: Option<&Resource>) -> Change {
    let Wish { resource, without_id, place } = wish;
    let kind = resource.kind();
    let (action, fields) = match former {
        None => {
            let mut chosen = chosen_fields(&resource);
            chosen.remove(if kind == Kind::Backend { "id" } else { "name" });
            (Action::Created, differences(kind, &Map::new(), &chosen))
        }
        Some(former) => {
            let fields = changed_fields(former, &resource);
            let action = if fields.is_empty() { Action::Unchanged } else { Action::Changed };
            (action, fields)
        }
    };
    let name = match &resource {
        Resource::Backend(backend) if without_id => backend.address.to_string(),
        resource => resource.name().to_owned(),
    };
    Change { kind, name, action, fields, resource: Some(resource), without_id, place: Some(place) }
}

/// The keys in which two values of one object differ. The settings of a session's cookie come
/// and go with the cookie: those that go with it, and those that come with their default, are
/// not told.
fn changed_fields(former: &Resource, new: &Resource) -> Vec<Field> {
    let mut differing = differences(new.kind(), &fields(former), &fields(new));
    if differing.iter().any(|field| field.key == "sticky") {
        let chosen = chosen_fields(new);
        differing.retain(|field| {
            !field.key.starts_with("session_")
                || (field.new.is_some() && chosen.contains_key(&field.key))
        });
    }
    differing
}

fn differences(kind: Kind, old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<Field> {
    let differs = |key: &&&str| old.get(**key) != new.get(**key);
    let field = |key: &&str| Field {
        key: (*key).to_owned(),
        old: old.get(*key).cloned(),
        new: new.get(*key).cloned(),
    };
    keys_of(kind).iter().filter(differs).map(field).collect()
}

/// The keys of a kind in their order.
pub(super) fn keys_of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Pool => keys::<DeclaredPool>(),
        Kind::Backend => keys::<DeclaredBackend>(),
        Kind::Listener => keys::<DeclaredListener>(),
        Kind::Route => keys::<DeclaredRoute>(),
        Kind::Limit => keys::<DeclaredLimit>(),
        Kind::Status | Kind::SessionKeys => &[],
    }
}

fn stays_anyway(resource: &Resource, declared: &Declaration) -> bool {
    match resource {
        Resource::Pool(pool) => pool.name == PoolName::default_pool(),
        Resource::Listener(listener) => listener.name == ListenerName::default_listener(),
        Resource::Route(route) => {
            route.name == RouteName::default_route()
                && !declared.wishes.iter().any(|wish| is_in_the_way(route, &wish.resource))
        }
        Resource::Backend(_)
        | Resource::Limit(_)
        | Resource::Status(_)
        | Resource::SessionKeys(_) => false,
    }
}

fn is_in_the_way(route: &Route, declared: &Resource) -> bool {
    matches!(declared, Resource::Route(other)
        if other.matched() == route.matched())
}

/// A value as people read it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Object(pairs) if pairs.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Object(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| format!("{key}={}", text(value)));
            pairs.collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}
