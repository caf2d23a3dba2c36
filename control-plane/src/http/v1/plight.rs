//! What is observed of backends that leave, of those that stay although they fail, and of pools that have
//! few others.

use lb_core::{health::candidates::Candidates, model::Backend};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{clock::millis, drain, grpc::Context, resilience::Kept};

/// A pool that uses backends that are not well.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PanicObserved {
    /// `few_left`: fewer than the threshold are well; `all_ejected`: all that are up are out for
    /// what their requests came to.
    cause: &'static str,
    /// Backends that are used although they are not well.
    helping: u32,
}

impl PanicObserved {
    pub(super) fn of(picks: &Candidates) -> Option<Self> {
        let helping = u32::try_from(picks.helping()).unwrap_or(u32::MAX);
        Some(Self { cause: picks.panic?.name(), helping })
    }
}

/// A backend that there is a reason to take out, and that its pool cannot spare.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeptObserved {
    /// What would take it out: `breaker` or `outlier`.
    by: &'static str,
    /// Why, for programs.
    reason_code: String,
    /// What its requests show, and why it stays, for people.
    reason: String,
    since_unix_ms: u64,
}

impl From<Kept> for KeptObserved {
    fn from(kept: Kept) -> Self {
        Self {
            by: kept.by.name(),
            reason_code: kept.reason.code,
            reason: kept.reason.message,
            since_unix_ms: kept.since_unix_ms,
        }
    }
}

/// How the drain of a backend goes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DrainObserved {
    /// When it began.
    since_unix_ms: u64,
    /// Until what is left is cut.
    time_left_ms: u64,
    /// Whether the backend is removed when nothing is left.
    remove: bool,
    /// Whether the time is up and what is left is being cut.
    cutting: bool,
    /// Whether it is over.
    drained: bool,
    /// Requests and upgraded connections that did not end by themselves.
    cut: u32,
    /// Requests that are left, as far as they are known.
    requests_left: u32,
    /// Upgraded connections that are left, as far as they are known.
    upgraded_left: u32,
    /// Proxies that are waited for because it is not known what they have.
    unheard_proxies: u32,
    /// Why it does not go on although it could: what was refused, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_up: Option<String>,
}

impl DrainObserved {
    pub(super) fn of(context: &Context, backend: &Backend, revision: u64) -> Option<Self> {
        let (drain, report) = (backend.drain?, drain::report(context, backend, revision)?);
        let left = report.left();
        Some(Self {
            since_unix_ms: drain.since_unix_ms,
            time_left_ms: millis(report.time_left),
            remove: drain.remove,
            cutting: drain.cutting,
            drained: drain.ended,
            cut: drain.cut,
            requests_left: left.requests,
            upgraded_left: left.upgraded,
            unheard_proxies: left.unheard,
            held_up: report.held_up,
        })
    }
}
