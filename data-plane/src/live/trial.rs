//! The requests that try a backend which gets none otherwise.
//!
//! Where the fleet's breaker is half-open, the control plane lets one proxy at a time send one
//! request: it has a token. Where this proxy avoids a backend by itself, it lets
//! one request at a time through once the avoidance is over. Either way the request that comes
//! first is sent there, by whichever worker has it, and how it ends decides.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use lb_core::{
    model::BreakerPolicy,
    resilience::{
        local::{Admission, LocalState},
        probe::{Fitness, HeldProbe, ProbeToken, ProbeWord, TokenId},
    },
};
use tracing::info;

use super::BackendState;

/// Where trials of one backend stand; shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Trials {
    /// What this proxy does by itself: a [`LocalState`].
    local: AtomicU64,
    /// Whether `held` has a token, so that requests lock it only then.
    has_token: AtomicBool,
    held: Mutex<HeldProbe>,
}

/// Leave for one request to try a backend. Dropped, it says nothing about the backend, and
/// another request may try.
#[derive(Debug)]
pub(crate) struct Trial {
    backend: Arc<BackendState>,
    policy: BreakerPolicy,
    /// Taken when it has ended.
    by: Option<By>,
}

/// Who lets it be tried.
#[derive(Clone, Copy, Debug)]
enum By {
    Fleet(TokenId),
    /// This proxy; with this state, unless the trial took so long that there is another.
    Proxy(LocalState),
}

impl Trials {
    fn held(&self) -> MutexGuard<'_, HeldProbe> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn local(&self) -> LocalState {
        LocalState::from_bits(self.local.load(Acquire))
    }

    fn set_local(&self, state: LocalState) {
        self.local.store(state.to_bits(), Release);
    }

    /// Exchanges one state for another; whether it was still that.
    fn exchange_local(&self, before: LocalState, after: LocalState) -> bool {
        self.local.compare_exchange(before.to_bits(), after.to_bits(), AcqRel, Relaxed).is_ok()
    }

    fn take_token(&self, request: Fitness, now: Instant) -> Option<TokenId> {
        if !self.has_token.load(Acquire) {
            return None;
        }
        let mut held = self.held();
        let taken = held.take(request, now);
        self.has_token.store(held.has_token(), Release);
        taken
    }
}

impl BackendState {
    /// Leave to try this backend, if there is any now.
    pub(crate) fn try_it(
        self: &Arc<Self>,
        policy: &BreakerPolicy,
        request: Fitness,
        now: Instant,
    ) -> Option<Trial> {
        let trials = &self.live.trials;
        let by = match trials.take_token(request, now) {
            Some(id) => By::Fleet(id),
            None => {
                let moment = self.live.trouble.moment(now);
                let state = trials.local();
                let Admission::Trial(next) = state.admission(request, moment) else {
                    return None;
                };
                // Else another worker was faster.
                trials.exchange_local(state, next).then_some(By::Proxy(next))?
            }
        };
        Some(Trial { backend: Arc::clone(self), policy: *policy, by: Some(by) })
    }

    /// Whether this proxy avoids it by itself.
    pub(crate) fn is_avoided(&self) -> bool {
        self.live.trials.local().is_avoided()
    }

    /// Avoids it from now on. For the control thread.
    pub(super) fn avoid(&self, policy: &BreakerPolicy, now: Instant, rng: &mut fastrand::Rng) {
        let trials = &self.live.trials;
        trials.set_local(trials.local().avoided(policy, self.live.trouble.moment(now), rng));
    }

    /// Goes on avoiding it for the fleet, from which nothing more is heard, and tries it after
    /// that time. For the control thread.
    pub(super) fn take_over(&self, remaining: Duration, now: Instant) {
        let trials = &self.live.trials;
        let until = self.live.trouble.moment(now) + remaining;
        trials.set_local(trials.local().taken_over(until));
    }

    /// Forgets what this proxy has against it: the fleet has decided. For the control thread.
    pub(super) fn forgive(&self) {
        self.live.trials.set_local(LocalState::CLEAN);
        self.live.failures_in_a_row.store(0, Relaxed);
    }

    /// Takes a token that came in the answer to a report that was sent at `asked`.
    pub(crate) fn give_token(&self, token: ProbeToken, asked: Instant) {
        let trials = &self.live.trials;
        let mut held = trials.held();
        held.receive(token, asked);
        trials.has_token.store(held.has_token(), Release);
    }

    /// What report number `report` says about its token.
    pub(crate) fn probe_word(&self, report: u64) -> Option<ProbeWord> {
        self.live.trials.held().word(report)
    }

    /// Reports up to this one have been heard; whether there is anything more to be said about
    /// its token at `now`.
    pub(crate) fn acknowledge_probe(&self, report: u64, now: Instant) -> bool {
        let mut held = self.live.trials.held();
        held.acknowledge(report);
        held.expire(now);
        self.live.trials.has_token.store(held.has_token(), Release);
        !held.is_idle()
    }
}

impl Trial {
    /// Says how it ended: a success is a response with a status below 500.
    pub(crate) fn end(mut self, succeeded: bool, now: Instant, rng: &mut fastrand::Rng) {
        let live = &self.backend.live;
        match self.by.take() {
            Some(By::Fleet(id)) => {
                live.trials.held().finish(id, succeeded);
                live.trouble.news.notify_one();
            }
            Some(By::Proxy(state)) => {
                let moment = live.trouble.moment(now);
                let next = if succeeded {
                    state.succeeded(&self.policy, moment)
                } else {
                    state.failed(&self.policy, moment, rng)
                };
                if live.trials.exchange_local(state, next) && succeeded {
                    let backend = &self.backend.identity.id;
                    info!(%backend, pool = %self.backend.pool, "it answers this proxy again and gets its requests");
                    // Those that it failed before belong to another time.
                    live.failures_in_a_row.store(0, Relaxed);
                    live.trouble.look.notify_one();
                }
            }
            None => {}
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let live = &self.backend.live;
        match self.by.take() {
            Some(By::Fleet(id)) => live.trials.held().abandon(id),
            Some(By::Proxy(state)) => {
                let moment = live.trouble.moment(crate::worker::now());
                live.trials.exchange_local(state, state.abandoned(moment));
            }
            None => {}
        }
    }
}
