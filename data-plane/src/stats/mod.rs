//! What a proxy counts of itself, one shard for each worker.
//!
//! Every counter has one writer, its worker, and is read by the control thread: no
//! locked instruction on the request path.

mod answers;
mod changes;
mod clients;
mod limits;
mod process;
pub(crate) mod report;
mod sessions;
mod tracked;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(crate) use self::answers::{AnswerCounters, Answers};
use crate::{live::bump, reason::Reason};

/// One of each [`Reason`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ByReason<T>([T; Reason::ALL.len()]);

/// The counters of one worker.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    requests: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
    /// 1xx to 5xx, as answered to clients.
    status_classes: [AtomicU64; 5],
    /// Of these, those to requests of no route.
    pub(crate) unrouted: AnswerCounters,
    /// By [`Reason`].
    reasons: ByReason<AtomicU64>,
    /// Requests that went to another backend, by the reason why they left the last one.
    retries: ByReason<AtomicU64>,
    /// Requests that could have been sent again and were not, by the reason.
    retries_refused: ByReason<AtomicU64>,
    /// Connections to backends that were made.
    connects: AtomicU64,
    /// Connections of clients that were closed while they were idle, to make room.
    idle_closed: AtomicU64,
    /// Idle connections to backends, as of the last sweep. A gauge.
    idle: AtomicU64,
}

/// The sums over all workers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Sums {
    pub(crate) requests: u64,
    pub(crate) status_classes: [u64; 5],
    /// Of the access log, which is one for all workers and counts for itself.
    pub(crate) access_log_dropped: u64,
    reasons: ByReason<u64>,
    retries: ByReason<u64>,
    retries_refused: ByReason<u64>,
    pub(crate) connects: u64,
    /// Client connections that were ever accepted.
    pub(crate) opened: u64,
    /// Client connections that were closed while they were idle, to make room.
    pub(crate) idle_closed: u64,
    /// A gauge.
    pub(crate) connections: u64,
    /// A gauge, half a second old.
    pub(crate) idle: u64,
}

impl<T: Default> Default for ByReason<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

impl Shard {
    pub(crate) fn count_request(&self) {
        bump(&self.requests, 1);
    }

    /// Notes the status that a client was given.
    pub(crate) fn count_status(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        bump(&self.status_classes[class], 1);
    }

    /// Notes an answer that the proxy gave by itself.
    pub(crate) fn count_own_answer(&self, reason: Reason) {
        bump(&self.reasons.0[reason as usize], 1);
    }

    pub(crate) fn count_client_abort(&self) {
        self.count_own_answer(Reason::ClientAbort);
    }

    /// Notes that a request left a backend for another one.
    pub(crate) fn count_retry(&self, reason: Reason) {
        bump(&self.retries.0[reason as usize], 1);
    }

    /// Notes that a request that failed was not sent again, although it could have been.
    pub(crate) fn count_retry_refused(&self, reason: Reason) {
        bump(&self.retries_refused.0[reason as usize], 1);
    }

    /// Notes that a backend was connected to.
    pub(crate) fn count_connect(&self) {
        bump(&self.connects, 1);
    }

    /// Notes that so many idle clients had to make room.
    pub(crate) fn count_idle_closed(&self, count: usize) {
        bump(&self.idle_closed, count as u64);
    }

    /// Says how many connections to backends are idle.
    pub(crate) fn set_idle(&self, count: usize) {
        self.idle.store(count as u64, Relaxed);
    }

    /// How many connections to backends were idle when that was said last.
    pub(crate) fn idle(&self) -> u64 {
        self.idle.load(Relaxed)
    }

    fn arrays(&self) -> [&[AtomicU64]; 4] {
        [&self.status_classes, &self.reasons.0, &self.retries.0, &self.retries_refused.0]
    }

    pub(crate) fn count_opened(&self) {
        bump(&self.opened, 1);
    }

    pub(crate) fn count_closed(&self) {
        bump(&self.closed, 1);
    }
}

