//! What the workers and the control thread share about the retries of one pool.
//!
//! Workers count requests and take permits; the control thread reads the one and grants
//! the other, four times a second ([`crate::retry_budget`]).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lb_core::resilience::retry_budget::Allowance;

use super::{Padded, bump};

/// Requests and permits of one pool in this process.
#[derive(Debug)]
pub(crate) struct Retries {
    allowance: Allowance,
    /// First attempts; one writer each.
    requests: Box<[Padded<AtomicU64>]>,
    /// Permits of ten seconds, as of the last grant, and how many of those that were not spent
    /// are to be granted later.
    earned: AtomicU64,
    later: AtomicU64,
}

impl Retries {
    /// No permits, until the first grant.
    pub(super) fn new(workers: usize) -> Self {
        Self {
            allowance: Allowance::default(),
            requests: (0..workers).map(|_| Padded::default()).collect(),
            earned: AtomicU64::new(0),
            later: AtomicU64::new(0),
        }
    }

    /// Notes a worker's first attempt at a request.
    pub(crate) fn count_request(&self, worker: usize) {
        bump(&self.requests[worker].0, 1);
    }

    /// First attempts so far, of all workers.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.iter().map(|count| count.0.load(Relaxed)).sum()
    }

    /// Takes the permit of one retry, if there is one.
    pub(crate) fn take(&self) -> bool {
        self.allowance.take()
    }

    /// Grants permits anew. `tick` is told how many of the last grant were spent, and says how
    /// many there are from now on, how many there are in ten seconds, and how many of those were
    /// spent.
    pub(crate) fn renew(&self, granted: u32, tick: impl FnOnce(u32) -> (u32, u64, u64)) -> u32 {
        self.allowance.renew(granted, |spent| {
            let (permits, earned, spent_lately) = tick(spent);
            let left = earned.saturating_sub(spent_lately);
            self.earned.store(earned, Relaxed);
            self.later.store(left.saturating_sub(permits.into()), Relaxed);
            permits
        })
    }

    /// Which part of the budget is left: 1 while nothing is retried, 0 when nothing may be.
    pub(crate) fn remaining_ratio(&self) -> f64 {
        match self.earned.load(Relaxed) {
            0 => 0.0,
            earned => {
                let left = u64::from(self.allowance.left()) + self.later.load(Relaxed);
                left as f64 / earned as f64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_as_a_part_of_what_there_was() {
        let retries = Retries::new(2);
        assert_eq!((retries.take(), retries.remaining_ratio()), (false, 0.0));
        retries.renew(0, |_| (3, 8, 5));
        assert!(retries.take());
        assert_eq!(retries.remaining_ratio(), 0.25);
        retries.renew(3, |spent| (2 - spent, 7, 5 + u64::from(spent)));
        assert_eq!(retries.remaining_ratio(), 1.0 / 7.0);
        retries.renew(1, |_| (5, 100, 10));
        assert!(retries.take());
        assert_eq!(retries.remaining_ratio(), 0.89, "what is granted later counts");
    }

    #[test]
    fn requests_of_all_workers_add_up() {
        let retries = Retries::new(2);
        for worker in [0, 1, 1] {
            retries.count_request(worker);
        }
        assert_eq!(retries.requests(), 3);
    }
}
