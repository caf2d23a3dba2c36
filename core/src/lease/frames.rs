//! Reports and grants that say nothing new.
//!
//! Most quantities of a fleet do not change from one report to the next: a thousand backends
//! with caps and no traffic. A process does not spell those out. It numbers its messages, the
//! *frames*, and each repeats all of its last reports except for those that it spells out. The
//! granter answers a frame, and thereby prolongs all of its last grants to that process:
//!
//! * A frame says what it rests on: a sum over the holders of the process and the numbers of
//!   their last reports ([`rests_on`]). If a report was lost, or the granter knows of more or
//!   fewer holders, it is another sum than the granter's; then the frame says only that the
//!   process is there, and is answered so, and the next one spells everything out.
//! * What is repeated counts as heard when the frame comes in ([`super::Granter::hear_again`]): all
//!   that a holder may have then is counted on from there, also grants that it has not confirmed.
//!   So the answer may prolong whatever of them the holder has ([`super::Holder::renew`]).
//! * A grant that was lost is counted until a report says that it was not applied. A holder that
//!   has nothing new to say would never send that, so it is asked to ([`super::Granter::asked`]).
//! * A holder whose lease has ended spells out what it has: a grant is not prolonged from
//!   beyond its end.

/// The part of one holder in what a frame rests on; the parts are added up.
#[must_use]
pub fn rests_on(holder: u64, seq: u64) -> u64 {
    // The finalizer of SplitMix64, of two numbers that are small in practice.
    let mut mixed =
        (holder << 24 ^ holder >> 40).wrapping_add(seq).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_holder_and_every_report_makes_another_sum() {
        let holders = [1, 2, 3, 1000, 1 << 32, (1 << 32) + 1, 2 << 32];
        let parts: BTreeSet<u64> = holders
            .iter()
            .flat_map(|&holder| (1..1000).map(move |seq| rests_on(holder, seq)))
            .collect();
        assert_eq!(parts.len(), holders.len() * 999);
    }
}
