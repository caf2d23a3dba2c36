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
//! a wait of about one more service time.
//!
//! What differs is the *unqueued time*. A mean over the last 600 answers, as `gradient2`
//! has it, contains the queue that the limit lets in: under lasting overload mean and
//! limit raise each other for ever. Here it is measured: when the limit has been hit
//! for a window of answers, it is lowered for a round to what the slots can hold, and the
//! time of that round is taken. When rounds take three times as long and lowering the limit
//! does not help, the backend itself has become slow: it is measured at once. A round that
//! takes less than half has no queue, and counts as measured too.
//!
//! No clock is read: times come with the answers. What is refused is the caller's to queue
//! or to answer.

use std::{ops::RangeInclusive, time::Duration};

use crate::model::Invalid;

/// The bounds of an adaptive limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// The lowest limit; default 1. It is also the least that a backend is measured with:
    /// more than it has slots makes its queue look like its work.
    pub limit_min: u32,
    /// The highest limit; default 1000.
    pub limit_max: u32,
    /// The first limit; default 20, as `gradient2`'s.
    pub limit_initial: u32,
    /// How much longer than unqueued an answer may take, in percent of that; default 150,
    /// as `gradient2`'s. Below 110, noise alone would lower the limit.
    pub tolerance_percent: u32,
    /// Answers between two measurements while the limit is hit; default 600, and never
    /// fewer than twenty rounds, so that measuring costs little.
    pub window: u32,
}

impl Policy {
    /// What the limits may be.
    pub const LIMITS: RangeInclusive<u32> = 1..=100_000;
    /// What [`Self::tolerance_percent`] may be.
    pub const TOLERANCES: RangeInclusive<u32> = 110..=500;
    /// What [`Self::window`] may be.
    pub const WINDOWS: RangeInclusive<u32> = 100..=100_000;

    /// Checks every range, and that the first limit lies between the lowest and the
    /// highest.
    pub fn checked(self) -> Result<Self, Invalid> {
        for (field, value, range) in [
            ("pool.concurrency_min", self.limit_min, Self::LIMITS),
            ("pool.concurrency_max", self.limit_max, Self::LIMITS),
            ("pool.concurrency_tolerance_percent", self.tolerance_percent, Self::TOLERANCES),
            ("pool.concurrency_window", self.window, Self::WINDOWS),
        ] {
            if !range.contains(&value) {
                return Err(Invalid::value(
                    field,
                    format!("{field} {value} is outside {}..={}", range.start(), range.end()),
                ));
            }
        }
        if !(self.limit_min..=self.limit_max).contains(&self.limit_initial) {
            return Err(Invalid::value(
                "pool.concurrency_initial",
                format!(
                    "pool.concurrency_initial {} is not between pool.concurrency_min {} and \
                     pool.concurrency_max {}",
                    self.limit_initial, self.limit_min, self.limit_max
                ),
            ));
        }
        Ok(self)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            limit_min: 1,
            limit_max: 1000,
            limit_initial: 20,
            tolerance_percent: 150,
            window: 600,
        }
    }
}

/// The adaptive limit of one pool at one proxy.
#[derive(Clone, Debug)]
pub struct Concurrency {
    policy: Policy,
    limit: f64,
    /// The time of an answer without a queue, in seconds; none before the first
    /// measurement.
    unqueued_s: Option<f64>,
    phase: Phase,
    round: Round,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Following the gradient.
    Steady {
        /// Answers until the next measurement.
        answers_left: u32,
        /// Rounds in a row that took more than the gradient can follow.
        doubts: u32,
    },
    /// The limit is lowered; requests sent before that are still being answered.
    Settling { answers_left: u32 },
    /// The limit is lowered, and the answers are to requests that were sent since.
    Measuring,
}

