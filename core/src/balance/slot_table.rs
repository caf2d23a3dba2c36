//! A long, read-only list of slots.
//!
//! Tables are read at random by every request, so what counts is how much of them
//! stays in a cache: two bytes an entry suffice for nearly every pool.

/// A list of slots in two or four bytes each.
pub(super) enum SlotTable {
    /// Every slot is below 65 536.
    Narrow(Box<[u16]>),
    /// Some are not.
    Wide(Box<[u32]>),
}

impl SlotTable {
    /// Copies the slots into as little room as they need.
    pub(super) fn new(slots: &[u32]) -> Self {
        slots
            .iter()
            .map(|&slot| u16::try_from(slot))
            .collect::<Result<_, _>>()
            .map_or_else(|_| Self::Wide(slots.into()), Self::Narrow)
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Narrow(slots) => slots.len(),
            Self::Wide(slots) => slots.len(),
        }
    }

    /// The entry at `index`, which must be below [`Self::len`].
    #[inline]
    pub(super) fn slot(&self, index: usize) -> u32 {
        match self {
            Self::Narrow(slots) => u32::from(slots[index]),
            Self::Wide(slots) => slots[index],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_read_back_from_two_bytes_and_from_four() {
        for slots in [vec![], vec![3, 65_535], vec![65_536, 1]] {
            let table = SlotTable::new(&slots);
            assert_eq!(matches!(table, SlotTable::Wide(_)), slots.contains(&65_536));
            assert!((0..table.len()).map(|i| table.slot(i)).eq(slots));
        }
    }
}
