//! What a proxy counts of itself, one shard for each worker.
//!
//! Every counter has one writer, its worker, and is read by the control thread: no
//! locked instruction on the request path.

pub(crate) mod report;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::live::bump;

/// The counters of one worker.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    requests: AtomicU64,
    no_healthy_backend: AtomicU64,
    no_route: AtomicU64,
    client_errors: AtomicU64,
    client_aborts: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
    /// 1xx to 5xx, as answered to clients.
    status_classes: [AtomicU64; 5],
}

/// The sums over all workers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Sums {
    pub(crate) requests: u64,
    pub(crate) no_healthy_backend: u64,
    pub(crate) no_route: u64,
    pub(crate) client_errors: u64,
    pub(crate) client_aborts: u64,
    pub(crate) status_classes: [u64; 5],
    /// A gauge.
    pub(crate) connections: u64,
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
    pub(crate) fn count_own_answer(&self, reason: &str) {
        match reason {
            "no_healthy_backend" | "config_missing" => bump(&self.no_healthy_backend, 1),
            "no_route" => bump(&self.no_route, 1),
            reason if reason.starts_with("backend_") => {}
            _ => bump(&self.client_errors, 1),
        }
    }

    pub(crate) fn count_client_abort(&self) {
        bump(&self.client_aborts, 1);
    }

    pub(crate) fn count_opened(&self) {
        bump(&self.opened, 1);
    }

    pub(crate) fn count_closed(&self) {
        bump(&self.closed, 1);
    }
}

/// Adds up the shards.
pub(crate) fn sum<'a>(shards: impl IntoIterator<Item = &'a Shard>) -> Sums {
    let mut sums = Sums::default();
    for shard in shards {
        sums.requests += shard.requests.load(Relaxed);
        sums.no_healthy_backend += shard.no_healthy_backend.load(Relaxed);
        sums.no_route += shard.no_route.load(Relaxed);
        sums.client_errors += shard.client_errors.load(Relaxed);
        sums.client_aborts += shard.client_aborts.load(Relaxed);
        let closed = shard.closed.load(Relaxed);
        sums.connections += shard.opened.load(Relaxed).saturating_sub(closed);
        for (sum, class) in sums.status_classes.iter_mut().zip(&shard.status_classes) {
            *sum += class.load(Relaxed);
        }
    }
    sums
}
