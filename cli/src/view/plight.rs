//! What is used although it is not well: pools in panic mode, and backends that stay although their
//! requests fail.

use lb_proto::v1 as pb;
use serde::Serialize;

use super::ReasonView;
use crate::format;

/// A pool that uses backends that are not well, because few others are left.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PanicView {
    /// `few_left` or `all_ejected`.
    pub(crate) cause: String,
    /// Up and not out.
    pub(crate) well: u32,
    /// Those that were ever checked.
    pub(crate) of: u32,
    /// Used although they are not well.
    pub(crate) helping: u32,
}

/// A backend that there is a reason to take out, and that its pool cannot spare.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct KeptView {
    /// `breaker` or `outlier`.
    pub(crate) by: String,
    pub(crate) reason: ReasonView,
    pub(crate) since_unix_ms: u64,
}

impl PanicView {
    /// Why which backends are used, of a pool with this threshold.
    pub(crate) fn sentence(&self, threshold_percent: u32) -> String {
        let Self { well, of, helping, .. } = self;
        if self.cause == "all_ejected" {
            let used = format::count(*helping as usize, "is used", "are used");
            return format!(
                "all of its backends that are up were taken out for what their requests came to, so \
                 {used} all the same"
            );
        }
        let more = if *well == 0 { "" } else { " more" };
        let that = if *helping == 1 { "that accepts" } else { "that accept" };
        let are = if *helping == 1 { "is" } else { "are" };
        format!(
            "{well} of {of} backends are up, so {helping}{more} {that} connections {are} used all \
             the same (--panic-threshold {threshold_percent})"
        )
    }
}

impl From<pb::PanicReport> for PanicView {
    fn from(wire: pb::PanicReport) -> Self {
        Self { cause: wire.cause, well: wire.well, of: wire.of, helping: wire.helping }
    }
}

impl From<pb::KeptReport> for KeptView {
    fn from(wire: pb::KeptReport) -> Self {
        Self { by: wire.by, reason: wire.reason.into(), since_unix_ms: wire.since_unix_ms }
    }
}
