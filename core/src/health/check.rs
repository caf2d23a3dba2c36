//! The active check of one backend: what answers mean, and when to ask again.
//!
//! ```text
//!            first pass                fall failures in a row
//!   Unknown ------------> Up ------------------------------------> Down
//!      |                   ^                                        | ^
//!      |                   |   rise passes in a row; one, if it     | |
//!      |                   +------- was never up before ------------+ |
//!      +--------------------------------------------------------------+
//!                               first failure
//! ```
//!
//! Thresholds keep a backend that serves from being taken out by one lost packet. A
//! backend that never served has nothing to lose: its first answer counts, so that
//! whoever adds it hears at once whether it works, and it gets traffic as soon as
//! it can.
//!
//! Probes come at the policy's interval, and faster while the verdict may be about to
//! change. A tenth of jitter keeps the probes of many backends, which all began
//! at one restart, from staying in step. Backends that are down are often
//! down together and would otherwise be found again together; they are asked
//! at random moments around the interval.
//!
//! No clock and no IO: the caller waits, probes, and reports. Pools without checks
//! ([`crate::model::CheckProtocol::None`]) have no [`CheckState`].

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::model::{Health, HealthPolicy};

/// The verdict about one backend and what it rests on.
#[derive(Clone, Debug)]
pub struct CheckState {
    health: Health,
    streak: Streak,
    /// Whether it was up at any time that is remembered.
    proven: bool,
    phase_seed: u64,
}

/// A change of verdict.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transition {
    /// The verdict so far.
    pub from: Health,
    /// The verdict from now on.
    pub to: Health,
}

/// The last answers that were alike.
#[derive(Clone, Copy, Debug)]
enum Streak {
    Passes(u64),
    Failures(u64),
}

/// How often a backend that never was up is asked at the edge interval: for as long as
/// someone who has just added it may be waiting for it to start.
const EAGER_FAILURES: u64 = 10;

/// The longest first wait of a backend that nothing is known about, in milliseconds.
/// It spreads the probes of a whole pool that was added at once.
const FIRST_DELAY_MS: f64 = 50.0;

impl CheckState {
    /// A backend that was never checked. `phase_seed` should differ between backends;
    /// a hash of the id does.
    #[must_use]
    pub fn new(phase_seed: u64) -> Self {
        Self::resumed(Health::Unknown, false, phase_seed)
    }

    /// A backend with a verdict from before the control plane restarted, or its check
    /// changed; `was_up` tells whether it was up at any time before.
    #[must_use]
    pub fn resumed(health: Health, was_up: bool, phase_seed: u64) -> Self {
        let proven = was_up || health == Health::Up;
        Self { health, streak: Streak::Passes(0), proven, phase_seed }
    }

    /// The verdict.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// Passes since the last failure, or since the check began.
    #[must_use]
    pub fn passes_in_a_row(&self) -> u64 {
        match self.streak {
            Streak::Passes(count) => count,
            Streak::Failures(_) => 0,
        }
    }

    /// Failures since the last pass, or since the check began.
    #[must_use]
    pub fn failures_in_a_row(&self) -> u64 {
        match self.streak {
            Streak::Passes(_) => 0,
            Streak::Failures(count) => count,
        }
    }

    /// Records the answer to one probe; a probe without an answer in time has not
    /// passed. Returns the change of verdict, if there is one.
    pub fn record(&mut self, policy: &HealthPolicy, passed: bool) -> Option<Transition> {
        self.streak = if passed {
            Streak::Passes(self.passes_in_a_row().saturating_add(1))
        } else {
            Streak::Failures(self.failures_in_a_row().saturating_add(1))
        };
        let to = match (self.health, self.streak) {
            (Health::Unknown, Streak::Passes(_)) => Health::Up,
            (Health::Unknown, Streak::Failures(_)) => Health::Down,
            (Health::Down, Streak::Passes(count))
                if !self.proven || count >= policy.rise().into() =>
            {
                Health::Up
            }
            (Health::Up, Streak::Failures(count)) if count >= policy.fall().into() => Health::Down,
            (same, _) => same,
        };
        let from = std::mem::replace(&mut self.health, to);
        self.proven |= to == Health::Up;
        (from != to).then_some(Transition { from, to })
    }

