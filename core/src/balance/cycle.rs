//! The length of a cycle of turns, and where in it a cursor stands.
//!
//! A cursor counts up for ever, so every pick divides by the length. The processor's
//! division takes longer than all the rest of a pick; with the length's reciprocal,
//! known in advance, one multiplication does.

/// The length of a cycle, prepared for division.
pub(super) struct Cycle {
    length: u64,
    /// `2^64 / length`, rounded down.
    reciprocal: u64,
}

impl Cycle {
    /// An empty cycle counts as one turn that nobody takes.
    pub(super) fn new(length: u64) -> Self {
        let length = length.max(1);
        Self { length, reciprocal: u64::MAX / length }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// How many whole cycles there are in `turns`, and how many turns are left.
    #[inline]
    pub(super) fn divide(&self, turns: u64) -> (u64, u64) {
        let product = u128::from(turns) * u128::from(self.reciprocal);
        let cycles = (product >> 64) as u64;
        // The reciprocal is less than one too small, and there are less than 2^64
        // turns to multiply the mistake with: the quotient is exact, or one short.
        let left = turns - cycles * self.length;
        if left < self.length { (cycles, left) } else { (cycles + 1, left - self.length) }
    }

    /// The turn at which a cursor stands, from 0.
    #[inline]
    pub(super) fn turn(&self, cursor: u64) -> u64 {
        self.divide(cursor).1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_the_range_divide_as_they_should() {
        for length in [1, 2, 3, 65_536, 65_537, 1 << 48, u64::MAX] {
            for turns in [0, 1, length - 1, length, length.wrapping_add(1), u64::MAX] {
                let expected = (turns / length, turns % length);
                assert_eq!(Cycle::new(length).divide(turns), expected, "{turns} by {length}");
            }
        }
        assert_eq!(Cycle::new(0).turn(5), 0);
    }

    proptest! {
        #[test]
        fn dividing_means_what_it_always_did(turns: u64, length: u64, shift in 0..64) {
            let length = u64::max(length >> shift, 1);
            prop_assert_eq!(Cycle::new(length).divide(turns), (turns / length, turns % length));
        }
    }
}
