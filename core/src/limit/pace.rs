//! How fast tokens come in.
//!
//! A bucket by GCRA remembers one moment, and a change of the rate would mean another
//! moment for every key. Here the axis is not time but *tokens that have come in so far*:
//! a change of the rate bends the line from then on, and what buckets remember stays true.

use std::time::{Duration, Instant};

use crate::lease::Stages;

/// A token per second, in the unit of rates: a rate of one per day is still some.
pub const MICROS: u64 = 1_000_000;

/// Parts of a token that are told apart. The axis of a limit of ten million per second
/// is long enough for 58 years.
pub(super) const TOKEN: u64 = 1000;

/// The tokens that came in, as a line over time with up to two bends in the future: one
/// where a lease ends, and one where what replaces it may be used. Workers keep a copy,
/// and need not be told when a lease ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pace {
    /// Where the line starts, in parts of tokens.
    level: u64,
    /// What is to be added to it, in [`PER_PART`]ths: a slow rate must not lose what it is
    /// made of to rounding, each time that it is replaced.
    fraction: u64,
    from: Instant,
    stages: Stages,
    /// Nanoseconds from the start to the first bend.
    lease_nanos: u64,
    burst: u32,
    /// What is lent within about a second if it is needed.
    reach: u64,
}

impl Pace {
    /// A steady pace of `rate` millionths of a token per second.
    #[must_use]
    pub fn new(rate: u64, burst: u32, now: Instant) -> Self {
        Self::beginning((0, 0), now, steady(rate, now), burst, rate)
    }

    /// The steady pace that follows this one from `now` on.
    #[must_use]
    pub fn steadied(&self, rate: u64, burst: u32, now: Instant) -> Self {
        self.replaced(&steady(rate, now), burst, now).reaching(rate)
    }

    /// The same, when more than the present rate can be had within [`REACHED_AFTER`]: this many
    /// millionths of a token per second. Whoever is refused need not wait for longer than that
    /// takes.
    #[must_use]
    pub fn reaching(self, reach: u64) -> Self {
        Self { reach, ..self }
    }

    /// The pace that follows this one from `now` on; its safe share is what can be reached.
    #[must_use]
    pub fn replaced(&self, stages: &Stages, burst: u32, now: Instant) -> Self {
        // A clock that steps back must not make tokens.
        let from = now.max(self.from);
        Self::beginning(self.exact_level(from), from, *stages, burst, stages.safe)
    }

    fn beginning(
        (level, fraction): (u64, u64),
        from: Instant,
        stages: Stages,
        burst: u32,
        reach: u64,
    ) -> Self {
        let lease_nanos = nanos_between(from, stages.lease_until);
        Self { level, fraction, from, stages, lease_nanos, burst, reach }
    }

    /// Tokens that a bucket of this limit holds when it is full.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Millionths of a token per second at `now`.
    #[must_use]
    pub fn rate(&self, now: Instant) -> u64 {
        self.stages.at(now)
    }

    /// Whether the first stage lasts at `now`, and not what follows it: a lease, or a steady pace.
    #[must_use]
    pub fn is_leased(&self, now: Instant) -> bool {
        now < self.stages.lease_until
    }

    /// Nanoseconds from `origin` to its start; less than none if that is earlier.
    #[must_use]
    pub fn start_after(&self, origin: Instant) -> i64 {
        let signed = |nanos: u64| i64::try_from(nanos).unwrap_or(i64::MAX);
        signed(nanos_between(origin, self.from)) - signed(nanos_between(self.from, origin))
    }

    /// What has come in until `now`, and how fast it does.
    #[inline]
    pub(super) fn inflow(&self, now: Instant) -> Inflow {
        let elapsed = self.elapsed(now);
        self.inflow_of_first_stage(elapsed).unwrap_or_else(|| self.inflow_of_any_stage(now))
    }

    /// Nanoseconds since the start.
    #[inline]
    pub(super) fn elapsed(&self, now: Instant) -> u64 {
        nanos_between(self.from, now)
    }

