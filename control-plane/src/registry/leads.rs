//! Routes that lead nowhere, as far as a change makes them do so.
//!
//! What is stored already is for `lbctl check`: whoever changes something else is not told again.

use std::collections::{BTreeMap, BTreeSet};

use lb_core::model::{
    BackendId, Key, Kind, ListenerName, Pool, PoolName, Resource, Route, RouteName,
};

use super::Catalog;

/// Routes that are put and lead to pools that cannot serve; pools that routes lead to, and that
/// one write leaves without any that serves; listeners whose last route goes.
pub(super) fn warnings(catalog: &Catalog, upserts: &[Resource], deletes: &[Key]) -> Vec<String> {
    let put = || upserts.iter().filter_map(as_route);
    let is_gone = |kind: Kind, name: &str| {
        deletes.iter().any(|key| key.known_kind() == Some(kind) && *key.name == *name)
    };
    let emptied = emptied(catalog, upserts, deletes);
    let takes_routes = deletes.iter().any(|key| key.known_kind() == Some(Kind::Route));
    if put().next().is_none() && !takes_routes && emptied.is_empty() {
        return Vec::new();
    }
    let before = || catalog.routes().values().map(|stored| &stored.value);
    let stay = before().filter(|route| !is_gone(Kind::Route, route.name.as_str()));
    let after: BTreeMap<&RouteName, &Route> =
        stay.chain(put()).map(|route| (&route.name, route)).collect();

    let is_changed = |route: &Route| {
        let stored = catalog.routes().get(&route.name);
        stored.is_none_or(|stored| stored.value != *route)
    };
    let mut led: BTreeMap<&PoolName, &RouteName> = BTreeMap::new();
    for route in after.values() {
        let shares = route.pools.iter().filter(|(_, weight)| *weight > 0);
        let told = shares.filter(|(pool, _)| is_changed(route) || emptied.contains(*pool));
        told.for_each(|(pool, _)| {
            led.entry(pool).or_insert(&route.name);
        });
    }
    let sketch = sketch(catalog, upserts, deletes, led.keys().copied());
    let dead = led.iter().filter_map(|(pool, route)| {
        let why = cannot_serve(&sketch, sketch.pools().get(*pool).map(|stored| &stored.value)?)?;
        Some(format!("route {route} goes to pool {pool}, {why}"))
    });

    let routed: BTreeSet<&ListenerName> = after.values().map(|route| &route.listener).collect();
    let bare: BTreeSet<&ListenerName> = before().map(|route| &route.listener).collect();
    let bare = bare.difference(&routed);
    let bare = bare.filter(|name| !is_gone(Kind::Listener, name.as_str())).map(|name| {
        format!(
            "listener {name} has no route any more: everything is answered 404 there; 'lbctl \
             add-route NAME --listener {name} --pool POOL'"
        )
    });
    dead.chain(bare).collect()
}

fn as_route(resource: &Resource) -> Option<&Route> {
    if let Resource::Route(route) = resource { Some(route) } else { None }
}

/// Pools that serve and whose backends are removed or replaced by a write of several objects. Of
/// a single backend, `lbctl` tells before it is asked for.
fn emptied(catalog: &Catalog, upserts: &[Resource], deletes: &[Key]) -> BTreeSet<PoolName> {
    if upserts.len() + deletes.len() < 2 {
        return BTreeSet::new();
    }
    let gone = deletes.iter().filter(|key| key.known_kind() == Some(Kind::Backend));
    let gone = gone.filter_map(|key| BackendId::new(&key.name).ok());
    let put = upserts.iter().filter_map(Resource::as_backend).map(|backend| backend.id.clone());
    let stored = gone.chain(put).filter_map(|id| catalog.backends().get(&id));
    let mut touched: BTreeMap<&PoolName, usize> = BTreeMap::new();
    stored.for_each(|stored| *touched.entry(&stored.value.pool).or_default() += 1);
    // Of a large pool others are left mostly, and then it need not be looked at as a whole.
    touched.retain(|name, touched| {
        let pool = catalog.pools().get(*name).map(|pool| &pool.value);
        pool.is_some_and(|pool| {
            *touched >= catalog.judge(pool).candidates && cannot_serve(catalog, pool).is_none()
        })
    });
    touched.into_keys().cloned().collect()
}

/// These pools, and those that answer in their place, as they are after the write.
fn sketch<'a>(
    catalog: &Catalog,
    upserts: &[Resource],
    deletes: &[Key],
    pools: impl Iterator<Item = &'a PoolName>,
) -> Catalog {
    let mut sketch = Catalog::default();
    let put_pool = |name: &PoolName| {
        upserts.iter().find_map(|resource| match resource {
            Resource::Pool(pool) if pool.name == *name => Some(pool),
            _ => None,
        })
    };
    let find = |name: &PoolName| {
        let stored = || catalog.pools().get(name).map(|stored| &stored.value);
        put_pool(name).or_else(stored).cloned()
    };
    let found: Vec<Pool> = pools.filter_map(find).collect();
    let spares: Vec<Pool> =
        found.iter().filter_map(|pool| find(pool.fallback.pool.as_ref()?)).collect();
    for pool in found.into_iter().chain(spares) {
        for backend in catalog.in_pool(&pool.name).map(|stored| &stored.value) {
            let status = catalog.status(backend).cloned().map(Resource::Status);
            sketch.put(Resource::Backend(backend.clone()), 0);
            status.into_iter().for_each(|status| sketch.put(status, 0));
        }
        sketch.put(Resource::Pool(pool), 0);
    }
    deletes.iter().for_each(|key| sketch.remove(key));
    let backends = upserts.iter().filter(|resource| resource.as_backend().is_some());
    backends.for_each(|backend| sketch.put(backend.clone(), 0));
    sketch
}

