//! The fewest requests in flight for its weight.
//!
//! Up to 64 backends are all compared. Beyond that a few are drawn at random and
//! compared: nearly as good as all of them, at a price that does not grow, and
//! several proxies that draw do not all see the same backend as the emptiest.
//!
//! The score is `(in flight + 1) / weight`: what the load would be *with* this
//! request, so that a backend of weight 2 gets its second one before one of weight 1 does.
//! Equals are drawn among, since a fixed choice would send the first request of
//! every idle moment to the same backend. For the same reason, where the lowest score is an
//! idle backend's, all that are idle are drawn among, by their weights: by the score alone, one
//! request at a time would always go to the heaviest.
//!
//! A backend that fails at once looks idle. The caller keeps it from drawing all
//! traffic by counting an errored request as in flight for
//! [`crate::model::LeastConnections::error_hold`].

use super::{Candidate, Loads, PickContext};

/// Compares backends by their load.
pub(super) struct LeastConnections {
    members: Box<[Member]>,
    /// How many are compared in pools too large to be compared whole.
    choices: usize,
}

#[derive(Clone, Copy)]
struct Member {
    slot: u32,
    weight: u16,
}

/// Pools up to this size are compared whole.
const EXACT_MAX: usize = 64;

/// The most that [`crate::model::LeastConnections::choices`] can be.
const CHOICES_MAX: usize = 32;

