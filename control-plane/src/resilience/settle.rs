//! Moves everything on, and makes the statuses that are new.

use std::{
    collections::{BTreeSet, HashSet},
    time::Instant,
};

use lb_core::{
    health::Flap,
    model::{
        AdminState, Backend as Declared, BackendId, BackendStatus, EjectedBy, Health, Key, Kind,
        PoolName, Reason,
    },
    sync::Publisher,
};

use super::{At, Backend, Checked, Pool, State, backend::Seen, peers::Peers};
use crate::{
    events::EventType,
    registry::{Catalog, View},
};

/// What is new: statuses, and what is told of reasons to eject that did not.
type News = (Vec<BackendStatus>, Vec<Told>);
/// What happened to a backend, and why.
pub(super) type Told = (EventType, BackendId, Reason);

impl State {
    /// Takes in what the prober said, moves on to `now`, and tells what is new.
    pub(super) fn settle(&mut self, view: &View, fresh: Vec<Checked>, at: At<'_>) -> News {
        self.pools.values_mut().for_each(|pool| pool.peers.begin_pass());
        if self.reconciled == 0 {
            self.resume(at);
        }
        self.reconcile(&view.publisher, at);
        for word in fresh {
            self.take(word, at);
        }
        let mut refusals = self.advance_breakers(at);
        refusals.extend(self.look_for_outliers(at));
        debug_assert!(
            {
                let found: BTreeSet<&BackendId> = self.out().collect();
                let is_out = |backend: &Backend| backend.ejection().is_some();
                self.backends.iter().all(|(id, one)| is_out(one) == found.contains(id))
            },
            "whoever is out is among those that fail, or an outlier"
        );
        let statuses = self.statuses(at);
        let told = self.news_of_kept(refusals, at);
        (statuses, told)
    }

    /// Takes up what an earlier process had taken out; the caps are kept to afterwards. Outliers get another chance, as what
    /// was seen of them is gone with that process.
    fn resume(&mut self, at: At<'_>) {
        for stored in at.catalog.backends().values() {
            let backend = &stored.value;
            let status = at.catalog.status(backend);
            if status.is_none_or(|status| status.standing.ejection.is_none()) {
                continue;
            }
            if self.kept(backend, at).tripped.is_some() {
                self.failing.insert(backend.id.clone());
            }
            self.dirty.insert(backend.id.clone());
        }
    }

    /// A pool cannot spare a backend whose breaker is open.
    fn keep_in(&mut self, id: &BackendId, at: At<'_>) {
        let Some(backend) = self.backends.get_mut(id) else { return };
        let policy = backend.policy;
        if let Some(event) = backend.breaker.release(&policy.breaker, at.now) {
            self.moved(id, event, &policy, at);
        }
    }

    /// Forgets what is gone, and learns policies that have changed. Of a large fleet little changes
    /// at a time, and the rest is not looked at.
    fn reconcile(&mut self, publisher: &Publisher, at: At<'_>) {
        let revision = publisher.version().revision;
        let since = std::mem::replace(&mut self.reconciled, revision);
        if since == revision {
            return;
        }
        let ids = match publisher.changed_since(since) {
            Some(keys) => concerned(at.catalog, keys),
            // Too long ago to be told.
            None => self.backends.keys().cloned().collect(),
        };
        let forgiven: Vec<&BackendId> = ids.iter().filter(|id| self.compare(id, at)).collect();
        let catalog = at.catalog;
        self.pools.retain(|name, _| catalog.pools().contains_key(name));
        self.pools.values_mut().for_each(|pool| pool.peers = Peers::default());
        forgiven.into_iter().for_each(|id| self.forgive(id, at));
        self.keep_to_caps(at);
    }

    /// Learns what a backend is now, or forgets it. Whether it begins anew: one that is disabled
    /// gets nothing whatever its requests came to, and whoever enables it again says that it is
    /// well. What was under way when it was disabled may have failed meanwhile.
    fn compare(&mut self, id: &BackendId, at: At<'_>) -> bool {
        let stored = at.catalog.backends().get(id).map(|stored| &stored.value);
        match (stored, self.backends.get_mut(id)) {
            (Some(stored), Some(backend)) if stored.incarnation == backend.incarnation => {
                backend.pool.clone_from(&stored.pool);
                if let Some(pool) = at.catalog.pools().get(&backend.pool) {
                    backend.policy = pool.value.resilience;
                }
                let is_disabled = stored.admin_state == AdminState::Disabled;
                std::mem::replace(&mut backend.is_disabled, is_disabled) || is_disabled
            }
            _ => {
                let Self {
                    backends, dirty, down, failing, half_open, retained, remembered, ..
                } = self;
                backends.remove(id);
                for ids in [dirty, down, failing, half_open, retained, remembered] {
                    ids.remove(id);
                }
                false
            }
        }
    }

