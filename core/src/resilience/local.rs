//! What one proxy does by itself about a backend that fails for it.
//!
//! The fleet's breaker decides for all proxies, and where it has spoken, it is right. But
//! one proxy may be the only one that cannot reach a backend, and the control plane may be
//! away. Then the proxy avoids the backend by itself: after as many failures in a row
//! as would open the breaker, for as long, and with one request at a time afterwards.
//!
//! Where one backend of a pool stands is one `u64`, so that workers share it as an atomic.
//! One thread begins and ends avoidances ([`chosen`] says which); what requests
//! change is who has the trial, and what it shows: read, decide, and exchange, again if
//! another worker was faster. Backends that are not avoided cost requests nothing.
//!
//! ```text
//! bits   63..62     47..40            39..0
//!        stage      times avoided     a moment, in ms
//! ```
//! The moment is when the avoidance ends, when a trial is given up for lost, or when
//! times avoided are forgotten. Moments are counted from any start that the workers share.

use std::time::Duration;

use super::{breaker::open_time, ejection, probe::Fitness};
use crate::model::BreakerPolicy;

/// How one proxy stands to one backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "a state takes effect when it is stored"]
pub struct LocalState(u64);

/// Whether a request may go to a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// It may: nobody avoids it.
    Yes,
    /// It may not.
    No,
    /// It may, alone, once this state has been exchanged for the one that was asked.
    Trial(LocalState),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Trusted,
    Avoiding,
    Trial,
}

/// The most that is added to a time of avoidance, as a share of it.
const JITTER: f64 = 0.5;
/// Times avoided are forgotten after so many times the last one,
const QUIET_FACTOR: u32 = 10;
/// or this, if it is less.
const QUIET_MAX: Duration = Duration::from_secs(300);

const MOMENT_BITS: u32 = 40;
const TIMES_BITS: u32 = 8;
const STAGE_SHIFT: u32 = 62;

impl LocalState {
    /// No trouble.
    pub const CLEAN: Self = Self(0);

    /// From what [`Self::to_bits`] gave.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// For an atomic.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Whether this request may go there at `now`.
    #[must_use]
    pub fn admission(self, request: Fitness, now: Duration) -> Admission {
        let waited = now.saturating_sub(request.patience());
        match self.stage() {
            Stage::Trusted => Admission::Yes,
            Stage::Avoiding | Stage::Trial if millis(waited) < self.moment() => Admission::No,
            Stage::Avoiding | Stage::Trial => {
                let until = millis(now + request.lasts());
                Admission::Trial(Self::pack(Stage::Trial, self.times(), until))
            }
        }
    }

    /// Whether the backend is avoided, trials included.
    #[must_use]
    pub fn is_avoided(self) -> bool {
        self.stage() != Stage::Trusted
    }

    /// Avoids it from `now` on: for longer each time that follows the last one closely.
    pub fn avoided(self, policy: &BreakerPolicy, now: Duration, rng: &mut fastrand::Rng) -> Self {
        let forgets = self.stage() == Stage::Trusted && millis(now) >= self.moment();
        let times = if forgets { 0 } else { self.times() };
        let lasts = open_time(policy, times32(times)).mul_f64(1.0 + JITTER * rng.f64());
        let times = (times + 1).min((1 << TIMES_BITS) - 1);
        Self::pack(Stage::Avoiding, times, millis(now + lasts))
    }

    /// Goes on by itself with what the fleet had taken out, now that nobody says anything
    /// more: avoided until then, and tried afterwards. One that is avoided stays as it is.
    pub fn taken_over(self, until: Duration) -> Self {
        match self.stage() {
            Stage::Trusted => Self::pack(Stage::Avoiding, self.times().max(1), millis(until)),
            Stage::Avoiding | Stage::Trial => self,
        }
    }

