//! Turns in proportion to weights, for cycles that are too long to be written down.
//!
//! Ten thousand backends can have a cycle of two million turns. But however many
//! there are, they have at most 256 different weights, and backends of equal weight
//! can simply take turns. So the cycle is cut into generations, a power of two of
//! them, and in each generation a class of equal weight takes its exact share of
//! turns, rounded; a class goes on where it stopped in the generation before.
//!
//! Two small tables say where each generation begins, and each class within it.
//! Generations are nearly of one length, so the one of turn `n` is guessed and put
//! right, and its class searched for. Nothing is kept between turns except `n` itself,
//! so this has the one atomic cursor, and the phases, of a table that is written down.
//! (The stride scheduler of gRPC needs no tables; it tries `largest weight / mean
//! weight` backends per turn instead, each at the price of a contended counter.)
//!
//! A backend stays within two requests of its exact share, and within three over any
//! window: one for whole turns, and fractions for the two roundings. With weights up
//! to 256 it is 1.3 and 1.4 at the worst of thousands of random pools.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use super::{Loads, PickContext, cycle::Cycle, lists};

/// A cycle of turns that is computed where it is needed.
pub(super) struct WeightClasses {
    /// Slots, class by class.
    members: Box<[u32]>,
    /// The heaviest first.
    classes: Box<[Class]>,
    cycle: Cycle,
    /// Turns before each generation of the cycle, and at its end: the cycle's length.
    generations: Box<[u64]>,
    /// For each generation one row: turns of the generation before each class's own.
    rows: Box<[u32]>,
    /// The number of generations is two to this power.
    generations_log2: u32,
}

/// Backends of equal weight.
struct Class {
    /// Where they begin in the list of members.
    first: u32,
    size: Cycle,
    /// Their turns in a cycle: size times weight.
    turns: u64,
    /// Added before rounding down, in parts of a turn: classes that all rounded at
    /// once would crowd one generation and leave the next one empty.
    offset: u64,
}

/// Generations are at least this many, which keeps within a quarter of a turn what
/// any backend of a weight up to 256 is due in one of them.
const GENERATIONS_LOG2_MIN: u32 = 10;

/// Rows hold at most two to this power entries, or 4 MiB; with weights up to 256
/// a quarter of that is the most they can need.
const ENTRIES_LOG2_MAX: u32 = 20;

/// Fractions of multiples of the golden ratio fill the unit interval evenly, however
/// many are taken; this is its fractional part in 64 bits.
const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;

impl WeightClasses {
    /// Lays out the two tables. All weights must be above 0.
    pub(super) fn build(slots: &[u32], weights: &[u32]) -> Self {
        let mut by_weight: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (&slot, &weight) in slots.iter().zip(weights) {
            by_weight.entry(weight).or_default().push(slot);
        }
        let heaviest = by_weight.keys().next_back().copied().unwrap_or(1);
        let entries_log2 = by_weight.len().max(1).next_power_of_two().ilog2();
        let generations_log2 = heaviest
            .next_power_of_two()
            .ilog2()
            .max(GENERATIONS_LOG2_MIN)
            .min(ENTRIES_LOG2_MAX.saturating_sub(entries_log2));

        let mut members = Vec::with_capacity(slots.len());
        let mut classes = Vec::with_capacity(by_weight.len());
        for (nth, (weight, slots)) in (0_u64..).zip(by_weight.into_iter().rev()) {
            let size = slots.len();
            classes.push(Class {
                first: count(members.len()),
                size: Cycle::new(size as u64),
                turns: size as u64 * u64::from(weight),
                offset: nth.wrapping_mul(GOLDEN_RATIO) >> (64 - generations_log2),
            });
            members.extend(slots);
        }

        let mut generations = vec![0];
        let mut rows = Vec::with_capacity(classes.len() << generations_log2);
        let mut total = 0_u64;
        for generation in 0..1_u64 << generations_log2 {
            let start = total;
            for class in &classes {
                rows.push(
                    u32::try_from(total - start)
                        .expect("a generation has few turns for each of 2^32 slots"),
                );
                total += class.turns_before(generation + 1, generations_log2)
                    - class.turns_before(generation, generations_log2);
            }
            generations.push(total);
        }
        Self {
            members: members.into(),
            classes: classes.into(),
            cycle: Cycle::new(total),
            generations: generations.into(),
            rows: rows.into(),
            generations_log2,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// How many turns a cycle has.
    pub(super) fn cycle(&self) -> u64 {
        self.cycle.length()
    }

    /// Not inlined, as its many registers would have to be saved for every other
    /// algorithm too.
    #[inline(never)]
    pub(super) fn pick<L: Loads>(&self, context: &PickContext<'_, L>) -> Option<u32> {
        // Relaxed: the cursor orders turns among themselves and guards no other data.
        let turn = self.cycle.turn(context.cursor.fetch_add(1, Ordering::Relaxed));
        let slot = self.slot(turn);
        if context.excludes(slot) {
            return self.next_allowed(turn, context.excluded);
        }
        Some(slot)
    }

    /// Whose turn it is; `turn` must be below [`Self::cycle`].
    #[inline]
    fn slot(&self, turn: u64) -> u32 {
        let generation = self.generation(turn);
        let turn = turn - self.generations[generation];
        let row = &self.rows[generation * self.classes.len()..][..self.classes.len()];
        // The last to begin at or before the turn: those that begin at the same turn
        // as the next have none in this generation.
        let nth = row.partition_point(|&begin| u64::from(begin) <= turn) - 1;
        let class = &self.classes[nth];
        let before = class.turns_before(generation as u64, self.generations_log2);
        let member = class.size.turn(before + turn - u64::from(row[nth]));
        #[expect(clippy::cast_possible_truncation, reason = "below the length of a list")]
        self.members[class.first as usize + member as usize]
    }

    /// The generation to which a turn belongs.
    #[inline]
    fn generation(&self, turn: u64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "below the number of generations")]
        let mut guess = self.cycle.divide(turn << self.generations_log2).0 as usize;
        while self.generations[guess] > turn {
            guess -= 1;
        }
        while self.generations[guess + 1] <= turn {
            guess += 1;
        }
        guess
    }

