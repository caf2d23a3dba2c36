//! When something happened, such that its age holds whatever the wall clock does.
//!
//! Wall clocks jump: a machine starts with a wrong time and is corrected, an operator errs,
//! a virtual machine sleeps. A moment is therefore measured by the monotonic clock, and its
//! wall time is kept only for people. When the wall clock has jumped since, the moment is
//! told in the terms of the new time, so that *now minus then* is still its age.

use std::time::{Duration, Instant};

/// Beyond this, clocks did not drift or round but jump.
const JUMP: Duration = Duration::from_secs(1);

/// A moment of this process's life, or one that is planned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moment {
    at: Instant,
    unix_ms: u64,
}

impl Moment {
    /// The present, by both clocks; the wall clock's in milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(now: Instant, now_unix_ms: u64) -> Self {
        Self { at: now, unix_ms: now_unix_ms }
    }

    /// A moment of which only the wall time is known, because another process noted it: as
    /// long ago as the wall clock says now, but never in the future.
    #[must_use]
    pub fn recalled(unix_ms: u64, present: Self) -> Self {
        let unix_ms = unix_ms.min(present.unix_ms);
        let age = Duration::from_millis(present.unix_ms - unix_ms);
        // Where the monotonic clock does not reach back that far, the moment is its start.
        Self { at: present.at.checked_sub(age).unwrap_or(present.at), unix_ms }
    }

    /// Some time later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { at: self.at + delay, unix_ms: self.unix_ms.saturating_add(millis(delay)) }
    }

    /// How long ago; zero when it is yet to come.
    #[must_use]
    pub fn age(self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    /// Its wall time as it was noted, unless the wall clock has jumped since: then by the
    /// clock as it goes now. Milliseconds since the Unix epoch.
    #[must_use]
    pub fn unix_ms(self, present: Self) -> u64 {
        let by_present = match present.at.checked_duration_since(self.at) {
            Some(age) => present.unix_ms.saturating_sub(millis(age)),
            None => present.unix_ms.saturating_add(millis(self.at - present.at)),
        };
        let jumped = by_present.abs_diff(self.unix_ms) > millis(JUMP);
        if jumped { by_present } else { self.unix_ms }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch;

    const DAY_MS: u64 = 24 * 3600 * 1000;
    const NOON: u64 = 20_000 * DAY_MS + DAY_MS / 2;

    /// The clocks ten seconds later, the wall clock moved by so much.
    fn ten_seconds_after(start: Moment, jump_ms: i64) -> Moment {
        let wall = start.unix_ms + 10_000;
        Moment::new(start.at + Duration::from_secs(10), wall.saturating_add_signed(jump_ms))
    }

    #[test]
    fn a_day_forwards_or_backwards_changes_no_age() {
        let start = Moment::new(epoch(), NOON);
        let planned = start.after(Duration::from_secs(15));
        for jump_ms in [0, DAY_MS.cast_signed(), -DAY_MS.cast_signed()] {
            let present = ten_seconds_after(start, jump_ms);
            assert_eq!(present.unix_ms - start.unix_ms(present), 10_000, "{jump_ms}");
            assert_eq!(planned.unix_ms(present) - present.unix_ms, 5000, "{jump_ms}");
            assert_eq!(start.age(present.at), Duration::from_secs(10));
            assert_eq!(planned.age(present.at), Duration::ZERO);
        }
    }

    #[test]
    fn a_wall_clock_that_is_disciplined_does_not_make_moments_flicker() {
        let start = Moment::new(epoch(), NOON);
        for jump_ms in [-900, -1, 1, 900] {
            assert_eq!(start.unix_ms(ten_seconds_after(start, jump_ms)), NOON);
        }
    }

    #[test]
    fn what_another_process_noted_is_never_in_the_future() {
        let present = Moment::new(epoch(), NOON);
        let recalled = Moment::recalled(NOON - 5000, present);
        assert_eq!(recalled.age(present.at), Duration::from_secs(5));
        let later = ten_seconds_after(present, DAY_MS.cast_signed());
        assert_eq!(later.unix_ms - recalled.unix_ms(later), 15_000);
        let ahead = Moment::recalled(NOON + DAY_MS, present);
        assert_eq!((ahead.age(present.at), ahead.unix_ms(present)), (Duration::ZERO, NOON));
    }
}
