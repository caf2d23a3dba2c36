//! What compiling a pool needs of its backends' entries, in a few bytes each.
//!
//! A pool is compiled with each change of one of its backends. Of thousands all others are as they
//! were, and their facts are taken over: to look into each of them again would be most of the work.

use lb_core::{health::candidates, model::BackendEntry};

/// Of one backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Whether it may be picked.
    pub(super) pick: candidates::Facts,
    pub(super) weight: u16,
    /// Whether its verdict speaks of a slow start.
    pub(super) starts_slowly: bool,
    /// Whether it has slots of its own.
    pub(super) has_slots: bool,
    /// Whether what is in flight there is to be cut.
    pub(super) cuts: bool,
}

impl Facts {
    pub(super) fn of(entry: &BackendEntry) -> Self {
        let status = entry.status.as_ref();
        Self {
            pick: candidates::Facts::of(entry),
            weight: entry.backend.weight.get(),
            starts_slowly: status.is_some_and(|status| status.standing.slow_start.is_some()),
            has_slots: entry.backend.max_in_flight.is_some(),
            cuts: entry.backend.drain.is_some_and(|drain| drain.cutting),
        }
    }
}
