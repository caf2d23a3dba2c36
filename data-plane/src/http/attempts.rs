//! What one request has been through: the backend that it counts at, those to which it was
//! sent, and whether another one comes next.
//!
//! The shell around [`lb_core::resilience::retry`], which says what may be sent again.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::{Duration, Instant},
};

use lb_core::{
    affinity::KeyRing,
    resilience::retry::{self, ATTEMPTS_MAX, Decision, Failed, Fault, Why, decide},
};

use super::{
    affinity::Tie,
    exchange::Exchange,
    failure::Failure,
    limited::OverLimits,
    prepare::Prepared,
    presence,
    relay::Relay,
    respond::OwnAnswer,
    stream::{Presence, Stream},
};
use crate::{
    live::{BackendState, CountedBy, PoolConfig, PoolIndex},
    reason::Reason,
    worker::{Worker, now},
};

/// A request that counts as in flight.
pub(super) struct InFlight<'a> {
    backend: &'a Arc<BackendState>,
    by: CountedBy,
}

impl<'a> InFlight<'a> {
    pub(super) fn enter(backend: &'a Arc<BackendState>, by: CountedBy) -> Self {
        backend.enter(by);
        Self { backend, by }
    }

    /// Ends it; one that failed goes on counting for a while where a picker looks.
    pub(super) fn end(self, failed: bool, worker: &Worker, pool: &PoolConfig) {
        if failed && !pool.error_hold.is_zero() {
            worker.hold(self.backend, now(), pool.error_hold);
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.backend.leave(self.by);
    }
}

/// The backend that is tried next, and after which wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Again {
    pub(super) slot: u32,
    pub(super) wait: Duration,
    /// It is one of this pool, which stands in for the request's own.
    pub(super) spare: Option<PoolIndex>,
}

/// The attempts at one request.
#[derive(Debug)]
pub(super) struct Attempts<'c> {
    pool: &'c PoolConfig,
    prepared: &'c Prepared,
    /// What signs sessions.
    pub(super) ring: Option<&'c KeyRing>,
    /// What is known of the client's.
    pub(super) tie: Tie,
    /// The request's time is for all of them together.
    started: Instant,
    slots: [u32; ATTEMPTS_MAX as usize],
    /// Those in this pool, of which the slots are.
    count: u32,
    /// Those before, in the request's own pool.
    before: u32,
    /// Those that took a permit.
    retries: u32,
    /// A kept connection has ended under it.
    pub(super) met_kept_end: bool,
    last: Option<Failure>,
    /// It waited for room until then.
    waited_until: Option<Instant>,
    /// It was sent nowhere, for want of room.
    denied: Option<Box<OwnAnswer>>,
    /// Backends that have had what a limit lets them have, and the soonest end of that.
    pub(super) over_limit: Option<Box<OverLimits>>,
}

impl<'c> Attempts<'c> {
    pub(super) fn new(
        pool: &'c PoolConfig,
        prepared: &'c Prepared,
        ring: Option<&'c KeyRing>,
        started: Instant,
    ) -> Self {
        Self {
            pool,
            prepared,
            ring,
            tie: Tie::default(),
            started,
            slots: [0; ATTEMPTS_MAX as usize],
            count: 0,
            before: 0,
            retries: 0,
            met_kept_end: false,
            last: None,
            waited_until: None,
            denied: None,
            over_limit: None,
        }
    }

    /// Notes that this backend is tried, and from when on.
    pub(super) fn begin(&mut self, slot: u32) -> Instant {
        let began = match self.waited_until.take() {
            Some(until) => until,
            None if self.count == 0 => self.started,
            None => now(),
        };
        // `decide` lets no more attempts begin than there is room for.
        if let Some(free) = self.slots.get_mut(self.count as usize) {
            *free = slot;
            self.count += 1;
        }
        began
    }

    /// The backends that were tried, the present one included.
    pub(super) fn slots(&self) -> &[u32] {
        &self.slots[..self.count as usize]
    }

