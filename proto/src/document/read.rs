//! From files to domain objects, with all faults of all files at once.
//!
//! Each key is read by itself, so that one bad value does not hide the next; then the
//! domain judges the whole object, again after each value that it refuses is taken out.

use std::collections::HashMap;

use lb_core::model::{Backend, Invalid, Kind, Limit, Listener, Pool, Resource, Route, shorten};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    DeclaredBackend, DeclaredLimit, DeclaredListener, DeclaredPool, DeclaredRoute, Document, Place,
    Problem, Problems,
    backend::UNASSIGNED,
    fault::in_words,
    keys::{keys, nearest},
    share::pool_of,
    tree::{self, Entry, Node, Tree},
};

/// The longest file that is read.
pub const SOURCE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A file's content.
#[derive(Clone, Debug)]
pub struct Source {
    /// As it is called in messages.
    pub name: String,
    /// All of it.
    pub text: String,
    /// How it is written.
    pub format: Format,
}

/// How a document is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

impl Format {
    /// By the end of a file's name; `None` for one that no document has.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Of a text without a name: JSON begins with a brace, with which TOML cannot, or with a list
    /// of objects, which is no document either, but is told as what it is.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let text = text.trim_start();
        let of_list = |list: &str| list.trim_start().starts_with(['{', ']']);
        let is_json = text.starts_with('{') || text.strip_prefix('[').is_some_and(of_list);
        if is_json { Self::Json } else { Self::Toml }
    }

    /// How objects of a kind are declared.
    fn list_of(self, kind: Kind) -> String {
        match self {
            Self::Toml => format!("[[{kind}s]]"),
            Self::Json => format!("\"{kind}s\": [{{...}}]"),
        }
    }

    /// How a key is written with its text.
    fn pair(self, key: &str, text: &str) -> String {
        match self {
            Self::Toml => format!("{key} = {text:?}"),
            Self::Json => format!("\"{key}\": {text:?}"),
        }
    }

    /// What keys and values are within.
    fn a_table(self) -> &'static str {
        match self {
            Self::Toml => "a table",
            Self::Json => "an object",
        }
    }
}

/// What files declare: checked objects, each named once.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// In the order of the kinds, then of the files.
    pub wishes: Vec<Wish>,
}

/// One declared object.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The object.
    pub resource: Resource,
    /// It is a backend without an id: the one in its pool at its address is meant, or a new
    /// one.
    pub without_id: bool,
    /// Where it is declared.
    pub place: Place,
}

impl Declaration {
    /// Reads sources. `known` says which pools, listeners and routes there are beside
    /// those that are declared here.
    pub fn read(sources: &[Source], known: impl Fn(Kind, &str) -> bool) -> Result<Self, Problems> {
        let mut reader = Reader::default();
        for source in sources {
            reader.take(source);
        }
        reader.check_references(known);
        reader.check_twins();
        match Problems::of(reader.problems) {
            Some(problems) => Err(problems),
            None => {
                let mut wishes = reader.wishes;
                wishes.sort_by_key(|wish| wish.resource.kind());
                Ok(Self { wishes })
            }
        }
    }
}

#[derive(Default)]
struct Reader {
    wishes: Vec<Wish>,
    problems: Vec<Problem>,
    /// Names of all objects, faulty ones included: who refers to those is not wrong.
    named: HashMap<(Kind, String), Place>,
    references: Vec<Reference>,
}

struct Reference {
    format: Format,
    kind: Kind,
    name: String,
    key: &'static str,
    place: Place,
}

impl Reader {
    fn take(&mut self, source: &Source) {
        let Some(root) = tree::parse(source, &mut self.problems) else { return };
        let format = source.format;
        let Tree::Table(lists) = root.value else {
            let is_list = matches!(root.value, Tree::List(_));
            let message = match is_list {
                true => {
                    "this is a list, as 'lbctl get -o json' prints it; a document is what 'lbctl \
                         export -o json' prints: {\"pools\": [{...}], \"backends\": [{...}]}"
                }
                false => {
                    "the document is no object; write {\"pools\": [{...}], \"backends\": \
                          [{...}]}"
                }
            };
            return self.fault(root.place, message);
        };
        let known = keys::<Document>();
        for Entry { key, place, node } in lists {
            let Some(kind) = super::export::kind_of_list(&key) else {
                let message = unknown_key(&key, "a document", known);
                self.problems.push(Problem { place, message });
                continue;
            };
            let Tree::List(items) = node.value else {
                let each = match format {
                    Format::Toml => format!(" for each {kind}"),
                    Format::Json => String::new(),
                };
                let list = format.list_of(kind);
                self.fault(place, format!("{key} is a list; write {list}{each}"));
                continue;
            };
            for item in items {
                self.object(format, kind, item);
            }
        }
    }

