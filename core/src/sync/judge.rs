//! What of a state is valid, and what stands in for the rest.
//!
//! An object whose newest value cannot be decoded, or refers to something that is
//! not there, keeps the last value that was good. A status of a backend that is not
//! in use (in that life) is no mistake, but must be looked at again when the backend
//! comes.
//!
//! The outcome must not depend on how a state arrived, in small steps, merged, whole
//! or off a disk, or else proxies that hold the same would serve differently. So each
//! change takes up again what was left open before, and what depends on the objects
//! that change, and nothing more: one backend of ten thousand stays cheap.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{Decode, Object, ObjectSet, Rejection};
use crate::model::{
    BackendEntry, BackendId, BackendStatus, Invalid, Key, Kind, LimitName, ListenerName, PoolName,
    Rejected, Resource, RouteName, Snapshot,
};

/// The consistent whole of what is valid in a state, and what was left open.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// What to serve from.
    pub(super) snapshot: Arc<Snapshot>,
    /// The last good value of each object in `open` that ever had one.
    pub(super) fallbacks: BTreeMap<Key, Object>,
    /// Objects whose newest value is not in use. Those without a rejection are
    /// statuses that wait for their backend.
    open: BTreeMap<Key, Option<Rejection>>,
}

impl Judgement {
    /// Judges a state that was kept on disk together with its fallbacks.
    pub(super) fn restored(decode: Decode, objects: &ObjectSet, fallbacks: Vec<Object>) -> Self {
        let keyed = |object: Object| (object.key.clone(), object);
        let fallbacks: BTreeMap<Key, Object> = fallbacks.into_iter().map(keyed).collect();
        let open = fallbacks.keys().map(|key| (key.clone(), None)).collect();
        let former = Self { snapshot: Arc::default(), fallbacks, open };
        former.after(decode, &ObjectSet::new(), objects.iter().collect(), &[])
    }

    /// The judgement after a change to the objects `held` so far.
    pub(super) fn after(
        &self,
        decode: Decode,
        held: &ObjectSet,
        upserts: Vec<&Object>,
        deletes: &[Key],
    ) -> Self {
        let change = Change::new(held, upserts, deletes);
        let mut trial = Trial::default();
        for object in self.concerned(&change) {
            match decode_checked(decode, object) {
                Ok(Resource::Backend(backend)) if change.deletes_pool(&backend.pool) => {
                    // Not worth giving up a former value in another pool for.
                    trial.open.insert(object.key.clone(), None);
                    trial.later.push(Resource::Backend(backend));
                }
                Ok(resource) => trial.take(resource),
                Err(invalid) => {
                    let rejection = rejection(object, invalid);
                    trial.open.insert(object.key.clone(), Some(rejection));
                    if let Some(resource) = self.fallback(decode, &self.snapshot, &object.key) {
                        trial.now.push(resource);
                    }
                }
            }
        }
        let (snapshot, rejected) = self.snapshot.changed(std::mem::take(&mut trial.now), deletes);
        trial.note(&change, rejected);
        trial.note_waiting(&snapshot);

        // What lost its place, or waits, falls back on its last good value.
        let mut second = std::mem::take(&mut trial.later);
        second.extend(trial.open.keys().filter_map(|key| self.fallback(decode, &snapshot, key)));
        let snapshot = if second.is_empty() {
            snapshot
        } else {
            second.extend(trial.statuses.iter().cloned().map(Resource::Status));
            let (snapshot, rejected) = snapshot.changed(second, &[]);
            trial.note(&change, rejected);
            trial.note_waiting(&snapshot);
            trial.retry_limits(decode, &change, snapshot)
        };
        let fallbacks = trial
            .open
            .keys()
            .filter_map(|key| {
                let open_before = self.open.contains_key(key);
                let former = if open_before { self.fallbacks.get(key) } else { held.get(key) };
                former.map(|object| (key.clone(), object.clone()))
            })
            .collect();
        Self { snapshot: Arc::new(snapshot), fallbacks, open: trial.open }
    }

