//! Who is out, and who comes back.

use std::{collections::BTreeSet, time::Duration};

use lb_core::{
    model::{
        BackendId, EjectedBy, Ejection, Health, PoolName, Reason, ResiliencePolicy, SlowStart,
    },
    resilience::{
        breaker::{ClosedBy, Event, Phase},
        hearing::Jury,
        outlier::{Ejected, Sample},
        slow_start::after_return,
    },
};

use super::{At, Pool, State, settle::enabled, words};

/// One way in which the breakers of a pool have changed.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Transition {
    pub(crate) pool: PoolName,
    /// `closed`, `open` or `half_open`, like `to`.
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    /// A word of a fixed set.
    pub(crate) reason: &'static str,
}

/// What an event leads to, and why; `None` if nothing changes.
fn transition(event: Event) -> Option<(&'static str, &'static str)> {
    match event {
        Event::Opened { cause, .. } => Some(("open", words::code_of_cause(cause))),
        Event::HalfOpened => Some(("half_open", "open_time_over")),
        Event::Closed { by: ClosedBy::Probes } => Some(("closed", "probes_succeeded")),
        Event::Closed { by: ClosedBy::Checks } => Some(("closed", "checks_passed")),
        Event::Closed { by: ClosedBy::Order } => Some(("closed", "no_longer_wanted")),
        Event::Refused { .. } => None,
    }
}

impl State {
    pub(super) fn advance_breakers(&mut self, at: At<'_>) -> Vec<(BackendId, Reason)> {
        let (mut refusals, jury) = (Vec::new(), self.jury(at));
        for id in self.failing.clone() {
            let Some(backend) = self.backends.get_mut(&id) else { continue };
            let policy = backend.policy;
            let pool = self.pools.entry(backend.pool.clone()).or_default();
            let has_traffic = pool.has_traffic(at.now);
            let (name, Pool { ejections, peers, .. }) = (&backend.pool, pool);
            let admit = || {
                let spare = peers.spare(at.catalog, name, &id, ejections);
                ejections.admit(&id, EjectedBy::Breaker, spare)
            };
            let (breaker, rng) = (&mut backend.breaker, &mut self.rng);
            let event = breaker.advance(&policy.breaker, has_traffic, &jury, admit, at.now, rng);
            let settled = matches!(breaker.phase(), Phase::Closed)
                && at.now >= backend.failing_until
                // Whether its pool can spare it is asked for as long as there is a reason.
                && breaker.refused().is_none()
                && !breaker.sightings().is_in_doubt();
            if breaker.refused().is_none() {
                backend.kept.remove(&EjectedBy::Breaker);
            }
            match event {
                Some(Event::Refused { cause, refused }) => {
                    let why = words::of_cause(cause, policy.breaker.window);
                    let reason = words::of_refusal(&why, refused);
                    self.note_kept(&id, EjectedBy::Breaker, reason.clone(), at);
                    refusals.push((id.clone(), reason));
                }
                Some(event) => self.moved(&id, event, &policy, at),
                None if settled => drop(self.failing.remove(&id)),
                None => {}
            }
        }
        refusals
    }

    /// Who has told what it saw since when; nobody, if no breaker asks.
    fn jury(&mut self, at: At<'_>) -> Jury {
        let Self { failing, backends, hearing, expected, beginning, .. } = self;
        let failing = failing.iter().filter_map(|id| backends.get(id));
        let is_asked = failing.into_iter().any(|b| b.breaker.sightings().is_in_doubt());
        if !is_asked {
            expected.rest();
            return Jury::default();
        }
        let awaits_others = expected.are_waited_for(hearing, beginning.lease, at.now);
        hearing.jury(awaits_others, beginning.lease, at.now)
    }

    /// Takes note of what a breaker did.
    pub(super) fn moved(
        &mut self,
        id: &BackendId,
        event: Event,
        policy: &ResiliencePolicy,
        at: At<'_>,
    ) {
        self.dirty.insert(id.clone());
        self.failing.insert(id.clone());
        let Some(backend) = self.backends.get_mut(id) else { return };
        if let Some((to, reason)) = transition(event) {
            let from = match &backend.tripped {
                None => "closed",
                Some(Ejection { is_half_open: false, .. }) => "open",
                Some(Ejection { is_half_open: true, .. }) => "half_open",
            };
            let transition = Transition { pool: backend.pool.clone(), from, to, reason };
            *self.transitions.entry(transition).or_default() += 1;
        }
        match event {
            Event::Opened { cause, lasts, times } => {
                self.half_open.remove(id);
                self.remembered.insert(id.clone());
                backend.tripped = Some(Ejection {
                    by: EjectedBy::Breaker,
                    is_half_open: false,
                    open_for: lasts,
                    times,
                    reason: words::of_cause(cause, policy.breaker.window),
                    since_unix_ms: at.unix_ms,
                });
            }
            Event::HalfOpened => {
                self.half_open.insert(id.clone());
                if let Some(ejection) = &mut backend.tripped {
                    ejection.is_half_open = true;
                    ejection.since_unix_ms = at.unix_ms;
                }
            }
            Event::Closed { .. } => {
                self.half_open.remove(id);
                backend.tripped = None;
                let name = backend.pool.clone();
                if let Some(pool) = self.pools.get_mut(&name) {
                    pool.ejections.release(id, EjectedBy::Breaker);
                }
                self.ramp(id, after_return(policy.slow_start), at);
            }
            Event::Refused { .. } => {}
        }
    }

