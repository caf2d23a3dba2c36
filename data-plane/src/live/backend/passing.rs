//! Responses that have begun and take a while.
//!
//! Whoever waits for the rest of one has been answered: the control plane is told how many others
//! still wait for a beginning. Of responses that are complete at once nothing is counted here.

use std::sync::atomic::Ordering::Relaxed;

use super::{BackendState, bump};

/// A response that is being passed on.
#[derive(Debug)]
#[must_use = "it is counted until this is dropped"]
pub(crate) struct Passing<'a> {
    backend: &'a BackendState,
    worker: usize,
}

impl BackendState {
    /// Notes that a response has begun, and takes a while: the backend is reached, however the
    /// request ends. `is_well`: with a status below 500.
    pub(crate) fn begin_passing(&self, worker: usize, is_well: bool) -> Passing<'_> {
        let counters = &self.live.workers[worker].0;
        bump(&counters.begun, is_well.into());
        // This worker alone writes it.
        counters.passing.store(counters.passing.load(Relaxed) + 1, Relaxed);
        Passing { backend: self, worker }
    }

    /// Responses below 500 that took a while.
    pub(crate) fn begun(&self) -> u64 {
        self.live.workers.iter().map(|worker| worker.0.begun.load(Relaxed)).sum()
    }

    /// Requests in flight whose response has not begun. Upgraded connections have begun.
    pub(crate) fn unanswered(&self) -> u32 {
        let workers = self.live.workers.iter();
        let passing: u32 = workers.map(|worker| worker.0.passing.load(Relaxed)).sum();
        self.in_flight().saturating_sub(passing).saturating_sub(self.upgraded())
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        let passing = &self.backend.live.workers[self.worker].0.passing;
        passing.store(passing.load(Relaxed) - 1, Relaxed);
    }
}
