//! What one proxy does by itself about a backend that fails for it.
//!
//! The fleet's breaker decides for all proxies, and where it has spoken, it is right. But
//! one proxy may be the only one that cannot reach a backend, and the control plane may be
//! away. Then the proxy avoids the backend by itself: after as many failures in a row
//! as would open the breaker, for as long, and with one request at a time afterwards.
//!
//! The whole of it is one `u64`, so that workers share it as an atomic: the state of
//! a backend without trouble is [`LocalState::CLEAN`], and reading that is all that a request
//! costs there. Everything else is for the path of failures: read, decide, and exchange,
//! again if another worker was faster.
//!
//! ```text
//! bits   63..62     61..48              47..40            39..0
//!        stage      failures in a row   times avoided     a moment, in ms
//! ```
//! The moment is when the avoidance ends, when a trial is given up for lost, or when
//! times avoided are forgotten. Moments are counted from any start that the workers share.

use std::time::Duration;

use super::breaker::open_time;
use crate::model::BreakerPolicy;

/// How one proxy stands to one backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "a state takes effect when it is stored"]
pub struct LocalState(u64);

/// What the fleet says about a backend. When it goes from open to closed, the proxy begins
/// anew with [`LocalState::CLEAN`]; when it was open and the control plane goes away,
/// the proxy goes on by itself with [`LocalState::taken_over`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fleet {
    /// Requests may be sent; or nothing, because the control plane is away.
    Closed,
    /// None may be, beside those that a token allows.
    Open,
}

/// Whether a request may go to a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// It may.
    Yes,
    /// It may not.
    No,
    /// It may, alone, once this state has been exchanged for the one that was asked.
    Trial(LocalState),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Counting,
    Avoiding,
    Trial,
}

/// How long a trial may take before another may begin: it may have been cancelled.
const TRIAL_MAX: Duration = Duration::from_secs(60);
/// The most that is added to a time of avoidance, as a share of it.
const JITTER: f64 = 0.5;
/// Times avoided are forgotten after so many times the last one,
const QUIET_FACTOR: u32 = 10;
/// or this, if it is less.
const QUIET_MAX: Duration = Duration::from_secs(300);

