//! One proxy's share of a rate: what was asked for goes up, and the pace of the buckets
//! comes out.

use std::time::{Duration, Instant};

use super::{Applied, Grant, Holder, Refused, Report, Term};
use crate::limit::{MICROS, Pace, burst_share};

/// A share of a rate. One thread of the proxy owns it, counts what its workers were asked
/// for, and gives them [`RateShare::pace`] after every change.
#[derive(Clone, Debug)]
pub struct RateShare {
    holder: Holder,
    burst: u32,
    pace: Pace,
    /// Tokens per second, smoothed.
    demand: f64,
    reported_at: Instant,
}

impl RateShare {
    /// A share that is held by `holder`, of a limit with this burst.
    #[must_use]
    pub fn new(holder: Holder, burst: u32, now: Instant) -> Self {
        Self::following(&Pace::new(0, 0, now), holder, burst, now)
    }

    /// The same, for buckets that have followed another pace until `now`.
    #[must_use]
    pub fn following(pace: &Pace, holder: Holder, burst: u32, now: Instant) -> Self {
        let mut share = Self { holder, burst, pace: *pace, demand: 0.0, reported_at: now };
        share.set_pace(now);
        share
    }

    /// What to send up. `asked` is how many tokens were asked for since the last report,
    /// granted or not.
    pub fn report(&mut self, asked: u64, now: Instant) -> Report {
        let demand = self.demand(asked, now);
        self.holder.report(demand, 0, now)
    }

    /// The same, if it is not what was sent last.
    pub fn news(&mut self, asked: u64, now: Instant) -> Option<Report> {
        let demand = self.demand(asked, now);
        let repeats = self.holder.repeats(demand, 0, now);
        (!repeats).then(|| self.holder.report(demand, 0, now))
    }

    /// See [`Holder::renew`]; after it [`RateShare::pace`] is another.
    pub fn renew(&mut self, term: Term, sent_at: Instant, now: Instant) {
        self.holder.renew(term, sent_at, now);
        self.set_pace(now);
    }

    #[expect(clippy::cast_possible_truncation, reason = "a conversion of floats saturates")]
    fn demand(&mut self, asked: u64, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.reported_at).as_secs_f64();
        if elapsed > 0.0 {
            let rate = asked as f64 / elapsed;
            let weight = 1.0 - (-elapsed / SMOOTHED_OVER.as_secs_f64()).exp();
            self.demand += (rate - self.demand) * weight;
            self.reported_at = now;
        }
        // A demand beyond the limit is cut by the granter.
        (self.demand * MICROS as f64) as u64
    }

    /// Takes a grant in; after it [`RateShare::pace`] is another.
    pub fn apply(&mut self, grant: &Grant, now: Instant) -> Result<Applied, Refused> {
        let applied = self.holder.apply(grant, now)?;
        self.set_pace(now);
        Ok(applied)
    }

    /// Changes the burst of the limit; after it [`RateShare::pace`] is another.
    pub fn set_burst(&mut self, burst: u32, now: Instant) {
        if self.burst != burst {
            self.burst = burst;
            self.set_pace(now);
        }
    }

    /// Gives its safe share up ([`Holder::retire`]); after it [`RateShare::pace`] is another.
    pub fn retire(&mut self, now: Instant) {
        self.holder.retire(now);
        self.set_pace(now);
    }

    /// What the buckets of this limit follow until the next grant, also if there is none.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// The lease behind it.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    fn set_pace(&mut self, now: Instant) {
        let burst = burst_share(self.burst, self.holder.remembered().1);
        self.pace = self.pace.replaced(&self.holder.stages(), burst, now);
    }
}

/// Long enough for a few requests per second to look steady, short enough to follow a
/// change within two or three reports.
const SMOOTHED_OVER: Duration = Duration::from_millis(500);

/// Demands with what each should have in reserve, as far as there is anything left for it: when
/// too much is asked for, a reserve would be what others are refused.
pub(super) fn reserved(quantity: u64, mut demands: Vec<u64>) -> Vec<u64> {
    let room = u128::from(quantity.saturating_sub(demands.iter().sum()));
    let reserves: Vec<u128> = demands.iter().map(|&demand| reserve(demand).into()).collect();
    let wanted = reserves.iter().sum::<u128>().max(1);
    for (demand, reserve) in demands.iter_mut().zip(reserves) {
        let part = reserve * room.min(wanted) / wanted;
        *demand += u64::try_from(part).unwrap_or_default();
    }
    demands
}

/// What is to be lent beyond a demand, in millionths of a token per second, so that hardly
/// anything of it is refused: a part of it, without which a bucket would be empty most of the time
/// whatever its depth, and what the demand itself may have been taken for too little. It comes at
/// random, and so differs by about the root of its number.
fn reserve(demand: u64) -> u64 {
    let demand = demand as f64 / MICROS as f64;
    let spread = (demand / SMOOTHED_OVER.as_secs_f64()).sqrt() / 2.0;
    #[expect(clippy::cast_possible_truncation, reason = "a conversion of floats saturates")]
    let reserve = ((demand / RESERVED_PARTS + spread) * MICROS as f64) as u64;
    reserve
}

/// A quarter: with it all of a limit that is used to four fifths is lent where it is used.
const RESERVED_PARTS: f64 = 4.0;
