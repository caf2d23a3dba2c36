//! What the control plane answers, as it is shown: the same numbers under the same
//! names in tables and in JSON.
//!
//! JSON is an interface: names are stable and say their unit (`_ms`, `_us`,
//! `_unix_ms`, `_total`, `_per_second`), numbers are numbers, and what is not known is
//! null.

mod backend;
mod concurrency;
mod drain;
mod limit;
mod listener;
mod object;
mod plight;
mod pool;
mod proxy;
mod recent;
mod resilience;
mod route;
mod session;
mod source;
mod standing;
mod traffic;
mod unanswered;
mod write;

use std::{cmp::Reverse, collections::BTreeMap};

use lb_proto::v1 as pb;
use serde::Serialize;

#[cfg(test)]
pub(crate) use self::drain::tests::drain as a_drain;
pub(crate) use self::{
    backend::{BackendView, ChecksView, ResolutionView},
    concurrency::{ConcurrencyView, SlotsView, max_in_flight, slots},
    drain::DrainView,
    limit::{LimitSettingsView, LimitView},
    listener::ListenerView,
    object::{AnyObject, Fields, ObjectView, labels, state_name},
    plight::{KeptView, PanicView},
    pool::{Counts, PoolView},
    proxy::{ProcessView, ProxyView, RefusedView, RejectionView, is_connected},
    recent::RecentView,
    route::{RouteView, ShareView},
    session::{
        AffinityView, LostProxyView, RotationView, SessionKeyView, SessionView, lacking,
        results as session_results,
    },
    source::SourceView,
    standing::StandingView,
    traffic::Traffic,
    unanswered::UnansweredView,
    write::{ProgressView, WriteView},
};

/// A machine-readable reason and a sentence for people.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct ReasonView {
    pub(crate) code: String,
    pub(crate) message: String,
}

impl ReasonView {
    /// The sentence with its code: `connection refused (backend_connect_refused)`.
    pub(crate) fn sentence(&self) -> String {
        match (self.message.as_str(), self.code.as_str()) {
            ("", code) => code.to_owned(),
            (message, "") => message.to_owned(),
            (message, code) if message == code => code.to_owned(),
            (message, code) => format!("{message} ({code})"),
        }
    }
}

impl From<Option<pb::Reason>> for ReasonView {
    fn from(wire: Option<pb::Reason>) -> Self {
        let pb::Reason { code, message } = wire.unwrap_or_default();
        Self { code, message }
    }
}

/// What happened at all, the most frequent first; equal counts stay in their order.
pub(crate) fn most_frequent<'r>(
    counts: impl Iterator<Item = (&'r str, u64)>,
) -> Vec<(&'r str, u64)> {
    let mut counts: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    counts
}

/// Reasons with their counts.
pub(crate) fn by_reason(counts: &BTreeMap<String, u64>) -> impl Iterator<Item = (&str, u64)> {
    counts.iter().map(|(reason, count)| (reason.as_str(), *count))
}

/// A time of the wire, where 0 means never.
fn some_unix_ms(at: u64) -> Option<u64> {
    (at != 0).then_some(at)
}
