//! Which pool a request goes to.
//!
//! Precedence: exact host, then the longest wildcard, then any host; within a host
//! the exact path, then the longest prefix. A host that matches but has no matching
//! path falls through to the next.

use std::collections::HashMap;

use lb_core::model::{HostMatch, PathMatch, Route};

/// Where a pool stands in [`super::Config::pools`]: requests carry this, and touch no
/// reference count that other workers share.
pub(crate) type PoolIndex = usize;

/// The routes of one listener.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    exact: HashMap<Box<[u8]>, Paths>,
    /// The longest first.
    suffixes: Vec<(Box<[u8]>, Paths)>,
    any: Paths,
}

#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<[u8]>, PoolIndex>,
    /// The longest first, without their final slash.
    prefixes: Vec<(Box<[u8]>, PoolIndex)>,
}

impl RouteTable {
    /// Of two routes with the same match, the one whose name comes first wins.
    pub(crate) fn new<'a>(routes: impl Iterator<Item = (&'a Route, PoolIndex)>) -> Self {
        let mut table = Self::default();
        for (route, pool) in routes {
            table.paths_of(&route.host).add(&route.path, pool);
        }
        table.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        for paths in table.exact.values_mut().chain(table.suffixes.iter_mut().map(|(_, p)| p)) {
            paths.sort();
        }
        table.any.sort();
        table
    }

    /// The pool for a host (with or without a port) and an origin-form target.
    pub(crate) fn find(&self, host: &[u8], target: &[u8]) -> Option<PoolIndex> {
        let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
        if !self.exact.is_empty() || !self.suffixes.is_empty() {
            let host = without_port(host).to_ascii_lowercase();
            let exact = self.exact.get(&*host).into_iter();
            let suffixes = self.suffixes.iter().filter(|(suffix, _)| host.ends_with(suffix));
            let found = exact.chain(suffixes.map(|(_, paths)| paths)).find_map(|p| p.find(path));
            if found.is_some() {
                return found;
            }
        }
        self.any.find(path)
    }

    fn paths_of(&mut self, host: &HostMatch) -> &mut Paths {
        match host {
            HostMatch::Any => &mut self.any,
            HostMatch::Exact(name) => self.exact.entry(name.as_bytes().into()).or_default(),
            HostMatch::Suffix(suffix) => {
                let suffix = suffix.as_bytes();
                let index = self.suffixes.iter().position(|(known, _)| **known == *suffix);
                let index = index.unwrap_or_else(|| {
                    self.suffixes.push((suffix.into(), Paths::default()));
                    self.suffixes.len() - 1
                });
                &mut self.suffixes[index].1
            }
        }
    }
}

impl Paths {
    fn add(&mut self, path: &PathMatch, pool: PoolIndex) {
        match path {
            PathMatch::Exact(path) => {
                self.exact.entry(path.as_bytes().into()).or_insert(pool);
            }
            PathMatch::Prefix(prefix) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix).as_bytes();
                if !self.prefixes.iter().any(|(known, _)| **known == *prefix) {
                    self.prefixes.push((prefix.into(), pool));
                }
            }
        }
    }

    fn sort(&mut self) {
        self.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    }

    fn find(&self, path: &[u8]) -> Option<PoolIndex> {
        if !self.exact.is_empty()
            && let Some(pool) = self.exact.get(path)
        {
            return Some(*pool);
        }
        let matches = |prefix: &[u8]| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest[0] == b'/')
        };
        self.prefixes.iter().find(|(prefix, _)| matches(prefix)).map(|(_, pool)| *pool)
    }
}

fn without_port(host: &[u8]) -> &[u8] {
    let search_from = host.iter().position(|&byte| byte == b']').unwrap_or(0);
    let colon = host[search_from..].iter().position(|&byte| byte == b':');
    colon.map_or(host, |colon| &host[..search_from + colon])
}

#[cfg(test)]
mod tests {
    use lb_core::model::{ListenerName, PoolName, RouteName};

    use super::*;

    const ROUTES: [(&str, &str, &str); 7] = [
        ("", "/", ""),
        ("", "/api", ""),
        ("", "/api/v2/", ""),
        ("", "", "/api/one"),
        ("a.example.com", "/", ""),
        ("*.example.com", "/x", ""),
        ("*.b.example.com", "/x", ""),
    ];

    fn table(routes: &[(&str, &str, &str)]) -> RouteTable {
        let routes: Vec<Route> = routes
            .iter()
            .map(|(host, prefix, exact)| Route {
                name: RouteName::new("r").unwrap(),
                listener: ListenerName::default_listener(),
                host: HostMatch::parse(host).unwrap(),
                path: PathMatch::parse(prefix, exact).unwrap(),
                pool: PoolName::default_pool(),
            })
            .collect();
        RouteTable::new(routes.iter().enumerate().map(|(index, route)| (route, index)))
    }

    #[test]
    fn the_most_specific_route_wins() {
        let table = table(&ROUTES);
        for (host, target, route) in [
            ("z", "/", 0),
            ("z", "/api", 1),
            ("z", "/api?x=/api/one", 1),
            ("z", "/apis", 0),
            ("z", "/api/v2", 2),
            ("z", "/api/v2/y", 2),
            ("z", "/api/one", 3),
            ("z", "/api/one/more", 1),
            ("A.example.com:8080", "/api", 4),
            ("q.example.com", "/x/y", 5),
            ("q.b.example.com", "/x", 6),
            ("q.example.com", "/y", 0),
            ("example.com", "/x", 0),
            ("[::1]:80", "*", 0),
        ] {
            assert_eq!(
                table.find(host.as_bytes(), target.as_bytes()),
                Some(route),
                "{host} {target}"
            );
        }
    }

    #[test]
    fn without_a_matching_route_there_is_none() {
        let table = table(&[("a", "/x", "")]);
        assert_eq!(table.find(b"a", b"/y"), None);
        assert_eq!(table.find(b"b", b"/x"), None);
    }
}
