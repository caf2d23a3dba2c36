//! The consistent whole: every reference resolves, or the referring object is not
//! in it.
//!
//! A snapshot is immutable. A change makes a new one that shares every pool that it
//! does not touch, and most of a pool's [`Backends`] when one of them changes; a
//! proxy can compile just the pools whose [`Arc`] is another.

mod backends;
mod limits;
mod places;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

pub use self::backends::Backends;
use self::places::Places;
use super::{
    Backend, BackendId, BackendStatus, Health, Invalid, Key, Kind, Limit, LimitName, Listener,
    ListenerName, Pool, PoolName, Resource, Route, RouteName, SessionKeys,
};
use crate::health::candidates;

/// A consistent configuration.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    pools: BTreeMap<PoolName, Arc<PoolEntry>>,
    listeners: BTreeMap<ListenerName, Arc<Listener>>,
    /// Shared by snapshots of which none changed a route: there may be many.
    routes: Arc<BTreeMap<RouteName, Arc<Route>>>,
    limits: Arc<BTreeMap<LimitName, Arc<Limit>>>,
    session_keys: Option<Arc<SessionKeys>>,
}

/// A pool with its backends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolEntry {
    /// The policy.
    pub pool: Pool,
    /// In order of ids, as people count.
    pub backends: Backends,
}

/// A backend with what is known about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackendEntry {
    /// What the operator wants.
    pub backend: Backend,
    /// What the control plane found out; nothing before the first check.
    pub status: Option<BackendStatus>,
}

/// An object that has no place in the whole, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejected {
    /// Which object.
    pub key: Key,
    /// Why.
    pub invalid: Invalid,
}

impl Snapshot {
    /// The pools, by name.
    #[must_use]
    pub fn pools(&self) -> &BTreeMap<PoolName, Arc<PoolEntry>> {
        &self.pools
    }

    /// The listeners, by name.
    #[must_use]
    pub fn listeners(&self) -> &BTreeMap<ListenerName, Arc<Listener>> {
        &self.listeners
    }

    /// The routes, by name; the very same map until one of them changes.
    #[must_use]
    pub fn routes(&self) -> &Arc<BTreeMap<RouteName, Arc<Route>>> {
        &self.routes
    }

    /// The limits, by name; the very same map until one of them changes.
    #[must_use]
    pub fn limits(&self) -> &Arc<BTreeMap<LimitName, Arc<Limit>>> {
        &self.limits
    }

    /// The keys that sign sessions; none until some pool has sessions.
    #[must_use]
    pub fn session_keys(&self) -> Option<&Arc<SessionKeys>> {
        self.session_keys.as_ref()
    }

    /// The snapshot after a change, and the objects that did not fit. Those keep
    /// their former value, if they had one.
    ///
    /// The order of `upserts` does not matter: what others refer to goes first, and
    /// deletions last (make before break).
    #[must_use]
    pub fn changed(&self, mut upserts: Vec<Resource>, deletes: &[Key]) -> (Self, Vec<Rejected>) {
        let mut next = self.clone();
        let mut rejected = Vec::new();
        upserts.sort_by_key(Resource::kind);
        let (mut fresh_routes, mut fresh_limits) = (Vec::new(), Vec::new());
        let mut places = Places::of(&next.pools, upserts.len() + deletes.len());
        for resource in upserts {
            match resource {
                Resource::Pool(pool) => next.put_pool(pool),
                Resource::Backend(backend) => {
                    if let Err(bad) = next.put_backend(backend, &mut places) {
                        rejected.push(bad);
                    }
                }
                Resource::Status(status) => next.put_status(status, &places),
                Resource::Listener(listener) => {
                    next.listeners.insert(listener.name.clone(), Arc::new(listener));
                }
                Resource::Route(route) => fresh_routes.push(route),
                Resource::Limit(limit) => fresh_limits.push(limit),
                Resource::SessionKeys(keys) => next.session_keys = Some(Arc::new(keys)),
            }
        }
        for key in deletes {
            next.delete(key, &mut places);
        }
        for route in fresh_routes {
            match next.missing_reference(&route) {
                None => {
                    Arc::make_mut(&mut next.routes).insert(route.name.clone(), Arc::new(route));
                }
                Some(invalid) => {
                    rejected
                        .push(Rejected { key: Key::new("route", route.name.as_str()), invalid });
                }
            }
        }
        // Only what is removed leaves a route dangling; looking takes long with many.
        let removes = |kind| deletes.iter().any(|key| key.known_kind() == Some(kind));
        let drops_routes = removes(Kind::Pool) || removes(Kind::Listener);
        if drops_routes {
            next.drop_dangling_routes(&mut rejected);
        }
        for limit in fresh_limits {
            next.put_limit(limit, &mut rejected);
        }
        if drops_routes || removes(Kind::Route) {
            next.drop_dangling_limits(&mut rejected);
        }
        (next, rejected)
    }

