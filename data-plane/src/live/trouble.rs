//! How the workers tell the control thread that a backend fails.
//!
//! Only what has failed comes here. Workers go on at once; what follows from it is decided on
//! the control thread, and comes back as a configuration.

use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::worker::now;

/// Wakes the control thread.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// What the moments of avoidances are counted from.
    start: Instant,
    /// Counts failures of all backends, each after the backend has counted it.
    failures: AtomicU64,
    /// Something that the control plane should hear of soon.
    pub(crate) news: Notify,
    /// It should be looked anew at which backends are picked.
    pub(crate) look: Notify,
}

impl Trouble {
    pub(crate) fn new() -> Self {
        Self { start: now(), failures: AtomicU64::new(0), news: Notify::new(), look: Notify::new() }
    }

    /// A request to some backend has failed, and the backend has counted it.
    pub(super) fn note_failure(&self) {
        self.failures.fetch_add(1, Release);
        self.news.notify_one();
    }

    /// How many requests have failed. Whoever finds no backend failing after it has asked this
    /// knows that none is for as long as the answer stays the same.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Acquire)
    }

    /// The time that has passed since this process began to count.
    pub(super) fn moment(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }
}