    /// The backend that is tried at present.
    pub(super) fn current(&self) -> Option<u32> {
        self.slots().last().copied()
    }

    /// The client's own backend, unless it was tried.
    pub(super) fn wanted(&self) -> Option<u32> {
        self.tie.own.filter(|own| !self.slots().contains(own) && !self.over_slots().contains(own))
    }

    /// The backends that a limit keeps this request from.
    pub(super) fn over_slots(&self) -> &[u32] {
        self.over_limit.as_ref().map_or(&[], |over| &over.slots)
    }

    /// When the request's time began.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Lets the request's time begin now: until then it was its client that took it.
    pub(super) fn begin_time(&mut self, now: Instant) {
        self.started = now;
    }

    pub(super) fn pool(&self) -> &'c PoolConfig {
        self.pool
    }

    pub(super) fn prepared(&self) -> &'c Prepared {
        self.prepared
    }

    /// Goes on in another pool, where the request has been nowhere and has no session. What it has
    /// been through counts on: the time, the attempts, and the retries.
    pub(super) fn move_to(&mut self, pool: &'c PoolConfig, now: Instant) {
        self.pool = pool;
        (self.ring, self.tie) = (None, Tie::default());
        (self.before, self.count) = (self.before + self.count, 0);
        self.over_limit = None;
        // A first attempt there, which does not begin with the request.
        self.waited_until = Some(now);
    }

    /// The next one begins only now, since there was no room before. The request has as
    /// much time as if it had come later.
    pub(super) fn waited(&mut self, wait: Duration, now: Instant) {
        self.started += wait;
        self.waited_until = Some(now);
    }

    /// Notes that there is no room for another one.
    pub(super) fn denied(&mut self, answer: OwnAnswer) {
        self.denied = Some(Box::new(answer));
    }

    /// Notes why the last one failed.
    pub(super) fn failed(&mut self, failure: Failure) {
        self.last = Some(failure);
    }

    /// Whether there is a backend that was not tried yet.
    pub(super) fn may_follow(&self) -> bool {
        if self.tie.is_strict {
            return false;
        }
        // One that was tried although it is not picked leaves all others.
        let is_picked = |slot: &&u32| {
            let caution = self.pool.caution.as_ref();
            let sticky = self.pool.sticky.as_ref();
            caution.is_none_or(|caution| caution.is_picked(**slot))
                && sticky.is_none_or(|sticky| sticky.is_picked(**slot))
        };
        self.pool.picker.len() > self.slots().iter().filter(is_picked).count()
    }

    /// How long the present one may take until its response's head: without a limit of
    /// its own unless the request can be sent to another one. `has_spare` tells whether another
    /// pool would take it.
    pub(super) fn try_timeout(
        &self,
        is_replayable: bool,
        has_spare: impl FnOnce() -> bool,
    ) -> Option<Duration> {
        let timeout = self.pool.retry.try_timeout?;
        let decision = decide(&self.pool.retry, &self.so_far(Fault::TryTimeout, is_replayable));
        (decision == Decision::Retry && (self.may_follow() || has_spare())).then_some(timeout)
    }

    fn so_far(&self, fault: Fault, is_replayable: bool) -> Failed {
        Failed {
            fault,
            is_idempotent: self.prepared.understood.method.is_idempotent(),
            is_replayable,
            attempts: self.before + self.count,
            retries: self.retries,
        }
    }

    /// Whether a request whose kept connection has ended may be sent once more to the same
    /// backend, the only one. If so, it must be: its permit is taken.
    pub(super) fn may_repeat(&mut self, fault: Fault) -> bool {
        let decision = decide(&self.pool.retry, &self.so_far(fault, true));
        let may = decision == Decision::Retry && self.pool.retries.take();
        self.retries += u32::from(may);
        may
    }

    /// Whether the request may have reached the last one.
    pub(super) fn was_written(&self) -> bool {
        self.last.as_ref().is_some_and(|failure| failure.written)
    }

    /// What the client is told when all is in vain.
    pub(super) fn answer(self) -> OwnAnswer {
        let pool = self.pool;
        let Some(failure) = self.last else {
            // It has backends, which have no room for this one.
            if let Some(denied) = self.denied {
                return *denied;
            }
            if let Some(answer) = &pool.fallback.answer {
                pool.fallen.to_answer.fetch_add(1, Relaxed);
                return OwnAnswer::fixed(answer, Reason::NoHealthyBackend);
            }
            let message = if pool.backends.is_empty() {
                format!(
                    "pool {0} has no backends; add one with lbctl add-backend HOST:PORT --pool {0}",
                    pool.name
                )
            } else {
                format!(
                    "pool {0} has {1} {2}, and none can serve now; lbctl describe pool {0} says why",
                    pool.name,
                    pool.backends.len(),
                    if pool.backends.len() == 1 { "backend" } else { "backends" },
                )
            };
            return OwnAnswer::new(503, Reason::NoHealthyBackend, message);
        };
        OwnAnswer::new(failure.status(), failure.reason, failure.message)
    }
}

