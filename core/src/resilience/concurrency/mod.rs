//! How many requests a pool takes at once, found out by how long it takes for them.
//!
//! A backend with a few slots answers in the same time until all are taken; beyond that
//! requests queue in front of it and each takes longer. So the time of an answer tells when
//! there are too many, without anybody knowing the number of slots. The limit follows the
//! gradient of Netflix's `gradient2`, once for each *round*, which is as many answers as
//! the limit has places, about one round trip:
//!
//! ```text
//! limit' = limit x clamp(tolerance x unqueued time / time of this round, 0.5, 1) + sqrt(limit)
//! ```
//!
//! The square root is the queue that is allowed, and the way up. With S slots and demand
//! without end, this comes to rest at about tolerance x S + sqrt(limit): all slots busy, and
//! a wait of about one more service time. Until a limit has been too high for the first
//! time, it grows by half in each round.
//!
//! What differs is the *unqueued time*. A mean over the last 600 answers, as `gradient2`
//! has it, contains the queue that the limit lets in: under lasting overload mean and
//! limit raise each other for ever. Here it is measured: when the limit has been hit
//! for a window of answers, it is lowered for a round to what the slots can hold, and the
//! time of that round is taken. When rounds take three times as long and lowering the limit
//! does not help, the backend itself has become slow: it is measured at once. A round that
//! takes less than half has no queue, and counts as measured too.
//!
//! The limit is one for the whole fleet: [`FleetConcurrency`] adds up what the proxies tell, and the
//! slots that the limit allows are lent to them ([`crate::lease`]).

mod fleet;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use self::fleet::{FleetConcurrency, Sums, Told};

/// The bounds of an adaptive limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// The lowest limit, at least 1. It is also the least that a backend is measured with:
    /// more than it has slots makes its queue look like its work.
    pub limit_min: u32,
    /// The highest limit, not below the lowest.
    pub limit_max: u32,
}

/// What the proxies have seen since the last sample.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sample {
    /// Answers, and the sum of the times that they took. Not in it: what failed, because an
    /// error that comes fast would look like a backend that has become fast.
    pub answers: u64,
    /// The sum.
    pub time: Duration,
    /// Requests whose answer was not waited for any longer, and the sum of their times
    /// until then. They would have taken longer still, so they count where that is more
    /// than is usual, and not at all where it is less.
    pub given_up: u64,
    /// The sum.
    pub given_up_time: Duration,
    /// Requests that wait for their answer now.
    pub in_flight: u64,
    /// Requests that wait for a place.
    pub waiting: u64,
}

/// The adaptive limit of one pool.
#[derive(Clone, Debug)]
pub struct Concurrency {
    policy: Policy,
    limit: f64,
    /// The limit has never been too high.
    climbs: bool,
    /// The time of an answer without a queue, in seconds; none before the first
    /// measurement.
    unqueued_s: Option<f64>,
    /// Of the last round that was not a measurement.
    time_s: Option<f64>,
    phase: Phase,
    course: Course,
    round: Round,
}

/// What the limit does, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Course {
    /// It is lowered for a moment, to take the time of an answer without a queue.
    Measuring,
    /// It rises: answers take no longer than they may.
    Rising,
    /// It stays about where it is: answers take as long as they may.
    Resting,
    /// It falls: answers take longer than they may.
    Falling,
    /// It stays where it is, because fewer than half of its places are in use.
    Unused,
    /// It is as high as it may be.
    Highest,
    /// It is as low as it may be.
    Lowest,
}

impl Course {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Measuring,
        Self::Rising,
        Self::Resting,
        Self::Falling,
        Self::Unused,
        Self::Highest,
        Self::Lowest,
    ];

    /// As programs call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Measuring => "measuring",
            Self::Rising => "rising",
            Self::Resting => "resting",
            Self::Falling => "falling",
            Self::Unused => "unused",
            Self::Highest => "highest",
            Self::Lowest => "lowest",
        }
    }

    /// Why it does so, in a few words.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Measuring => "lowered for a moment to measure the time without a queue",
            Self::Rising => "answers take no longer than they may",
            Self::Resting => "answers take as long as they may",
            Self::Falling => "answers take longer than they may: requests queue at the backends",
            Self::Unused => "fewer than half of it is in use",
            Self::Highest => "answers take no longer than they may, and it may not be higher",
            Self::Lowest => "answers take longer than they may, and it may not be lower",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Following the gradient.
    Steady {
        /// Answers until the next measurement.
        answers_left: u64,
        /// Rounds in a row that took more than the gradient can follow.
        doubts: u32,
    },
    /// The limit is lowered; requests sent before that are still being answered.
    Settling {
        /// Of the requests that were in flight when no more were than the lowered limit
        /// allows; none before that.
        answers_left: Option<u64>,
        /// When it is given up.
        until: Instant,
    },
    /// The limit is lowered, and the answers are to requests that were sent since.
    Measuring,
}

