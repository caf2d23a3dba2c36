//! A bucket for every key, in bounded memory, without locks.
//!
//! A table is an array of sets of eight words; a key belongs to one set, which is one
//! cache line. A word holds 24 bits that tell the keys of a set apart and the level at
//! which the key's bucket is full again, on a ring of 2^40 parts of tokens. Everything
//! about a key changes in one compare-and-swap, so that workers need not agree on more.
//!
//! **What is forgotten.** A key that comes to a full set takes the place of the one whose
//! bucket lacks least. Mostly that bucket is full again, and forgetting it changes nothing:
//! a key that is not known has a full bucket. Otherwise the key that lost its place is
//! forgiven what it owed, at most one burst, and [`Table::forgiven`] counts it.
//!
//! **What may go wrong, and how often.** Two keys of one set that share 24 bits share a
//! bucket: with a full table 1 key in two million. A key that comes back after a pause of
//! just so long that the ring has gone round, days at a thousand per second, may find its
//! bucket a burst and five seconds short.
//! Two workers that bring in the same new key at the same moment may admit one request
//! more than the burst.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use super::{
    Decision, MICROS, Pace,
    bucket::{Taken, refused, take},
    pace::{Inflow, TOKEN},
};

/// The buckets of a limit with a key, for all workers of a proxy.
pub struct Table {
    sets: Box<[Set]>,
    /// More than any key can owe; what looks like more is an old word.
    debt_max: AtomicU64,
    forgiven: AtomicU64,
}

#[derive(Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

const WAYS: usize = 8;
const LEVEL_BITS: u32 = 40;
const LEVEL: u64 = (1 << LEVEL_BITS) - 1;
/// How late a worker may be.
const INTERRUPTED_SECONDS: u64 = 5;

impl Table {
    /// The default of the keys that a proxy keeps apart: 2 MiB.
    pub const KEYS: usize = 100_000;
    /// The most keys that a table can be made for: 512 MiB.
    pub const KEYS_MAX: usize = 1 << 25;

