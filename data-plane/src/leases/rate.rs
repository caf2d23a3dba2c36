//! Rates, as workers follow them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use lb_core::limit::{Decision, Pace, Table, Taken};

use super::published::{Copy, Published};
use crate::live::{Padded, bump};

/// This proxy's share of a limit without a key.
#[derive(Debug)]
pub(crate) struct RateLease {
    pace: Published<Pace>,
    /// By worker: what was asked for, admitted or not.
    asked: Box<[Padded<AtomicU64>]>,
}

/// This proxy's shares of a limit by key.
#[derive(Debug)]
pub(crate) struct KeyLease {
    table: Table,
    paces: Published<Arc<KeyPaces>>,
    /// Keys that were refused at the pace of all keys, until the control thread looks.
    refused: Mutex<Vec<u64>>,
}

/// The paces of a limit's keys.
#[derive(Debug)]
pub(crate) struct KeyPaces {
    /// Of every key that has none of its own.
    pub(crate) cold: Pace,
    pub(super) hot: HashMap<u64, HotPace>,
}

/// The pace of a key that needs more than an even share.
#[derive(Clone, Debug)]
pub(super) struct HotPace {
    pub(super) pace: Pace,
    /// What was asked for with it since it has one.
    pub(super) asked: Arc<AtomicU64>,
}

/// Refused keys that are remembered between two looks.
const REFUSED_MAX: usize = 256;

impl RateLease {
    pub(super) fn new(pace: Pace, workers: usize) -> Self {
        let asked = (0..workers).map(|_| Padded::default()).collect();
        Self { pace: Published::new(pace), asked }
    }

    /// What the limit's bucket follows now, by way of the worker's own copy.
    #[inline]
    pub(crate) fn pace<'c>(&self, copy: &'c mut Copy<Pace>) -> &'c Pace {
        self.pace.read(copy)
    }

    /// The same, if the copy has it.
    #[inline(always)]
    pub(crate) fn current<'c>(&self, copy: &'c Copy<Pace>) -> Option<&'c Pace> {
        self.pace.current(copy)
    }

    /// What the limit's bucket follows now, for the control thread.
    pub(crate) fn newest(&self) -> Pace {
        self.pace.newest()
    }

    /// Counts a request that the limit was asked about, admitted or not.
    #[inline]
    pub(crate) fn count(&self, worker: usize) {
        bump(&self.asked[worker].0, 1);
    }

    /// Takes a request back that was counted.
    pub(crate) fn uncount(&self, worker: usize) {
        let asked = &self.asked[worker].0;
        asked.store(asked.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    /// Requests that were counted so far; it may go back by those that are taken back.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.iter().map(|count| count.0.load(Relaxed)).sum()
    }

    /// Has the limit's bucket follow this.
    pub(crate) fn publish(&self, pace: Pace) {
        self.pace.set(pace);
    }
}

impl KeyLease {
    pub(super) fn new(table: Table, cold: Pace) -> Self {
        let paces = Arc::new(KeyPaces { cold, hot: HashMap::new() });
        Self { table, paces: Published::new(paces), refused: Mutex::default() }
    }

    /// The buckets of the keys.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// [`Table::take_usual`], by way of the worker's own copy of the paces, and that of all keys; nothing, too, if that
    /// is not the newest, or if any key has a pace of its own.
    #[inline(always)]
    pub(crate) fn take_usual<'c>(
        &self,
        key: u64,
        copy: &'c Copy<Arc<KeyPaces>>,
        elapsed: u64,
    ) -> Option<(Taken, &'c Pace)> {
        let paces = self.paces.current(copy).filter(|paces| paces.hot.is_empty())?;
        Some((self.table.take_usual(key, &paces.cold, elapsed)?, &paces.cold))
    }

    /// Asks for one token for this key, by way of the worker's own copy of the paces.
    pub(crate) fn take(&self, key: u64, copy: &mut Copy<Arc<KeyPaces>>, now: Instant) -> Decision {
        let (pace, is_hot) = self.paces.read(copy).of(key);
        let decision = self.table.take(key, pace, now);
        if !is_hot && !decision.is_admitted() {
            self.note_refused(key);
        }
        decision
    }

    /// The pace of every key that has none of its own, as the copy has it.
    pub(crate) fn cold<'c>(&self, copy: &'c mut Copy<Arc<KeyPaces>>) -> &'c Pace {
        &self.paces.last(copy).cold
    }

    /// Gives a token back that was taken by way of the same copy, which no other request has
    /// used since: what it follows is what the token was taken by, whatever is newer. A key that
    /// has become hot meanwhile has not counted this request, and is not to lose another.
    pub(crate) fn give_back(&self, key: u64, copy: &mut Copy<Arc<KeyPaces>>, now: Instant) {
        let paces = self.paces.last(copy);
        self.table.give_back(key, paces.pace(key), now);
        paces.uncount(key);
    }

    /// What the keys' buckets follow now, for the control thread.
    pub(crate) fn newest(&self) -> Arc<KeyPaces> {
        self.paces.newest()
    }

    /// Says that a key was refused, so that it gets more than an even share. Forgets it if
    /// there are too many of them, or if another worker is at it: it will be back.
    #[cold]
    fn note_refused(&self, key: u64) {
        if let Ok(mut refused) = self.refused.try_lock()
            && refused.len() < REFUSED_MAX
            && refused.last() != Some(&key)
        {
            refused.push(key);
        }
    }

    pub(super) fn take_refused(&self) -> Vec<u64> {
        let mut refused = self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut *refused)
    }

    pub(super) fn publish(&self, paces: KeyPaces) {
        self.paces.set(Arc::new(paces));
    }
}