    /// Whether the fallback pool of this pool has a backend that is well: then this pool does
    /// not panic ([`candidates::of_facts`]).
    #[must_use]
    pub fn has_spare(&self, pool: &Pool) -> bool {
        let spare = pool.fallback.pool.as_ref().and_then(|name| self.pools.get(name));
        spare.is_some_and(|spare| candidates::any_well(spare.members()))
    }

    /// The first pool that has backends here and none there.
    #[must_use]
    pub fn first_emptied_by(&self, next: &Self) -> Option<&PoolName> {
        self.first_lost(next, |entry| !entry.backends.is_empty())
    }

    /// The first pool that can serve here and cannot there.
    #[must_use]
    pub fn first_silenced_by(&self, next: &Self) -> Option<&PoolName> {
        self.first_lost(next, PoolEntry::can_serve)
    }

    fn first_lost(&self, next: &Self, has: impl Fn(&PoolEntry) -> bool) -> Option<&PoolName> {
        self.pools
            .iter()
            .filter(|(_, entry)| has(entry))
            .find(|(name, _)| !next.pools.get(*name).is_some_and(|entry| has(entry)))
            .map(|(name, _)| name)
    }

    fn put_pool(&mut self, pool: Pool) {
        match self.pools.get_mut(&pool.name) {
            Some(entry) => Arc::make_mut(entry).pool = pool,
            None => {
                let entry = PoolEntry { pool, backends: Backends::default() };
                self.pools.insert(entry.pool.name.clone(), Arc::new(entry));
            }
        }
    }

    fn put_backend(&mut self, backend: Backend, places: &mut Places) -> Result<(), Rejected> {
        if !self.pools.contains_key(&backend.pool) {
            let invalid = missing("backend.pool", "pool", backend.pool.as_str());
            return Err(Rejected { key: Key::new("backend", backend.id.as_str()), invalid });
        }
        // The same life of the same backend keeps what is known about it.
        let former = self.take_backend_of_other_pool(&backend, places);
        places.moved(&backend.id, Some(&backend.pool));
        let Some(entry) = self.pools.get_mut(&backend.pool) else { return Ok(()) };
        let backends = &mut Arc::make_mut(entry).backends;
        let former = former.or_else(|| backends.get(&backend.id).cloned());
        let status = former
            .filter(|former| former.backend.incarnation == backend.incarnation)
            .and_then(|former| former.status.clone());
        backends.insert(Arc::new(BackendEntry { backend, status }));
        Ok(())
    }

    fn take_backend_of_other_pool(
        &mut self,
        backend: &Backend,
        places: &Places,
    ) -> Option<Arc<BackendEntry>> {
        let name = places.find(&self.pools, &backend.id).filter(|name| **name != backend.pool)?;
        let entry = self.pools.get_mut(&name.clone())?;
        Arc::make_mut(entry).backends.remove(&backend.id)
    }

