//! From a request to the objects that would change, by the rules of the registry.
//!
//! Nothing here stores anything: a plan is made against the catalog as it is and then
//! committed whole or thrown away, so a refused write cannot leave half of itself, and
//! a dry run is a plan that is not committed. References are judged at the end, on the
//! state as it would be, so the order of a batch's items does not matter.

mod rules;

use std::collections::{BTreeMap, BTreeSet};

use lb_core::model::{
    AdminState, Backend, BackendId, DrainWish, Incarnation, Key, Kind, Limit, Pool, PoolName,
    Resource, Route,
};
use lb_proto::document::missing;

use super::{
    Catalog, DrainStep, Item, Origin, PutMode, WriteError, WriteRequest, catalog::Stored,
    discovered, draining,
};

/// Numbers beyond this are not remembered: nobody counts that far.
const BACKEND_NUMBER_MAX: u64 = 1 << 53;

/// What a write would do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// New and changed objects.
    pub(super) upserts: Vec<Resource>,
    /// Removed objects.
    pub(super) deletes: Vec<Key>,
    /// The number of the next backend without an id.
    pub(super) next_backend_number: u64,
    /// The objects that the request puts, changed or not, in its order.
    pub(super) put: Vec<Stored<Resource>>,
}

impl Plan {
    pub(super) fn changes_anything(&self) -> bool {
        !self.upserts.is_empty() || !self.deletes.is_empty()
    }
}

/// Plans a request against the catalog at `revision`. `now_unix_ms` is stored with what
/// begins.
pub(super) fn plan(
    catalog: &Catalog,
    revision: u64,
    next_backend_number: u64,
    now_unix_ms: u64,
    request: WriteRequest,
) -> Result<Plan, WriteError> {
    if request.batch && request.expected_revision != 0 && request.expected_revision != revision {
        return Err(WriteError::RevisionConflict(format!(
            "the store is at revision {revision}, not at {} as expected; look at what has \
             changed and send the batch again",
            request.expected_revision
        )));
    }
    let expected = if request.batch { 0 } else { request.expected_revision };
    let mut draft = Draft {
        base: catalog,
        next_revision: revision + 1,
        next_backend_number,
        now_unix_ms,
        origin: request.origin,
        puts: BTreeMap::new(),
        deletes: BTreeSet::new(),
        named: Vec::new(),
    };
    for item in request.items {
        draft.take(item, expected)?;
    }
    if draft.origin == Origin::Operator {
        discovered::check_removals(catalog, &draft.puts, &draft.deletes)?;
    }
    draft.check_references()?;
    draft.check_addresses()?;
    draft.check_matches()?;
    if request.batch && !request.force {
        draft.check_bulk_removal()?;
    }
    Ok(draft.finish())
}

/// The catalog with the changes of a request laid over it.
#[derive(Debug)]
struct Draft<'a> {
    base: &'a Catalog,
    next_revision: u64,
    next_backend_number: u64,
    now_unix_ms: u64,
    origin: Origin,
    puts: BTreeMap<Key, Resource>,
    deletes: BTreeSet<Key>,
    /// What was put, in the order of the request.
    named: Vec<Key>,
}

