//! What a proxy must serve, worked out anew from everything that it holds.
//!
//! Slow and plain on purpose, and without a line of the code under test beyond the
//! model's types: the newest value of each object counts if it can be read and what
//! it refers to is there, else the last value that counted.

use std::collections::{BTreeMap, BTreeSet};

use lb_core::{
    model::{
        Backend, BackendStatus, Key, Limit, LimitTarget, Listener, Pool, Resource, Route, Snapshot,
    },
    sync::{Decode, Object, ObjectSet, Subscriber},
};

#[derive(Clone)]
pub(crate) struct Oracle {
    decode: Decode,
    /// The last value of each object that counted.
    good: BTreeMap<Key, Object>,
    /// Objects whose newest value does not count, and whether that is reported.
    open: BTreeMap<Key, bool>,
    pools: BTreeMap<String, Pool>,
    backends: BTreeMap<String, (Backend, Option<BackendStatus>)>,
    listeners: BTreeMap<String, Listener>,
    routes: BTreeMap<String, Route>,
    limits: BTreeMap<String, Limit>,
}

impl Oracle {
    pub(crate) fn new(decode: Decode) -> Self {
        Self {
            decode,
            good: BTreeMap::new(),
            open: BTreeMap::new(),
            pools: BTreeMap::new(),
            backends: BTreeMap::new(),
            listeners: BTreeMap::new(),
            routes: BTreeMap::new(),
            limits: BTreeMap::new(),
        }
    }

    /// A proxy that starts from its disk knows of former values only the fallbacks.
    pub(crate) fn restored(decode: Decode, objects: &ObjectSet, fallbacks: &[Object]) -> Self {
        let mut oracle = Self::new(decode);
        oracle.good = fallbacks.iter().map(|object| (object.key.clone(), object.clone())).collect();
        oracle.hold(objects);
        oracle
    }

    /// The proxy now holds these objects.
    pub(crate) fn hold(&mut self, objects: &ObjectSet) {
        self.good.retain(|key, _| objects.get(key).is_some());
        self.open.clear();
        self.pools.clear();
        self.backends.clear();
        self.listeners.clear();
        self.routes.clear();
        self.limits.clear();
        let mut kinds: [Vec<&Object>; 7] = Default::default();
        for object in objects.iter() {
            let order = match &*object.key.kind {
                "pool" => 0,
                "listener" => 1,
                "backend" => 2,
                "status" => 3,
                "route" => 4,
                "limit" => 5,
                _ => 6,
            };
            kinds[order].push(object);
        }
        for object in kinds.into_iter().flatten() {
            self.hold_one(object);
        }
    }

    fn hold_one(&mut self, object: &Object) {
        let newest = (self.decode)(object).ok();
        let waits = matches!(newest, Some(Resource::Status(_)));
        if newest.is_some_and(|resource| self.place(resource)) {
            self.good.insert(object.key.clone(), object.clone());
            return;
        }
        self.open.insert(object.key.clone(), !waits);
        if let Some(former) = self.good.get(&object.key)
            && let Ok(resource) = (self.decode)(former)
        {
            self.place(resource);
        }
    }

    /// Whether there is a place for it.
    fn place(&mut self, resource: Resource) -> bool {
        let name = resource.name().to_owned();
        match resource {
            Resource::Pool(pool) => drop(self.pools.insert(name, pool)),
            Resource::Listener(listener) => drop(self.listeners.insert(name, listener)),
            Resource::Backend(backend) => {
                if !self.pools.contains_key(backend.pool.as_str()) {
                    return false;
                }
                self.backends.insert(name, (backend, None));
            }
            Resource::Status(status) => match self.backends.get_mut(&name) {
                Some((backend, place)) if backend.incarnation == status.incarnation => {
                    *place = Some(status);
                }
                _ => return false,
            },
            Resource::Route(route) => {
                if !route.pools.names().all(|pool| self.pools.contains_key(pool.as_str()))
                    || !self.listeners.contains_key(route.listener.as_str())
                {
                    return false;
                }
                self.routes.insert(name, route);
            }
            Resource::Limit(limit) => {
                let is_there = match &limit.target {
                    LimitTarget::All => true,
                    LimitTarget::Pool(pool) => self.pools.contains_key(pool.as_str()),
                    LimitTarget::Route(route) => self.routes.contains_key(route.as_str()),
                };
                if !is_there {
                    return false;
                }
                self.limits.insert(name, limit);
            }
            // No payload of this test is read as one.
            Resource::SessionKeys(_) => return false,
        }
        true
    }

