//! A source of a pool's backends, and how it does.

use lb_proto::v1 as pb;
use serde::Serialize;

use super::{ReasonView, some_unix_ms};

/// One source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SourceView {
    pub(crate) source: String,
    /// Backends in its last answer.
    pub(crate) found: u32,
    pub(crate) answered_unix_ms: Option<u64>,
    pub(crate) next_unix_ms: Option<u64>,
    pub(crate) failing_since_unix_ms: Option<u64>,
    pub(crate) failure: ReasonView,
    /// Backends that it does not tell any more and that are still there, and why.
    pub(crate) leaving: u32,
    pub(crate) waiting: String,
    /// What it told and cannot be a backend.
    pub(crate) skipped: Vec<String>,
}

impl SourceView {
    /// What to do about it, if there is something.
    pub(crate) fn remedy(&self, pool: &str) -> Option<String> {
        let kind = self.source.split(':').next().unwrap_or_default();
        self.failing_since_unix_ms?;
        Some(match kind {
            "file" => format!(
                "correct the file on the control plane's machine; it is read every second, and its \
                 last backends serve meanwhile ('lbctl get backends --pool {pool}')"
            ),
            _ => format!(
                "look at the name and at the name servers of the control plane (--dns-server); the \
                 last backends serve meanwhile ('lbctl get backends --pool {pool}')"
            ),
        })
    }
}

impl From<pb::SourceStatus> for SourceView {
    fn from(wire: pb::SourceStatus) -> Self {
        Self {
            source: wire.source,
            found: wire.found,
            answered_unix_ms: some_unix_ms(wire.answered_unix_ms),
            next_unix_ms: some_unix_ms(wire.next_unix_ms),
            failing_since_unix_ms: some_unix_ms(wire.failing_since_unix_ms),
            failure: wire.failure.into(),
            leaving: wire.leaving,
            waiting: wire.waiting,
            skipped: wire.skipped,
        }
    }
}