    /// How long to wait before the next probe.
    ///
    /// The edge interval while the verdict may be about to change, or is awaited; else
    /// the interval, give or take a tenth, or half of it while the backend is down.
    #[must_use]
    pub fn next_delay(&mut self, policy: &HealthPolicy, rng: &mut fastrand::Rng) -> Duration {
        let (delay, jitter) = match (self.health, self.streak) {
            (Health::Unknown, _)
            | (Health::Up, Streak::Failures(_))
            | (Health::Down, Streak::Passes(1..)) => (policy.edge_interval(), 0.1),
            (Health::Down, Streak::Failures(count)) if !self.proven && count < EAGER_FAILURES => {
                (policy.edge_interval(), 0.1)
            }
            (Health::Up, Streak::Passes(_)) => (policy.interval(), 0.1),
            (Health::Down, _) => (policy.interval(), 0.5),
        };
        delay.mul_f64(1.0 + jitter * (2.0 * rng.f64() - 1.0))
    }

    /// How long to wait before the first probe: next to nothing when there is no
    /// verdict yet, else a part of the interval that is fixed by the seed, so that a
    /// control plane that restarts does not probe everything at once.
    #[must_use]
    pub fn first_delay(&self, policy: &HealthPolicy) -> Duration {
        match self.health {
            Health::Unknown => self.soon(),
            Health::Up | Health::Down => policy.interval().mul_f64(self.part()),
        }
    }

    /// Before the first probe when somebody waits for it: just long enough to spread those of a
    /// whole pool.
    #[must_use]
    pub fn soon(&self) -> Duration {
        Duration::from_secs_f64(FIRST_DELAY_MS / 1e3).mul_f64(self.part())
    }

