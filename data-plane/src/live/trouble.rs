//! How the workers tell the control thread that a backend fails.
//!
//! Only what has failed comes here. Workers go on at once; what follows from it is decided on
//! the control thread, and comes back as a configuration.

use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::worker::now;

/// Wakes the control thread.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// What the moments of avoidances are counted from.
    start: Instant,
    /// Something that the control plane should hear of soon.
    pub(crate) news: Notify,
    /// It should be looked anew at which backends are picked.
    pub(crate) look: Notify,
}

impl Trouble {
    pub(crate) fn new() -> Self {
        Self { start: now(), news: Notify::new(), look: Notify::new() }
    }

    /// The time that has passed since this process began to count.
    pub(super) fn moment(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }
}
