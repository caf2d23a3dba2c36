//! The desired state and the verdicts, decoded, as readers want them.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use lb_core::{
    health::candidates::{Facts, Tally},
    model::{
        Address, Backend, BackendId, BackendStatus, Key, Kind, Limit, LimitName, Listener,
        ListenerName, Pool, PoolName, Resource, Route, RouteName, SessionKeys, natural_order,
    },
    moment::Moment,
};

use crate::clock::{present, told};

/// A value with the revision of its last change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored<T> {
    /// The value.
    pub value: T,
    /// Of its last change.
    pub revision: u64,
}

/// All objects, by kind and name.
#[derive(Debug, Default)]
pub struct Catalog {
    pools: BTreeMap<PoolName, Stored<Pool>>,
    backends: BTreeMap<BackendId, Stored<Backend>>,
    statuses: BTreeMap<BackendId, Verdict>,
    listeners: BTreeMap<ListenerName, Stored<Listener>>,
    routes: BTreeMap<RouteName, Stored<Route>>,
    limits: BTreeMap<LimitName, Stored<Limit>>,
    session_keys: Option<Stored<SessionKeys>>,
    /// The backends of each pool, by address: no two of a pool share one.
    members: BTreeMap<PoolName, BTreeMap<Address, BackendId>>,
    /// Of the backends of each pool; nothing where nobody counts.
    tallies: BTreeMap<PoolName, Tally>,
    /// Those of [`Self::followed`].
    followed: BTreeSet<BackendId>,
}

/// A verdict, and when it came to be.
#[derive(Debug)]
struct Verdict {
    status: Stored<BackendStatus>,
    since: Moment,
}

impl Catalog {
    /// The pools, in order of names.
    #[must_use]
    pub fn pools(&self) -> &BTreeMap<PoolName, Stored<Pool>> {
        &self.pools
    }

    /// The backends of all pools, by id.
    #[must_use]
    pub fn backends(&self) -> &BTreeMap<BackendId, Stored<Backend>> {
        &self.backends
    }

    /// The routes, in order of names.
    #[must_use]
    pub fn routes(&self) -> &BTreeMap<RouteName, Stored<Route>> {
        &self.routes
    }

    /// The keys that sign sessions; none until some pool has sessions.
    #[must_use]
    pub(crate) fn session_keys(&self) -> Option<&Stored<SessionKeys>> {
        self.session_keys.as_ref()
    }

    /// The listeners, in order of names.
    #[must_use]
    pub fn listeners(&self) -> &BTreeMap<ListenerName, Stored<Listener>> {
        &self.listeners
    }

    /// The limits, in order of names.
    #[must_use]
    pub fn limits(&self) -> &BTreeMap<LimitName, Stored<Limit>> {
        &self.limits
    }

    /// What is known about a backend; nothing before its first check, and nothing of
    /// an earlier life of it.
    #[must_use]
    pub fn status(&self, backend: &Backend) -> Option<&BackendStatus> {
        self.verdict(backend).map(|verdict| &verdict.status.value)
    }

    /// The same with the time at which the verdict last changed as people are to be told it.
    #[must_use]
    pub fn told_status(&self, backend: &Backend) -> Option<BackendStatus> {
        self.verdict(backend).map(|verdict| BackendStatus {
            since_unix_ms: told(verdict.since),
            ..verdict.status.value.clone()
        })
    }

    fn verdict(&self, backend: &Backend) -> Option<&Verdict> {
        let verdict = self.statuses.get(&backend.id)?;
        (verdict.status.value.incarnation == backend.incarnation).then_some(verdict)
    }

    /// The ids of a pool's backends, by address.
    #[must_use]
    pub fn members(&self, pool: &PoolName) -> Option<&BTreeMap<Address, BackendId>> {
        self.members.get(pool)
    }

    /// The backends of a pool, in the order of [`Self::members`].
    pub(crate) fn in_pool(
        &self,
        pool: &PoolName,
    ) -> impl DoubleEndedIterator<Item = &Stored<Backend>> {
        let ids = self.members.get(pool).into_iter().flat_map(BTreeMap::values);
        ids.filter_map(|id| self.backends.get(id))
    }

