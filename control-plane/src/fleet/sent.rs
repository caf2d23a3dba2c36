//! What was sent to proxies, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What was sent to all proxies since the control plane started.
#[derive(Debug, Default)]
pub struct Sent {
    /// Whole states.
    pub snapshots: Transmissions,
    /// Changes.
    pub deltas: Transmissions,
}

/// One kind of transmission.
#[derive(Debug, Default)]
pub struct Transmissions {
    count: AtomicU64,
    bytes: AtomicU64,
}

impl Transmissions {
    /// Counts one more, of this size.
    pub fn add(&self, bytes: u64) {
        self.count.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// How many, and their bytes.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        (self.count.load(Relaxed), self.bytes.load(Relaxed))
    }
}
