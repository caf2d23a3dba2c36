//! The weights of SRV records, and which of their priorities is in use.

use crate::model::Weight;

/// Maps SRV weights, 0 to 65535, to ours, 1 to 256.
///
/// Weights up to 256 are kept. If one is larger, all are scaled so that the largest is
/// 256: proportions are what they mean. 0 becomes 1, since RFC 2782 gives such targets
/// "a very small chance" and not none.
#[must_use]
pub fn weights(records: &[u16]) -> Vec<Weight> {
    let largest = records.iter().copied().max().map_or(0, u32::from).max(Weight::MAX);
    let scaled = |weight: u16| {
        let share = (u32::from(weight) * Weight::MAX + largest / 2) / largest;
        Weight::new(share.clamp(1, Weight::MAX)).unwrap_or_default()
    };
    records.iter().map(|weight| scaled(*weight)).collect()
}

/// The priority in use: the smallest number of which a backend can serve, as RFC 2782
/// wants; while none can, the smallest of all. `candidates` are priorities, each with
/// whether that backend can serve, or may yet.
#[must_use]
pub fn priority_in_use(candidates: impl Iterator<Item = (u16, bool)>) -> u16 {
    let (mut first, mut serving) = (None, None);
    for (priority, serves) in candidates {
        first = Some(first.map_or(priority, |first: u16| first.min(priority)));
        if serves {
            serving = Some(serving.map_or(priority, |serving: u16| serving.min(priority)));
        }
    }
    serving.or(first).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_weights_are_kept_and_large_ones_scaled() {
        let mapped = |records: &[u16]| weights(records).iter().map(|w| w.get()).collect::<Vec<_>>();
        assert_eq!(mapped(&[0, 1, 60, 256]), [1, 1, 60, 256]);
        assert_eq!(mapped(&[0, 1000, 500, 1]), [1, 256, 128, 1]);
        assert_eq!(mapped(&[0, 0]), [1, 1]);
        assert!(mapped(&[]).is_empty());
    }

    #[test]
    fn the_next_priority_is_used_when_none_of_the_first_can_serve() {
        assert_eq!(priority_in_use([(10, true), (20, true)].into_iter()), 10);
        assert_eq!(priority_in_use([(10, false), (20, true), (10, false)].into_iter()), 20);
        assert_eq!(priority_in_use([(20, false), (10, false)].into_iter()), 10);
    }

    proptest! {
        #[test]
        fn every_weight_serves_and_order_is_kept(records in prop::collection::vec(any::<u16>(), 1..40)) {
            let mapped = weights(&records);
            prop_assert_eq!(mapped.len(), records.len());
            for (a, wa) in records.iter().zip(&mapped) {
                prop_assert!((1..=256).contains(&wa.get()));
                for (b, wb) in records.iter().zip(&mapped) {

                    prop_assert!(a > b || wa <= wb);
                }
            }
        }
    }
}