    /// After the trial has failed. A request that was sent before the avoidance began is none
    /// and must not be told.
    pub fn failed(self, policy: &BreakerPolicy, now: Duration, rng: &mut fastrand::Rng) -> Self {
        match self.stage() {
            Stage::Trial => self.avoided(policy, now, rng),
            Stage::Avoiding | Stage::Trusted => self,
        }
    }

    /// After the trial has succeeded: it is trusted, and how often it was avoided is
    /// remembered for a while.
    pub fn succeeded(self, policy: &BreakerPolicy, now: Duration) -> Self {
        match self.stage() {
            Stage::Trial => {
                let last = open_time(policy, times32(self.times()).saturating_sub(1));
                let quiet = last.saturating_mul(QUIET_FACTOR).min(QUIET_MAX);
                Self::pack(Stage::Trusted, self.times(), millis(now + quiet))
            }
            Stage::Avoiding | Stage::Trusted => self,
        }
    }

    /// After a trial whose client went away before the backend had decided anything: the
    /// next request may be one.
    pub fn abandoned(self, now: Duration) -> Self {
        match self.stage() {
            Stage::Trial => Self::pack(Stage::Avoiding, self.times(), millis(now)),
            Stage::Trusted | Stage::Avoiding => self,
        }
    }

    fn pack(stage: Stage, times: u64, moment: u64) -> Self {
        let stage = match stage {
            Stage::Trusted => 0,
            Stage::Avoiding => 1,
            Stage::Trial => 2,
        };
        Self(stage << STAGE_SHIFT | times << MOMENT_BITS | moment)
    }

    fn stage(self) -> Stage {
        match self.0 >> STAGE_SHIFT {
            0 => Stage::Trusted,
            1 => Stage::Avoiding,
            _ => Stage::Trial,
        }
    }

    fn times(self) -> u64 {
        self.0 >> MOMENT_BITS & ((1 << TIMES_BITS) - 1)
    }

    fn moment(self) -> u64 {
        self.0 & ((1 << MOMENT_BITS) - 1)
    }
}

/// What one proxy sees of one backend that its pool may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seen {
    /// It is up, and the fleet has nothing against it.
    pub serves: bool,
    /// The fleet keeps requests from it.
    pub is_ejected: bool,
    /// This proxy avoids it already.
    pub is_avoided: bool,
    /// It has failed so often in a row that it should be avoided.
    pub is_failing: bool,
}

/// Which backends of a pool one proxy avoids: those that fail, as long as the pool can spare
/// them. What the fleet has taken out counts against the cap ([`ejection::cap`]), whoever was
/// avoided before comes first, and the last one that serves never goes.
///
/// `has_spare`: another pool can stand in for this one, also for this proxy. Once all that serve
/// fail, they can be spared together then.
#[must_use]
pub fn chosen(pool: &[Seen], has_spare: bool) -> Vec<bool> {
    let mut serve = pool.iter().filter(|seen| seen.serves);
    if has_spare && serve.all(|seen| seen.is_avoided || seen.is_failing) {
        return pool.iter().map(|seen| seen.serves).collect();
    }
    let mut chosen = vec![false; pool.len()];
    let mut out = pool.iter().filter(|seen| seen.is_ejected).count();
    let mut serving = pool.iter().filter(|seen| seen.serves).count();
    let cap = ejection::cap(pool.len());
    let (first, then) = (|seen: &Seen| seen.is_avoided, |seen: &Seen| seen.is_failing);
    for wanted in [first, then] {
        for (seen, chosen) in pool.iter().zip(&mut chosen) {
            let is_free = seen.serves && !*chosen && wanted(seen);
            if is_free && out < cap && serving > 1 {
                *chosen = true;
                out += 1;
                serving -= 1;
            }
        }
    }
    chosen
}

fn times32(times: u64) -> u32 {
    u32::try_from(times).unwrap_or(u32::MAX)
}

