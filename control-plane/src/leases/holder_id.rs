//! Who holds a share.

use std::sync::Arc;

/// One start of one proxy's holder of a quantity: its process, and which holder of that.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct HolderId {
    pub(crate) instance: Arc<str>,
    pub(crate) number: u64,
}

impl HolderId {
    /// Whether the same process held it as this one before: before it stood still, which counts
    /// up the upper half of the number, or before the quantity was not limited for a while, which
    /// counts up the lower. What was in use then, the later one reports as in use.
    pub(super) fn is_former_of(&self, other: &Self) -> bool {
        const LOWER: u64 = (1 << 32) - 1;
        let place = |holder: &Self| (holder.number & LOWER, holder.number);
        self.instance == other.instance && place(self) < place(other)
    }
}
