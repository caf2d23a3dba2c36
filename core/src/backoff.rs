//! When to try again to reach a control plane.
//!
//! The first try comes at once: most connections break because one process was
//! replaced. Then waits are drawn between nothing and a ceiling that doubles: a
//! thousand proxies that lost the same control plane spread over the whole wait, where
//! waits that merely vary a little would bring them back as a wave. The ceiling is
//! lowest for as long as a restart takes: until proxies are back, limits let only the
//! safe shares pass. It stays low for ten minutes, so that a control plane that is moved
//! or mended costs seconds; whoever is still refused after that waits for neither.

use std::time::{Duration, Instant};

/// The waits between tries; [`Backoff::reset`] begins anew.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failing: Option<Failing>,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    since: Instant,
    ceiling: Duration,
}

/// The ceiling of the second try.
const CEILING_MIN: Duration = Duration::from_millis(100);
/// The highest ceiling while this may be a restart.
const CEILING_RESTART: Duration = Duration::from_millis(500);
/// The highest ceiling while a quick return is likely.
const CEILING_SOON: Duration = Duration::from_secs(2);
/// The highest ceiling of all.
const CEILING_LATE: Duration = Duration::from_secs(15);
/// How long a restart may take.
const RESTART: Duration = Duration::from_secs(15);
/// How long a quick return is likely.
const SOON: Duration = Duration::from_secs(600);

impl Backoff {
    /// A backoff whose first wait is none.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long to wait from `now` until the next try: nothing for the first since the
    /// last success, at most half a second during 15 s, at most 2 s during ten minutes,
    /// at most 15 s later.
    pub fn next(&mut self, now: Instant, rng: &mut fastrand::Rng) -> Duration {
        let Some(failing) = &mut self.failing else {
            self.failing = Some(Failing { since: now, ceiling: CEILING_MIN });
            return Duration::ZERO;
        };
        let highest = match now.saturating_duration_since(failing.since) {
            away if away < RESTART => CEILING_RESTART,
            away if away < SOON => CEILING_SOON,
            _ => CEILING_LATE,
        };
        let wait = failing.ceiling.mul_f64(rng.f64());
        failing.ceiling = (failing.ceiling * 2).min(highest);
        wait
    }

    /// Records a success; a connection that is refused at once is none.
    pub fn reset(&mut self) {
        self.failing = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::epoch;

    /// The longest of many waits for the `nth` try, counted from 0, of which each
    /// comes `step` after the one before.
    fn longest(nth: u32, step: Duration) -> Duration {
        let mut rng = fastrand::Rng::with_seed(1);
        let wait = |_| {
            let (mut backoff, mut now) = (Backoff::new(), epoch());
            for _ in 0..nth {
                backoff.next(now, &mut rng);
                now += step;
            }
            backoff.next(now, &mut rng)
        };
        (0..1000).map(wait).max().unwrap()
    }

    #[test]
    fn ceilings_double_to_half_a_second_then_to_two_and_much_later_to_fifteen() {
        let second = Duration::from_secs(1);
        for (nth, step, ceiling_ms) in [
            (0, second, 0),
            (1, second, 100),
            (2, second, 200),
            (3, second, 400),
            (4, second, 500),
            (15, second, 500),
            (16, second, 1_000),
            (17, second, 2_000),
            (600, second, 2_000),
            (601, second, 4_000),
            (602, second, 8_000),
            (603, second, 15_000),
            (20, 60 * second, 15_000),
        ] {
            let (longest, ceiling) = (longest(nth, step), Duration::from_millis(ceiling_ms));
            assert!(longest <= ceiling, "try {nth}: {longest:?}");
            assert!(longest >= ceiling.mul_f64(0.99), "try {nth}: {longest:?}");
        }
    }

    #[test]
    fn waits_are_spread_from_nothing_to_the_ceiling() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut quarters = [0; 4];
        for _ in 0..10_000 {
            let mut backoff = Backoff::new();
            backoff.next(epoch(), &mut rng);
            let wait = backoff.next(epoch(), &mut rng);
            quarters[usize::try_from(wait.as_micros() / 25_000).unwrap()] += 1;
        }
        assert!(quarters.iter().all(|count| (2_300..2_700).contains(count)), "{quarters:?}");
    }

    proptest! {
        #[test]
        fn success_makes_the_next_try_immediate(seed: u64, steps in prop::collection::vec(0_u64..1_000, 0..50)) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut backoff, mut now) = (Backoff::new(), epoch());
            for step in steps {
                now += Duration::from_secs(step);
                prop_assert!(backoff.next(now, &mut rng) <= CEILING_LATE);
            }
            backoff.reset();
            prop_assert_eq!(backoff.next(now, &mut rng), Duration::ZERO);
        }

        /// A clock that steps back must not panic or lengthen anything.
        #[test]
        fn time_may_stand_still(seed: u64) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut backoff, now) = (Backoff::new(), epoch());
            backoff.next(now + SOON, &mut rng);
            for _ in 0..20 {
                prop_assert!(backoff.next(now, &mut rng) <= CEILING_RESTART);
            }
        }
    }
}