    /// The backends that drain, were discovered or have slots, by id. Each is looked after by somebody
    /// who asks with every change, and of a large fleet they are often few.
    pub(crate) fn followed(&self) -> impl Iterator<Item = &Stored<Backend>> {
        self.followed.iter().filter_map(|id| self.backends.get(id))
    }

    /// The numbers of a pool's backends.
    pub(super) fn tally(&self, pool: &PoolName) -> Tally {
        self.tallies.get(pool).copied().unwrap_or_default()
    }

    /// How many backends a pool has.
    #[must_use]
    pub fn pool_size(&self, pool: &PoolName) -> usize {
        self.members.get(pool).map_or(0, BTreeMap::len)
    }

    /// The backends of one pool, or of all, in the order in which people count.
    #[must_use]
    pub fn backends_of(&self, pool: Option<&PoolName>) -> Vec<&Stored<Backend>> {
        let mut backends: Vec<&Stored<Backend>> = match pool {
            None => self.backends.values().collect(),
            Some(pool) => self.in_pool(pool).collect(),
        };
        backends.sort_by(|a, b| natural_order(a.value.id.as_str(), b.value.id.as_str()));
        backends
    }

    /// One object with its revision. A malformed name names nothing; keys are nobody's to find.
    #[must_use]
    pub fn find(&self, kind: Kind, name: &str) -> Option<Stored<Resource>> {
        fn found<T: Clone>(
            stored: &Stored<T>,
            resource: impl Fn(T) -> Resource,
        ) -> Stored<Resource> {
            Stored { value: resource(stored.value.clone()), revision: stored.revision }
        }
        match kind {
            Kind::Pool => {
                self.pools.get(&PoolName::new(name).ok()?).map(|s| found(s, Resource::Pool))
            }
            Kind::Backend => {
                self.backends.get(&BackendId::new(name).ok()?).map(|s| found(s, Resource::Backend))
            }
            Kind::Status => {
                let verdict = self.statuses.get(&BackendId::new(name).ok()?);
                verdict.map(|verdict| found(&verdict.status, Resource::Status))
            }
            Kind::Listener => {
                let name = ListenerName::new(name).ok()?;
                self.listeners.get(&name).map(|s| found(s, Resource::Listener))
            }
            Kind::Route => {
                self.routes.get(&RouteName::new(name).ok()?).map(|s| found(s, Resource::Route))
            }
            Kind::Limit => {
                self.limits.get(&LimitName::new(name).ok()?).map(|s| found(s, Resource::Limit))
            }
            Kind::SessionKeys => None,
        }
    }

    /// The names of all objects of a kind, in the order in which people count.
    #[must_use]
    pub fn names(&self, kind: Kind) -> Vec<&str> {
        let mut names: Vec<&str> = match kind {
            Kind::Pool => self.pools.keys().map(PoolName::as_str).collect(),
            Kind::Backend => self.backends.keys().map(BackendId::as_str).collect(),
            Kind::Status => self.statuses.keys().map(BackendId::as_str).collect(),
            Kind::Listener => self.listeners.keys().map(ListenerName::as_str).collect(),
            Kind::Route => self.routes.keys().map(RouteName::as_str).collect(),
            Kind::Limit => self.limits.keys().map(LimitName::as_str).collect(),
            Kind::SessionKeys => Vec::new(),
        };
        names.sort_by(|a, b| natural_order(a, b));
        names
    }

    /// Puts an object in, in place of an earlier one.
    pub(crate) fn put(&mut self, resource: Resource, revision: u64) {
        let backend = match &resource {
            Resource::Backend(backend) => Some(backend.id.clone()),
            Resource::Status(status) => Some(status.backend.clone()),
            _ => None,
        };
        self.counting(backend, |catalog| catalog.insert(resource, revision));
    }

    /// Takes an object out.
    pub(super) fn remove(&mut self, key: &Key) {
        let is_of_backend = matches!(key.known_kind(), Some(Kind::Backend | Kind::Status));
        let backend = is_of_backend.then(|| BackendId::new(&key.name).ok()).flatten();
        self.counting(backend, |catalog| catalog.take_out(key));
    }

