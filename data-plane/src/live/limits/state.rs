//! One limit in this process: what outlives configurations.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lb_core::{
    limit::{Bucket, Decision, KeyHasher},
    model::{Incarnation, Limit, LimitName},
};

use crate::live::{Identity, Padded, bump};

/// The buckets of one limit, and what it came to.
#[derive(Debug)]
pub(crate) struct LimitState {
    pub(crate) name: LimitName,
    pub(crate) incarnation: Incarnation,
    /// Unique in this process's life.
    pub(crate) serial: u64,
    /// Turns keys into numbers that all proxies use.
    pub(crate) hasher: KeyHasher,
    /// Of a limit without a key.
    bucket: Bucket,
    /// One writer each; the control thread reads them all.
    workers: Box<[Padded<Counts>]>,
}

#[derive(Debug, Default)]
struct Counts {
    taken: AtomicU64,
    /// Of those taken, for requests that another limit refused.
    returned: AtomicU64,
    refused: AtomicU64,
}

/// What a limit came to in this process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct LimitSums {
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
    /// Keys that lost their place before their bucket was full again.
    pub(crate) forgiven: u64,
}

impl LimitState {
    /// Nothing was asked for yet.
    pub(super) fn new(limit: &Limit, serial: u64, workers: usize) -> Self {
        Self {
            name: limit.name.clone(),
            incarnation: limit.incarnation,
            serial,
            hasher: KeyHasher::new(limit.secret),
            bucket: Bucket::new(),
            workers: (0..workers).map(|_| Padded::default()).collect(),
        }
    }

    pub(super) fn is_of(&self, limit: &Limit) -> bool {
        // A control plane that lost its store has another secret for a limit that is declared
        // again, and no two proxies may know one key by two numbers.
        (&self.name, self.incarnation) == (&limit.name, limit.incarnation)
            && self.hasher.is_of(limit.secret)
    }

    /// The number of a backend, for a limit over each of them.
    pub(crate) fn backend_key(&self, backend: &Identity) -> u64 {
        let mut name = [0; 80];
        let id = backend.id.as_str().as_bytes();
        let (length, incarnation) = (id.len().min(64), backend.incarnation.0.to_le_bytes());
        name[..8].copy_from_slice(&incarnation);
        name[8..8 + length].copy_from_slice(&id[..length]);
        self.hasher.bytes(&name[..8 + length])
    }

    /// The bucket of a limit without a key.
    pub(super) fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Counts a decision.
    #[inline]
    pub(super) fn count(&self, worker: usize, decision: &Decision) {
        let counts = &self.workers[worker].0;
        bump(if decision.is_admitted() { &counts.taken } else { &counts.refused }, 1);
    }

    /// Counts a request that is let pass.
    #[inline]
    pub(super) fn count_taken(&self, worker: usize) {
        bump(&self.workers[worker].0.taken, 1);
    }

    /// Counts a token that was given back.
    pub(super) fn count_returned(&self, worker: usize) {
        bump(&self.workers[worker].0.returned, 1);
    }

    /// What it came to, over all workers.
    pub(super) fn sums(&self) -> LimitSums {
        let mut sums = LimitSums::default();
        for Padded(counts) in &self.workers {
            // What was returned was taken before.
            let returned = counts.returned.load(Relaxed);
            sums.admitted += counts.taken.load(Relaxed).saturating_sub(returned);
            sums.refused += counts.refused.load(Relaxed);
        }
        sums
    }
}
