//! Wall time, read in one place.
//!
//! It is shown to people and stored beside verdicts; no decision is taken by it.
//! Periods are measured with `tokio::time::Instant`, which obeys paused time.

use std::time::UNIX_EPOCH;

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "the one place where this plane reads wall time")]
pub(crate) fn unix_ms() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// Whole milliseconds of a duration.
pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole milliseconds of a duration, as far as 32 bits go (49 days).
pub(crate) fn millis32(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