    /// What has come in that many nanoseconds after the start, before the first bend; nothing after
    /// it, or if the numbers are out of the usual.
    #[inline(always)]
    pub(super) fn inflow_of_first_stage(&self, elapsed: u64) -> Option<Inflow> {
        // Two numbers are compared and multiplied faster than two instants.
        if elapsed >= self.lease_nanos {
            return None;
        }
        let lease = self.stages.lease;
        let sum = u128::from(lease) * u128::from(elapsed) + u128::from(self.fraction);
        // A division of 128 bits would be a tenth of what a limit costs.
        let parts = u64::try_from(sum >> TWOS).ok()? / REST;
        Some(Inflow { level: self.level.checked_add(parts)?, rate: lease })
    }

    #[cold]
    fn inflow_of_any_stage(&self, now: Instant) -> Inflow {
        Inflow { level: self.exact_level(now).0, rate: self.rate(now) }
    }

    /// Parts of tokens that have come in, and what is left over in [`PER_PART`]ths.
    fn exact_level(&self, now: Instant) -> (u64, u64) {
        let Stages { lease, lease_until, between, safe_from, safe } = self.stages;
        let mut sum = u128::from(self.fraction) + product(lease, self.from, now.min(lease_until));
        // Each stage counts as far as it lies after the start.
        sum += product(between, lease_until.max(self.from), now.min(safe_from));
        sum += product(safe, safe_from.max(self.from), now);
        let (parts, fraction) = divided(sum);
        (self.level.saturating_add(parts), fraction)
    }

    /// How long after `now` this many parts of tokens have come in, at the present rate or at
    /// the one that can be reached; the longest duration if both are zero.
    pub(super) fn wait(&self, parts: u64, now: Instant) -> Duration {
        let at = |rate: u64| {
            let parts = u128::from(parts) * u128::from(PER_PART);
            let nanos = (rate > 0).then(|| parts.div_ceil(rate.into()))?;
            Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
        };
        let reached = at(self.reach).map(|wait| wait.saturating_add(REACHED_AFTER));
        at(self.rate(now)).into_iter().chain(reached).min().unwrap_or(Duration::MAX)
    }
}

/// What a pace has come to at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inflow {
    /// Parts of tokens that have come in.
    pub(super) level: u64,
    /// Millionths of a token per second.
    pub(super) rate: u64,
}

/// In how many whole seconds, rounded up, this many parts come in at this rate, which are more
/// than none and no more than a burst; without a division of 128 bits, since it is told with every
/// answer. 1 if the rate is zero: a share may come at any moment.
#[inline]
pub(super) fn wait_seconds(parts: u64, rate: u64) -> u32 {
    let micros = parts * (MICROS / TOKEN);
    if micros <= rate || rate == 0 {
        1
    } else {
        u32::try_from(micros.div_ceil(rate)).unwrap_or(u32::MAX)
    }
}

/// After how long a proxy that needs it has been lent its share, at the latest: a few reports.
pub const REACHED_AFTER: Duration = Duration::from_secs(1);

/// Millionths per second times nanoseconds, for one part of a token.
const PER_PART: u64 = 1_000_000_000 * MICROS / TOKEN;

fn steady(rate: u64, now: Instant) -> Stages {
    // One stage only, which is the one that is looked at first.
    let end = now + Duration::from_secs(100 * 366 * 24 * 3600);
    Stages { lease: rate, lease_until: end, between: rate, safe_from: end, safe: rate }
}

/// What comes in between two instants, in [`PER_PART`]ths of parts of tokens.
#[inline]
fn product(rate: u64, from: Instant, to: Instant) -> u128 {
    u128::from(rate) * u128::from(nanos_between(from, to))
}

/// [`PER_PART`] is two to the power of `TWOS`, times `REST`.
const TWOS: u32 = PER_PART.trailing_zeros();
const REST: u64 = PER_PART >> TWOS;