    /// The former values that a restart must not lose.
    pub(crate) fn fallbacks(&self) -> Vec<Object> {
        self.open.keys().filter_map(|key| self.good.get(key)).cloned().collect()
    }

    /// The pools that can serve.
    pub(crate) fn ready_pools(&self) -> BTreeSet<String> {
        let ready = self.backends.values().filter(|(backend, status)| {
            backend.weight.get() > 0
                && backend.admin_state.name() == "enabled"
                && status.as_ref().is_some_and(|status| status.health.name() == "up")
        });
        ready.map(|(backend, _)| backend.pool.as_str().to_owned()).collect()
    }

    /// Compares all that a subscriber shows.
    pub(crate) fn check(&self, subscriber: &Subscriber) -> Result<(), String> {
        self.check_snapshot(subscriber.snapshot())?;
        let reported = self.open.iter().filter(|(_, reported)| **reported).map(|(key, _)| key);
        let expected: Vec<&Key> = reported.collect();
        let rejected: Vec<&Key> = subscriber.rejections().map(|one| &one.key).collect();
        if expected != rejected {
            return Err(format!("refused are {rejected:?}, not {expected:?}"));
        }
        for one in subscriber.rejections() {
            let held = subscriber.objects().get(&one.key).map(|object| object.revision);
            if held != Some(one.revision) {
                return Err(format!("{} is refused at {}, not {held:?}", one.key, one.revision));
            }
        }
        if !subscriber.fallbacks().eq(&self.fallbacks()) {
            let fallbacks: Vec<&Object> = subscriber.fallbacks().collect();
            return Err(format!("falls back on {fallbacks:?}, not {:?}", self.fallbacks()));
        }
        Ok(())
    }

    fn check_snapshot(&self, snapshot: &Snapshot) -> Result<(), String> {
        let pools = snapshot.pools().values().map(|entry| &entry.pool);
        same("pools", pools, self.pools.values())?;
        same(
            "listeners",
            snapshot.listeners().values().map(|one| &**one),
            self.listeners.values(),
        )?;
        same("routes", snapshot.routes().values().map(|one| &**one), self.routes.values())?;
        same("limits", snapshot.limits().values().map(|one| &**one), self.limits.values())?;
        let mut served: Vec<(&Backend, &Option<BackendStatus>)> = snapshot
            .pools()
            .values()
            .flat_map(|entry| entry.backends.values())
            .map(|entry| (&entry.backend, &entry.status))
            .collect();
        served.sort_by(|a, b| a.0.id.cmp(&b.0.id));
        same(
            "backends",
            served,
            self.backends.values().map(|(backend, status)| (backend, status)),
        )?;
        for (name, entry) in snapshot.pools() {
            if entry.backends.values().any(|one| one.backend.pool != *name) {
                return Err(format!("pool {name} has a backend of another"));
            }
        }
        Ok(())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    served: impl IntoIterator<Item = T>,
    expected: impl IntoIterator<Item = T>,
) -> Result<(), String> {
    let (served, expected): (Vec<T>, Vec<T>) =
        (served.into_iter().collect(), expected.into_iter().collect());
    if served == expected {
        return Ok(());
    }
    Err(format!("serves {what} {served:#?}, not {expected:#?}"))
}