    /// Makes a change that concerns this backend, and counts it as it is then.
    fn counting(&mut self, backend: Option<BackendId>, change: impl FnOnce(&mut Self)) {
        let counted = |catalog: &Self| {
            let backend = &catalog.backends.get(backend.as_ref()?)?.value;
            Some((backend.pool.clone(), Facts::told(backend, catalog.status(backend))))
        };
        if let Some((pool, facts)) = counted(self)
            && let Entry::Occupied(mut tally) = self.tallies.entry(pool)
        {
            tally.get_mut().remove(facts);
            if *tally.get() == Tally::default() {
                tally.remove();
            }
        }
        change(self);
        if let Some((pool, facts)) = counted(self) {
            self.tallies.entry(pool).or_default().add(facts);
        }
        let Some(id) = backend else { return };
        let is_followed = |backend: &Backend| {
            backend.drain.is_some() || backend.source.is_some() || backend.max_in_flight.is_some()
        };
        if self.backends.get(&id).is_some_and(|stored| is_followed(&stored.value)) {
            self.followed.insert(id);
        } else {
            self.followed.remove(&id);
        }
    }

    fn insert(&mut self, resource: Resource, revision: u64) {
        match resource {
            Resource::Pool(value) => {
                self.pools.insert(value.name.clone(), Stored { value, revision });
            }
            Resource::Backend(value) => {
                let former = self
                    .backends
                    .insert(value.id.clone(), Stored { value: value.clone(), revision });
                if let Some(former) = former {
                    self.leave(&former.value);
                }
                self.members.entry(value.pool).or_default().insert(value.address, value.id);
            }
            Resource::Status(value) => {
                let noted = value.since_unix_ms;
                let former = self.statuses.get(&value.backend);
                let since = former
                    .filter(|former| former.status.value.since_unix_ms == noted)
                    .map_or_else(|| Moment::recalled(noted, present()), |former| former.since);
                let status = Stored { value, revision };
                self.statuses.insert(status.value.backend.clone(), Verdict { status, since });
            }
            Resource::Listener(value) => {
                self.listeners.insert(value.name.clone(), Stored { value, revision });
            }
            Resource::Route(value) => {
                self.routes.insert(value.name.clone(), Stored { value, revision });
            }
            Resource::Limit(value) => {
                self.limits.insert(value.name.clone(), Stored { value, revision });
            }
            Resource::SessionKeys(value) => self.session_keys = Some(Stored { value, revision }),
        }
    }

    fn take_out(&mut self, key: &Key) {
        let name = &*key.name;
        match key.known_kind() {
            Some(Kind::Pool) => {
                if let Ok(name) = PoolName::new(name) {
                    self.pools.remove(&name);
                }
            }
            Some(Kind::Backend) => {
                let former = BackendId::new(name).ok().and_then(|id| self.backends.remove(&id));
                if let Some(former) = former {
                    self.leave(&former.value);
                }
            }
            Some(Kind::Status) => {
                if let Ok(id) = BackendId::new(name) {
                    self.statuses.remove(&id);
                }
            }
            Some(Kind::Listener) => {
                if let Ok(name) = ListenerName::new(name) {
                    self.listeners.remove(&name);
                }
            }
            Some(Kind::Route) => {
                if let Ok(name) = RouteName::new(name) {
                    self.routes.remove(&name);
                }
            }
            Some(Kind::Limit) => {
                if let Ok(name) = LimitName::new(name) {
                    self.limits.remove(&name);
                }
            }
            Some(Kind::SessionKeys) => self.session_keys = None,
            None => {}
        }
    }

    /// Takes a former value of a backend out of its pool's index, unless another
    /// backend took over the address in the same change.
    fn leave(&mut self, former: &Backend) {
        let Some(members) = self.members.get_mut(&former.pool) else { return };
        if members.get(&former.address) == Some(&former.id) {
            members.remove(&former.address);
        }
        if members.is_empty() {
            self.members.remove(&former.pool);
        }
    }
}
