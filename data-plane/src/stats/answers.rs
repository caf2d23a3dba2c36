//! What clients were answered, and how long they waited: the counters of one worker.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lb_core::stats::{LATENCY_BUCKETS, LatencyHistogram};

use super::ByReason;
use crate::{live::bump, reason::Reason};

/// Counted by one worker, read by the control thread.
#[derive(Debug)]
pub(crate) struct AnswerCounters {
    /// 1xx to 5xx.
    status_classes: [AtomicU64; 5],
    sum_us: AtomicU64,
    durations: [AtomicU64; LATENCY_BUCKETS],
    /// Responses that had begun and were not brought to their end.
    broken: AtomicU64,
    /// Why clients were failed, as far as that was the proxy's word: its own 5xx, and what broke.
    failures: ByReason<AtomicU64>,
}

/// Added up over workers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Answers {
    /// 1xx to 5xx.
    pub(crate) status_classes: [u64; 5],
    /// From the complete head of a request to the end of its answer.
    pub(crate) durations: LatencyHistogram,
    /// Responses that had begun and were not brought to their end.
    pub(crate) broken: u64,
    failures: ByReason<u64>,
}

impl AnswerCounters {
    /// Notes an answer, and how many microseconds it took if its request was complete.
    pub(crate) fn count(&self, status: u16, took_us: Option<u64>) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        bump(&self.status_classes[class], 1);
        if let Some(us) = took_us {
            bump(&self.sum_us, us);
            bump(&self.durations[LatencyHistogram::bucket_of(us)], 1);
        }
    }

    /// Notes why the proxy itself answered 5xx.
    #[cold]
    pub(crate) fn count_failure(&self, reason: Reason) {
        bump(&self.failures.0[reason as usize], 1);
    }

    /// Notes why a response that had begun was not brought to its end.
    #[cold]
    pub(crate) fn count_broken(&self, reason: Reason) {
        bump(&self.broken, 1);
        self.count_failure(reason);
    }

    /// What tells whether anything was counted since.
    pub(crate) fn add_classes(&self, sums: &mut [u64; 5]) {
        for (sum, count) in sums.iter_mut().zip(&self.status_classes) {
            *sum += count.load(Relaxed);
        }
    }
}

impl Answers {
    /// The sums of what workers have counted.
    pub(crate) fn of<'c>(counters: impl Iterator<Item = &'c AnswerCounters>) -> Self {
        let mut sums = Self::default();
        counters.for_each(|one| sums.add(one));
        sums
    }

    fn add(&mut self, counters: &AnswerCounters) {
        counters.add_classes(&mut self.status_classes);
        let counts = counters.durations.iter().map(|count| count.load(Relaxed));
        let used = (0u32..).zip(counts).filter(|(_, count)| *count > 0);
        let sum_us = counters.sum_us.load(Relaxed);
        self.durations.add(&LatencyHistogram::from_sparse(used, sum_us));
        self.broken += counters.broken.load(Relaxed);
        for (sum, count) in self.failures.0.iter_mut().zip(&counters.failures.0) {
            *sum += count.load(Relaxed);
        }
    }

    /// Adds what was counted elsewhere.
    pub(crate) fn add_all(&mut self, other: &Self) {
        for (sum, count) in self.status_classes.iter_mut().zip(other.status_classes) {
            *sum += count;
        }
        self.durations.add(&other.durations);
        self.broken += other.broken;
        for (sum, count) in self.failures.0.iter_mut().zip(other.failures.0) {
            *sum += count;
        }
    }

    /// What was counted since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut new = self.clone();
        for (count, before) in new.status_classes.iter_mut().zip(before.status_classes) {
            *count -= before;
        }
        new.durations = self.durations.since(&before.durations);
        new.broken -= before.broken;
        for (count, before) in new.failures.0.iter_mut().zip(before.failures.0) {
            *count -= before;
        }
        new
    }

    /// Why clients were failed, as far as the proxy knows, with how often.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(self.failures.0).filter(|(_, count)| *count > 0)
    }
}

impl Default for AnswerCounters {
    fn default() -> Self {
        Self {
            status_classes: Default::default(),
            sum_us: AtomicU64::new(0),
            durations: [const { AtomicU64::new(0) }; LATENCY_BUCKETS],
            broken: AtomicU64::new(0),
            failures: ByReason::default(),
        }
    }
}