impl<S: Stream> Exchange<'_, S> {
    /// Whether a request whose present attempt has come to this goes to another backend.
    ///
    /// If so, it must go there: its permit is taken.
    pub(super) fn again(
        &mut self,
        attempts: &mut Attempts<'_>,
        fault: Fault,
        upload: &Relay,
    ) -> Option<Again> {
        let (pool, at) = (attempts.pool, now());
        if !upload.is_read() {
            attempts.begin_time(at);
        }
        let decision = decide(&pool.retry, &attempts.so_far(fault, upload.is_replayable()));
        let wait = match decision {
            Decision::Elsewhere => Duration::ZERO,
            Decision::Retry if fault == Fault::KeptEnded => Duration::ZERO,
            Decision::Retry => retry::backoff(attempts.retries, &mut self.worker.rng.borrow_mut()),
            Decision::GiveUp(why) => {
                // Where there are no retries at all, that they are used up tells nothing.
                if why == Why::Exhausted && pool.retry.retries > 0 {
                    self.refuse_retry(Reason::RetriesExhausted);
                }
                return None;
            }
        };
        let is_in_time = at - attempts.started + wait < pool.request_timeout;
        if !is_in_time {
            return None;
        }
        let may_follow = attempts.may_follow();
        if !may_follow && self.spare(attempts).is_none() {
            return None;
        }
        if decision == Decision::Retry {
            if !pool.retries.take() {
                self.refuse_retry(Reason::RetryBudgetExhausted);
                return None;
            }
            attempts.retries += 1;
        }
        if may_follow
            && let Some(slot) = self.pick(pool, attempts.prepared, attempts.slots(), None, at)
        {
            return Some(Again { slot, wait, spare: None });
        }
        self.again_elsewhere(attempts, wait, at)
    }

    fn refuse_retry(&mut self, reason: Reason) {
        if self.is_traffic {
            self.worker.shard.count_retry_refused(reason);
        }
        if let Some(record) = &mut self.record {
            record.not_retried(reason);
        }
    }

    /// Waits before a retry. Whether the client is still there.
    pub(super) async fn wait(&mut self, wait: Duration) -> bool {
        let (connection, client_in) = (&mut *self.connection, &mut self.client_in);
        self.worker.wheel.arm(&connection.timer, now(), wait);
        let is_there = poll_fn(|context| {
            // One that says no more still listens for a moment, which is longer than this takes.
            if presence::look(&mut connection.stream, client_in, context) == Presence::Reset {
                return Poll::Ready(false);
            }
            connection.timer.poll(context).map(|()| true)
        })
        .await;
        if let Some(record) = &mut self.record {
            record.waited(now());
        }
        is_there
    }
}
