//! A pace that one thread sets and others read, without locks.
//!
//! Two places, of which one is current and the other is written next. A reader that finds
//! that the writer has moved on meanwhile reads again; it never waits for a writer that was
//! interrupted.

use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
        fence,
    },
    time::{Duration, Instant},
};

use super::Pace;
use crate::lease::Stages;

/// The pace of a limit, as the control thread sets it and workers read it.
pub struct PaceCell {
    /// How often it was set; its last bit says which place is current.
    times: AtomicU64,
    places: [[AtomicU64; WORDS]; 2],
    /// What times are counted from.
    origin: Instant,
}

const WORDS: usize = 9;

impl PaceCell {
    /// Holds this pace.
    #[must_use]
    pub fn new(pace: &Pace, now: Instant) -> Self {
        // A pace that begins with another's start may be older than this moment.
        let origin = now.min(pace.from);
        let cell = Self { times: AtomicU64::new(0), places: Default::default(), origin };
        cell.set(pace);
        cell
    }

    /// Replaces the pace. For one writer at a time: of two, one may be lost.
    pub fn set(&self, pace: &Pace) {
        let Stages { lease, lease_until, between, safe_from, safe } = pace.stages;
        let words = [
            pace.level,
            pace.fraction,
            self.since(pace.from),
            lease,
            self.since(lease_until),
            between,
            self.since(safe_from),
            safe,
            pace.burst.into(),
        ];
        let next = self.times.load(Relaxed).wrapping_add(1);
        // Whoever sees one of these words sees that its former place is not current any more.
        fence(Release);
        for (word, value) in self.place(next).iter().zip(words) {
            word.store(value, Relaxed);
        }
        self.times.store(next, Release);
    }

    /// The pace that was set last.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Pace {
        let mut times = self.times.load(Acquire);
        loop {
            let mut read = [0; WORDS];
            for (value, word) in read.iter_mut().zip(self.place(times)) {
                *value = word.load(Relaxed);
            }
            fence(Acquire);
            match self.times.load(Relaxed) {
                same if same == times => return self.pace(read),
                newer => {
                    fence(Acquire);
                    times = newer;
                }
            }
        }
    }

    #[inline]
    fn place(&self, times: u64) -> &[AtomicU64; WORDS] {
        &self.places[usize::from(!times.is_multiple_of(2))]
    }

    #[inline]
    fn pace(&self, words: [u64; WORDS]) -> Pace {
        let [level, fraction, from, lease, lease_until, between, safe_from, safe, burst] = words;
        Pace {
            level,
            fraction,
            from: self.origin + Duration::from_nanos(from),
            stages: Stages {
                lease,
                lease_until: self.origin + Duration::from_nanos(lease_until),
                between,
                safe_from: self.origin + Duration::from_nanos(safe_from),
                safe,
            },
            burst: u32::try_from(burst).unwrap_or(u32::MAX),
        }
    }

    fn since(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl std::fmt::Debug for PaceCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PaceCell({:?})", self.get())
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicBool, thread};

    use super::*;
    use crate::{epoch, limit::MICROS};

    #[test]
    fn readers_see_one_pace_or_the_other() {
        let now = epoch();
        let paces = [Pace::new(MICROS, 1, now), Pace::new(7 * MICROS, 9, now)];
        let later = now + Duration::from_secs(5);
        let paces = paces.map(|pace| pace.steadied(pace.rate(now) * 2, pace.burst(), later));
        let cell = PaceCell::new(&paces[0], now);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let reads = || {
                while !stop.load(Relaxed) {
                    let read = cell.get();
                    assert!(paces.contains(&read), "{read:?}");
                }
            };
            scope.spawn(reads);
            scope.spawn(reads);
            for round in 0..200_000 {
                cell.set(&paces[round % 2]);
            }
            stop.store(true, Relaxed);
        });
        assert_eq!(cell.get(), paces[1]);
    }
}
