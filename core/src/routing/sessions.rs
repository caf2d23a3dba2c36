//! Pools whose session cookies a browser cannot tell apart.
//!
//! A browser keeps one cookie of a name and path for a host. Two pools that use the same on one
//! host take it from each other, and their clients begin a new session at every change from one
//! to the other. Nothing breaks, but nobody stays anywhere.

use crate::model::{Affinity, CookieAffinity, HostMatch, PathMatch, PoolName, Route};

/// No more are told of: one is enough to look.
const CLASHES_MAX: usize = 8;

/// Two pools that take a cookie from each other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Clash {
    /// One pool.
    pub first: PoolName,
    /// The other.
    pub second: PoolName,
    /// The name of the cookie.
    pub cookie: String,
    /// Where both are reached, as people read it.
    pub host: String,
}

/// The pools that take cookies from each other, as far as one of them is reached by a route
/// that is `news`. `affinity` tells a pool's.
pub fn clashes<'a>(
    routes: &[&'a Route],
    news: impl Fn(&Route) -> bool,
    affinity: impl Fn(&PoolName) -> Option<&'a Affinity>,
) -> Vec<Clash> {
    let cookie = |pool: &'a PoolName| affinity(pool)?.cookie().map(|policy| (pool, policy));
    let pools = |route: &'a Route| route.pools.names().filter_map(cookie);
    let with_sessions: Vec<&Route> =
        routes.iter().copied().filter(|route| pools(route).next().is_some()).collect();
    let mut found: Vec<Clash> = Vec::new();
    for new in with_sessions.iter().copied().filter(|route| news(route)) {
        for other in with_sessions.iter().copied() {
            // Of pools that share a route's requests, the one that set the cookie gets them.
            if new.name == other.name {
                continue;
            }
            let Some(host) = shared_host(new, other, routes) else { continue };
            for (first, policy) in pools(new) {
                for (second, _) in pools(other)
                    .filter(|(second, other)| *second != first && is_same_cookie(policy, other))
                {
                    let told = |clash: &Clash| {
                        (&clash.first, &clash.second) == (first, second)
                            || (&clash.first, &clash.second) == (second, first)
                    };
                    if !found.iter().any(told) {
                        found.push(Clash {
                            first: first.clone(),
                            second: second.clone(),
                            cookie: policy.name.to_string(),
                            host: host.to_string(),
                        });
                    }
                    if found.len() == CLASHES_MAX {
                        return found;
                    }
                }
            }
        }
    }
    found
}

fn is_same_cookie(a: &CookieAffinity, b: &CookieAffinity) -> bool {
    a.name == b.name && a.path == b.path
}

/// A host on which requests may take either route. Cookies know no ports, so listeners do not
/// matter.
fn shared_host<'r>(a: &'r Route, b: &'r Route, routes: &[&Route]) -> Option<&'r HostMatch> {
    let (narrow, broad) = match (covers(&b.host, &a.host), covers(&a.host, &b.host)) {
        (true, true) => return Some(&a.host),
        (true, false) => (a, b),
        (false, true) => (b, a),
        (false, false) => return None,
    };
    // What takes every path of the narrow host leaves nothing of it to the broad one.
    let takes_all = |route: &&Route| {
        route.host == narrow.host
            && route.listener == broad.listener
            && matches!(route.path, PathMatch::Prefix(_))
            && route.path.stem().is_empty()
    };
    (!routes.iter().any(takes_all)).then_some(&narrow.host)
}

/// Whether every host of `inner` is one of `outer`.
fn covers(outer: &HostMatch, inner: &HostMatch) -> bool {
    match (outer, inner) {
        (HostMatch::Any, _) => true,
        (HostMatch::Exact(outer), HostMatch::Exact(inner)) => outer == inner,
        (HostMatch::Suffix(outer), HostMatch::Suffix(inner) | HostMatch::Exact(inner)) => {
            inner.ends_with(&**outer)
        }
        (HostMatch::Exact(_) | HostMatch::Suffix(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ListenerName, RouteName, RoutePools};

    fn route(name: &str, host: &str, prefix: &str, pool: &str) -> Route {
        Route {
            name: RouteName::new(name).unwrap(),
            listener: ListenerName::default_listener(),
            host: HostMatch::parse(host).unwrap(),
            path: PathMatch::parse(prefix, "").unwrap(),
            pools: RoutePools::one(PoolName::new(pool).unwrap()),
        }
    }

    /// Pools `a` and `b` have the same cookie, `c` one of another path, `n` has none.
    fn told(routes: &[Route]) -> Vec<String> {
        let same = Affinity::Cookie(CookieAffinity::default());
        let path = "/c".into();
        let other = Affinity::Cookie(CookieAffinity { path, ..CookieAffinity::default() });
        let none = Affinity::None;
        let all: Vec<&Route> = routes.iter().collect();
        let affinities = [("a", &same), ("b", &same), ("c", &other), ("n", &none)];
        let affinity = |pool: &PoolName| {
            affinities.iter().find(|(name, _)| *name == pool.as_str()).map(|(_, found)| *found)
        };
        let clashes = clashes(&all, |_| true, affinity);
        clashes.iter().map(|c| format!("{} {} {}", c.first, c.second, c.host)).collect()
    }

    #[test]
    fn pools_on_one_host_need_cookies_of_their_own() {
        for (routes, expected) in [
            (vec![route("1", "x", "/", "a"), route("2", "x", "/b", "b")], vec!["a b host x"]),
            (vec![route("1", "", "/", "a"), route("2", "x", "/b", "b")], vec!["a b host x"]),
            (vec![route("1", "*.x", "/", "a"), route("2", "y.x", "/b", "b")], vec!["a b host y.x"]),
            // All of the host goes elsewhere.
            (vec![route("1", "", "/", "a"), route("2", "x", "/", "b")], vec![]),
            (
                vec![
                    route("1", "", "/", "a"),
                    route("2", "x", "/b", "b"),
                    route("3", "x", "/", "n"),
                ],
                vec![],
            ),
            (vec![route("1", "x", "/", "a"), route("2", "y", "/", "b")], vec![]),
            (vec![route("1", "x", "/", "a"), route("2", "x", "/c", "c")], vec![]),
            (vec![route("1", "x", "/", "a"), route("2", "x", "/n", "n")], vec![]),
            (vec![route("1", "x", "/", "a"), route("2", "x", "/2", "a")], vec![]),
        ] {
            assert_eq!(told(&routes), expected, "{routes:?}");
        }
    }
}