    fn object(&mut self, format: Format, kind: Kind, node: Node) {
        let place = node.place.clone();
        let Tree::Table(entries) = node.value else {
            let message = format!("a {kind} is {} of keys and values", format.a_table());
            return self.fault(place, message);
        };
        self.note(format, kind, &entries, &place);
        let without_id = kind == Kind::Backend && !entries.iter().any(|entry| entry.key == "id");
        let resource = match kind {
            Kind::Pool => self.parse(kind, &place, entries, |declared: DeclaredPool| {
                Pool::try_from(declared).map(Resource::Pool)
            }),
            Kind::Backend => self.parse(kind, &place, entries, |declared: DeclaredBackend| {
                Backend::try_from(declared).map(Resource::Backend)
            }),
            Kind::Listener => self.parse(kind, &place, entries, |declared: DeclaredListener| {
                Listener::try_from(declared).map(Resource::Listener)
            }),
            Kind::Route => self.parse(kind, &place, entries, |declared: DeclaredRoute| {
                Route::try_from(declared).map(Resource::Route)
            }),
            Kind::Limit => self.parse(kind, &place, entries, |declared: DeclaredLimit| {
                Limit::try_from(declared).map(Resource::Limit)
            }),
            // Nobody declares what is observed, or secret.
            Kind::Status | Kind::SessionKeys => None,
        };
        if let Some(resource) = resource {
            self.wishes.push(Wish { resource, without_id, place });
        }
    }

    /// Remembers whom it names and to whom it refers, also if it is faulty elsewhere.
    fn note(&mut self, format: Format, kind: Kind, entries: &[Entry], place: &Place) {
        for entry in entries {
            if kind == Kind::Route && entry.key == "pools" {
                self.note_shares(format, &entry.node);
            }
            let Tree::Leaf(Value::String(text)) = &entry.node.value else { continue };
            let refers_to = match (kind, entry.key.as_str()) {
                (Kind::Backend | Kind::Route | Kind::Limit, "pool") => Some((Kind::Pool, "pool")),
                (Kind::Pool, "fallback_pool") => Some((Kind::Pool, "fallback_pool")),
                (Kind::Limit, "route") => Some((Kind::Route, "route")),
                (Kind::Route, "listener") => Some((Kind::Listener, "listener")),
                _ => None,
            };
            if let Some((kind, key)) = refers_to {
                let (name, place) = (text.clone(), entry.node.place.clone());
                self.references.push(Reference { format, kind, name, key, place });
            }
            let names = entry.key == if kind == Kind::Backend { "id" } else { "name" };
            if names && let Some(first) = self.named.insert((kind, text.clone()), place.clone()) {
                let message =
                    format!("{kind} {text:?} is declared twice, first at {first}; declare it once");
                self.problems.push(Problem { place: entry.place.clone(), message });
            }
        }
    }

    /// Remembers the pools that share a route's requests.
    fn note_shares(&mut self, format: Format, pools: &Node) {
        let Tree::List(shares) = &pools.value else { return };
        for share in shares {
            let (name, place) = match &share.value {
                Tree::Leaf(Value::String(text)) => (pool_of(text), &share.place),
                Tree::Table(entries) => {
                    let Some(entry) = entries.iter().find(|entry| entry.key == "pool") else {
                        continue;
                    };
                    let Tree::Leaf(Value::String(name)) = &entry.node.value else { continue };
                    (name.as_str(), &entry.node.place)
                }
                Tree::List(_) | Tree::Leaf(_) => continue,
            };
            let (kind, name, place) = (Kind::Pool, name.to_owned(), place.clone());
            self.references.push(Reference { format, kind, name, key: "pool", place });
        }
    }

