//! One token bucket in one atomic word.
//!
//! The generic cell rate algorithm: the word is the level of incoming tokens at which the
//! bucket would be full again. A request moves it on by one token and is admitted if that
//! is at most a burst ahead of what has come in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{
    Decision, MICROS, Pace,
    pace::{Inflow, TOKEN, wait_seconds},
};

/// The bucket of a limit without a key, for all workers of a proxy. Full at first.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for one token at `now`. Does not allocate, lock or wait.
    #[inline]
    pub fn take(&self, pace: &Pace, now: Instant) -> Decision {
        let inflow = pace.inflow(now);
        let mut full_at = self.0.load(Ordering::Relaxed);
        loop {
            let debt = match take(full_at.saturating_sub(inflow.level), pace.burst()) {
                Ok(debt) => debt,
                Err(lacks) => return refused(pace, lacks, now),
            };
            let next = inflow.level + debt;
            match self.0.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Taken { debt, rate: inflow.rate }.decision(pace),
                Err(newer) => full_at = newer,
            }
        }
    }

    /// The same for the usual request: there is a token, no other worker is there, and the pace,
    /// which began so many nanoseconds ago, is in its first stage. Of any other nothing is said, and
    /// it has taken nothing: it is for [`Self::take`].
    #[inline(always)]
    pub fn take_usual(&self, pace: &Pace, elapsed: u64) -> Option<Taken> {
        let Inflow { level, rate } = pace.inflow_of_first_stage(elapsed)?;
        let full_at = self.0.load(Ordering::Relaxed);
        let debt = take(full_at.saturating_sub(level), pace.burst()).ok()?;
        let swapped =
            self.0.compare_exchange(full_at, level + debt, Ordering::Relaxed, Ordering::Relaxed);
        swapped.is_ok().then_some(Taken { debt, rate })
    }

    /// Gives a token back that was taken for a request which another limit refused.
    pub fn give_back(&self) {
        // What is below the present level is full, however far below.
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                Some(full_at.saturating_sub(TOKEN))
            })
            .ok();
    }
}

/// What a bucket that lacks `debt` parts of tokens lacks after a request; for a refusal,
/// how many parts must come in before.
#[inline]
pub(super) fn take(debt: u64, burst: u32) -> Result<u64, u64> {
    let after = debt + TOKEN;
    let most = u64::from(burst) * TOKEN;
    if after > most { Err(after - most) } else { Ok(after) }
}

/// A token was taken: what the bucket lacks after it, of which follows what a client is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Taken {
    /// In parts of tokens.
    pub(super) debt: u64,
    /// At which tokens come in now, in millionths of one per second.
    pub(super) rate: u64,
}

/// What buckets may lack for the same to be told of them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Alike {
    least: u64,
    further: u64,
}

impl Taken {
    /// What is to be told of it.
    #[inline]
    #[must_use]
    pub fn decision(&self, pace: &Pace) -> Decision {
        let left = u64::from(pace.burst()).saturating_sub(self.debt.div_ceil(TOKEN));
        Decision::Admitted {
            remaining: u32::try_from(left).unwrap_or(u32::MAX),
            full_after_seconds: wait_seconds(self.debt, self.rate),
        }
    }

    /// Those others of which the same is to be told as of this one, as far as that is easily
    /// said; in the first stage of the same pace only.
    #[must_use]
    pub fn alike(&self) -> Alike {
        let Self { debt, rate } = *self;
        // All that round up to the same number of tokens, and come in within a second.
        let least = debt.div_ceil(TOKEN).saturating_sub(1) * TOKEN + 1;
        let most = (debt.div_ceil(TOKEN) * TOKEN).min(rate / (MICROS / TOKEN));
        match most.checked_sub(least) {
            Some(further) if debt <= most => Alike { least, further },
            _ => Alike { least: debt, further: 0 },
        }
    }

    /// Whether it is one of these.
    #[inline(always)]
    #[must_use]
    pub fn is_among(&self, alike: &Alike) -> bool {
        self.debt.wrapping_sub(alike.least) <= alike.further
    }
}

impl Alike {
    /// None: what was taken lacks something.
    pub const NONE: Self = Self { least: 0, further: 0 };
}

#[cold]
pub(super) fn refused(pace: &Pace, lacks: u64, now: Instant) -> Decision {
    Decision::Refused { retry_after: pace.wait(lacks, now) }
}
