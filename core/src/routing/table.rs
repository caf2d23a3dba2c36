//! The routes of one listener, laid out for looking up.

use super::{
    name_of, path_of,
    trie::{ROOT, Trie},
};
use crate::model::{HostMatch, PathMatch, Route};

/// The routes of one listener, each with a value of the caller's: where it goes.
///
/// Looking up takes no lock, allocates nothing, and costs a hash probe for each label
/// of the host and each segment of the path, as far as some route has them; nothing at
/// all where every route is for any host and any path.
#[derive(Debug)]
pub struct RouteTable<T> {
    /// The routes for some hosts, by their labels from the right.
    hosts: Trie<OfHost<T>>,
    /// The routes for every host.
    any: Paths<T>,
}

/// The routes of a host name, and of the names below it.
#[derive(Debug)]
struct OfHost<T> {
    exact: Option<Box<Paths<T>>>,
    below: Option<Box<Paths<T>>>,
}

/// The routes of one host match, by the segments of their paths.
#[derive(Debug)]
struct Paths<T> {
    trie: Trie<OfPath<T>>,
}

#[derive(Debug)]
struct OfPath<T> {
    exact: Option<T>,
    /// For the path and everything below it.
    prefix: Option<T>,
}

impl<T> RouteTable<T> {
    /// Of two routes that match the same, the one whose name comes first wins.
    pub fn new<'r>(routes: impl IntoIterator<Item = (&'r Route, T)>) -> Self {
        let mut routes: Vec<_> = routes.into_iter().collect();
        routes.sort_by_key(|(route, _)| &route.name);
        let mut table = Self { hosts: Trie::new(true), any: Paths::default() };
        for (route, value) in routes {
            table.paths_of(&route.host).add(&route.path, value);
        }
        table
    }

    /// The value of the route that a request takes, by its host (of any case, with or
    /// without a port or a final dot) and its path, with or without a query.
    #[inline]
    #[must_use]
    pub fn find(&self, host: &[u8], target: &[u8]) -> Option<&T> {
        if self.hosts.is_bare() {
            return self.any.find(target);
        }
        self.find_by_host(name_of(host), target)
    }

    fn find_by_host(&self, host: &[u8], target: &[u8]) -> Option<&T> {
        let (deepest, complete) = self.hosts.walk(labels(host));
        let mut levels = self.hosts.upwards(deepest);
        if complete {
            // A wildcard needs a label more than its own name has.
            let exact = levels.next().and_then(|node| self.hosts.value(node).exact.as_ref());
            if let Some(found) = exact.and_then(|paths| paths.find(target)) {
                return Some(found);
            }
        }
        levels
            .filter_map(|node| self.hosts.value(node).below.as_ref())
            .find_map(|paths| paths.find(target))
            .or_else(|| self.any.find(target))
    }

    fn paths_of(&mut self, host: &HostMatch) -> &mut Paths<T> {
        match host {
            HostMatch::Any => &mut self.any,
            HostMatch::Exact(name) => {
                self.hosts.entry(labels(name.as_bytes())).exact.get_or_insert_default()
            }
            HostMatch::Suffix(suffix) => {
                let name = suffix.strip_prefix('.').unwrap_or(suffix);
                self.hosts.entry(labels(name.as_bytes())).below.get_or_insert_default()
            }
        }
    }
}

impl<T> Paths<T> {
    #[inline]
    fn find(&self, target: &[u8]) -> Option<&T> {
        if self.trie.is_bare() {
            return self.trie.value(ROOT).prefix.as_ref();
        }
        self.find_by_path(path_of(target))
    }

    fn find_by_path(&self, path: &[u8]) -> Option<&T> {
        let (deepest, complete) = self.trie.walk(segments(path));
        let exact = complete.then(|| self.trie.value(deepest).exact.as_ref()).flatten();
        exact.or_else(|| {
            self.trie.upwards(deepest).find_map(|node| self.trie.value(node).prefix.as_ref())
        })
    }

    fn add(&mut self, path: &PathMatch, value: T) {
        let entry = self.trie.entry(segments(path.stem().as_bytes()));
        let place = match path {
            PathMatch::Exact(_) => &mut entry.exact,
            PathMatch::Prefix(_) => &mut entry.prefix,
        };
        place.get_or_insert(value);
    }
}

/// Labels from the right.
fn labels(host: &[u8]) -> impl Iterator<Item = &[u8]> {
    host.rsplit(|&byte| byte == b'.')
}

/// What stands behind each slash. What does not begin with one, as the `*` of an OPTIONS,
/// has a segment that no path has; nothing has none.
fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (first, rest) = match path {
        [] => (None, None),
        [b'/', rest @ ..] => (None, Some(rest)),
        _ => (Some(&b"/"[..]), None),
    };
    first.into_iter().chain(rest.into_iter().flat_map(|rest| rest.split(|&byte| byte == b'/')))
}

impl<T> Default for OfHost<T> {
    fn default() -> Self {
        Self { exact: None, below: None }
    }
}

impl<T> Default for OfPath<T> {
    fn default() -> Self {
        Self { exact: None, prefix: None }
    }
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self { trie: Trie::new(false) }
    }
}