    /// The next backend in turn after one that is excluded. The cursor stays: whoever
    /// comes next must not lose a turn to this request.
    #[cold]
    fn next_allowed(&self, excluded_turn: u64, excluded: &[u32]) -> Option<u32> {
        // Only so many exclusions can leave nobody; otherwise the walk ends by itself.
        if excluded.len() >= self.len() && self.members.iter().all(|&slot| lists(excluded, slot)) {
            return None;
        }
        (excluded_turn + 1..self.cycle())
            .chain(0..excluded_turn)
            .map(|turn| self.slot(turn))
            .find(|&slot| !lists(excluded, slot))
    }
}

impl Class {
    /// The class's turns in all generations before this one.
    fn turns_before(&self, generation: u64, generations_log2: u32) -> u64 {
        (generation * self.turns + self.offset) >> generations_log2
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("slots are 32 bits, so no list of them is longer")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(picker: &WeightClasses) -> impl Iterator<Item = u32> {
        (0..picker.cycle()).map(|turn| picker.slot(turn))
    }

    proptest! {
        /// Small cycles have other pickers, but show mistakes best.
        #[test]
        fn a_cycle_gives_every_backend_its_weight(weights in prop::collection::vec(1_u32..=300, 1..60)) {
            let slots: Vec<_> = (0..count(weights.len())).collect();
            let picker = WeightClasses::build(&slots, &weights);
            let mut taken = vec![0; weights.len()];
            for slot in turns(&picker) {
                taken[slot as usize] += 1;
            }
            prop_assert_eq!(taken, weights);
        }
    }

    #[test]
    fn exclusions_pass_the_turn_on_until_nobody_is_left() {
        let picker = WeightClasses::build(&[7, 8, 9], &[1, 200, 3]);
        for turn in 0..picker.cycle() {
            assert_eq!(picker.next_allowed(turn, &[7, 8]), Some(9));
            assert_eq!(picker.next_allowed(turn, &[9, 8, 7]), None);
        }
    }

    #[test]
    fn tables_stay_small_whatever_the_weights() {
        let slots: Vec<_> = (0..20_000).collect();
        let domain: Vec<_> = slots.iter().map(|slot| 1 + slot % 256).collect();
        assert!(WeightClasses::build(&slots, &domain).rows.len() <= 1 << 18);
        let beyond: Vec<_> = slots.iter().map(|slot| 1 + slot * 3).collect();
        assert!(WeightClasses::build(&slots, &beyond).rows.len() <= 1 << 20);
    }
}