    pub(super) fn look_for_outliers(&mut self, at: At<'_>) -> Vec<(BackendId, Reason)> {
        let mut refusals = Vec::new();
        self.let_go(at);
        let names: Vec<PoolName> = self.pools.keys().cloned().collect();
        for name in names {
            let Some(stored) = at.catalog.pools().get(&name) else { continue };
            let policy = stored.value.resilience;
            let Some(pool) = self.pools.get_mut(&name) else { continue };
            let mut back = pool.outliers.expire(at.now);
            if !policy.outlier.enabled {
                back.extend(pool.outliers.out().cloned());
            }
            for id in back {
                self.end_outlier(&id);
                self.ramp(&id, after_return(policy.slow_start), at);
            }
            let Some(pool) = self.pools.get_mut(&name) else { continue };
            if !pool.outliers.is_due(&policy.outlier, at.now) {
                continue;
            }
            let mut samples: Vec<Sample> = Vec::new();
            let mut stay = BTreeSet::new();
            for id in enabled(at.catalog, &name) {
                let Some(backend) = self.backends.get_mut(id) else { continue };
                samples.push(backend.seen.take(id));
            }
            let Pool { outliers, ejections, peers, .. } = pool;
            let admit = |id: &BackendId| {
                let spare = peers.spare(at.catalog, &name, id, ejections);
                ejections.admit(id, EjectedBy::Outlier, spare)
            };
            for found in outliers.sweep(&policy.outlier, &samples, admit, at.now, &mut self.rng) {
                let reason = words::of_outlier(found.outlier);
                match found.ejected {
                    Ok(Ejected { lasts, times }) => {
                        let Some(backend) = self.backends.get_mut(&found.backend) else { continue };
                        backend.outlier = Some(Ejection {
                            by: EjectedBy::Outlier,
                            is_half_open: false,
                            open_for: lasts,
                            times,
                            reason,
                            since_unix_ms: at.unix_ms,
                        });
                        self.dirty.insert(found.backend);
                    }
                    Err(refused) => {
                        let reason = words::of_refusal(&reason, refused);
                        self.note_kept(&found.backend, EjectedBy::Outlier, reason.clone(), at);
                        stay.insert(found.backend.clone());
                        refusals.push((found.backend, reason));
                    }
                }
            }
            // Whoever is none any more is not kept as one.
            for id in self.retained.iter().filter(|id| !stay.contains(*id)) {
                if let Some(backend) = self.backends.get_mut(id).filter(|b| b.pool == name) {
                    backend.kept.remove(&EjectedBy::Outlier);
                }
            }
        }
        refusals
    }

    /// A backend is an outlier no more, if it was one.
    pub(super) fn end_outlier(&mut self, id: &BackendId) {
        let Some(backend) = self.backends.get_mut(id) else { return };
        backend.outlier = None;
        self.dirty.insert(id.clone());
        if let Some(pool) = self.pools.get_mut(&backend.pool) {
            pool.outliers.release(id);
            pool.ejections.release(id, EjectedBy::Outlier);
        }
    }

    /// Leads a backend up to its share, if its pool has traffic worth that and others that can
    /// bear it meanwhile.
    pub(super) fn ramp(&mut self, id: &BackendId, duration: Duration, at: At<'_>) {
        let Some(name) = self.backends.get(id).map(|backend| backend.pool.clone()) else { return };
        let pool = self.pools.entry(name.clone()).or_default();
        // Others are looked for last, for there may be many.
        let wanted = !duration.is_zero()
            && pool.deserves_ramps(at.now)
            && self.backends.iter().any(|(other, backend)| {
                other != id
                    && backend.pool == name
                    && backend.shown() == Health::Up
                    && backend.ejection().is_none()
                    && backend.is_warm(at.now)
            });
        if let Some(backend) = self.backends.get_mut(id) {
            backend.slow_start =
                wanted.then_some(SlowStart { since_unix_ms: at.unix_ms, duration });
            backend.warm_from = if wanted { at.now + duration } else { at.now };
        }
    }
}