    /// Objects that keep their former value, and why.
    pub(super) fn rejections(&self) -> impl Iterator<Item = &Rejection> {
        self.open.values().flatten()
    }

    /// The newest values to be judged: what changed, what was left open, and what
    /// hangs on a pool or a backend that changes.
    fn concerned<'a>(&self, change: &Change<'a>) -> Vec<&'a Object> {
        let mut keys: BTreeSet<Key> = self.open.keys().cloned().collect();
        for key in self.open.keys().chain(change.newest.keys().copied()) {
            match key.known_kind() {
                Some(Kind::Backend) => {
                    keys.insert(status_key(&key.name));
                }
                Some(Kind::Pool) if change.deletes(key) => {
                    let pool = PoolName::new(&key.name).ok();
                    let entry = pool.and_then(|pool| self.snapshot.pools().get(&pool));
                    for id in entry.into_iter().flat_map(|entry| entry.backends.keys()) {
                        keys.insert(Key::new(Kind::Backend.name(), id.as_str()));
                        keys.insert(status_key(id.as_str()));
                    }
                }
                _ => {}
            }
        }
        let unchanged = keys.iter().filter(|key| !change.newest.contains_key(key));
        let unchanged = unchanged.filter_map(|key| change.held.get(key));
        change.upserts.iter().copied().chain(unchanged).collect()
    }

    /// The last good value of an object that was left open before and of which
    /// nothing is in `snapshot`.
    fn fallback(&self, decode: Decode, snapshot: &Snapshot, key: &Key) -> Option<Resource> {
        let fallback = self.fallbacks.get(key)?;
        if in_use(snapshot, key) {
            return None;
        }
        decode_checked(decode, fallback).ok()
    }
}

/// What changes.
struct Change<'a> {
    held: &'a ObjectSet,
    upserts: Vec<&'a Object>,
    /// `None` for what is deleted.
    newest: HashMap<&'a Key, Option<&'a Object>>,
    deleted_pools: HashSet<&'a str>,
}

impl<'a> Change<'a> {
    fn new(held: &'a ObjectSet, upserts: Vec<&'a Object>, deletes: &'a [Key]) -> Self {
        let mut newest: HashMap<&Key, Option<&Object>> =
            deletes.iter().map(|key| (key, None)).collect();
        newest.extend(upserts.iter().map(|object| (&object.key, Some(*object))));
        let pools = deletes.iter().filter(|key| key.known_kind() == Some(Kind::Pool));
        Self { held, upserts, newest, deleted_pools: pools.map(|key| &*key.name).collect() }
    }

    fn newest(&self, key: &Key) -> Option<&'a Object> {
        self.newest.get(key).copied().unwrap_or_else(|| self.held.get(key))
    }

    fn deletes(&self, key: &Key) -> bool {
        self.newest.get(key).is_some_and(Option::is_none)
    }

    fn deletes_pool(&self, pool: &PoolName) -> bool {
        self.deleted_pools.contains(pool.as_str())
    }
}

/// A judgement in the making.
#[derive(Default)]
struct Trial {
    now: Vec<Resource>,
    /// To be put in once the pools that go are gone.
    later: Vec<Resource>,
    open: BTreeMap<Key, Option<Rejection>>,
    statuses: Vec<BackendStatus>,
    /// Where backends were put, so that not every pool needs to be searched.
    places: HashMap<BackendId, PoolName>,
}

impl Trial {
    fn take(&mut self, resource: Resource) {
        match &resource {
            Resource::Status(status) => self.statuses.push(status.clone()),
            Resource::Backend(backend) => {
                self.places.insert(backend.id.clone(), backend.pool.clone());
            }
            Resource::Pool(_)
            | Resource::Listener(_)
            | Resource::Route(_)
            | Resource::Limit(_)
            | Resource::SessionKeys(_) => {}
        }
        self.now.push(resource);
    }