    /// A status of a backend that is not there, or of another life of it, says
    /// nothing and is left out.
    fn put_status(&mut self, status: BackendStatus, places: &Places) {
        let pool = places.find(&self.pools, &status.backend).cloned();
        let Some(entry) = pool.and_then(|pool| self.pools.get_mut(&pool)) else { return };
        // What changes nothing must not cost a copy of the pool.
        let news = entry.backends.get(&status.backend).is_some_and(|former| {
            former.backend.incarnation == status.incarnation
                && former.status.as_ref() != Some(&status)
        });
        if news && let Some(backend) = Arc::make_mut(entry).backends.get_mut(&status.backend) {
            backend.status = Some(status);
        }
    }

    fn delete(&mut self, key: &Key, places: &mut Places) {
        let name = &*key.name;
        match key.known_kind() {
            Some(Kind::Pool) => {
                let removed = PoolName::new(name).ok().and_then(|name| self.pools.remove(&name));
                for id in removed.iter().flat_map(|entry| entry.backends.keys()) {
                    places.moved(id, None);
                }
            }
            Some(Kind::Listener) => self.listeners.retain(|listener, _| listener.as_str() != name),
            Some(Kind::Route) => {
                if let Ok(name) = RouteName::new(name)
                    && self.routes.contains_key(&name)
                {
                    Arc::make_mut(&mut self.routes).remove(&name);
                }
            }
            Some(Kind::Limit) => {
                if let Ok(name) = LimitName::new(name)
                    && self.limits.contains_key(&name)
                {
                    Arc::make_mut(&mut self.limits).remove(&name);
                }
            }
            Some(kind @ (Kind::Backend | Kind::Status)) => {
                let Ok(id) = BackendId::new(name) else { return };
                let pool = places.find(&self.pools, &id).cloned();
                let Some(entry) = pool.and_then(|pool| self.pools.get_mut(&pool)) else { return };
                let backends = &mut Arc::make_mut(entry).backends;
                if kind == Kind::Backend {
                    backends.remove(&id);
                    places.moved(&id, None);
                } else if let Some(backend) = backends.get_mut(&id) {
                    backend.status = None;
                }
            }
            Some(Kind::SessionKeys) => self.session_keys = None,
            None => {}
        }
    }

    fn drop_dangling_routes(&mut self, rejected: &mut Vec<Rejected>) {
        let dangling: Vec<(RouteName, Invalid)> = self
            .routes
            .values()
            .filter_map(|route| Some((route.name.clone(), self.missing_reference(route)?)))
            .collect();
        for (name, invalid) in dangling {
            Arc::make_mut(&mut self.routes).remove(&name);
            rejected.push(Rejected { key: Key::new("route", name.as_str()), invalid });
        }
    }

    fn missing_reference(&self, route: &Route) -> Option<Invalid> {
        if let Some(pool) = route.pools.names().find(|pool| !self.pools.contains_key(*pool)) {
            return Some(missing("route.pool", "pool", pool.as_str()));
        }
        if !self.listeners.contains_key(&route.listener) {
            return Some(missing("route.listener", "listener", route.listener.as_str()));
        }
        None
    }
}

impl PoolEntry {
    /// Its backends in their order, with what is known about each.
    pub fn members(&self) -> impl Iterator<Item = (&Backend, Option<&BackendStatus>)> {
        self.backends.values().map(|entry| (&entry.backend, entry.status.as_ref()))
    }

    /// Whether any of its backends may be picked where no other pool takes its place, for what is
    /// known of them.
    #[must_use]
    pub fn can_serve(&self) -> bool {
        candidates::by_the_fleet(&self.pool, false, self.members()).count() > 0
    }
}

impl BackendEntry {
    /// The verdict; unknown before the first check.
    #[must_use]
    pub fn health(&self) -> Health {
        self.status.as_ref().map_or(Health::Unknown, |status| status.health)
    }

    /// Whether the operator wants it to get new requests, and it is known where it is. Whether
    /// it may is decided for the pool as a whole ([`candidates`](crate::health::candidates)).
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.backend.is_in_use(self.status.as_ref())
    }
}

fn missing(field: &'static str, kind: &str, name: &str) -> Invalid {
    Invalid::unknown(
        field,
        "missing_reference",
        format!("{field} names {kind} {name:?}, which does not exist; create it first"),
    )
}
