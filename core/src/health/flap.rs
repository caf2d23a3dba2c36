//! Backends whose verdict comes and goes.
//!
//! Each change of verdict moves connections, caches and load. A backend that changes again
//! and again does more harm than one that is down, so it is held down for a while: it
//! has a score, to which each change adds one, and of which half is gone after a minute.
//! One that goes down with a high score stays down for half a minute times its score, at
//! most five minutes. While it is held its score stands still: nothing is learned about it
//! then, so nothing is forgotten either, and one that goes on as before is held longer.
//!
//! The threshold of 3 was measured with the default check, 1 000 backends for ten minutes
//! each. Of those that fail for 6 s in every 12, which means five changes a minute, it leaves
//! 4 % of the minutes after the first with more than two changes (a threshold of 5: 10 %);
//! of those that fail for 10 s in every 30, 0.2 % (5: 22 %). Since scores decay, a backend that
//! restarts twice does not reach it.

use std::time::{Duration, Instant};

use crate::model::Health;

/// The score from which a backend that goes down is held there.
pub const THRESHOLD: f64 = 3.0;

const HALF_LIFE: Duration = Duration::from_secs(60);
const HOLD: Duration = Duration::from_secs(30);
const HOLD_MAX: Duration = Duration::from_secs(300);

/// How often the verdict about one backend has changed lately, and the verdict that is
/// shown.
#[derive(Clone, Copy, Debug)]
pub struct Flap {
    shown: Health,
    score: f64,
    /// From when on this score decays.
    at: Instant,
    held_until: Option<Instant>,
}

impl Flap {
    /// A backend with a verdict, and no history.
    #[must_use]
    pub fn new(health: Health, now: Instant) -> Self {
        Self { shown: health, score: 0.0, at: now, held_until: None }
    }

    /// Takes in what the verdict would be, and returns what it is. To be called when that
    /// changes, and a few times a second while [`Self::held_until`] says something.
    ///
    /// `is_needed` tells that the backend is the last of its pool that could serve: it is
    /// not held down, nor held any longer.
    pub fn observe(&mut self, wanted: Health, is_needed: bool, now: Instant) -> Health {
        if is_needed || self.held_until.is_some_and(|until| now >= until) {
            self.held_until = None;
            self.at = self.at.min(now);
        }
        let is_held = self.held_until.is_some() && wanted == Health::Up;
        if wanted != self.shown && !is_held {
            // What was never known has not changed.
            if self.shown != Health::Unknown {
                self.score = self.score(now) + 1.0;
                self.at = now;
            }
            if wanted == Health::Down && self.score >= THRESHOLD && !is_needed {
                let until = now + HOLD.mul_f64(self.score).min(HOLD_MAX);
                self.held_until = Some(until);
                self.at = until;
            }
            self.shown = wanted;
        }
        self.shown
    }

    /// Whether it matters to [`Self::observe`] that the backend is needed, which is dear to find
    /// out in a large pool.
    #[must_use]
    pub fn asks_for_need(&self, wanted: Health) -> bool {
        self.held_until.is_some() || (wanted == Health::Down && self.score + 1.0 >= THRESHOLD)
    }

    /// The verdict that is shown.
    #[must_use]
    pub fn shown(&self) -> Health {
        self.shown
    }