/// In milliseconds, which fit for 34 years.
fn millis(moment: Duration) -> u64 {
    u64::try_from(moment.as_millis()).unwrap_or(u64::MAX).min((1 << MOMENT_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> BreakerPolicy {
        BreakerPolicy::default()
    }

    fn avoid(state: LocalState, now: Duration) -> LocalState {
        state.avoided(&policy(), now, &mut fastrand::Rng::with_seed(3))
    }

    fn fail(state: LocalState, now: Duration) -> LocalState {
        state.failed(&policy(), now, &mut fastrand::Rng::with_seed(3))
    }

    fn trial(state: LocalState, now: Duration) -> LocalState {
        match state.admission(Fitness::Repeatable, now) {
            Admission::Trial(state) => state,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_request_at_a_time_tries_it_until_one_succeeds() {
        assert_eq!(LocalState::CLEAN.admission(Fitness::Repeatable, SECOND), Admission::Yes);
        let state = avoid(LocalState::CLEAN, SECOND);
        assert!(state.is_avoided());
        assert_eq!(state.admission(Fitness::Repeatable, 5 * SECOND), Admission::No);
        let now = 9 * SECOND;
        let state = trial(state, now);
        assert_eq!(state.admission(Fitness::Repeatable, now), Admission::No, "one is under way");
        let again = fail(state, now);
        assert_eq!(
            again.admission(Fitness::Repeatable, now + 9 * SECOND),
            Admission::No,
            "twice 5 s"
        );
        let state = trial(again, now + 16 * SECOND).succeeded(&policy(), now);
        assert_eq!(
            (state.admission(Fitness::Repeatable, now), state.is_avoided()),
            (Admission::Yes, false)
        );
        let soon = avoid(state, now + 99 * SECOND);
        assert_eq!(
            soon.admission(Fitness::Repeatable, now + 118 * SECOND),
            Admission::No,
            "four times 5 s"
        );
        let late = avoid(state, now + 100 * SECOND);
        assert!(trial(late, now + 108 * SECOND).is_avoided(), "forgotten: 5 s and the jitter");
    }

    #[test]
    fn a_trial_that_is_never_heard_of_makes_way_for_another() {
        let state = trial(avoid(LocalState::CLEAN, SECOND), 9 * SECOND);
        assert_eq!(state.admission(Fitness::Repeatable, 68 * SECOND), Admission::No);
        assert!(trial(state, 69 * SECOND).is_avoided());
        let avoided = avoid(LocalState::CLEAN, SECOND);
        let admission = |at| avoided.admission(Fitness::Uploading, at);
        let Admission::Trial(state) = admission(10 * SECOND) else { panic!() };
        assert_eq!(state.admission(Fitness::Repeatable, 14 * SECOND), Admission::No);
        assert!(trial(state, 15 * SECOND).is_avoided(), "its client may never end");
        assert!(trial(state.abandoned(10 * SECOND), 10 * SECOND).is_avoided());
    }

    #[test]
    fn what_is_no_trial_changes_nothing() {
        for state in [LocalState::CLEAN, avoid(LocalState::CLEAN, SECOND)] {
            assert_eq!(fail(state, 2 * SECOND), state);
            assert_eq!(state.succeeded(&policy(), 2 * SECOND), state);
            assert_eq!(state.abandoned(2 * SECOND), state);
        }
    }

    #[test]
    fn what_the_fleet_had_open_is_tried_alone_once_nobody_says_anything() {
        let state = LocalState::CLEAN.taken_over(9 * SECOND);
        assert_eq!(state.admission(Fitness::Repeatable, 8 * SECOND), Admission::No);
        let state = trial(state, 9 * SECOND);
        assert_eq!(state.taken_over(99 * SECOND), state);
        assert_eq!(
            fail(state, 9 * SECOND).admission(Fitness::Repeatable, 18 * SECOND),
            Admission::No,
            "twice 5 s"
        );
    }

    /// `s` serves, `f` serves and fails, `a` serves and is avoided, `e` ejected, `d` down.
    fn avoided(letters: &str, has_spare: bool) -> String {
        let seen: Vec<Seen> = letters
            .chars()
            .map(|letter| Seen {
                serves: matches!(letter, 's' | 'f' | 'a'),
                is_ejected: letter == 'e',
                is_avoided: letter == 'a',
                is_failing: letter == 'f',
            })
            .collect();
        let chosen = letters.chars().zip(chosen(&seen, has_spare));
        chosen.map(|(letter, is_chosen)| if is_chosen { 'X' } else { letter }).collect()
    }

    #[test]
    fn a_pool_can_spare_a_third_and_never_the_last_that_serves() {
        for (letters, expected) in [
            ("sss", "sss"),
            ("ssf", "ssX"),
            ("fs", "Xs"),
            ("f", "f"),
            ("fff", "Xff"),
            // Whoever was first stays out, and the fleet's word counts.
            ("faf", "fXf"),
            ("fse", "fse"),
            ("fsseee", "fsseee"),
            ("fffsss", "XXfsss"),
            ("fd", "fd"),
            ("afdddd", "Xfdddd"),
            ("", ""),
        ] {
            assert_eq!(avoided(letters, false), expected, "{letters}");
        }
    }

    #[test]
    fn a_pool_that_has_a_spare_pool_can_do_without_all_that_serve() {
        for (letters, expected) in [
            ("f", "X"),
            ("a", "X"),
            ("fff", "XXX"),
            ("faf", "XXX"),
            ("fed", "Xed"),
            // One that is well is enough for it to be as without.
            ("fffs", "Xffs"),
            ("aaas", "Xaas"),
            ("fas", "fXs"),
            ("s", "s"),
            ("ed", "ed"),
            ("", ""),
        ] {
            assert_eq!(avoided(letters, true), expected, "{letters}");
        }
    }

    proptest! {
        #[test]
        fn it_packs_and_unpacks(times in 0_u64..256, moment in 0_u64..1 << 40) {
            for stage in [Stage::Trusted, Stage::Avoiding, Stage::Trial] {
                let state = LocalState::pack(stage, times, moment);
                let back = LocalState::from_bits(state.to_bits());
                prop_assert_eq!(
                    (back.stage(), back.times(), back.moment()),
                    (stage, times, moment)
                );
            }
        }

        /// After anything, waiting and one success restore it.
        #[test]
        fn it_always_recovers(steps in prop::collection::vec((0_u8..6, 0_u64..400_000), 0..100)) {
            let (mut state, mut now) = (LocalState::CLEAN, Duration::ZERO);
            for (what, wait) in steps {
                now += Duration::from_millis(wait);
                state = match what {
                    0 => state.succeeded(&policy(), now),
                    1 => state.abandoned(now),
                    2 => fail(state, now),
                    3 => avoid(state, now),
                    4 => state.taken_over(now + SECOND),
                    _ => match state.admission(Fitness::Repeatable, now) {
                        Admission::Trial(state) => state,
                        Admission::Yes | Admission::No => state,
                    },
                };
            }
            if state.is_avoided() {
                now += 451 * SECOND;
                state = trial(state, now).succeeded(&policy(), now);
            }
            prop_assert_eq!(state.admission(Fitness::Repeatable, now), Admission::Yes);
        }

        #[test]
        fn somebody_always_serves(letters in "[sfaed]{0,12}") {
            let chosen = avoided(&letters, false);
            let serves = |text: &str| text.contains(['s', 'f', 'a']);
            prop_assert_eq!(serves(&chosen), serves(&letters));
            // Where another pool serves in place of this one, whoever is well still does.
            let spared = avoided(&letters, true);
            prop_assert_eq!(spared.matches('s').count(), letters.matches('s').count());
            if letters.contains('s') {
                prop_assert_eq!(spared, chosen);
            } else {
                prop_assert!(!serves(&spared));
            }
        }
    }
}