    /// Notes what had no place. An object that could not be decoded keeps that as
    /// its reason, whatever happens to its fallback.
    fn note(&mut self, change: &Change<'_>, rejected: Vec<Rejected>) {
        for Rejected { key, invalid } in rejected {
            let Some(object) = change.newest(&key) else { continue };
            self.open.entry(key).or_default().get_or_insert_with(|| rejection(object, invalid));
        }
    }

    /// Takes up limits again that had no place: one may name a route that is back only now,
    /// with its last good value.
    fn retry_limits(
        &mut self,
        decode: Decode,
        change: &Change<'_>,
        snapshot: Snapshot,
    ) -> Snapshot {
        let limits = self.open.keys().filter(|key| key.known_kind() == Some(Kind::Limit));
        let newest = limits.filter_map(|key| decode_checked(decode, change.newest(key)?).ok());
        let newest: Vec<Resource> = newest.collect();
        if newest.is_empty() {
            return snapshot;
        }
        let retried: BTreeSet<Key> = newest.iter().map(Resource::key).collect();
        let (snapshot, rejected) = snapshot.changed(newest, &[]);
        self.open.retain(|key, _| {
            !retried.contains(key) || rejected.iter().any(|rejected| rejected.key == *key)
        });
        snapshot
    }

    fn note_waiting(&mut self, snapshot: &Snapshot) {
        for status in &self.statuses {
            let place = self.places.get(&status.backend);
            let here =
                place.and_then(|pool| snapshot.pools().get(pool)?.backends.get(&status.backend));
            let entry = here.map(|entry| &**entry).or_else(|| find(snapshot, &status.backend));
            let key = status_key(status.backend.as_str());
            if entry.is_some_and(|entry| entry.backend.incarnation == status.incarnation) {
                self.open.remove(&key);
            } else {
                self.open.insert(key, None);
            }
        }
    }
}

fn decode_checked(decode: Decode, object: &Object) -> Result<Resource, Invalid> {
    let resource = decode(object)?;
    if resource.kind().name() != &*object.key.kind || resource.name() != &*object.key.name {
        let message = format!("{} holds the value of {}", object.key, resource.key());
        return Err(Invalid::value("object.name", message));
    }
    Ok(resource)
}

fn rejection(object: &Object, invalid: Invalid) -> Rejection {
    Rejection {
        key: object.key.clone(),
        revision: object.revision,
        code: invalid.code.to_owned(),
        message: invalid.message,
    }
}

fn status_key(backend: &str) -> Key {
    Key::new(Kind::Status.name(), backend)
}

/// Whether any value of this object is in use.
fn in_use(snapshot: &Snapshot, key: &Key) -> bool {
    let name = &*key.name;
    match key.known_kind() {
        Some(Kind::Pool) => {
            PoolName::new(name).is_ok_and(|name| snapshot.pools().contains_key(&name))
        }
        Some(Kind::Backend) => BackendId::new(name).is_ok_and(|id| find(snapshot, &id).is_some()),
        Some(Kind::Status) => {
            let entry = BackendId::new(name).ok().and_then(|id| find(snapshot, &id));
            entry.is_some_and(|entry| entry.status.is_some())
        }
        Some(Kind::Listener) => {
            ListenerName::new(name).is_ok_and(|name| snapshot.listeners().contains_key(&name))
        }
        Some(Kind::Route) => {
            RouteName::new(name).is_ok_and(|name| snapshot.routes().contains_key(&name))
        }
        Some(Kind::Limit) => {
            LimitName::new(name).is_ok_and(|name| snapshot.limits().contains_key(&name))
        }
        Some(Kind::SessionKeys) => snapshot.session_keys().is_some(),
        None => false,
    }
}

fn find<'a>(snapshot: &'a Snapshot, id: &BackendId) -> Option<&'a BackendEntry> {
    snapshot.pools().values().find_map(|entry| entry.backends.get(id)).map(|entry| &**entry)
}