/// The first limit, as `gradient2`'s.
const LIMIT_INITIAL: f64 = 20.0;
/// How much longer than unqueued an answer may take, as with `gradient2`. Below 1.1, noise
/// alone would lower the limit.
const TOLERANCE: f64 = 1.5;
/// The fewest answers between two measurements while the limit is hit, as `gradient2`'s
/// window.
const WINDOW: u64 = 600;
/// Rounds between two measurements, which themselves take about two.
const ROUNDS_BETWEEN: u64 = 20;
/// The shortest round: what the limit was before must not be seen in it, and reports and
/// grants take about half of this.
const ROUND_TIME_MIN: Duration = Duration::from_millis(250);
/// Rounds of doubt after which the backend is measured: lowering the limit has had time to
/// show.
const DOUBTS_MAX: u32 = 3;
/// The fewest answers of a round: the mean of fewer says little.
const ROUND_MIN: u64 = 16;
/// The fewest answers of a measurement, which holds for longer than a round.
const MEASUREMENT_MIN: u64 = 64;
/// The least time after which a measurement is given up for which there are still too many
/// requests in flight; else ten times that of an answer.
const SETTLING_MAX: Duration = Duration::from_secs(5);
/// How far a round moves the limit towards its aim, and how far a shorter one lowers the
/// unqueued time: less than all of the way, against noise.
const LIMIT_STEP: f64 = 0.5;
const UNQUEUED_STEP: f64 = 0.1;
/// How much less than the slots a measurement takes: the limit may have been above its
/// place of rest, and a queue must not be measured.
const MARGIN: f64 = 0.75;
/// So far from where it is the limit's aim counts as a change, for people.
const STIR: f64 = 0.05;

impl Concurrency {
    /// A limit that begins with a measurement.
    #[must_use]
    pub fn new(policy: Policy, now: Instant) -> Self {
        let mut concurrency = Self {
            policy,
            limit: LIMIT_INITIAL,
            climbs: true,
            unqueued_s: None,
            time_s: None,
            phase: Phase::Measuring,
            course: Course::Measuring,
            round: Round::begin(0, now),
        };
        concurrency.limit = concurrency.bounded(LIMIT_INITIAL);
        concurrency.begin_round(now);
        concurrency
    }