    /// A table for about `keys` keys at a time, at most [`Self::KEYS_MAX`], of a limit
    /// that over the whole fleet has this rate, in millionths of a token per second, and
    /// this burst. It takes 16 to 32 bytes per key: half of the places stay free, or sets
    /// fill up long before the table does.
    #[must_use]
    pub fn new(keys: usize, rate: u64, burst: u32) -> Self {
        let sets = (keys.clamp(1, Self::KEYS_MAX) * 2).div_ceil(WAYS).next_power_of_two();
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
            debt_max: AtomicU64::new(debt_max(rate, burst)),
            forgiven: AtomicU64::new(0),
        }
    }

    /// Makes room for the debts of another rate and burst of the limit. What keys owe stays.
    pub fn fit(&self, rate: u64, burst: u32) {
        self.debt_max.fetch_max(debt_max(rate, burst), Ordering::Relaxed);
    }

    /// Asks for one token for this key, a number of [`super::KeyHasher`], at `now`. Does
    /// not allocate, lock or wait.
    #[inline]
    pub fn take(&self, key: u64, pace: &Pace, now: Instant) -> Decision {
        match self.take_usual(key, pace, pace.elapsed(now)) {
            Some(taken) => taken.decision(pace),
            None => self.take_any(key, pace, now),
        }
    }

    /// The same for the usual request: its key has a place, where nobody else is, and a token,
    /// and the pace, which began so many nanoseconds ago, is in its first stage. Of any other
    /// nothing is said, and it has taken nothing: it is for [`Self::take_any`].
    // With every call, and with everything that is rare, a good part of what a limit may cost
    // would go into saving registers.
    #[inline(always)]
    pub fn take_usual(&self, key: u64, pace: &Pace, elapsed: u64) -> Option<Taken> {
        let inflow = pace.inflow_of_first_stage(elapsed)?;
        let (set, tag) = self.place(key);
        for way in &set.0 {
            let word = way.load(Ordering::Relaxed);
            if word & !LEVEL == tag {
                return self.take_from(way, word, tag, pace, &inflow).ok()?;
            }
        }
        None
    }

    /// [`Self::take`] for a request of which it is known that [`Self::take_usual`] says nothing.
    #[cold]
    pub fn take_any(&self, key: u64, pace: &Pace, now: Instant) -> Decision {
        let inflow = &pace.inflow(now);
        let (set, tag) = self.place(key);
        loop {
            let (way, word) = self.find(set, tag, inflow.level);
            let decision = match self.take_from(way, word, tag, pace, inflow) {
                Ok(Some(taken)) => taken.decision(pace),
                // Look again at what the other worker left.
                Ok(None) => continue,
                Err(lacks) => return refused(pace, lacks, now),
            };
            if word != 0 && word & !LEVEL != tag && self.debt(word, inflow.level) > 0 {
                self.forgiven.fetch_add(1, Ordering::Relaxed);
            }
            return decision;
        }
    }

    /// Takes a token from the bucket of the key of this tag, whose place is or will be here;
    /// nothing if another worker has changed the word. If there is no token, how many parts of
    /// one must come in before.
    #[inline(always)]
    fn take_from(
        &self,
        way: &AtomicU64,
        word: u64,
        tag: u64,
        pace: &Pace,
        inflow: &Inflow,
    ) -> Result<Option<Taken>, u64> {
        let debt = if word & !LEVEL == tag { self.debt(word, inflow.level) } else { 0 };
        let debt_after = take(debt, pace.burst())?;
        let next = tag | (inflow.level + debt_after) & LEVEL;
        let swapped = way.compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed);
        Ok(swapped.is_ok().then_some(Taken { debt: debt_after, rate: inflow.rate }))
    }

    /// Gives a token back that was taken with this key for a request which another limit
    /// refused; nothing if the key lost its place meanwhile.
    pub fn give_back(&self, key: u64, pace: &Pace, now: Instant) {
        let Inflow { level, .. } = pace.inflow(now);
        let (set, tag) = self.place(key);
        let less = |word: u64| {
            let debt = self.debt(word, level).saturating_sub(TOKEN);
            (word & !LEVEL == tag).then(|| tag | (level + debt) & LEVEL)
        };
        for way in &set.0 {
            if way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
                return;
            }
        }
    }

    /// Makes this key's bucket full, as if it had never been asked for.
    pub fn forget(&self, key: u64) {
        let (set, tag) = self.place(key);
        for way in &set.0 {
            let word = way.load(Ordering::Relaxed);
            if word & !LEVEL == tag {
                // If another worker was faster, the key is in use, and stays.
                way.compare_exchange(word, 0, Ordering::Relaxed, Ordering::Relaxed).ok();
            }
        }
    }

    /// How many keys lost their place while they owed something.
    #[must_use]
    pub fn forgiven(&self) -> u64 {
        self.forgiven.load(Ordering::Relaxed)
    }

    /// Bytes that it takes, whatever happens.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.sets)
    }

    /// The set of a key, and the bits that tell it from others there; never zero, which
    /// is a free place.
    #[inline(always)]
    fn place(&self, key: u64) -> (&Set, u64) {
        let low = usize::try_from(key & LEVEL).unwrap_or_default();
        let tag = match key & !LEVEL {
            0 => 1 << LEVEL_BITS,
            tag => tag,
        };
        (&self.sets[low & (self.sets.len() - 1)], tag)
    }

    /// The key's own word; or else the one that is missed least.
    fn find<'a>(&self, set: &'a Set, tag: u64, level: u64) -> (&'a AtomicU64, u64) {
        let mut best = (&set.0[0], 0);
        let mut least = u64::MAX;
        for way in &set.0 {
            let word = way.load(Ordering::Relaxed);
            if word & !LEVEL == tag {
                return (way, word);
            }
            // A free place goes before a bucket that is full again.
            let missed = if word == 0 { 0 } else { 1 + self.debt(word, level) };
            if missed < least {
                (best, least) = ((way, word), missed);
            }
        }
        best
    }

    /// What the bucket behind a word lacks.
    #[inline(always)]
    fn debt(&self, word: u64, level: u64) -> u64 {
        let ahead = word.wrapping_sub(level) & LEVEL;
        if ahead > self.debt_max.load(Ordering::Relaxed) { 0 } else { ahead }
    }
}

fn debt_max(rate: u64, burst: u32) -> u64 {
    // A worker that was interrupted comes with an earlier time than others had, and sees them
    // in debt by what came in between.
    let burst = u64::from(burst) * TOKEN;
    let interruption = rate / (MICROS / TOKEN) * INTERRUPTED_SECONDS;
    (burst + interruption).min(LEVEL / 2)
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({} places, {} forgiven)", self.sets.len() * WAYS, self.forgiven())
    }
}