impl KeyPaces {
    /// The pace of a key.
    fn pace(&self, key: u64) -> &Pace {
        self.hot.get(&key).map_or(&self.cold, |hot| &hot.pace)
    }

    /// Millionths of a token per second that a key has at `now`.
    #[cfg(test)]
    pub(super) fn pace_of(&self, key: u64, now: Instant) -> u64 {
        self.pace(key).rate(now)
    }

    /// Takes a request back that counted.
    fn uncount(&self, key: u64) {
        if let Some(hot) = self.hot.get(&key) {
            hot.asked.fetch_sub(1, Relaxed);
        }
    }

    /// How many keys have a pace of their own.
    pub(crate) fn hot_keys(&self) -> usize {
        self.hot.len()
    }

    /// The pace of a key, and whether it has one of its own; a request that asks counts.
    fn of(&self, key: u64) -> (&Pace, bool) {
        match self.hot.get(&key) {
            Some(hot) => {
                hot.asked.fetch_add(1, Relaxed);
                (&hot.pace, true)
            }
            None => (&self.cold, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::now;

    const KEY: u64 = 7;

    fn lease() -> KeyLease {
        let cold = Pace::new(1_000_000, 9, now());
        KeyLease::new(Table::new(8, 1_000_000, 9), cold)
    }

    /// The paces of a moment when this key is hot, and what is counted of it.
    fn hot(lease: &KeyLease) -> Arc<AtomicU64> {
        let asked = Arc::<AtomicU64>::default();
        let pace = HotPace { pace: lease.newest().cold, asked: Arc::clone(&asked) };
        lease.publish(KeyPaces { cold: lease.newest().cold, hot: [(KEY, pace)].into() });
        asked
    }

    fn take(lease: &KeyLease, copy: &mut Copy<Arc<KeyPaces>>) -> u32 {
        lease.take(KEY, copy, now()).remaining()
    }

    #[test]
    fn what_is_usual_follows_the_newest_pace_of_all_keys_and_none_is_hot() {
        let (lease, mut copy, at) = (lease(), Copy::default(), now());
        let usual = |copy: &Copy<_>| lease.take_usual(KEY, copy, 1).is_some();
        assert!(!usual(&copy), "it knows no pace");
        take(&lease, &mut copy);
        assert!(usual(&copy));
        lease.publish(KeyPaces { cold: Pace::new(1_000_000, 9, at), hot: HashMap::new() });
        assert!(!usual(&copy));
        take(&lease, &mut copy);
        assert!(usual(&copy));
        hot(&lease);
        take(&lease, &mut copy);
        assert!(!usual(&copy));
    }

    #[test]
    fn a_flood_of_keys_is_not_remembered() {
        let cold = Pace::new(1, 1, now());
        let (lease, mut copy) = (KeyLease::new(Table::new(1000, 1, 1), cold), Copy::default());
        for key in 0..400 {
            (0..2).for_each(|_| _ = lease.take(key, &mut copy, now()));
        }
        assert_eq!(lease.take_refused().len(), REFUSED_MAX);
    }

    #[test]
    fn what_was_taken_before_a_key_was_hot_is_not_taken_from_what_it_counts() {
        let (lease, mut copy) = (lease(), Copy::default());
        assert_eq!(take(&lease, &mut copy), 8);
        let asked = hot(&lease);
        lease.give_back(KEY, &mut copy, now());
        assert_eq!(asked.load(Relaxed), 0, "it was not counted there");
        assert_eq!(take(&lease, &mut copy), 8, "but the token is back");
        assert_eq!(asked.load(Relaxed), 1);
    }

    #[test]
    fn what_a_hot_key_was_asked_for_is_taken_back_where_it_was_counted() {
        let (lease, mut copy) = (lease(), Copy::default());
        let before = hot(&lease);
        take(&lease, &mut copy);
        // It calmed down, and is hot again.
        let after = hot(&lease);
        lease.give_back(KEY, &mut copy, now());
        assert_eq!((before.load(Relaxed), after.load(Relaxed)), (0, 0));
        take(&lease, &mut copy);
        lease.give_back(KEY, &mut copy, now());
        assert_eq!(after.load(Relaxed), 0);
    }
}