    /// Changes the bounds.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        self.limit = self.bounded(self.limit);
    }

    /// So many requests were in flight before there was a limit, or under the limit of a
    /// process before this one: it begins no lower than that. Without effect once anything
    /// is known.
    pub fn found(&mut self, in_flight: u64) {
        if self.unqueued_s.is_none() {
            self.limit = self.bounded(self.limit.max(in_flight as f64));
        }
    }

    /// How many requests may be in flight now: at least the policy's lowest limit, at most
    /// its highest.
    #[must_use]
    pub fn limit(&self) -> u32 {
        let limit = match self.phase {
            Phase::Steady { .. } => self.limit,
            Phase::Settling { .. } | Phase::Measuring => self.lowered(),
        };
        whole(self.bounded(limit))
    }

    /// The time of an answer without a queue; none before the first measurement.
    #[must_use]
    pub fn unqueued(&self) -> Option<Duration> {
        self.unqueued_s.map(Duration::from_secs_f64)
    }

    /// The time of an answer in the last round.
    #[must_use]
    pub fn time(&self) -> Option<Duration> {
        self.time_s.map(Duration::from_secs_f64)
    }

    /// What the limit does, and why.
    #[must_use]
    pub fn course(&self) -> Course {
        match self.phase {
            Phase::Steady { .. } => self.course,
            Phase::Settling { .. } | Phase::Measuring => Course::Measuring,
        }
    }

    /// Takes in what was seen since the last call.
    pub fn record(&mut self, sample: &Sample, now: Instant) {
        if let Phase::Settling { answers_left, until } = self.phase {
            self.settle(answers_left, until, sample, now);
            return;
        }
        self.round.add(sample, self.unqueued_s);
        if !self.round.is_complete(now) {
            return;
        }
        match self.phase {
            Phase::Steady { answers_left, doubts } => self.end_round(answers_left, doubts, now),
            Phase::Settling { .. } | Phase::Measuring => {
                self.unqueued_s = Some(self.round.mean_s());
                self.phase = self.steady();
            }
        }
        self.begin_round(now);
    }

    /// Waits until requests that were sent under the higher limit have been answered.
    fn settle(&mut self, left: Option<u64>, until: Instant, sample: &Sample, now: Instant) {
        let left = match left {
            None => (sample.in_flight <= u64::from(self.limit())).then_some(sample.in_flight),
            Some(left) => Some(left.saturating_sub(sample.answers + sample.given_up)),
        };
        self.phase = if left == Some(0) {
            Phase::Measuring
        } else if now >= until {
            self.steady()
        } else {
            Phase::Settling { answers_left: left, until }
        };
        self.begin_round(now);
    }

    /// Follows the gradient, and decides whether it can be trusted any longer.
    fn end_round(&mut self, answers_left: u64, doubts: u32, now: Instant) {
        let time_s = self.round.mean_s();
        let unqueued_s = match self.unqueued_s {
            Some(unqueued_s) if time_s >= unqueued_s => unqueued_s,
            Some(unqueued_s) if time_s >= unqueued_s / 2.0 => {
                unqueued_s + (time_s - unqueued_s) * UNQUEUED_STEP
            }
            Some(_) | None => time_s,
        };
        self.unqueued_s = Some(unqueued_s);
        self.time_s = Some(time_s);

        let gradient = TOLERANCE * unqueued_s / time_s;
        self.climbs &= gradient >= 1.0;
        let wanted = self.round.wanted_max as f64;
        let was_hit = wanted >= self.limit.floor();
        let growth = if self.climbs { self.limit } else { self.limit.sqrt() };
        let aim = self.limit * gradient.clamp(0.5, 1.0) + growth;
        // A limit that is not even half used says nothing when times are good.
        let is_used = aim < self.limit || wanted >= (self.limit / 2.0).floor();
        if is_used {
            self.limit = self.bounded(self.limit + (aim - self.limit) * LIMIT_STEP);
        }
        self.course = self.course_to(aim, is_used);

        let doubts = if gradient < 0.5 { doubts + 1 } else { 0 };
        let answers_left = answers_left.saturating_sub(self.round.answers);
        self.phase = if doubts >= DOUBTS_MAX || (answers_left == 0 && was_hit) {
            let time = Duration::from_secs_f64(time_s).min(Duration::from_secs(60));
            Phase::Settling { answers_left: None, until: now + SETTLING_MAX.max(10 * time) }
        } else {
            Phase::Steady { answers_left, doubts }
        };
    }

    fn course_to(&self, aim: f64, is_used: bool) -> Course {
        let aimed = aim / self.limit;
        if !is_used {
            Course::Unused
        } else if aimed > 1.0 + STIR && self.limit >= f64::from(self.policy.limit_max) {
            Course::Highest
        } else if aimed < 1.0 - STIR && self.limit <= f64::from(self.policy.limit_min) {
            Course::Lowest
        } else if aimed > 1.0 + STIR {
            Course::Rising
        } else if aimed < 1.0 - STIR {
            Course::Falling
        } else {
            Course::Resting
        }
    }

    fn steady(&self) -> Phase {
        let rounds = u64::from(whole(self.limit)).max(ROUND_MIN) * ROUNDS_BETWEEN;
        Phase::Steady { answers_left: WINDOW.max(rounds), doubts: 0 }
    }

    fn begin_round(&mut self, now: Instant) {
        let least = match self.phase {
            Phase::Steady { .. } => ROUND_MIN,
            Phase::Settling { .. } | Phase::Measuring => MEASUREMENT_MIN,
        };
        self.round = Round::begin(u64::from(self.limit()).max(least), now);
    }

    /// What surely fits into the slots, if the limit is where it comes to rest.
    fn lowered(&self) -> f64 {
        (self.limit - self.limit.sqrt()) / TOLERANCE * MARGIN
    }

    fn bounded(&self, limit: f64) -> f64 {
        let limit = limit.min(f64::from(self.policy.limit_max));
        limit.max(f64::from(self.policy.limit_min))
    }
}

/// The answers of about one round trip.
#[derive(Clone, Copy, Debug)]
struct Round {
    size: u64,
    began: Instant,
    answers: u64,
    time_sum_s: f64,
    /// The most that were in flight or waited at once.
    wanted_max: u64,
}

impl Round {
    fn begin(size: u64, now: Instant) -> Self {
        Self { size, began: now, answers: 0, time_sum_s: 0.0, wanted_max: 0 }
    }

    fn add(&mut self, sample: &Sample, usual_s: Option<f64>) {
        self.answers += sample.answers;
        self.time_sum_s += sample.time.as_secs_f64();
        let given_up_s = sample.given_up_time.as_secs_f64();
        if given_up_s > usual_s.unwrap_or_default() * sample.given_up as f64 {
            self.answers += sample.given_up;
            self.time_sum_s += given_up_s;
        }
        self.wanted_max = self.wanted_max.max(sample.in_flight + sample.waiting);
    }

    fn is_complete(&self, now: Instant) -> bool {
        self.answers >= self.size && now.saturating_duration_since(self.began) >= ROUND_TIME_MIN
    }

    /// The mean time of an answer; never nothing, so that it can be divided by.
    fn mean_s(&self) -> f64 {
        (self.time_sum_s / self.answers.max(1) as f64).max(1e-6)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "limits lie between 0 and the most slots of a quantity"
)]
fn whole(limit: f64) -> u32 {
    limit as u32
}