/// Why requests to a pool are answered 503, if they are.
fn cannot_serve(catalog: &Catalog, pool: &Pool) -> Option<String> {
    let name = &pool.name;
    let answers_instead = || pool.fallback.answer.is_some() || catalog.has_spare(pool);
    if catalog.judge(pool).candidates > 0 || answers_instead() {
        return None;
    }
    Some(if catalog.pool_size(name) == 0 {
        format!(
            "which has no backend: its requests are answered 503 until there is one ('lbctl \
             add-backend HOST:PORT --pool {name}')"
        )
    } else if catalog.picks(pool).any() {
        format!(
            "none of whose backends has been checked yet: they are tried all the same, and requests \
             fail if they do not answer ('lbctl get backends --pool {name}')"
        )
    } else {
        format!(
            "none of whose backends serves: its requests are answered 503 ('lbctl describe pool \
             {name}' says why)"
        )
    })
}

#[cfg(test)]
mod tests {
    use lb_core::model::{
        Address, Backend, BackendStatus, Health, HostMatch, Incarnation, Listener, PathMatch,
        Reason, RoutePools, Standing,
    };

    use super::*;

    fn pool(name: &str) -> PoolName {
        PoolName::new(name).unwrap()
    }

    fn route(name: &str, to: &str) -> Resource {
        Resource::Route(Route {
            name: RouteName::new(name).unwrap(),
            listener: ListenerName::default_listener(),
            host: HostMatch::Any,
            path: PathMatch::Prefix("/".into()),
            pools: RoutePools::one(pool(to)),
        })
    }

    fn backend(id: &str, of: &str) -> Resource {
        let address: Address = format!("127.0.0.1:8{:03}", id.len()).parse().unwrap();
        let backend = Backend::new(BackendId::new(id).unwrap(), pool(of), address);
        Resource::Backend(Backend { incarnation: Incarnation(1), ..backend })
    }

    fn status(id: &str, health: Health) -> Resource {
        Resource::Status(BackendStatus {
            backend: BackendId::new(id).unwrap(),
            incarnation: Incarnation(1),
            health,
            addresses: vec![([127, 0, 0, 1], 8001).into()],
            reason: Reason::new("check_passed", "200"),
            since_unix_ms: 0,
            was_up: true,
            standing: Standing::default(),
        })
    }

    /// Pool `web` serves, `dead` has one that is down, `empty` none; everything goes to `web`.
    fn stored() -> Catalog {
        let mut catalog = Catalog::default();
        catalog.put(Resource::Listener(Listener::new(ListenerName::default_listener())), 1);
        for name in ["web", "dead", "empty"] {
            catalog.put(Resource::Pool(Pool::new(pool(name))), 1);
        }
        catalog.put(backend("w", "web"), 1);
        catalog.put(status("w", Health::Up), 1);
        catalog.put(backend("d", "dead"), 1);
        catalog.put(
            Resource::Status(BackendStatus {
                addresses: Vec::new(),
                was_up: false,
                ..match status("d", Health::Down) {
                    Resource::Status(status) => status,
                    _ => unreachable!("it is one"),
                }
            }),
            1,
        );
        catalog.put(route("default", "web"), 1);
        catalog
    }

    fn told(upserts: &[Resource], deletes: &[(&str, &str)]) -> String {
        let deletes: Vec<Key> = deletes.iter().map(|(kind, name)| Key::new(kind, name)).collect();
        warnings(&stored(), upserts, &deletes).join("\n")
    }

    #[test]
    fn a_route_to_a_pool_that_cannot_serve_is_told_when_it_is_put() {
        assert_eq!(told(&[route("default", "web")], &[]), "");
        assert_eq!(told(&[route("more", "web")], &[]), "");
        let text = told(&[route("default", "empty")], &[]);
        assert!(
            text.starts_with("route default goes to pool empty, which has no backend"),
            "{text}"
        );
        let text = told(&[route("default", "dead")], &[]);
        assert!(text.contains("pool dead, none of whose backends serves"), "{text}");
        let fresh = [Resource::Pool(Pool::new(pool("new"))), backend("nn", "new")];
        let text = told(&[&fresh[..], &[route("default", "new")]].concat(), &[]);
        assert!(text.contains("pool new, none of whose backends has been checked yet"), "{text}");
        // Something answers in its place.
        let mut dead = Pool::new(pool("dead"));
        dead.fallback.pool = Some(pool("web"));
        assert_eq!(told(&[Resource::Pool(dead), route("default", "dead")], &[]), "");
    }

    #[test]
    fn a_pool_whose_backends_are_all_replaced_is_told() {
        let text = told(&[backend("www", "web")], &[("backend", "w")]);
        assert!(
            text.starts_with(
                "route default goes to pool web, none of whose backends has been checked"
            ),
            "{text}"
        );
        let nowhere = told(&[backend("ddd", "dead")], &[("backend", "d")]);
        assert_eq!(nowhere, "", "no route leads there");
    }

    #[test]
    fn a_listener_whose_last_route_goes_is_told() {
        let text = told(&[], &[("route", "default")]);
        assert!(text.starts_with("listener default has no route any more"), "{text}");
        assert_eq!(told(&[route("more", "web")], &[("route", "default")]), "");
        let both = [("route", "default"), ("listener", "default")];
        assert_eq!(told(&[], &both), "", "it goes, too");
    }
}
