//! What a full log of events gives up.
//!
//! A log that drops its oldest entry is emptied by whatever happens most often: an ejection
//! that is refused every ten seconds, or a thousand proxies that come back. Then the one line
//! that says why is gone. So, when it must give up entries:
//!
//! 1. an entry that was repeated later is merged into the next one like it, the oldest first:
//!    how often it happened, and since when, stays;
//! 2. if there are no repetitions left, the oldest entry goes of the type that has the most: a
//!    type of which there are few loses none to one of which there are many.
//!
//! Until the log is full nothing is merged, so whoever follows it sees each entry by itself.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// An entry of a log.
pub trait Entry {
    /// The type of what happened.
    type Type: Copy + Eq + Hash;
    /// What repetitions share: the type, what it happened to, and why.
    type Same<'a>: Eq + Hash
    where
        Self: 'a;

    /// The type of what happened.
    fn of_type(&self) -> Self::Type;

    /// What this shares with its repetitions.
    fn same(&self) -> Self::Same<'_>;

    /// Takes over how often an earlier one like it happened, and since when.
    fn absorb(&mut self, earlier: &Self);
}

/// Makes a log no longer than `keep`; the rest stays in its order.
pub fn compact<E: Entry>(entries: &mut VecDeque<E>, keep: usize) {
    let excess = entries.len().saturating_sub(keep);
    if excess == 0 {
        return;
    }
    let mut given_up = vec![false; entries.len()];
    let merged = repeated(entries).into_iter().take(excess).collect::<Vec<_>>();
    for &(earlier, later) in &merged {
        given_up[earlier] = true;
        let (before, after) = entries.make_contiguous().split_at_mut(later);
        after[0].absorb(&before[earlier]);
    }
    drop_the_most(entries, &mut given_up, excess - merged.len());
    let mut given_up = given_up.into_iter();
    entries.retain(|_| !given_up.next().unwrap_or_default());
}

/// The entries that have later ones like them, the oldest first, each with the next like it.
fn repeated<E: Entry>(entries: &VecDeque<E>) -> Vec<(usize, usize)> {
    let mut next = HashMap::with_capacity(entries.len());
    let mut repeated: Vec<(usize, usize)> = entries
        .iter()
        .enumerate()
        .rev()
        .filter_map(|(index, entry)| Some((index, next.insert(entry.same(), index)?)))
        .collect();
    repeated.reverse();
    repeated
}

/// Gives up so many entries more, each the oldest of the type that has the most left.
fn drop_the_most<E: Entry>(entries: &VecDeque<E>, given_up: &mut [bool], count: usize) {
    let mut by_type: HashMap<E::Type, VecDeque<usize>> = HashMap::new();
    for (index, entry) in entries.iter().enumerate().filter(|(index, _)| !given_up[*index]) {
        by_type.entry(entry.of_type()).or_default().push_back(index);
    }
    let mut types: Vec<VecDeque<usize>> = by_type.into_values().collect();
    for _ in 0..count {
        // Of two types with as many, the one that has the older entry.
        let most =
            types.iter_mut().max_by_key(|left| (left.len(), left.front().map(|i| usize::MAX - i)));
        let Some(index) = most.and_then(VecDeque::pop_front) else { return };
        given_up[index] = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, Eq, PartialEq)]
    struct Happened {
        what: u8,
        name: u8,
        first: usize,
        at: usize,
        count: u64,
    }

    impl Entry for Happened {
        type Type = u8;
        type Same<'a> = (u8, u8);
        fn of_type(&self) -> u8 {
            self.what
        }
        fn same(&self) -> (u8, u8) {
            (self.what, self.name)
        }
        fn absorb(&mut self, earlier: &Self) {
            assert!(earlier.at < self.at && earlier.same() == self.same());
            self.count += earlier.count;
            self.first = earlier.first;
        }
    }

    fn log(happened: &[(u8, u8)]) -> VecDeque<Happened> {
        let entry = |(at, &(what, name))| Happened { what, name, first: at, at, count: 1 };
        happened.iter().enumerate().map(entry).collect()
    }

    fn told(log: &VecDeque<Happened>) -> Vec<(u8, u8, usize, usize, u64)> {
        log.iter().map(|h| (h.what, h.name, h.first, h.at, h.count)).collect()
    }

    #[test]
    fn repetitions_become_one_entry_with_their_number_and_the_first_time() {
        let mut short = log(&[(1, 1), (2, 1), (1, 1), (1, 2), (1, 1)]);
        let mut enough = short.clone();
        compact(&mut enough, 5);
        assert_eq!(enough, short, "nothing is merged before there is need");
        compact(&mut short, 4);
        assert_eq!(told(&short)[1], (1, 1, 0, 2, 2), "the oldest first");
        compact(&mut short, 3);
        assert_eq!(told(&short), [(2, 1, 1, 1, 1), (1, 2, 3, 3, 1), (1, 1, 0, 4, 3)]);
    }

    #[test]
    fn a_thousand_of_one_type_cost_the_few_of_another_nothing() {
        let mut happened = vec![(1, 0), (2, 0)];
        happened.extend((0..100).map(|name| (3, name)));
        happened.push((1, 1));
        let mut log = log(&happened);
        compact(&mut log, 10);
        let kept: Vec<u8> = log.iter().map(|h| h.what).collect();
        assert_eq!(kept, [1, 2, 3, 3, 3, 3, 3, 3, 3, 1]);
        assert_eq!(log[2].name, 93, "the newest of them stay");
    }

    proptest! {
        /// It is as short as it should be, in order, and what is merged is counted; nothing is
        /// given up while merging is enough.
        #[test]
        fn nothing_is_lost_without_need(
            happened in prop::collection::vec((0..4u8, 0..6u8), 0..80),
            keep in 0..80usize,
        ) {
            let mut compacted = log(&happened);
            compact(&mut compacted, keep);
            let distinct = happened.iter().collect::<std::collections::HashSet<_>>().len();
            prop_assert_eq!(compacted.len(), keep.min(happened.len()));
            prop_assert!(compacted.iter().is_sorted_by(|a, b| a.at < b.at));
            for entry in &compacted {
                let times = |range: std::ops::RangeInclusive<usize>| {
                    range.filter(|at| happened[*at] == entry.same()).count() as u64
                };
                prop_assert_eq!(entry.count, times(entry.first..=entry.at));
                prop_assert_eq!(happened[entry.first], entry.same());
            }
            if keep >= distinct {
                let counted: u64 = compacted.iter().map(|entry| entry.count).sum();
                prop_assert_eq!(counted, happened.len() as u64);
            } else {
                let most = |what| compacted.iter().filter(|entry| entry.what == what).count();
                for (what, name) in happened.iter().collect::<std::collections::BTreeSet<_>>() {
                    // Who lost an entry for good has as many as anybody, but for one.
                    if !compacted.iter().any(|entry| entry.same() == (*what, *name)) {
                        prop_assert!((0..4).all(|other| most(other) <= most(*what) + 1));
                    }
                }
            }
        }
    }
}