/// Rounds of doubt after which the backend is measured: lowering the limit has had time to
/// show.
const DOUBTS_MAX: u32 = 3;
/// The fewest answers of a round: the mean of fewer says little.
const ROUND_MIN: u32 = 16;
/// The fewest answers of a measurement, which holds for longer than a round.
const MEASUREMENT_MIN: u32 = 64;
/// Rounds between two measurements, which themselves take about two.
const ROUNDS_BETWEEN: u32 = 20;
/// How far a round moves the limit towards its aim, and how far a shorter one lowers the
/// unqueued time: less than all of the way, against noise.
const LIMIT_STEP: f64 = 0.5;
const UNQUEUED_STEP: f64 = 0.1;
/// How much less than the slots a measurement takes: the limit may have been above its
/// place of rest, and a queue must not be measured.
const MARGIN: f64 = 0.75;

impl Concurrency {
    /// A limit that begins with a measurement. The policy must have been
    /// [`Policy::checked`].
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let mut concurrency = Self {
            policy,
            limit: f64::from(policy.limit_initial),
            unqueued_s: None,
            phase: Phase::Measuring,
            round: Round::default(),
        };
        concurrency.begin_round();
        concurrency
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

    /// Whether one more request may be sent while so many are in flight.
    #[must_use]
    pub fn admits(&self, in_flight: u32) -> bool {
        in_flight < self.limit()
    }

    /// Records an answer that took `time`, at whose arrival `in_flight` requests were in
    /// flight, itself included.
    ///
    /// To be recorded: answers, and timeouts with the time that they took. Not to be
    /// recorded: what failed before a backend worked on it, such as a refused connection;
    /// it would look like a backend that became fast.
    pub fn record(&mut self, time: Duration, in_flight: u32) {
        if let Phase::Settling { answers_left } = &mut self.phase {
            *answers_left = answers_left.saturating_sub(1);
            if *answers_left == 0 {
                self.phase = Phase::Measuring;
                self.begin_round();
            }
            return;
        }
        self.round.add(time, in_flight);
        if !self.round.is_complete() {
            return;
        }
        match self.phase {
            Phase::Steady { answers_left, doubts } => self.end_round(answers_left, doubts),
            Phase::Settling { .. } | Phase::Measuring => {
                self.unqueued_s = Some(self.round.mean_s());
                self.phase = self.steady();
            }
        }
        self.begin_round();
    }

    /// Follows the gradient, and decides whether it can be trusted any longer.
    fn end_round(&mut self, answers_left: u32, doubts: u32) {
        let time_s = self.round.mean_s();
        let unqueued_s = match self.unqueued_s {
            Some(unqueued_s) if time_s >= unqueued_s => unqueued_s,
            Some(unqueued_s) if time_s >= unqueued_s / 2.0 => {
                unqueued_s + (time_s - unqueued_s) * UNQUEUED_STEP
            }
            Some(_) | None => time_s,
        };
        self.unqueued_s = Some(unqueued_s);

        let gradient = self.tolerance() * unqueued_s / time_s;
        let was_hit = self.round.in_flight_max >= whole(self.limit);
        let aim = self.limit * gradient.clamp(0.5, 1.0) + self.limit.sqrt();
        // A limit that is not even half used says nothing when times are good.
        if aim < self.limit || self.round.in_flight_max >= whole(self.limit / 2.0) {
            self.limit = self.bounded(self.limit + (aim - self.limit) * LIMIT_STEP);
        }

        let doubts = if gradient < 0.5 { doubts + 1 } else { 0 };
        let answers_left = answers_left.saturating_sub(self.round.answers);
        self.phase = if doubts >= DOUBTS_MAX || (answers_left == 0 && was_hit) {
            Phase::Settling { answers_left: self.round.in_flight_last.max(1) }
        } else {
            Phase::Steady { answers_left, doubts }
        };
    }

    fn steady(&self) -> Phase {
        let rounds = whole(self.limit).max(ROUND_MIN).saturating_mul(ROUNDS_BETWEEN);
        Phase::Steady { answers_left: self.policy.window.max(rounds), doubts: 0 }
    }

