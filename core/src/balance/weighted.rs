//! Turns in proportion to weights, as evenly spread as whole turns allow.
//!
//! The weights, divided by their greatest common divisor, add up to the cycle. Of a
//! backend with `w` turns in a cycle of `W`, turn `j` falls due between `j * W / w` and
//! `(j + 1) * W / w`; at each step, of all turns that have begun, the one that ends
//! first is taken. Scheduling theory knows this as earliest deadline first over P-fair
//! windows, and that on one processor it misses no deadline. Hence after any number
//! of requests every backend has its exact share, rounded down or up: closer than the smooth
//! weighted round robin of NGINX, and a table, whereas that one costs a scan per request.
//!
//! A table also makes a phase an index, which is how several proxies keep out of
//! each other's way.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{Candidate, round_robin::RoundRobin, weight_classes::WeightClasses};

/// What serves a set of weights best.
pub(super) enum Weighted {
    /// A cycle that is short enough to be written down.
    Turns(RoundRobin),
    /// One that is not.
    Classes(WeightClasses),
}

/// The longest cycle that is written down: 128 KiB, laid out in some 10 ms.
const TURNS_MAX: u64 = 65_536;

/// Lays out the cycle. All weights must be above 0.
pub(super) fn build(members: &[Candidate<'_>]) -> Weighted {
    let weights = reduced(members);
    let cycle: u64 = weights.iter().copied().map(u64::from).sum();
    if weights.iter().all(|&weight| weight == 1) {
        return Weighted::Turns(RoundRobin::in_order(members));
    }
    if cycle > TURNS_MAX {
        let slots: Vec<_> = members.iter().map(|member| member.slot).collect();
        return Weighted::Classes(WeightClasses::build(&slots, &weights));
    }
    Weighted::Turns(written_down(members, &weights))
}

/// Lays out a cycle that is short enough: 256 members have one, whatever their weights.
pub(super) fn turns(members: &[Candidate<'_>]) -> RoundRobin {
    written_down(members, &reduced(members))
}

/// The weights without their common divisor.
fn reduced(members: &[Candidate<'_>]) -> Vec<u32> {
    let divisor = members.iter().map(|member| u32::from(member.weight)).fold(0, gcd).max(1);
    members.iter().map(|member| u32::from(member.weight) / divisor).collect()
}

fn written_down(members: &[Candidate<'_>], weights: &[u32]) -> RoundRobin {
    let turns: Vec<_> = lay_out(weights).into_iter().map(|i| members[i].slot).collect();
    RoundRobin::with_turns(&turns, members.len())
}

/// One cycle, as indexes of the weights.
fn lay_out(weights: &[u32]) -> Vec<usize> {
    let cycle: u64 = weights.iter().copied().map(u64::from).sum();
    let begins = |i: usize, turn: u64| turn * cycle / u64::from(weights[i]);
    let ends = |i: usize, turn: u64| ((turn + 1) * cycle).div_ceil(u64::from(weights[i]));

    // Turns that have begun, the first to end on top; among equals the order of the
    // candidates, which is what users expect of backend1, backend2, backend3.
    let mut begun: BinaryHeap<_> = (0..weights.len()).map(|i| Reverse((ends(i, 0), i))).collect();
    // The others, the first to begin on top. A backend is in one of the two heaps
    // with its next turn.
    let mut waiting = BinaryHeap::with_capacity(weights.len());
    let mut taken = vec![0_u64; weights.len()];
    let mut turns = Vec::new();
    for step in 0..cycle {
        while let Some(&Reverse((begin, i))) = waiting.peek()
            && begin <= step
        {
            waiting.pop();
            begun.push(Reverse((ends(i, taken[i]), i)));
        }
        let Reverse((end, i)) = begun.pop().expect("the turns of a cycle fill it without a gap");
        debug_assert!(step < end, "no turn is taken after its end");
        turns.push(i);
        taken[i] += 1;
        waiting.push(Reverse((begins(i, taken[i]), i)));
    }
    turns
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_cycles_read_as_one_would_write_them() {
        assert_eq!(lay_out(&[1, 2, 1]), [1, 0, 1, 2]);
        assert_eq!(lay_out(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(lay_out(&[5, 1, 1]), [0, 0, 0, 1, 0, 0, 2]);
        assert!(lay_out(&[]).is_empty());
    }

    #[test]
    fn a_common_divisor_does_not_lengthen_the_cycle() {
        let members = [(0, 256), (1, 128)].map(|(slot, weight)| Candidate { slot, id: "", weight });
        let Weighted::Turns(turns) = build(&members) else { panic!("a cycle of three") };
        assert_eq!(turns.cycle(), 3);
    }

    proptest! {
        /// The quota rule: after any number of turns every backend has its exact
        /// share, rounded down or up.
        #[test]
        fn every_prefix_is_exact_to_a_rounding(weights in prop::collection::vec(1_u32..=256, 1..20)) {
            let cycle: u32 = weights.iter().sum();
            let mut taken = vec![0; weights.len()];
            for (step, i) in (1..).zip(lay_out(&weights)) {
                taken[i] += 1;
                for (&taken, &weight) in taken.iter().zip(&weights) {
                    prop_assert!(weight * step / cycle <= taken);
                    prop_assert!(taken <= (weight * step).div_ceil(cycle));
                }
            }
            prop_assert_eq!(taken, weights);
        }
    }
}