    /// The score at `now`.
    #[must_use]
    pub fn score(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at).as_secs_f64();
        self.score * 0.5_f64.powf(age / HALF_LIFE.as_secs_f64())
    }

    /// Until when it is held down, if it is.
    #[must_use]
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{epoch, health::CheckState, model::HealthPolicy};
    use Health::{Down, Unknown, Up};

    const SECOND: Duration = Duration::from_secs(1);

    /// What is shown after each of these wishes, a second apart.
    fn shown(
        flap: &mut Flap,
        wishes: &[Health],
        is_needed: bool,
        now: &mut Instant,
    ) -> Vec<Health> {
        let mut show = |wanted: &Health| {
            *now += SECOND;
            flap.observe(*wanted, is_needed, *now)
        };
        wishes.iter().map(&mut show).collect()
    }

    #[test]
    fn the_third_fall_within_a_minute_is_held() {
        let (mut flap, mut now) = (Flap::new(Up, epoch()), epoch());
        let wishes = [Down, Up, Down, Up];
        assert_eq!(shown(&mut flap, &wishes, false, &mut now), wishes, "two restarts");
        assert_eq!(shown(&mut flap, &[Down, Up, Up], false, &mut now), [Down, Down, Down]);
        let until = flap.held_until().unwrap();
        let score = flap.score(now);
        assert!((4.7..5.0).contains(&score), "{score}");
        assert!(flap.score(until) == score, "it stands still");
        assert!(flap.score(until + 60 * SECOND) == score / 2.0);
        assert_eq!(flap.observe(Up, false, until), Up);
        // It was held for 140 s or so, and is not again unless it falls again.
        assert_eq!(flap.held_until(), None);
        assert_eq!(flap.observe(Down, false, until + SECOND), Down);
        assert!(flap.held_until().unwrap() > until + 190 * SECOND);
    }

    #[test]
    fn the_longest_hold_is_five_minutes() {
        let (mut flap, mut now) = (Flap::new(Up, epoch()), epoch());
        shown(&mut flap, &[Down, Up].repeat(20), true, &mut now);
        flap.observe(Down, false, now);
        assert_eq!(flap.held_until(), Some(now + HOLD_MAX));
    }

    #[test]
    fn the_last_of_a_pool_is_neither_held_nor_held_any_longer() {
        let (mut flap, mut now) = (Flap::new(Up, epoch()), epoch());
        let wishes = [Down, Up].repeat(10);
        assert_eq!(shown(&mut flap, &wishes, true, &mut now), wishes);
        assert_eq!(flap.observe(Down, true, now), Down);
        assert_eq!((flap.held_until(), flap.observe(Up, false, now)), (None, Up));
        assert_eq!(shown(&mut flap, &[Down, Up], false, &mut now), [Down, Down]);
        assert_eq!(flap.observe(Up, true, now), Up);
        assert!(flap.score(now + 60 * SECOND) < flap.score(now), "it decays again");
    }

    proptest! {
        /// Whoever finds out whether a backend is needed only when it is asked for that comes to
        /// the same.
        #[test]
        fn need_matters_only_when_it_is_asked_for(
            steps in prop::collection::vec((0_u8..3, any::<bool>(), 0_u64..90), 1..60),
        ) {
            let (mut flap, mut now) = (Flap::new(Unknown, epoch()), epoch());
            for (wanted, is_needed, later) in steps {
                now += Duration::from_secs(later);
                let wanted = [Up, Down, Unknown][usize::from(wanted)];
                if !flap.asks_for_need(wanted) {
                    let (mut needed, mut spared) = (flap, flap);
                    needed.observe(wanted, true, now);
                    spared.observe(wanted, false, now);
                    prop_assert_eq!(format!("{needed:?}"), format!("{spared:?}"));
                }
                flap.observe(wanted, is_needed, now);
            }
        }
    }

    #[test]
    fn becoming_known_is_no_change() {
        let now = epoch();
        let mut flap = Flap::new(Unknown, now);
        assert_eq!((flap.observe(Up, false, now), flap.score(now)), (Up, 0.0));
        assert_eq!((flap.observe(Unknown, false, now), flap.score(now)), (Unknown, 1.0));
    }

    /// Changes of verdict in each minute, with a backend that is up and down in turns.
    fn changes(seed: u64, up_ms: u64, down_ms: u64, minutes: u64) -> Vec<u32> {
        let (policy, start) = (HealthPolicy::default(), epoch());
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut check, mut flap) = (CheckState::resumed(Up, true, seed), Flap::new(Up, start));
        let (period, mut shown) = (up_ms + down_ms, Up);
        let phase = rng.u64(0..period);
        let mut next = check.first_delay(&policy).as_millis();
        let mut counts = vec![0; usize::try_from(minutes).unwrap()];
        for at in (0..minutes * 60_000).step_by(50) {
            if u128::from(at) >= next {
                check.record(&policy, (at + phase) % period < up_ms);
                next = u128::from(at) + check.next_delay(&policy, &mut rng).as_millis();
            }
            let verdict = flap.observe(check.health(), false, start + Duration::from_millis(at));
            if verdict != shown {
                counts[usize::try_from(at / 60_000).unwrap()] += 1;
                shown = verdict;
            }
        }
        counts
    }

    /// The share of minutes after the first with more than two changes, in percent.
    fn restless(up_ms: u64, down_ms: u64) -> f64 {
        let later = (0..100).flat_map(|seed| changes(seed, up_ms, down_ms, 10).split_off(1));
        let later: Vec<u32> = later.collect();
        let restless = later.iter().filter(|&&count| count > 2).count();
        100.0 * restless as f64 / later.len() as f64
    }

    #[test]
    fn a_backend_that_toggles_every_three_seconds_changes_at_most_twice_a_minute() {
        for seed in 0..1_000 {
            let changes = changes(seed, 3_000, 3_000, 3);
            assert!(changes.iter().all(|&count| count <= 2), "seed {seed}: {changes:?}");
        }
    }

    #[test]
    fn slower_toggling_settles_after_the_first_minute() {
        for (up_ms, down_ms) in [(6_000, 6_000), (5_000, 3_000), (20_000, 10_000)] {
            let percent = restless(up_ms, down_ms);
            assert!(percent < 6.0, "{up_ms}/{down_ms}: {percent} %");
        }
    }

    #[test]
    fn a_backend_that_restarts_once_in_two_minutes_is_never_held() {
        for seed in 0..200 {
            let (policy, start) = (HealthPolicy::default(), epoch());
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut check, mut flap) = (CheckState::resumed(Up, true, seed), Flap::new(Up, start));
            let mut at = check.first_delay(&policy);
            while at < Duration::from_secs(600) {
                check.record(&policy, at.as_secs() % 120 >= 5);
                flap.observe(check.health(), false, start + at);
                assert_eq!(flap.held_until(), None, "seed {seed}");
                at += check.next_delay(&policy, &mut rng);
            }
        }
    }
}
