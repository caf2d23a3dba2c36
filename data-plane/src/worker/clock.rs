//! A moment both as an instant and as a number, by one look at the clock.
//!
//! What is counted in nanoseconds at each request compares and subtracts numbers: the
//! difference of two instants is a call into the standard library, and would be a fifth of
//! what a limit may cost.

use std::time::{Duration, Instant};

use lb_core::limit::nanos_between;
use rustix::time::{ClockId, clock_gettime};

use super::now;

/// The monotonic clock of one worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    /// What the system's clock says then.
    raw: u64,
}

/// A moment of the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    /// Nanoseconds since the clock's origin.
    pub(crate) nanos: u64,
}

/// A thread may be interrupted between two looks at the clock, but not each time.
const LOOKS: usize = 8;

impl Clock {
    pub(crate) fn new() -> Self {
        let look = || {
            let (before, origin, raw) = (nanos(), now(), nanos());
            (raw - before, Self { origin, raw })
        };
        let looks = (0..LOOKS).map(|_| look()).min_by_key(|(apart, _)| *apart);
        looks.unwrap_or_else(look).1
    }

    /// When its numbers begin.
    pub(crate) fn origin(&self) -> Instant {
        self.origin
    }

    /// The present moment. In tests time may be paused.
    #[inline]
    pub(crate) fn now(&self) -> Moment {
        if cfg!(test) {
            let at = now();
            return Moment { at, nanos: nanos_between(self.origin, at) };
        }
        self.look()
    }

    /// The present moment; its instant is never later than that of a look at the clock that
    /// comes after it, and earlier by less than the time of one.
    #[inline]
    fn look(&self) -> Moment {
        let nanos = nanos().saturating_sub(self.raw);
        Moment { at: self.origin + Duration::from_nanos(nanos), nanos }
    }
}

/// What instants are made of.
#[inline]
fn nanos() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_moments_are_between_those_of_looks_before_and_after() {
        let clock = Clock::new();
        let mut last = 0;
        for _ in 0..10_000 {
            let before = now();
            let moment = clock.look();
            assert!(moment.at <= now());
            // What it is earlier by is what there was between two looks when it began.
            assert!(moment.at + Duration::from_millis(1) >= before);
            assert_eq!(nanos_between(clock.origin(), moment.at), moment.nanos);
            assert!(last <= moment.nanos);
            last = moment.nanos;
        }
    }
}