/// Divides by [`PER_PART`], as on paper, with digits of 32 bits; the remainder, too.
#[cold]
fn divided(sum: u128) -> (u64, u64) {
    const _: () = assert!(REST < 1 << 32);
    let high = sum >> TWOS;
    let (Ok(first), second) = (u64::try_from(high >> 32), high & 0xFFFF_FFFF) else {
        return (u64::MAX, 0);
    };
    let Some(parts) = (first / REST).checked_mul(1 << 32) else { return (u64::MAX, 0) };
    let next = (first % REST) << 32 | low(second);
    (parts + next / REST, (next % REST) << TWOS | low(sum) & ((1 << TWOS) - 1))
}

#[expect(clippy::cast_possible_truncation, reason = "the lowest bits are wanted")]
fn low(bits: u128) -> u64 {
    bits as u64
}

/// Nanoseconds between two instants, 0 if the second is not later.
#[inline]
#[must_use]
pub fn nanos_between(from: Instant, to: Instant) -> u64 {
    let Some(elapsed) = to.checked_duration_since(from) else { return 0 };
    // No clock runs for the 584 years that this has room for.
    elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos())
}

/// The burst of each of `proxies` that share a burst: the larger of an even part and 8,
/// and never more than the whole.
#[must_use]
pub fn burst_share(burst: u32, proxies: u32) -> u32 {
    burst.div_ceil(proxies.max(1)).max(8).min(burst)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::epoch;

    #[test]
    fn a_burst_is_divided_down_to_eight() {
        for (burst, proxies, share) in
            [(100, 1, 100), (100, 4, 25), (100, 64, 8), (5, 1, 5), (5, 64, 5), (1, 9, 1), (9, 0, 9)]
        {
            assert_eq!(burst_share(burst, proxies), share, "{burst} over {proxies}");
        }
    }

    #[test]
    fn a_clock_that_steps_back_makes_no_tokens() {
        let start = epoch();
        let later = start + Duration::from_secs(1);
        let pace = Pace::new(1000 * MICROS, 1, start).steadied(1000 * MICROS, 1, later);
        let again = pace.steadied(1000 * MICROS, 1, start);
        assert_eq!(again.inflow(later).level, pace.inflow(later).level);
    }

    proptest! {
        #[test]
        fn it_is_divided_exactly(sum: u128, shift in 0u32..128) {
            let (sum, by) = (sum >> shift, u128::from(PER_PART));
            match u64::try_from(sum / by) {
                Ok(parts) => prop_assert_eq!(divided(sum), (parts, low(sum % by))),
                Err(_) => prop_assert_eq!(divided(sum).0, u64::MAX),
            }
        }

        /// Counted in one go or in pieces, over both bends and any replacement.
        #[test]
        fn the_line_is_the_sum_of_its_pieces(
            rates in prop::array::uniform3(0..20 * MICROS),
            lease_ms in 0..2000_u64,
            settle_ms in 0..2000_u64,
            steps in prop::collection::vec(0..700_u64, 1..20),
        ) {
            let start = epoch();
            let lease_until = start + Duration::from_millis(lease_ms);
            let safe_from = lease_until + Duration::from_millis(settle_ms);
            let [lease, between, safe] = rates;
            let stages = Stages { lease, lease_until, between, safe_from, safe };
            let line = Pace::new(0, 1, start).replaced(&stages, 1, start);
            let (mut pieces, mut now, mut exact) = (line, start, 0_u128);
            for step in steps {
                for _ in 0..step {
                    exact += u128::from(stages.at(now)) * 1_000_000;
                    now += Duration::from_millis(1);
                }
                let before = line.inflow(now);
                prop_assert_eq!(u128::from(before.level), exact / u128::from(PER_PART));
                prop_assert_eq!((before.rate, line.exact_level(now).0), (stages.at(now), before.level));
                prop_assert_eq!(pieces.inflow(now).level, before.level);
                pieces = pieces.replaced(&stages, 1, now);
            }
        }
    }
}