    /// Begins with a backend from nothing.
    fn forgive(&mut self, id: &BackendId, at: At<'_>) {
        if self.backends.get(id).is_some_and(|backend| backend.outlier.is_some()) {
            self.end_outlier(id);
        }
        let Some(backend) = self.backends.get_mut(id) else { return };
        backend.kept.clear();
        backend.seen = Seen::default();
        let policy = backend.policy;
        let event = backend.breaker.begin_anew(&policy.breaker, at.now);
        if let Some(pool) = self.pools.get_mut(&backend.pool) {
            pool.outliers.forget(id);
        }
        if let Some(event) = event {
            self.moved(id, event, &policy, at);
        }
        self.remembered.remove(id);
    }

    /// A pool that has shrunk can spare fewer of its backends.
    fn keep_to_caps(&mut self, at: At<'_>) {
        let mut back = Vec::new();
        for (name, pool) in &mut self.pools {
            if pool.ejections.iter().next().is_some() {
                let enabled: BTreeSet<BackendId> = enabled(at.catalog, name).cloned().collect();
                back.extend(pool.ejections.keep_to(&enabled));
            }
        }
        // First, so that it is not asked for what is let back.
        for id in back {
            self.end_outlier(&id);
            self.keep_in(&id, at);
        }
        self.count_what_is_out(at);
    }

    /// A backend whose breaker was open before this process began, or while it was disabled,
    /// counts against the cap like any other.
    fn count_what_is_out(&mut self, at: At<'_>) {
        for id in self.failing.clone() {
            let Some(backend) = self.backends.get(&id) else { continue };
            let name = backend.pool.clone();
            let Pool { ejections, peers, .. } = self.pools.entry(name.clone()).or_default();
            let is_enabled =
                at.catalog.backends().get(&id).is_some_and(|stored| stored.value.is_wanted());
            if backend.tripped.is_none() || !is_enabled || ejections.is_out(&id) {
                continue;
            }
            let spare = peers.spare(at.catalog, &name, &id, ejections);
            if ejections.admit(&id, EjectedBy::Breaker, spare).is_err() {
                self.keep_in(&id, at);
            }
        }
    }

    fn take(&mut self, word: Checked, at: At<'_>) {
        let id = word.status.backend.clone();
        let Some(stored) = at.catalog.backends().get(&id) else { return };
        if stored.value.incarnation != word.status.incarnation {
            return;
        }
        let backend = self.kept(&stored.value, at);
        let before = backend.check.as_ref().map_or(Health::Unknown, |check| check.status.health);
        let comes_up = before == Health::Down && word.status.health == Health::Up;
        if word.status.health == Health::Unknown {
            backend.flap = Flap::new(Health::Unknown, at.now);
            backend.hold = None;
        }
        backend.check = Some(word);
        let policy = backend.policy;
        let closed =
            if comes_up { backend.breaker.came_back(&policy.breaker, at.now) } else { None };
        if comes_up {
            self.end_outlier(&id);
        }
        if let Some(event) = closed {
            self.moved(&id, event, &policy, at);
        }
        if self.fails(&id) {
            self.down.insert(id.clone());
        } else {
            self.down.remove(&id);
        }
        self.dirty.insert(id);
    }

    /// The backends that are out for their requests, some of them twice. Each fails or is an
    /// outlier, which few of a large fleet are.
    pub(super) fn out(&self) -> impl Iterator<Item = &BackendId> {
        let outliers = self.pools.values().flat_map(|pool| pool.outliers.out());
        let is_out = |id: &&BackendId| {
            self.backends.get(*id).is_some_and(|backend| backend.ejection().is_some())
        };
        self.failing.iter().chain(outliers).filter(is_out)
    }

    /// Whether there is anything that an operator may forgive.
    pub(super) fn may_forgive(&self, now: Instant) -> bool {
        let marked = self.failing.iter().chain(&self.retained).chain(&self.remembered);
        let outliers = self.pools.values().flat_map(|pool| pool.outliers.out());
        let mut known = marked.chain(outliers).filter_map(|id| self.backends.get(id));
        known.any(|backend| backend.has_a_record(now))
    }

    /// What is kept of a backend, if need be from now on.
    pub(super) fn kept(&mut self, backend: &Declared, at: At<'_>) -> &mut Backend {
        let beginning = self.beginning;
        self.backends
            .entry(backend.id.clone())
            .or_insert_with(|| Backend::resumed(backend, beginning, at))
    }
}

/// The backends that changes of these have to do with.
fn concerned<'a>(catalog: &Catalog, keys: impl Iterator<Item = &'a Key>) -> BTreeSet<BackendId> {
    let mut ids = BTreeSet::new();
    for key in keys.collect::<HashSet<_>>() {
        match key.known_kind() {
            Some(Kind::Backend) => ids.extend(BackendId::new(&key.name)),
            Some(Kind::Pool) => {
                let pool = PoolName::new(&key.name).ok();
                let members = pool.iter().flat_map(|pool| catalog.in_pool(pool));
                ids.extend(members.map(|stored| stored.value.id.clone()));
            }
            _ => {}
        }
    }
    ids
}

/// The backends of a pool that the operator wants to serve.
pub(super) fn enabled<'a>(
    catalog: &'a Catalog,
    pool: &PoolName,
) -> impl DoubleEndedIterator<Item = &'a BackendId> {
    let backends = catalog.in_pool(pool).map(|stored| &stored.value);
    backends.filter(|backend| backend.is_wanted()).map(|backend| &backend.id)
}
