//! The slots of one proxy, as its workers take them: one atomic word.
//!
//! How many are taken, how many may be, and until when, all change in one
//! compare-and-swap. So a lease that becomes smaller takes effect at one moment for all
//! workers: what the control thread reads and reports after it is all that can be in use.
//! And a process that was stopped and goes on takes nothing under a lease that has ended
//! meanwhile, although nobody has told it.

use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire},
    },
    time::Instant,
};

/// The slots of one quantity in one proxy, for all of its workers.
///
/// The word: 20 bits for the slots taken, 20 for those allowed, 24 for the time until
/// which, in units of 64 ms since `origin`, on a ring of twelve days.
#[derive(Debug)]
pub struct SharedSlots {
    word: AtomicU64,
    origin: Instant,
}

const COUNT_BITS: u32 = 20;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
const TIME_BITS: u32 = 24;
const TIME: u64 = (1 << TIME_BITS) - 1;
/// What a lease loses to rounding at most.
const UNIT_MS: u128 = 64;
/// Allowed without a bound, at any time.
const LIFTED: u64 = COUNT;

impl SharedSlots {
    /// The most slots that a quantity can have.
    pub const MAX: u32 = (1 << COUNT_BITS) - 2;

    /// None is taken, and none may be.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { word: AtomicU64::new(0), origin: now }
    }

    /// Takes a slot, if there is a free one. Does not allocate, lock or wait.
    #[inline]
    pub fn take(&self, now: Instant) -> bool {
        let mut word = self.word.load(Acquire);
        loop {
            if self.free_in(word, now) == 0 || word & COUNT == COUNT {
                return false;
            }
            match self.word.compare_exchange_weak(word, word + 1, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(newer) => word = newer,
            }
        }
    }

    /// Returns a slot. Whether more are taken than are allowed, so that others may wait
    /// for just this one.
    pub fn give_back(&self) -> bool {
        let before = self.word.fetch_sub(1, AcqRel);
        debug_assert!(before & COUNT > 0, "only what was taken is given back");
        before & COUNT > allowed(before)
    }

    /// Lets so many be taken until then. Those that are taken stay so.
    pub fn allow(&self, slots: u64, until: Instant) {
        let until = u64::try_from(self.units(until)).unwrap_or(u64::MAX) & TIME;
        self.replace(slots.min(Self::MAX.into()) << COUNT_BITS | until << (2 * COUNT_BITS));
    }

    /// Lets any number be taken from now on.
    pub fn lift(&self) {
        self.replace(LIFTED << COUNT_BITS);
    }

    /// Slots that are taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.word.load(Acquire) & COUNT
    }

    /// Slots that could be taken at `now`.
    #[must_use]
    pub fn free(&self, now: Instant) -> u64 {
        self.free_in(self.word.load(Acquire), now)
    }

    #[inline]
    fn free_in(&self, word: u64, now: Instant) -> u64 {
        let allowed = allowed(word);
        if allowed == LIFTED {
            return COUNT;
        }
        let now = u64::try_from(self.units(now)).unwrap_or(u64::MAX);
        let left = (word >> (2 * COUNT_BITS)).wrapping_sub(now) & TIME;
        // Behind is on the far half of the ring.
        if left == 0 || left > TIME / 2 { 0 } else { allowed.saturating_sub(word & COUNT) }
    }

    fn units(&self, at: Instant) -> u128 {
        at.saturating_duration_since(self.origin).as_millis() / UNIT_MS
    }

    fn replace(&self, rest: u64) {
        // An update that always succeeds in the end.
        self.word.fetch_update(AcqRel, Acquire, |word| Some(word & COUNT | rest)).ok();
    }
}

fn allowed(word: u64) -> u64 {
    word >> COUNT_BITS & COUNT
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::epoch;

    #[test]
    fn as_many_are_taken_as_are_allowed_and_not_after_that_time() {
        let now = epoch();
        let at = |ms| now + Duration::from_millis(ms);
        let slots = SharedSlots::new(now);
        assert!(!slots.take(now));
        slots.allow(2, at(1000));
        assert!(slots.take(now) && slots.take(at(900)) && !slots.take(at(900)));
        assert!(!slots.give_back());
        assert_eq!((slots.taken(), slots.free(at(900)), slots.free(at(1000))), (1, 1, 0));
        assert!(!slots.take(at(1000)));
        assert_eq!(slots.free(at(1500)), 0, "nor long after it");
        slots.allow(0, at(2000));
        assert!(slots.give_back(), "it was recalled");
        assert!(!slots.take(at(1100)));
    }

    #[test]
    fn without_a_bound_any_number_may_be_taken() {
        let now = epoch();
        let slots = SharedSlots::new(now);
        slots.lift();
        let later = now + Duration::from_secs(1 << 22);
        assert!((0..100).all(|_| slots.take(later)));
        slots.allow(3, later + Duration::from_secs(1));
        assert!(!slots.take(later));
        assert_eq!(slots.taken(), 100);
        assert!(slots.give_back());
    }

    #[test]
    fn threads_never_take_more_than_there_are() {
        let now = epoch();
        let slots = SharedSlots::new(now);
        slots.allow(10, now + Duration::from_secs(1));
        let taken = |slots: &SharedSlots| (0..10_000).filter(|_| slots.take(now)).count();
        let sum: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| taken(&slots))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((sum, slots.taken()), (10, 10));
    }
}