    fn parse<T: DeserializeOwned>(
        &mut self,
        kind: Kind,
        place: &Place,
        entries: Vec<Entry>,
        check: impl Fn(T) -> Result<Resource, Invalid>,
    ) -> Option<Resource> {
        let before = self.problems.len();
        let known = keys::<T>();
        let mut values = Map::new();
        let mut places = HashMap::new();
        for Entry { key, place, node } in entries {
            if !known.contains(&key.as_str()) {
                let message = match elsewhere(kind, &key) {
                    Some(meant) => {
                        format!("unknown key {:?} of a {kind}: {meant}", shorten(&key))
                    }
                    None => unknown_key(&key, &format!("a {kind}"), known),
                };
                self.problems.push(Problem { place, message });
                continue;
            }
            let value = node.to_json();
            if let Err(error) = serde_json::from_value::<T>(tree::single(&key, value.clone())) {
                let message = format!("{key}: {}", in_words(&error));
                self.problems.push(Problem { place: node.place, message });
                places.insert(key, place);
                continue;
            }
            places.insert(key.clone(), node.place);
            values.insert(key, value);
        }
        for required in super::export::required(kind) {
            if !places.contains_key(*required) {
                let message = format!("this {kind} has no {required}; add the key {required}");
                self.problems.push(Problem { place: place.clone(), message });
            }
            // Something stands in for it, so that everything else is judged.
            values.entry(*required).or_insert_with(|| Value::from(stand_in(required)));
        }
        let faulty = |key| places.contains_key(key) && !values.contains_key(key);
        if kind == Kind::Route && (faulty("pool") || faulty("pools")) {
            values.insert("pool".to_owned(), Value::from(stand_in("pool")));
            values.remove("pools");
        }
        loop {
            let declared = match serde_json::from_value::<T>(Value::Object(values.clone())) {
                Ok(declared) => declared,
                Err(error) => {
                    let message = in_words(&error);
                    self.problems.push(Problem { place: place.clone(), message });
                    return None;
                }
            };
            let invalid = match check(declared) {
                Ok(resource) => return (self.problems.len() == before).then_some(resource),
                Err(invalid) => invalid,
            };
            let key = key_of(&invalid, &values);
            let at = key.and_then(|key| places.get(key)).unwrap_or(place).clone();
            let object = values.get("name").or_else(|| values.get("id")).and_then(Value::as_str);
            let message = match (key, object) {
                (None, Some(object)) => format!("{kind} {object}: {}", invalid.message),
                _ => invalid.message.clone(),
            };
            self.problems.push(Problem { place: at, message });
            // Whatever the domain says about the rest, it says without this value.
            let key = key.map(str::to_owned)?;
            values.remove(&key);
            if kind == Kind::Route && key == "pools" {
                values.insert("pool".to_owned(), Value::from(stand_in("pool")));
            }
            if super::export::required(kind).contains(&key.as_str()) {
                let stand_in = stand_in(&key);
                places.remove(&key)?;
                values.insert(key, Value::from(stand_in));
            }
        }
    }

    fn check_references(&mut self, known: impl Fn(Kind, &str) -> bool) {
        for Reference { format, kind, name, key, place } in std::mem::take(&mut self.references) {
            if self.named.contains_key(&(kind, name.clone())) || known(kind, &name) {
                continue;
            }
            let mut names: Vec<&str> = self
                .named
                .keys()
                .filter(|(other, _)| *other == kind)
                .map(|(_, name)| name.as_str())
                .collect();
            names.sort_unstable();
            let remedy = match nearest(&name, &names) {
                Some(near) => format!("did you mean {near:?}?"),
                None => {
                    let (list, pair) = (format.list_of(kind), format.pair("name", &name));
                    format!("declare it with {list} and {pair}")
                }
            };
            let message = format!("{key} {name:?} does not exist; {remedy}");
            self.problems.push(Problem { place, message });
        }
    }

    /// Two backends of one pool at one address would be one server with a double share.
    fn check_twins(&mut self) {
        let mut seen: HashMap<_, &Place> = HashMap::new();
        for wish in &self.wishes {
            let Resource::Backend(backend) = &wish.resource else { continue };
            let at = (&backend.pool, &backend.address);
            if let Some(first) = seen.get(&at) {
                let message = format!(
                    "pool {} has the address {} already, at {first}; declare it once",
                    backend.pool, backend.address
                );
                self.problems.push(Problem { place: wish.place.clone(), message });
            } else {
                seen.insert(at, &wish.place);
            }
        }
    }

    fn fault(&mut self, place: Place, message: impl Into<String>) {
        self.problems.push(Problem { place, message: message.into() });
    }
}

/// The key that a refusal is about, if it was given.
fn key_of<'a>(invalid: &Invalid, values: &'a Map<String, Value>) -> Option<&'a str> {
    let key = invalid.field.rsplit_once('.').map_or(invalid.field, |(_, key)| key);
    // Paths of both kinds are checked as one thing.
    let candidates: &[&str] = if key == "path" { &["path", "path_prefix"] } else { &[key] };
    candidates.iter().find_map(|key| values.get_key_value(*key)).map(|(key, _)| key.as_str())
}

/// A valid value for a key that must be there.
fn stand_in(key: &str) -> &'static str {
    match key {
        "address" => "unknown:1",
        "rate" => "1/s",
        _ => UNASSIGNED,
    }
}

/// What is said elsewhere than other balancers have it, or not at all.
fn elsewhere(kind: Kind, key: &str) -> Option<&'static str> {
    let begins = |words: &[&str]| words.iter().any(|word| key.starts_with(word));
    match kind {
        _ if begins(&["tls", "ssl", "cert"]) => {
            Some("TLS is not supported yet, neither with clients nor with backends")
        }
        Kind::Listener if matches!(key, "bind" | "listen" | "address" | "port") => {
            Some("the address is the proxy's own: 'lbctl data-plane --listen NAME=ADDR:PORT'")
        }
        Kind::Backend if begins(&["health"]) || matches!(key, "rise" | "fall") => {
            Some("checks are the pool's; write it there")
        }
        _ => None,
    }
}

fn unknown_key(key: &str, of: &str, known: &[&str]) -> String {
    let shown = shorten(key);
    match nearest(key, known) {
        Some(near) => format!("unknown key {shown:?} of {of}; did you mean {near:?}?"),
        None => format!("unknown key {shown:?} of {of}; known are {}", known.join(", ")),
    }
}