    /// Seeds may be anything, such as 1, 2, 3; their hashes are spread evenly.
    fn part(&self) -> f64 {
        xxh3_64(&self.phase_seed.to_le_bytes()) as f64 / u64::MAX as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Health::{Down, Unknown, Up};

    /// The verdicts after each of some answers, `+` for a pass, `-` for a failure.
    fn verdicts(mut state: CheckState, answers: &str) -> String {
        let policy = HealthPolicy::default();
        let mut verdicts = String::new();
        for answer in answers.chars() {
            let before = state.health();
            let transition = state.record(&policy, answer == '+');
            let expected = Transition { from: before, to: state.health() };
            assert_eq!(transition, (before != state.health()).then_some(expected));
            verdicts.push(match state.health() {
                Unknown => '?',
                Up => 'U',
                Down => 'D',
            });
        }
        verdicts
    }

    #[test]
    fn verdicts_follow_the_thresholds() {
        for (start, answers, expected) in [
            (Unknown, "+", "U"),
            (Unknown, "-", "D"),
            // Never up: one pass is enough.
            (Unknown, "--+", "DDU"),
            // It was up: two are needed, and three failures before.
            (Unknown, "+---+-++", "UUUDDDDU"),
            (Up, "--+--+---", "UUUUUUUUD"),
            (Down, "+-++", "DDDU"),
            (Up, "", ""),
        ] {
            let state = CheckState::resumed(start, start != Unknown, 7);
            assert_eq!(verdicts(state, answers), expected, "{start:?} {answers}");
        }
    }

    /// The wait after some answers, as parts of the interval: the least and the most.
    fn waits(start: Health, answers: &str) -> (f64, f64) {
        let policy = HealthPolicy::default();
        let mut state = CheckState::resumed(start, start != Unknown, 7);
        for answer in answers.chars() {
            state.record(&policy, answer == '+');
        }
        let mut rng = fastrand::Rng::with_seed(1);
        (0..10_000)
            .map(|_| state.next_delay(&policy, &mut rng).as_secs_f64())
            .fold((f64::MAX, 0.0), |(least, most), wait| (least.min(wait), most.max(wait)))
    }

    #[test]
    fn probes_come_faster_while_the_verdict_may_change() {
        let (settled, edge, down) = ((4.5, 5.5), (0.9, 1.1), (2.5, 7.5));
        let never_up_for_long = "-".repeat(10);
        for (start, answers, (least, most)) in [
            (Unknown, "", edge),
            (Up, "", settled),
            (Unknown, "+", settled),
            (Up, "-", edge),
            (Up, "--", edge),
            (Up, "--+", settled),
            (Up, "---", down),
            (Down, "", down),
            (Down, "-", down),
            (Down, "+", edge),
            (Down, "++", settled),
            (Unknown, "-", edge),
            (Unknown, &never_up_for_long[1..], edge),
            (Unknown, &never_up_for_long, down),
        ] {
            let (shortest, longest) = waits(start, answers);
            let tolerance = (most - least) / 100.0;
            assert!((shortest - least).abs() < tolerance, "{start:?} {answers}: {shortest}");
            assert!((longest - most).abs() < tolerance, "{start:?} {answers}: {longest}");
        }
    }

    #[test]
    fn first_probes_come_at_once_or_spread_over_the_interval() {
        let policy = HealthPolicy::default();
        let mut seconds = [0; 5];
        for seed in 0..1000 {
            assert!(CheckState::new(seed).first_delay(&policy) <= Duration::from_millis(50));
            let delay = CheckState::resumed(Up, true, seed).first_delay(&policy);
            seconds[usize::try_from(delay.as_secs()).unwrap()] += 1;
        }
        assert!(seconds.iter().all(|count| (150..250).contains(count)), "{seconds:?}");
    }

    #[test]
    fn the_first_delay_of_a_backend_is_always_the_same() {
        let policy = HealthPolicy::default();
        let delay = || CheckState::resumed(Up, true, 42).first_delay(&policy);
        assert_eq!(delay(), delay());
    }

    fn policies() -> impl Strategy<Value = HealthPolicy> {
        let ms = |range: std::ops::Range<u64>| range.prop_map(Duration::from_millis);
        (ms(1..100_000), ms(1..10_000), 1_u32..=100, 1_u32..=100).prop_map(
            |(interval, edge, rise, fall)| {
                let protocol = crate::model::CheckProtocol::Tcp;
                HealthPolicy::new(protocol, interval, edge, edge, rise, fall).unwrap()
            },
        )
    }

    proptest! {
        /// Whatever happened before, enough answers of one kind decide, and at the
        /// latest at the threshold.
        #[test]
        fn a_streak_decides(policy in policies(), past in prop::collection::vec(any::<bool>(), 0..300), passed: bool) {
            let mut state = CheckState::new(0);
            for answer in past {
                state.record(&policy, answer);
            }
            for _ in 0..if passed { policy.rise() } else { policy.fall() } {
                state.record(&policy, passed);
            }
            prop_assert_eq!(state.health(), if passed { Up } else { Down });
        }

        /// A backend that was up changes its verdict only at the end of a whole streak.
        #[test]
        fn nothing_less_than_a_streak_decides(policy in policies(), answers in prop::collection::vec(any::<bool>(), 0..300)) {
            let mut state = CheckState::resumed(Up, true, 0);
            for answer in answers {
                match state.record(&policy, answer) {
                    None => {}
                    Some(Transition { from: Up, to: Down }) => {
                        prop_assert_eq!(state.failures_in_a_row(), u64::from(policy.fall()));
                    }
                    Some(Transition { from: Down, to: Up }) => {
                        prop_assert_eq!(state.passes_in_a_row(), u64::from(policy.rise()));
                    }
                    Some(other) => prop_assert!(false, "{:?}", other),
                }
                prop_assert!(state.passes_in_a_row() == 0 || state.failures_in_a_row() == 0);
            }
        }

        /// No wait is so short that probes become a load, nor so long that nobody looks.
        #[test]
        fn waits_stay_near_the_policy(policy in policies(), seed: u64, answers in prop::collection::vec(any::<bool>(), 0..30)) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut state = CheckState::new(seed);
            prop_assert!(state.first_delay(&policy) <= policy.interval().max(Duration::from_millis(50)));
            for answer in answers {
                state.record(&policy, answer);
                let wait = state.next_delay(&policy, &mut rng);
                prop_assert!(wait >= policy.edge_interval().mul_f64(0.5));
                prop_assert!(wait <= policy.interval().mul_f64(1.5));
            }
        }
    }
}