    fn begin_round(&mut self) {
        let least = match self.phase {
            Phase::Steady { .. } => ROUND_MIN,
            Phase::Settling { .. } | Phase::Measuring => MEASUREMENT_MIN,
        };
        self.round = Round { size: self.limit().max(least), ..Round::default() };
    }

    /// What surely fits into the slots, if the limit is where it comes to rest.
    fn lowered(&self) -> f64 {
        (self.limit - self.limit.sqrt()) / self.tolerance() * MARGIN
    }

    fn tolerance(&self) -> f64 {
        f64::from(self.policy.tolerance_percent) / 100.0
    }

    fn bounded(&self, limit: f64) -> f64 {
        limit.clamp(f64::from(self.policy.limit_min), f64::from(self.policy.limit_max))
    }
}

/// The answers of about one round trip.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    size: u32,
    answers: u32,
    time_sum_s: f64,
    in_flight_max: u32,
    in_flight_last: u32,
}

impl Round {
    fn add(&mut self, time: Duration, in_flight: u32) {
        self.answers += 1;
        self.time_sum_s += time.as_secs_f64();
        self.in_flight_max = self.in_flight_max.max(in_flight);
        self.in_flight_last = in_flight;
    }

    fn is_complete(&self) -> bool {
        self.answers >= self.size
    }

    /// The mean time of an answer; never nothing, so that it can be divided by.
    fn mean_s(&self) -> f64 {
        (self.time_sum_s / f64::from(self.answers.max(1))).max(1e-6)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "limits lie between 0 and 100 000"
)]
fn whole(limit: f64) -> u32 {
    limit as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Answers that take `time` with this part of the limit in use.
    fn answers(limit: &mut Concurrency, count: u32, time: Duration, used: f64) {
        for _ in 0..count {
            let in_flight = whole(f64::from(limit.limit()) * used).max(1);
            limit.record(time, in_flight);
        }
    }

    #[test]
    fn policies_that_cannot_work_are_named() {
        let policy = Policy::default();
        assert_eq!(policy.checked(), Ok(policy));
        for (policy, field) in [
            (Policy { limit_min: 0, ..policy }, "pool.concurrency_min"),
            (Policy { limit_max: 100_001, ..policy }, "pool.concurrency_max"),
            (Policy { limit_max: 19, ..policy }, "pool.concurrency_initial"),
            (Policy { limit_min: 21, ..policy }, "pool.concurrency_initial"),
            (Policy { tolerance_percent: 100, ..policy }, "pool.concurrency_tolerance_percent"),
            (Policy { window: 10, ..policy }, "pool.concurrency_window"),
        ] {
            assert_eq!(policy.checked().unwrap_err().field, field);
        }
    }

    #[test]
    fn a_limit_that_is_not_used_does_not_grow() {
        let mut limit = Concurrency::new(Policy::default());
        answers(&mut limit, 10_000, 10 * MS, 0.4);
        assert_eq!(limit.limit(), 20);
        answers(&mut limit, 1_000, 10 * MS, 1.0);
        assert!(limit.limit() > 40, "{}", limit.limit());
    }

    #[test]
    fn good_times_of_a_limit_that_is_not_hit_are_not_interrupted_to_measure() {
        let mut limit = Concurrency::new(Policy::default());
        answers(&mut limit, 16, 10 * MS, 0.9);
        for _ in 0..10_000 {
            let before = limit.limit();
            answers(&mut limit, 1, 10 * MS, 0.9);
            assert!(limit.limit() >= before);
        }
    }

    #[test]
    fn a_request_is_admitted_below_the_limit() {
        let limit = Concurrency::new(Policy { limit_initial: 4, ..Policy::default() });
        assert_eq!(limit.limit(), 1, "it begins with a measurement");
        assert!(limit.admits(0) && !limit.admits(1));
    }
}
