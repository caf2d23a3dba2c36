//! What clients were answered, and how long they waited: the counters of one worker.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lb_core::stats::{LATENCY_BUCKETS, LatencyHistogram};

use crate::live::bump;

/// Counted by one worker, read by the control thread.
#[derive(Debug)]
pub(crate) struct AnswerCounters {
    /// 1xx to 5xx.
    status_classes: [AtomicU64; 5],
    sum_us: AtomicU64,
    durations: [AtomicU64; LATENCY_BUCKETS],
}

/// Added up over workers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Answers {
    /// 1xx to 5xx.
    pub(crate) status_classes: [u64; 5],
    /// From the complete head of a request to the end of its answer.
    pub(crate) durations: LatencyHistogram,
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
}

impl Answers {
    /// Adds what a worker has counted.
    pub(crate) fn add(&mut self, counters: &AnswerCounters) {
        for (total, count) in self.status_classes.iter_mut().zip(&counters.status_classes) {
            *total += count.load(Relaxed);
        }
        let counts = counters.durations.iter().map(|count| count.load(Relaxed));
        let used = (0u32..).zip(counts).filter(|(_, count)| *count > 0);
        let sum_us = counters.sum_us.load(Relaxed);
        self.durations.add(&LatencyHistogram::from_sparse(used, sum_us));
    }
}

impl Default for AnswerCounters {
    fn default() -> Self {
        Self {
            status_classes: Default::default(),
            sum_us: AtomicU64::new(0),
            durations: [const { AtomicU64::new(0) }; LATENCY_BUCKETS],
        }
    }
}
