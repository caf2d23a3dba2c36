//! Shares requests out among a few parts by weight.
//!
//! The parts take turns as the backends of a weighted round robin do, so that after any
//! number of requests each has had its exact share, rounded down or up. A cycle is a
//! table, and a turn is one step of a counter that all workers share.

use std::{fmt, sync::atomic::AtomicU64};

use super::{Candidate, Phase, round_robin::RoundRobin, start_of, weighted};

/// Parts with weights, and whose turn it is.
pub struct Split(RoundRobin);

impl Split {
    /// The most parts.
    pub const PARTS_MAX: usize = 32;

    /// Lays out the turns of at most [`Self::PARTS_MAX`] parts; those of weight 0 get
    /// none.
    #[must_use]
    pub fn new(weights: &[u16]) -> Self {
        debug_assert!(weights.len() <= Self::PARTS_MAX, "so few have a cycle that is short");
        let parts: Vec<_> = (0..)
            .zip(weights)
            .filter(|&(_, &weight)| weight > 0)
            .map(|(slot, &weight)| Candidate { slot, id: "", weight })
            .collect();
        Self(weighted::turns(&parts))
    }

    /// Where a new cursor starts.
    #[must_use]
    pub fn start(&self, phase: Phase) -> u64 {
        start_of(self.0.cycle(), phase)
    }

    /// The index of the part whose turn it is; 0 if no part has a weight.
    #[inline]
    pub fn take(&self, cursor: &AtomicU64) -> usize {
        self.0.take(cursor).map_or(0, |(_, part)| part as usize)
    }
}

impl fmt::Debug for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Split({} parts)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_tenth_request_goes_to_the_canary() {
        let (split, cursor) = (Split::new(&[90, 10]), AtomicU64::new(0));
        let picked: Vec<usize> = (0..100).map(|_| split.take(&cursor)).collect();
        assert!(picked.chunks(10).all(|ten| ten.iter().sum::<usize>() == 1), "{picked:?}");
    }

    #[test]
    fn a_part_without_a_weight_gets_nothing() {
        let (split, cursor) = (Split::new(&[0, 7, 0]), AtomicU64::new(3));
        assert!((0..20).all(|_| split.take(&cursor) == 1));
    }

    #[test]
    fn without_any_weight_nothing_breaks() {
        assert_eq!(Split::new(&[0]).take(&AtomicU64::new(9)), 0);
    }

    proptest! {
        /// From any place in the cycle, one cycle gives every part its weight's share.
        #[test]
        fn a_cycle_gives_every_part_its_share(
            weights in prop::collection::vec(0_u16..=256, 1..=Split::PARTS_MAX),
            start: u32,
        ) {
            let (split, cursor) = (Split::new(&weights), AtomicU64::new(start.into()));
            let total: u64 = weights.iter().copied().map(u64::from).sum();
            let mut counts = vec![0_u64; weights.len()];
            for _ in 0..total {
                counts[split.take(&cursor)] += 1;
            }
            prop_assert!(counts.into_iter().eq(weights.into_iter().map(u64::from)));
        }
    }
}