const MOMENT_BITS: u32 = 40;
const TIMES_BITS: u32 = 8;
const FAILURES_BITS: u32 = 14;

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

    /// Whether a request may go there at `now`.
    #[must_use]
    pub fn admission(self, fleet: Fleet, now: Duration) -> Admission {
        match (fleet, self.stage()) {
            (Fleet::Open, _) => Admission::No,
            (Fleet::Closed, Stage::Counting) => Admission::Yes,
            (Fleet::Closed, _) if millis(now) < self.moment() => Admission::No,
            (Fleet::Closed, _) => {
                let until = millis(now + TRIAL_MAX);
                Admission::Trial(Self::pack(Stage::Trial, 0, self.times(), until))
            }
        }
    }

    /// Whether the backend is avoided, trials included: what counts against the pool's
    /// cap ([`super::ejection::cap`]).
    #[must_use]
    pub fn is_avoided(self) -> bool {
        self.stage() != Stage::Counting
    }

    /// After a failure that counts: no connection, a reset, no answer in time, no valid
    /// HTTP, a status of 502 to 504. `may_avoid` tells whether the pool can spare one more
    /// backend at this proxy; while it cannot, failures are only counted. A failure of a
    /// request that was sent before the avoidance began changes nothing.
    pub fn failed(
        self,
        policy: &BreakerPolicy,
        may_avoid: bool,
        now: Duration,
        rng: &mut fastrand::Rng,
    ) -> Self {
        if policy.consecutive_failures == 0 {
            return Self::CLEAN;
        }
        match self.stage() {
            Stage::Avoiding => self,
            Stage::Trial => self.avoiding(policy, now, rng),
            Stage::Counting => {
                let most = (1 << FAILURES_BITS) - 1;
                let failures = (self.failures() + 1).min(most);
                if may_avoid && failures >= u64::from(policy.consecutive_failures) {
                    self.avoiding(policy, now, rng)
                } else {
                    Self::pack(Stage::Counting, failures, self.times(), self.moment())
                }
            }
        }
    }

    /// After a success of a backend that is not [`Self::CLEAN`]: a trial that succeeds
    /// restores it. A success of a request that was sent before the avoidance began
    /// changes nothing.
    pub fn succeeded(self, policy: &BreakerPolicy, now: Duration) -> Self {
        match self.stage() {
            Stage::Avoiding => self,
            Stage::Trial => {
                let last = open_time(policy, self.times32().saturating_sub(1));
                let quiet = last.saturating_mul(QUIET_FACTOR).min(QUIET_MAX);
                Self::pack(Stage::Counting, 0, self.times(), millis(now + quiet))
            }
            Stage::Counting if millis(now) >= self.moment() => Self::CLEAN,
            Stage::Counting => Self::pack(Stage::Counting, 0, self.times(), self.moment()),
        }
    }

    /// After a trial whose client went away before the backend had decided anything: the
    /// next request may be one.
    pub fn abandoned(self, now: Duration) -> Self {
        match self.stage() {
            Stage::Trial => Self::pack(Stage::Avoiding, 0, self.times(), millis(now)),
            Stage::Counting | Stage::Avoiding => self,
        }
    }

    /// After the control plane went away while the fleet had this backend's breaker open:
    /// it is avoided, and then tried, by this proxy alone.
    pub fn taken_over(
        self,
        policy: &BreakerPolicy,
        now: Duration,
        rng: &mut fastrand::Rng,
    ) -> Self {
        match self.stage() {
            Stage::Counting => self.avoiding(policy, now, rng),
            Stage::Avoiding | Stage::Trial => self,
        }
    }

    fn avoiding(self, policy: &BreakerPolicy, now: Duration, rng: &mut fastrand::Rng) -> Self {
        let lasts = open_time(policy, self.times32()).mul_f64(1.0 + JITTER * rng.f64());
        let times = (self.times() + 1).min((1 << TIMES_BITS) - 1);
        Self::pack(Stage::Avoiding, 0, times, millis(now + lasts))
    }

    fn pack(stage: Stage, failures: u64, times: u64, moment: u64) -> Self {
        let stage = match stage {
            Stage::Counting => 0,
            Stage::Avoiding => 1,
            Stage::Trial => 2,
        };
        let counts = (stage << FAILURES_BITS | failures) << TIMES_BITS | times;
        Self(counts << MOMENT_BITS | moment)
    }

    fn stage(self) -> Stage {
        match self.0 >> (MOMENT_BITS + TIMES_BITS + FAILURES_BITS) {
            0 => Stage::Counting,
            1 => Stage::Avoiding,
            _ => Stage::Trial,
        }
    }

    fn failures(self) -> u64 {
        self.0 >> (MOMENT_BITS + TIMES_BITS) & ((1 << FAILURES_BITS) - 1)
    }

    fn times(self) -> u64 {
        self.0 >> MOMENT_BITS & ((1 << TIMES_BITS) - 1)
    }

    fn times32(self) -> u32 {
        u32::try_from(self.times()).unwrap_or(u32::MAX)
    }

    fn moment(self) -> u64 {
        self.0 & ((1 << MOMENT_BITS) - 1)
    }
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

    fn fail(state: LocalState, count: u32, now: Duration) -> LocalState {
        let mut rng = fastrand::Rng::with_seed(count.into());
        (0..count).fold(state, |state, _| state.failed(&policy(), true, now, &mut rng))
    }

    fn admits(state: LocalState, now: Duration) -> bool {
        state.admission(Fleet::Closed, now) == Admission::Yes
    }

    fn trial(state: LocalState, now: Duration) -> LocalState {
        match state.admission(Fleet::Closed, now) {
            Admission::Trial(state) => state,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn five_failures_in_a_row_avoid_it_and_one_success_in_between_does_not() {
        let state = fail(LocalState::CLEAN, 4, SECOND);
        assert!(admits(state, SECOND) && state != LocalState::CLEAN);
        assert_eq!(state.succeeded(&policy(), SECOND), LocalState::CLEAN);
        let state = fail(state, 1, SECOND);
        assert!(state.is_avoided());
        assert_eq!(state.admission(Fleet::Closed, 5 * SECOND), Admission::No);
    }

    #[test]
    fn then_one_request_at_a_time_until_one_succeeds() {
        let state = fail(LocalState::CLEAN, 5, SECOND);
        let now = 9 * SECOND;
        let state = trial(state, now);
        assert_eq!(state.admission(Fleet::Closed, now), Admission::No, "one is under way");
        let again = fail(state, 1, now);
        assert_eq!(again.admission(Fleet::Closed, now + 9 * SECOND), Admission::No, "twice 5 s");
        let state = trial(again, now + 16 * SECOND).succeeded(&policy(), now);
        assert!(admits(state, now) && !state.is_avoided());
        assert_eq!(state.succeeded(&policy(), now + 99 * SECOND), state, "remembered");
        assert_eq!(state.succeeded(&policy(), now + 100 * SECOND), LocalState::CLEAN);
    }

    #[test]
    fn a_trial_that_is_never_heard_of_makes_way_for_another() {
        let state = trial(fail(LocalState::CLEAN, 5, SECOND), 9 * SECOND);
        assert_eq!(state.admission(Fleet::Closed, 68 * SECOND), Admission::No);
        assert!(trial(state, 69 * SECOND).is_avoided());
        assert!(trial(state.abandoned(10 * SECOND), 10 * SECOND).is_avoided());
    }

    #[test]
    fn stragglers_change_nothing_while_it_is_avoided() {
        let state = fail(LocalState::CLEAN, 5, SECOND);
        assert_eq!(fail(state, 9, 2 * SECOND), state);
        assert_eq!(state.succeeded(&policy(), 2 * SECOND), state);
        assert_eq!(state.abandoned(2 * SECOND), state);
    }

    #[test]
    fn what_the_fleet_says_comes_first() {
        for state in [LocalState::CLEAN, fail(LocalState::CLEAN, 5, SECOND)] {
            assert_eq!(state.admission(Fleet::Open, 99 * SECOND), Admission::No);
        }
    }

    #[test]
    fn what_the_fleet_had_open_is_tried_alone_once_nobody_says_anything() {
        let mut rng = fastrand::Rng::with_seed(1);
        let state = LocalState::CLEAN.taken_over(&policy(), SECOND, &mut rng);
        assert_eq!(state.admission(Fleet::Closed, 5 * SECOND), Admission::No);
        let state = trial(state, 9 * SECOND);
        assert_eq!(state.taken_over(&policy(), 9 * SECOND, &mut rng), state);
    }

    #[test]
    fn a_backend_that_cannot_be_spared_is_only_counted() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut state = LocalState::CLEAN;
        for _ in 0..99_999 {
            state = state.failed(&policy(), false, SECOND, &mut rng);
            assert!(admits(state, SECOND));
        }
        assert!(state.failed(&policy(), true, SECOND, &mut rng).is_avoided());
        let off = BreakerPolicy { consecutive_failures: 0, ..policy() };
        assert_eq!(state.failed(&off, true, SECOND, &mut rng), LocalState::CLEAN);
    }

    proptest! {
        #[test]
        fn it_packs_and_unpacks(failures in 0_u64..1 << 14, times in 0_u64..256, moment in 0_u64..1 << 40) {
            for stage in [Stage::Counting, Stage::Avoiding, Stage::Trial] {
                let state = LocalState::pack(stage, failures, times, moment);
                let back = LocalState::from_bits(state.to_bits());
                prop_assert_eq!(
                    (back.stage(), back.failures(), back.times(), back.moment()),
                    (stage, failures, times, moment)
                );
            }
        }

        /// After anything, waiting and one success restore it; and a backend without
        /// trouble is soon clean again.
        #[test]
        fn it_always_recovers(steps in prop::collection::vec((0_u8..4, 0_u64..400_000), 0..100)) {
            let (mut state, mut now) = (LocalState::CLEAN, Duration::ZERO);
            let mut rng = fastrand::Rng::with_seed(5);
            for (what, wait) in steps {
                now += Duration::from_millis(wait);
                state = match what {
                    0 => state.succeeded(&policy(), now),
                    1 => state.abandoned(now),
                    2 => state.failed(&policy(), true, now, &mut rng),
                    _ => match state.admission(Fleet::Closed, now) {
                        Admission::Trial(state) => state,
                        Admission::Yes | Admission::No => state,
                    },
                };
            }
            if state.is_avoided() {
                now += 451 * SECOND;
                state = trial(state, now).succeeded(&policy(), now);
            }
            prop_assert!(admits(state, now));
            prop_assert_eq!(state.succeeded(&policy(), now + QUIET_MAX), LocalState::CLEAN);
        }
    }
}
