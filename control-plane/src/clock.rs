//! Wall time, read in one place.
//!
//! It is shown to people, stored beside verdicts, and decides only where something outlives a
//! process: how old session keys are, how much of a drain or of a slow start was over at a restart,
//! and in which term a start is. Periods within a process are measured with
//! `tokio::time::Instant`, which obeys paused time, and what is shown of the life of this process
//! is a [`Moment`], whose age holds when the clock jumps.

use std::time::{Duration, UNIX_EPOCH};

use lb_core::moment::Moment;
use tokio::time::Instant;

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "the one place where this plane reads wall time")]
pub(crate) fn unix_ms() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// The monotonic clock, which obeys paused time.
pub(crate) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// The present.
pub(crate) fn present() -> Moment {
    Moment::new(now(), unix_ms())
}

/// How long ago a moment was.
pub(crate) fn age(moment: Moment) -> Duration {
    moment.age(now())
}

/// A moment as it is told to people and programs: in milliseconds since the Unix epoch.
pub(crate) fn told(moment: Moment) -> u64 {
    moment.unix_ms(present())
}

/// A moment as it is told, 0 for none.
pub(crate) fn told_if_any(moment: Option<Moment>) -> u64 {
    moment.map_or(0, told)
}

/// Whole milliseconds of a duration.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole milliseconds of a duration, as far as 32 bits go (49 days).
pub(crate) fn millis32(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
