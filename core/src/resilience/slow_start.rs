//! How a backend that joins is led up to its share.
//!
//! A backend that has just started has cold caches and empty connection pools; one that
//! a breaker kept out may have been overloaded. Their share grows in a straight line
//! from a tenth. The ramp thins how often a backend is a *candidate*: a backend
//! whose score were divided by a small weight would look loaded to a policy that looks
//! for the least loaded, and get nothing at all.
//!
//! The fleet has one ramp: the control plane says how old it is, so that a proxy that
//! joins in the middle goes on where the others are.

use std::time::{Duration, Instant};

/// The longest ramp of a backend that was warm before.
const RETURN: Duration = Duration::from_secs(10);

/// The share at the start: enough to warm up by, at any traffic worth a ramp.
const FLOOR: f32 = 0.1;

/// The way of one backend to its share.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ramp {
    age: Duration,
    at: Instant,
    length: Duration,
}

impl Ramp {
    /// A ramp of this length that was `age` old at `at`; 0 for one that starts now. A
    /// length of 0 is no ramp.
    #[must_use]
    pub fn new(age: Duration, at: Instant, length: Duration) -> Self {
        Self { age, at, length }
    }

    /// How long ago it started: what other processes are told.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        self.age.saturating_add(now.saturating_duration_since(self.at))
    }

    /// How long it is in all.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.length
    }

    /// Whether the backend is warm.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.age(now) >= self.length
    }

    /// The share of its picks that a backend keeps at `now`, from 0.1 to 1.
    #[must_use]
    pub fn factor(&self, now: Instant) -> f32 {
        if self.is_over(now) {
            return 1.0;
        }
        (self.age(now).as_secs_f32() / self.length.as_secs_f32()).clamp(FLOOR, 1.0)
    }

    /// Whether a pick of this backend stands; else another one is to be picked. Callers
    /// skip this when [`is_skipped`] says so, and take the first pick when every
    /// candidate was passed over.
    #[must_use]
    pub fn accepts(&self, now: Instant, rng: &mut fastrand::Rng) -> bool {
        let factor = self.factor(now);
        factor >= 1.0 || rng.f32() < factor
    }
}

/// The length of the ramp after a breaker has closed, or an outlier is back: 10 s, since the
/// backend was warm before, unless the pool's `slow_start` is shorter or off.
#[must_use]
pub fn after_return(slow_start: Duration) -> Duration {
    slow_start.min(RETURN)
}

/// Whether a pool goes without ramps: when no candidate is warm, thinning would only send
/// the same requests round in circles. `ramps` are those of all candidates, `None` for
/// one that has none.
pub fn is_skipped<'a>(ramps: impl IntoIterator<Item = Option<&'a Ramp>>, now: Instant) -> bool {
    !ramps.into_iter().any(|ramp| ramp.is_none_or(|ramp| ramp.is_over(now)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::epoch;

    const LENGTH: Duration = Duration::from_secs(30);

    fn seconds(count: f32) -> Duration {
        Duration::from_secs_f32(count)
    }

    #[test]
    fn the_share_grows_in_a_straight_line_from_a_tenth() {
        let start = epoch();
        let ramp = Ramp::new(Duration::ZERO, start, LENGTH);
        for (age, factor) in
            [(0.0, 0.1), (3.0, 0.1), (6.0, 0.2), (15.0, 0.5), (30.0, 1.0), (99.0, 1.0)]
        {
            let found = ramp.factor(start + seconds(age));
            assert!((found - factor).abs() < 1e-3, "{age} s: {found}");
        }
    }

    #[test]
    fn a_proxy_that_joins_goes_on_where_the_others_are() {
        let start = epoch();
        let first = Ramp::new(Duration::ZERO, start, LENGTH);
        let joined = start + seconds(12.5);
        let second = Ramp::new(first.age(joined), joined, first.length());
        for later in [0.0, 1.0, 10.0, 17.5, 20.0] {
            let now = joined + seconds(later);
            assert_eq!(first.factor(now), second.factor(now));
            assert_eq!(first.is_over(now), second.is_over(now));
        }
    }

    #[test]
    fn picks_stand_as_often_as_the_factor_says() {
        let (start, mut rng) = (epoch(), fastrand::Rng::with_seed(7));
        let ramp = Ramp::new(Duration::ZERO, start, LENGTH);
        for age in [0.0, 9.0, 21.0, 31.0] {
            let now = start + seconds(age);
            let stood = (0..10_000).filter(|_| ramp.accepts(now, &mut rng)).count();
            let expected = ramp.factor(now) * 10_000.0;
            assert!((stood as f32 - expected).abs() < 200.0, "{age} s: {stood}");
        }
    }

    #[test]
    fn a_pool_without_a_warm_backend_has_no_ramps() {
        let start = epoch();
        let cold = Ramp::new(Duration::ZERO, start, LENGTH);
        let warm = Ramp::new(LENGTH, start, LENGTH);
        assert!(is_skipped([Some(&cold), Some(&cold)], start));
        assert!(is_skipped([], start));
        assert!(!is_skipped([Some(&cold), Some(&warm)], start));
        assert!(!is_skipped([Some(&cold), None], start));
    }

    #[test]
    fn a_backend_that_returns_is_led_up_faster_than_a_new_one() {
        let lengths = [30.0, 10.0, 4.0, 0.0].map(|length| after_return(seconds(length)));
        assert_eq!(lengths, [10.0, 10.0, 4.0, 0.0].map(seconds));
    }

    #[test]
    fn no_length_is_no_ramp() {
        let ramp = Ramp::new(Duration::ZERO, epoch(), Duration::ZERO);
        assert!(ramp.is_over(epoch()));
        assert_eq!(ramp.factor(epoch()), 1.0);
    }

    proptest! {
        #[test]
        fn the_share_never_shrinks(age_ms: u32, length_ms: u32, a_ms: u32, b_ms: u32) {
            let millis = |ms: u32| Duration::from_millis(ms.into());
            let start = epoch();
            let ramp = Ramp::new(millis(age_ms), start, millis(length_ms));
            let (early, late) = (a_ms.min(b_ms), a_ms.max(b_ms));
            let factors = [early, late].map(|at| ramp.factor(start + millis(at)));
            prop_assert!(FLOOR <= factors[0] && factors[0] <= factors[1] && factors[1] <= 1.0);
        }
    }
}
