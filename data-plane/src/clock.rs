//! The wall clock, for what people and other machines read. Decisions rest on
//! [`now`](crate::worker::now) alone.

use std::time::{SystemTime, UNIX_EPOCH};

use lb_core::moment::Moment;

/// Milliseconds since the Unix epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where this crate reads the wall clock"
)]
pub(crate) fn unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// The present, by both clocks.
pub(crate) fn present() -> Moment {
    Moment::new(crate::worker::now(), unix_ms())
}
