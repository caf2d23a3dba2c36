//! What traffic says of a backend.

use lb_proto::v1 as pb;
use serde::Serialize;

use super::ReasonView;

/// Who is out, who begins slowly, and who sees it otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct StandingView {
    /// It gets no requests because of those that it had.
    pub(crate) ejection: Option<EjectionView>,
    /// It gets its share step by step.
    pub(crate) slow_start: Option<SlowStartView>,
    /// Who sees it otherwise than the verdict says.
    pub(crate) disagreements: Vec<DisagreementView>,
}

/// Why a backend is out, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct EjectionView {
    /// `breaker` or `outlier`.
    pub(crate) by: String,
    pub(crate) half_open: bool,
    pub(crate) open_for_ms: u32,
    /// Times in a row, this one included.
    pub(crate) times: u32,
    pub(crate) reason: ReasonView,
    pub(crate) since_unix_ms: u64,
}

/// The ramp of a backend that has come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SlowStartView {
    pub(crate) since_unix_ms: u64,
    pub(crate) duration_ms: u32,
}

/// One party that sees it otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct DisagreementView {
    /// Nothing: the control plane's checks.
    pub(crate) proxy_id: Option<String>,
    pub(crate) reason: ReasonView,
}

impl DisagreementView {
    /// Whether it is that the backend fails, whatever the verdict says.
    pub(crate) fn sees_it_fail(&self) -> bool {
        matches!(&*self.reason.code, "check_failing" | "unreachable_from_proxy")
    }

    /// Who it is.
    pub(crate) fn who(&self) -> &str {
        self.proxy_id.as_deref().unwrap_or("the control plane")
    }
}

impl EjectionView {
    /// What it is in, in two words.
    pub(crate) fn state(&self) -> &'static str {
        match (self.by.as_str(), self.half_open) {
            ("breaker", false) => "breaker open",
            ("breaker", true) => "breaker half-open",
            _ => "outlier",
        }
    }

    /// When it is tried again; nothing while it is being tried.
    pub(crate) fn until_unix_ms(&self) -> Option<u64> {
        (!self.half_open).then(|| self.since_unix_ms.saturating_add(self.open_for_ms.into()))
    }
}

impl SlowStartView {
    /// How far it is, from 0 to 100; nothing once it is over.
    pub(crate) fn percent(&self, now_unix_ms: u64) -> Option<u64> {
        let age = now_unix_ms.saturating_sub(self.since_unix_ms);
        let duration = u64::from(self.duration_ms);
        (age < duration).then(|| age * 100 / duration)
    }
}

impl StandingView {
    /// Takes its part of a status.
    pub(crate) fn take(status: &mut pb::BackendStatus) -> Self {
        let disagreements = std::mem::take(&mut status.disagreements).into_iter();
        Self {
            ejection: status.ejection.take().map(EjectionView::from),
            slow_start: status.slow_start.take().map(|ramp| SlowStartView {
                since_unix_ms: ramp.since_unix_ms,
                duration_ms: ramp.duration_ms,
            }),
            disagreements: disagreements
                .map(|disagreement| DisagreementView {
                    proxy_id: Some(disagreement.proxy).filter(|proxy| !proxy.is_empty()),
                    reason: disagreement.reason.into(),
                })
                .collect(),
        }
    }
}

impl From<pb::Ejection> for EjectionView {
    fn from(wire: pb::Ejection) -> Self {
        Self {
            by: wire.by,
            half_open: wire.half_open,
            open_for_ms: wire.open_for_ms,
            times: wire.times,
            reason: wire.reason.into(),
            since_unix_ms: wire.since_unix_ms,
        }
    }
}
