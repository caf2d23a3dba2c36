//! What one request has been through: the backend that it counts at, and those on which
//! it has failed.

use std::sync::Arc;

use super::{failure::Failure, respond::OwnAnswer};
use crate::{
    live::{BackendState, CountedBy, PoolConfig},
    reason::Reason,
    worker::{Worker, now},
};

/// Backends that one request tries at most.
const ATTEMPTS_MAX: usize = 32;

/// A request that counts as in flight.
pub(super) struct InFlight<'a> {
    backend: &'a Arc<BackendState>,
    by: CountedBy,
}

impl<'a> InFlight<'a> {
    pub(super) fn enter(backend: &'a Arc<BackendState>, by: CountedBy) -> Self {
        backend.enter(by);
        Self { backend, by }
    }

    /// Ends it; one that failed goes on counting for a while where a picker looks.
    pub(super) fn end(self, failed: bool, worker: &Worker, pool: &PoolConfig) {
        if failed && !pool.error_hold.is_zero() {
            worker.hold(self.backend, now(), pool.error_hold);
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.backend.leave(self.by);
    }
}

/// Whether a request that has failed so may go to another backend: always while nothing of
/// it was written, and once more if it was, can be repeated and is still all there.
pub(super) fn may_be_tried_again(
    failure: &Failure,
    is_idempotent: bool,
    is_replayable: bool,
    resent: &mut bool,
) -> bool {
    if !failure.written {
        return failure.kind.is_some();
    }
    let is_first = !std::mem::replace(resent, true);
    is_first && is_idempotent && failure.resendable && is_replayable
}

/// The backends on which a request has failed.
#[derive(Debug)]
pub(super) struct Tried {
    slots: [u32; ATTEMPTS_MAX],
    count: usize,
    last: Option<Failure>,
}

impl Default for Tried {
    fn default() -> Self {
        Self { slots: [0; ATTEMPTS_MAX], count: 0, last: None }
    }
}

impl Tried {
    pub(super) fn slots(&self) -> &[u32] {
        &self.slots[..self.count]
    }

    /// Why the last one failed.
    pub(super) fn last_reason(&self) -> Reason {
        self.last.as_ref().map_or(Reason::Internal, |failure| failure.reason)
    }

    /// Whether the request may have reached the last one.
    pub(super) fn was_written(&self) -> bool {
        self.last.as_ref().is_some_and(|failure| failure.written)
    }

    /// Whether another one may be tried.
    pub(super) fn add(&mut self, slot: u32, failure: Failure) -> bool {
        self.last = Some(failure);
        if let Some(free) = self.slots.get_mut(self.count) {
            *free = slot;
            self.count += 1;
        }
        self.count < ATTEMPTS_MAX
    }

    pub(super) fn answer(self, pool: &PoolConfig) -> OwnAnswer {
        let Some(failure) = self.last else {
            let message = if pool.backends.is_empty() {
                format!(
                    "pool {} has no backends; add one with lbctl add-backend HOST:PORT",
                    pool.name
                )
            } else {
                format!(
                    "none of the {} backends of pool {} is up; lbctl get backends says why",
                    pool.backends.len(),
                    pool.name
                )
            };
            return OwnAnswer::new(503, Reason::NoHealthyBackend, message);
        };
        OwnAnswer::new(failure.status(), failure.reason, failure.message)
    }
}
