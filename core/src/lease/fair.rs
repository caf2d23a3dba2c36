//! Max-min fair shares: nobody gets more than it asks for while another has less than it
//! asks for and less than the first. What nobody asks for is split evenly, so that a proxy
//! whose demand rises need not wait for a grant.

/// A share for each demand, which together are at most `quantity`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Shares {
    /// In the order of the demands.
    pub(super) amounts: Vec<u64>,
    /// Units that could not be split evenly; fewer than there are demands.
    pub(super) rest: u64,
    /// Whether every demand is met; otherwise those above [`Self::level`] are not.
    pub(super) all_met: bool,
    /// The most that an unmet demand got.
    pub(super) level: u64,
}

pub(super) fn shares(quantity: u64, demands: &[u64]) -> Shares {
    let mut ascending = demands.to_vec();
    ascending.sort_unstable();
    let mut left = quantity;
    for (met, &demand) in ascending.iter().enumerate() {
        let unmet = (ascending.len() - met) as u64;
        let level = left / unmet;
        if demand > level {
            let amounts = demands.iter().map(|&demand| demand.min(level)).collect();
            return Shares { amounts, rest: left % unmet, all_met: false, level };
        }
        left -= demand;
    }
    let count = demands.len().max(1) as u64;
    let surplus = left / count;
    let amounts = demands.iter().map(|&demand| demand + surplus).collect();
    Shares { amounts, rest: left % count, all_met: true, level: u64::MAX }
}

/// The same where some keep more than they would get: they have what they keep, and the others
/// share what is left. Who these are is told with it.
pub(super) fn shares_beside(quantity: u64, demands: &[u64], kept: &[u64]) -> (Shares, Vec<bool>) {
    let (mut demands, mut left) = (demands.to_vec(), quantity);
    let mut apart = vec![false; demands.len()];
    loop {
        let mut shares = shares(left, &demands);
        let before = left;
        if !shares.all_met {
            for (index, &kept) in kept.iter().enumerate() {
                if !apart[index] && kept > shares.level {
                    (apart[index], demands[index]) = (true, 0);
                    left = left.saturating_sub(kept);
                }
            }
        }
        if left == before {
            for (index, amount) in shares.amounts.iter_mut().enumerate() {
                *amount = if apart[index] { kept[index] } else { *amount };
            }
            return (shares, apart);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_demands_are_met_and_large_ones_share_the_rest() {
        let shares = shares(100, &[10, 90, 200, 0]);
        assert_eq!((shares.amounts, shares.rest, shares.level), (vec![10, 45, 45, 0], 0, 45));
    }

    #[test]
    fn what_nobody_asks_for_is_split_evenly() {
        let shares = shares(100, &[10, 0, 0]);
        assert_eq!((shares.amounts, shares.rest), (vec![40, 30, 30], 0));
    }

    #[test]
    fn fewer_units_than_demands_are_left_to_be_handed_round() {
        let shares = shares(2, &[1; 8]);
        assert_eq!((shares.amounts, shares.rest, shares.all_met), (vec![0; 8], 2, false));
    }

    #[test]
    fn who_keeps_more_than_an_even_share_has_that_and_the_others_share_the_rest() {
        let beside = |quantity, demands: &[u64], kept: &[u64]| {
            let (shares, apart) = shares_beside(quantity, demands, kept);
            (shares.amounts, shares.rest, shares.level, apart)
        };
        let (yes, no) = (true, false);
        assert_eq!(beside(10, &[10, 10], &[0, 5]), (vec![5, 5], 0, 5, vec![no, no]));
        assert_eq!(beside(10, &[10, 10], &[0, 8]), (vec![2, 8], 0, 2, vec![no, yes]));
        assert_eq!(beside(3, &[2, 2, 2], &[1, 1, 0]), (vec![1, 1, 1], 0, 1, vec![no; 3]));
        assert_eq!(beside(7, &[8, 1, 1], &[6, 0, 0]), (vec![6, 0, 0], 1, 0, vec![yes, no, no]));
        assert_eq!(beside(2, &[3, 3], &[2, 2]).0, [2, 2]);
        assert_eq!(beside(9, &[3, 3], &[3, 0]).0, [4, 4]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_made(quantity in 0..1_000_000_u64, demands in prop::collection::vec(0..1_000_000_u64, 1..40)) {
            let Shares { amounts, rest, all_met, level } = shares(quantity, &demands);
            prop_assert_eq!(amounts.iter().sum::<u64>() + rest, quantity);
            prop_assert!(rest < demands.len() as u64);
            prop_assert_eq!(all_met, demands.iter().sum::<u64>() <= quantity);
            for (amount, demand) in amounts.iter().zip(&demands) {
                // Whoever lacks something has as much as anybody.
                prop_assert!(amount >= demand || *amount == level);
                prop_assert!(all_met || amount <= demand);
            }
        }
    }
}
