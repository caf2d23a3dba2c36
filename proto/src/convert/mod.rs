//! Wire to domain and back.
//!
//! Reading checks everything: a value that got through here is valid. Writing never
//! fails. A field that is 0 or absent on the wire means the default, so a client
//! needs to say only what it wants different.

mod affinity;
mod backend;
mod lease;
pub(crate) mod limit;
pub(crate) mod listener;
mod object;
mod pool;
mod probe;
mod resilience;
mod route;
mod session_keys;
mod standing;
mod stats;
pub mod sync;

pub use self::{
    lease::{
        add_sums_to_wire, lease_grant_from_wire, lease_grant_to_wire, lease_report_from_wire,
        lease_report_to_wire, quantity_from_wire, quantity_to_wire, told_from_wire,
    },
    limit::told_limit,
    object::{decode, decode_object, encode, object_from_wire, object_to_wire},
    probe::{probe_token_from_wire, probe_word_to_wire},
    route::stored_route,
    stats::{counters_from_wire, counters_to_wire, histogram_from_wire, histogram_to_wire},
};

use std::time::Duration;

/// A duration of the wire in milliseconds, where 0 means the default.
fn duration_or(ms: u32, default: Duration) -> Duration {
    if ms == 0 { default } else { Duration::from_millis(u64::from(ms)) }
}

/// A number of the wire, where 0 means the default.
fn number_or(number: u32, default: u32) -> u32 {
    if number == 0 { default } else { number }
}

/// A duration in whole milliseconds, at least 1, so that it does not turn into the
/// default.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).max(1)
}