impl Draft<'_> {
    fn take(&mut self, item: Item, expected_revision: u64) -> Result<(), WriteError> {
        match item {
            Item::Put { mut resource, mode, assign_id } => {
                if assign_id && let Resource::Backend(backend) = &mut *resource {
                    if mode == PutMode::Replace || expected_revision != 0 {
                        return Err(WriteError::Malformed(
                            "a backend without an id is a new one: name the backend's id, or do \
                             not ask for a replacement or an expected revision"
                                .to_owned(),
                        ));
                    }
                    backend.id = self.assign_id();
                }
                self.put(*resource, mode, DrainWish::default(), expected_revision)
            }
            Item::Delete { kind, name } => self.delete(kind, &name, expected_revision),
            Item::SetState { id, state, drain } => {
                self.set_state(&id, state, drain, expected_revision)
            }
            Item::Drain { id, step } => self.advance_drain(&id, step, expected_revision),
        }
    }

    /// The next id that is free and that no removed backend had.
    fn assign_id(&mut self) -> BackendId {
        loop {
            let name = format!("backend{}", self.next_backend_number);
            self.next_backend_number += 1;
            let id = BackendId::new(&name).expect("a short name of letters and digits is valid");
            let taken = self.puts.contains_key(&Key::new("backend", &name));
            if !taken && !self.base.backends().contains_key(&id) {
                return id;
            }
        }
    }

    fn put(
        &mut self,
        mut resource: Resource,
        mode: PutMode,
        drain: DrainWish,
        expected_revision: u64,
    ) -> Result<(), WriteError> {
        let key = resource.key();
        if resource.kind() == Kind::Status {
            return Err(WriteError::Malformed(
                "a status is observed by the control plane and cannot be written".to_owned(),
            ));
        }
        Self::refuse_keys(&key)?;
        self.name_once(&key)?;
        let former = self.base.find(resource.kind(), resource.name());
        check_revision(&key, former.as_ref(), expected_revision)?;
        match (&former, mode) {
            (Some(former), PutMode::Create) => {
                return Err(WriteError::AlreadyExists(format!(
                    "{key} exists already, last changed in revision {}; change it with set-{}, or choose \
                     another name",
                    former.revision, key.kind
                )));
            }
            (None, PutMode::Replace) => return Err(self.not_found(&key)),
            _ => {}
        }
        if let Resource::Backend(backend) = &mut resource {
            let known = former.as_ref().and_then(|former| former.value.as_backend());
            discovered::settle(backend, known, self.origin)?;
            backend.incarnation = self.incarnation(backend, former.as_ref());
            let same = known.filter(|known| known.incarnation == backend.incarnation);
            draining::settle(backend, same, drain, self.now_unix_ms)?;
            self.remember_number(&backend.id);
            if former.as_ref().is_some_and(|former| !same_life(&former.value, backend)) {
                // What was found out about the former life says nothing about this one.
                self.deletes_status(&backend.id);
            }
        }
        if let Resource::Limit(limit) = &mut resource {
            self.settle_limit(limit, former.as_ref());
        }
        self.named.push(key.clone());
        self.puts.insert(key, resource);
        Ok(())
    }

    /// A limit that counts something else is another one: its buckets are full again, and
    /// proxies speak of its keys in other numbers.
    fn settle_limit(&self, limit: &mut Limit, former: Option<&Stored<Resource>>) {
        (limit.incarnation, limit.secret) = match former.map(|former| &former.value) {
            Some(Resource::Limit(former)) if former.counts_like(limit) => {
                (former.incarnation, former.secret)
            }
            _ => (Incarnation(self.next_revision), uuid::Uuid::new_v4().as_u64_pair().into()),
        };
    }

    /// A backend that moves to another address or pool is another one: its counters
    /// start at zero, and it must pass a check before it gets traffic.
    fn incarnation(&self, backend: &Backend, former: Option<&Stored<Resource>>) -> Incarnation {
        match former.and_then(|former| former.value.as_backend()) {
            Some(former) if former.address == backend.address && former.pool == backend.pool => {
                former.incarnation
            }
            _ => Incarnation(self.next_revision),
        }
    }

    /// An id of our own form that a client chose must not be given again later.
    fn remember_number(&mut self, id: &BackendId) {
        let number = id.as_str().strip_prefix("backend").and_then(|n| n.parse::<u64>().ok());
        if let Some(number) = number.filter(|n| (1..BACKEND_NUMBER_MAX).contains(n)) {
            self.next_backend_number = self.next_backend_number.max(number + 1);
        }
    }

    fn delete(&mut self, kind: Kind, name: &str, expected: u64) -> Result<(), WriteError> {
        let key = Key::new(kind.name(), name);
        if kind == Kind::Status {
            return Err(WriteError::Malformed(
                "a status goes with its backend and cannot be removed".to_owned(),
            ));
        }
        Self::refuse_keys(&key)?;
        self.name_once(&key)?;
        let Some(former) = self.base.find(kind, name) else { return Err(self.not_found(&key)) };
        check_revision(&key, Some(&former), expected)?;
        if let Resource::Backend(backend) = &former.value {
            self.deletes_status(&backend.id);
        }
        self.deletes.insert(key);
        Ok(())
    }

    fn set_state(
        &mut self,
        id: &str,
        state: AdminState,
        drain: DrainWish,
        expected_revision: u64,
    ) -> Result<(), WriteError> {
        let key = Key::new("backend", id);
        let Some(Stored { value: Resource::Backend(backend), .. }) =
            self.base.find(Kind::Backend, id)
        else {
            return Err(self.not_found(&key));
        };
        let changed = Resource::Backend(Backend { admin_state: state, ..backend });
        self.put(changed, PutMode::Replace, drain, expected_revision)
    }

    /// Notes how far a drain has come.
    fn advance_drain(
        &mut self,
        id: &str,
        step: DrainStep,
        expected_revision: u64,
    ) -> Result<(), WriteError> {
        let key = Key::new("backend", id);
        let stored = self.base.find(Kind::Backend, id);
        check_revision(&key, stored.as_ref(), expected_revision)?;
        if let Some(Stored { value: Resource::Backend(mut backend), .. }) = stored
            && let Some(drain) = backend.drain
        {
            self.name_once(&key)?;
            backend.drain = Some(draining::advanced(drain, step));
            self.named.push(key.clone());
            self.puts.insert(key, Resource::Backend(backend));
        }
        Ok(())
    }

    fn deletes_status(&mut self, id: &BackendId) {
        if self.base.find(Kind::Status, id.as_str()).is_some() {
            self.deletes.insert(Key::new("status", id.as_str()));
        }
    }

    fn refuse_keys(key: &Key) -> Result<(), WriteError> {
        if key.known_kind() == Some(Kind::SessionKeys) {
            return Err(WriteError::Malformed(
                "session keys are made by the control plane; lbctl rotate-session-keys replaces \
                 them"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn name_once(&self, key: &Key) -> Result<(), WriteError> {
        if self.puts.contains_key(key) || self.deletes.contains(key) {
            return Err(WriteError::Malformed(format!(
                "{key} is named twice in one batch; name each object once"
            )));
        }
        Ok(())
    }

    fn not_found(&self, key: &Key) -> WriteError {
        let names = key.known_kind().map(|kind| self.base.names(kind)).unwrap_or_default();
        WriteError::NotFound(missing(&key.kind, &key.name, &names))
    }

    /// The routes as they would be.
    fn routes(&self) -> impl Iterator<Item = &Route> {
        let untouched = self.base.routes().values().map(|stored| &stored.value).filter(|route| {
            let key = Key::new("route", route.name.as_str());
            !self.puts.contains_key(&key) && !self.deletes.contains(&key)
        });
        let put = self.puts.values().filter_map(|resource| match resource {
            Resource::Route(route) => Some(route),
            _ => None,
        });
        untouched.chain(put)
    }

    /// The limits as they would be.
    fn limits(&self) -> impl Iterator<Item = &Limit> {
        let untouched = self.base.limits().values().map(|stored| &stored.value).filter(|limit| {
            let key = Key::new("limit", limit.name.as_str());
            !self.puts.contains_key(&key) && !self.deletes.contains(&key)
        });
        let put = self.puts.values().filter_map(|resource| match resource {
            Resource::Limit(limit) => Some(limit),
            _ => None,
        });
        untouched.chain(put)
    }

    /// The pools as they would be.
    fn pools(&self) -> impl Iterator<Item = &Pool> {
        let untouched = self.base.pools().values().map(|stored| &stored.value).filter(|pool| {
            let key = Key::new("pool", pool.name.as_str());
            !self.puts.contains_key(&key) && !self.deletes.contains(&key)
        });
        let put = self.puts.values().filter_map(|resource| match resource {
            Resource::Pool(pool) => Some(pool),
            _ => None,
        });
        untouched.chain(put)
    }

    /// The backend of a pool as it would be, if it is still there.
    fn stays(&self, id: &BackendId, pool: &PoolName) -> bool {
        let key = Key::new("backend", id.as_str());
        match self.puts.get(&key) {
            Some(Resource::Backend(backend)) => backend.pool == *pool,
            _ => !self.deletes.contains(&key),
        }
    }

    /// A batch that takes more than half of a pool away is more often a mistake (an
    /// empty file, a broken template) than a wish.
    fn check_bulk_removal(&self) -> Result<(), WriteError> {
        let mut leaving: BTreeMap<&PoolName, usize> = BTreeMap::new();
        for key in self.deletes.iter().chain(self.puts.keys()) {
            let stored = BackendId::new(&key.name)
                .ok()
                .filter(|_| &*key.kind == "backend")
                .and_then(|id| self.base.backends().get(&id));
            if let Some(Stored { value: backend, .. }) = stored
                && !self.stays(&backend.id, &backend.pool)
            {
                *leaving.entry(&backend.pool).or_default() += 1;
            }
        }
        for (pool, leaving) in leaving {
            let size = self.base.pool_size(pool);
            if size >= 2 && 2 * leaving > size {
                return Err(WriteError::Precondition(format!(
                    "the batch would remove {leaving} of the {size} backends of pool {pool}; if \
                     that is meant, repeat it with force: --force in lbctl, ?force=true over REST"
                )));
            }
        }
        Ok(())
    }

    fn finish(self) -> Plan {
        let Self { base, next_revision, next_backend_number, mut puts, deletes, named, .. } = self;
        let mut plan = Plan { next_backend_number, ..Plan::default() };
        for key in named {
            let Some(resource) = puts.remove(&key) else { continue };
            let former = base.find(resource.kind(), resource.name());
            match former.filter(|former| former.value == resource) {
                Some(unchanged) => plan.put.push(unchanged),
                None => {
                    plan.put.push(Stored { value: resource.clone(), revision: next_revision });
                    plan.upserts.push(resource);
                }
            }
        }
        plan.deletes = deletes.into_iter().collect();
        plan
    }
}

fn check_revision(
    key: &Key,
    former: Option<&Stored<Resource>>,
    expected: u64,
) -> Result<(), WriteError> {
    let found = former.map(|former| former.revision);
    if expected == 0 || found == Some(expected) {
        return Ok(());
    }
    Err(WriteError::RevisionConflict(match found {
        Some(found) if found > expected => format!(
            "{key} was changed at revision {found}, after the expected {expected}; read it \
             again and repeat the change"
        ),
        Some(found) => format!(
            "{key} was last changed at revision {found}, and not at {expected}, which is of \
             another change; 'lbctl describe {key}' shows which to expect"
        ),
        None => format!(
            "{key} does not exist any more, and was expected at revision {expected}; add it \
             without an expected revision"
        ),
    }))
}

fn same_life(former: &Resource, backend: &Backend) -> bool {
    matches!(former, Resource::Backend(former) if former.incarnation == backend.incarnation)
}
