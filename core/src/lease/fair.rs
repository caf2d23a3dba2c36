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