impl LeastConnections {
    /// All weights must be above 0.
    pub(super) fn build(members: &[Candidate<'_>], choices: usize) -> Self {
        let members =
            members.iter().map(|member| Member { slot: member.slot, weight: member.weight });
        Self { members: members.collect(), choices: choices.clamp(1, CHOICES_MAX) }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Not inlined, as its many registers would have to be saved for every other
    /// algorithm too.
    #[inline(never)]
    pub(super) fn pick<L: Loads>(&self, context: &mut PickContext<'_, L>) -> Option<u32> {
        if self.members.len() <= EXACT_MAX {
            scan(&self.members, context)
        } else {
            self.sample(context)
        }
    }

    /// Compares distinct candidates drawn at random.
    fn sample<L: Loads>(&self, context: &mut PickContext<'_, L>) -> Option<u32> {
        let mut lightest = Lightest::new();
        let mut drawn = [0; CHOICES_MAX];
        let mut count = 0;
        // A draw is wasted on a candidate drawn before or excluded: fewer than half,
        // unless nearly all are excluded. So eight times as many draws are enough.
        for _ in 0..8 * self.choices {
            if count == self.choices {
                break;
            }
            let index = context.rng.usize(..self.members.len());
            let member = &self.members[index];
            if drawn[..count].contains(&index) || context.excludes(member.slot) {
                continue;
            }
            lightest.offer(count, *member, context.loads.in_flight(member.slot));
            drawn[count] = index;
            count += 1;
        }
        match lightest.draw(context.rng, |position| self.members[drawn[position]].weight) {
            Some(position) => Some(self.members[drawn[position]].slot),
            None => self.members.chunks(EXACT_MAX).find_map(|chunk| scan(chunk, context)),
        }
    }
}

/// Compares all of at most 64 members.
fn scan<L: Loads>(members: &[Member], context: &mut PickContext<'_, L>) -> Option<u32> {
    let mut lightest = Lightest::new();
    for (position, member) in members.iter().enumerate() {
        if !context.excludes(member.slot) {
            lightest.offer(position, *member, context.loads.in_flight(member.slot));
        }
    }
    let chosen = lightest.draw(context.rng, |position| members[position].weight);
    chosen.map(|position| members[position].slot)
}

impl Member {
    /// `(in flight + 1) / weight`, as a number that only serves to compare.
    ///
    /// Dividing loses nothing: two different fractions of 33 by 16 bits differ in
    /// their first 49 bits and a float keeps 53, so the greater stays greater
    /// and equals stay equal. The bits of positive floats are ordered as they are.
    #[inline]
    fn score(self, in_flight: u32) -> u64 {
        ((f64::from(in_flight) + 1.0) / f64::from(self.weight)).to_bits()
    }
}

/// The lowest score offered so far, and at which of 64 positions.
struct Lightest {
    score: u64,
    /// One bit for each position that has this score.
    positions: u64,
    /// One bit for each position with nothing in flight.
    idle: u64,
}

impl Lightest {
    /// Nothing was offered; all scores are lower than this one.
    fn new() -> Self {
        Self { score: u64::MAX, positions: 0, idle: 0 }
    }

    /// In every calm moment many are equal, and which are lower is anybody's guess: so
    /// there is neither a random number for each equal nor a branch.
    #[inline]
    fn offer(&mut self, position: usize, member: Member, in_flight: u32) {
        let score = member.score(in_flight);
        self.idle |= u64::from(in_flight == 0) << position;
        let lower = u64::from(score < self.score);
        let candidate = u64::from(score <= self.score) << position;
        // All ones to keep the positions so far, nought to forget them.
        let keep = lower.wrapping_sub(1);
        self.positions = self.positions & keep | candidate;
        self.score = self.score.min(score);
    }

    /// One of the positions by lot; `None` when nothing was offered.
    fn draw(self, rng: &mut fastrand::Rng, weight: impl Fn(usize) -> u16) -> Option<usize> {
        let mut left = self.positions;
        if left == 0 {
            return None;
        }
        // Where all that are idle have the lowest score, they have one weight, too.
        if left & self.idle != 0 && left != self.idle {
            return draw_by_weight(self.idle, rng, weight);
        }
        if !left.is_power_of_two() {
            for _ in 0..rng.u32(..left.count_ones()) {
                left &= left - 1;
            }
        }
        Some(left.trailing_zeros() as usize)
    }
}

/// One of the positions whose bits are set, by lot and weight.
fn draw_by_weight(
    positions: u64,
    rng: &mut fastrand::Rng,
    weight: impl Fn(usize) -> u16,
) -> Option<usize> {
    let all = || (0..64).filter(|position| positions >> position & 1 == 1);
    let sum: u64 = all().map(|position| u64::from(weight(position))).sum();
    let mut lot = rng.u64(..sum.max(1));
    all().find(|&position| {
        let weight = u64::from(weight(position));
        let is_drawn = lot < weight;
        lot = lot.saturating_sub(weight);
        is_drawn
    })
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::atomic::AtomicU64};

    use proptest::prelude::*;

    use super::*;
    use crate::balance::HashKey;

    struct Counts(Vec<u32>);

    impl Loads for Counts {
        fn in_flight(&self, slot: u32) -> u32 {
            self.0[slot as usize]
        }
    }

    /// How often each of the backends is picked in `picks` picks.
    fn histogram(loads: &[u32], weights: &[u16], excluded: &[u32], picks: u32) -> Vec<u32> {
        let members: Vec<_> =
            (0..).zip(weights).map(|(slot, &weight)| Candidate { slot, id: "", weight }).collect();
        let picker = LeastConnections::build(&members, 5);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut context = PickContext {
            key: HashKey::Client(Ipv4Addr::LOCALHOST.into()),
            cursor: &AtomicU64::new(0),
            loads: &Counts(loads.to_vec()),
            rng: &mut rng,
            excluded,
        };
        let mut histogram = vec![0; weights.len()];
        for _ in 0..picks {
            if let Some(slot) = picker.pick(&mut context) {
                histogram[slot as usize] += 1;
            }
        }
        histogram
    }

    #[test]
    fn the_least_loaded_is_picked() {
        assert_eq!(histogram(&[3, 1, 2], &[1, 1, 1], &[], 10), [0, 10, 0]);
    }

    #[test]
    fn weights_divide_the_load_with_the_new_request() {
        // (3 + 1) / 4 is less than (1 + 1) / 1, and (1 + 1) / 3 less than (0 + 1) / 1.
        assert_eq!(histogram(&[3, 1], &[4, 1], &[], 10), [10, 0]);
        assert_eq!(histogram(&[0, 1], &[1, 3], &[], 10), [0, 10]);
        assert_eq!(histogram(&[u32::MAX, u32::MAX], &[65_535, 65_534], &[], 10), [10, 0]);
    }

    #[test]
    fn one_request_at_a_time_goes_to_all_by_weight() {
        for (loads, weights, excluded, fair) in [
            (&[0, 0, 0][..], &[1, 2, 1][..], &[][..], &[0.25, 0.5, 0.25][..]),
            (&[0, 0, 0], &[1, 8, 3], &[1], &[0.25, 0.0, 0.75]),
            // 2/8 is lower than what an idle one of weight 1 would have, and higher than 1/6.
            (&[1, 0, 0], &[8, 1, 1], &[], &[1.0, 0.0, 0.0]),
            (&[1, 0, 0], &[8, 6, 2], &[], &[0.0, 0.75, 0.25]),
        ] {
            let picks = histogram(loads, weights, excluded, 100_000);
            for (pick, fair) in picks.into_iter().zip(fair) {
                let expected = 100_000.0 * fair;
                let away = (f64::from(pick) - expected).abs();
                assert!(away <= 5.0 * f64::sqrt(expected), "{pick} of {expected} for {weights:?}");
            }
        }
    }

    #[test]
    fn equals_are_picked_equally_often() {
        for backends in [2, 7, 64, 1000] {
            let picks = histogram(&vec![0; backends], &vec![1; backends], &[], 100_000);
            let fair = 100_000.0 / backends as f64;
            for pick in picks {
                let away = (f64::from(pick) - fair) / fair.sqrt();
                assert!(away.abs() < 5.0, "{pick} picks where {fair} are fair");
            }
        }
    }

    #[test]
    fn an_excluded_backend_is_passed_over() {
        assert_eq!(histogram(&[0, 5, 6], &[1, 1, 1], &[0], 10), [0, 10, 0]);
        assert_eq!(histogram(&[0, 0], &[1, 1], &[1, 0], 10), [0, 0]);
    }

    #[test]
    fn the_one_backend_left_of_a_thousand_is_found() {
        let excluded: Vec<_> = (0..1000).filter(|&slot| slot != 567).collect();
        let picks = histogram(&[0; 1000], &[1; 1000], &excluded, 3);
        assert_eq!(picks[567], 3);
        let excluded: Vec<_> = (0..1000).collect();
        assert_eq!(histogram(&[0; 1000], &[1; 1000], &excluded, 3).iter().sum::<u32>(), 0);
    }

    proptest! {
        /// The oracle is the comparison of fractions by cross-multiplication.
        #[test]
        fn scores_compare_as_fractions_do(
            (a, b) in (any::<u32>(), any::<u32>()),
            (v, w) in (1_u16.., 1_u16..),
            shift in 0..32,
        ) {
            let (a, b) = (a >> shift, b >> shift);
            let score = |weight, in_flight| Member { slot: 0, weight }.score(in_flight);
            let cross = ((u64::from(a) + 1) * u64::from(w)).cmp(&((u64::from(b) + 1) * u64::from(v)));
            prop_assert_eq!(score(v, a).cmp(&score(w, b)), cross);
        }

        #[test]
        fn equal_fractions_have_equal_scores(load in 1_u32..=1 << 16, weight in 1_u16..256, factor in 1_u16..=256) {
            let score = |weight, in_flight| Member { slot: 0, weight }.score(in_flight);
            prop_assert_eq!(
                score(weight, load - 1),
                score(weight * factor, load * u32::from(factor) - 1)
            );
        }
    }

    #[test]
    fn a_sample_finds_a_less_loaded_half() {
        let loads: Vec<_> = (0..1000).map(|slot| u32::from(slot >= 500)).collect();
        let picks = histogram(&loads, &[1; 1000], &[], 10_000);
        // All five distinct choices come from the busy half once in 32 times.
        let busy: u32 = picks[500..].iter().sum();
        assert!((250..375).contains(&busy), "{busy} of 10 000 went to the busy half");
    }
}
