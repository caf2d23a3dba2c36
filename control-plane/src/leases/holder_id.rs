//! Who holds a share.

use std::sync::Arc;

/// One start of one proxy's holder of a quantity: its process, and which holder of that.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct HolderId {
    pub(crate) instance: Arc<str>,
    pub(crate) number: u64,
}

impl HolderId {
    /// Whether this is the same holder before its process stood still: it counts up the upper
    /// half of its number then. What a former *account* had, which has another lower half, goes
    /// on beside it.
    pub(super) fn is_former_of(&self, other: &Self) -> bool {
        const LOWER: u64 = (1 << 32) - 1;
        self.instance == other.instance
            && self.number < other.number
            && self.number & LOWER == other.number & LOWER
    }
}