impl Sums {
    /// All that is counted by class or reason, in the order of [`Shard::arrays`].
    fn arrays_mut(&mut self) -> [&mut [u64]; 4] {
        [
            &mut self.status_classes,
            &mut self.reasons.0,
            &mut self.retries.0,
            &mut self.retries_refused.0,
        ]
    }

    fn arrays(&self) -> [&[u64]; 4] {
        [&self.status_classes, &self.reasons.0, &self.retries.0, &self.retries_refused.0]
    }

    /// How often something ended for this reason.
    pub(crate) fn of(&self, reason: Reason) -> u64 {
        self.reasons.0[reason as usize]
    }

    /// How often a request went to another backend for this reason.
    pub(crate) fn retries(&self, reason: Reason) -> u64 {
        self.retries.0[reason as usize]
    }

    /// How often a request was not sent again for this reason.
    pub(crate) fn retries_refused(&self, reason: Reason) -> u64 {
        self.retries_refused.0[reason as usize]
    }

    /// What was counted since `before`; gauges are those of now.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut new = *self;
        new.requests -= before.requests;
        new.access_log_dropped -= before.access_log_dropped;
        new.connects -= before.connects;
        new.opened -= before.opened;
        new.idle_closed -= before.idle_closed;
        for (counts, before) in new.arrays_mut().into_iter().zip(before.arrays()) {
            for (count, before) in counts.iter_mut().zip(before) {
                *count -= before;
            }
        }
        new
    }
}

/// Adds up the shards.
pub(crate) fn sum<'a>(shards: impl IntoIterator<Item = &'a Shard>) -> Sums {
    let mut sums = Sums::default();
    for shard in shards {
        sums.requests += shard.requests.load(Relaxed);
        let closed = shard.closed.load(Relaxed);
        let opened = shard.opened.load(Relaxed);
        sums.opened += opened;
        sums.connections += opened.saturating_sub(closed);
        sums.connects += shard.connects.load(Relaxed);
        sums.idle_closed += shard.idle_closed.load(Relaxed);
        sums.idle += shard.idle.load(Relaxed);
        for (totals, counts) in sums.arrays_mut().into_iter().zip(shard.arrays()) {
            for (total, count) in totals.iter_mut().zip(counts) {
                *total += count.load(Relaxed);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_add_up_by_reason() {
        let shards = [Shard::default(), Shard::default()];
        shards[0].count_own_answer(Reason::NoRoute);
        shards[1].count_own_answer(Reason::NoRoute);
        shards[1].count_own_answer(Reason::HeaderTooLarge);
        shards[1].count_client_abort();
        shards[1].count_status(431);
        let sums = sum(&shards);
        assert_eq!(sums.of(Reason::NoRoute), 2);
        assert_eq!(sums.of(Reason::HeaderTooLarge), 1);
        assert_eq!(sums.of(Reason::ClientAbort), 1);
        assert_eq!(sums.status_classes, [0, 0, 0, 1, 0]);
    }

    #[test]
    fn what_was_told_before_is_not_told_again() {
        let shard = Shard::default();
        shard.count_opened();
        shard.count_request();
        shard.count_own_answer(Reason::NoRoute);
        shard.count_retry_refused(Reason::RetriesExhausted);
        let before = sum([&shard]);
        shard.count_own_answer(Reason::NoRoute);
        shard.count_retry_refused(Reason::RetriesExhausted);
        shard.count_retry(Reason::BackendStatus);
        shard.count_own_answer(Reason::Overloaded);
        let new = sum([&shard]).since(&before);
        assert_eq!((new.requests, new.connections), (0, 1));
        assert_eq!(new.retries_refused(Reason::RetriesExhausted), 1);
        assert_eq!(new.retries(Reason::BackendStatus), 1);
        assert_eq!((new.of(Reason::NoRoute), new.of(Reason::Overloaded)), (1, 1));
    }
}
