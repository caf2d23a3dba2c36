//! What a backend's traffic says of it, beside what its checks say.

use std::time::Duration;

use super::{ProxyId, Reason};

/// What the fleet's traffic says of one backend. The default: nothing against it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Standing {
    /// Taken out for the requests that it had.
    pub ejection: Option<Ejection>,
    /// It has just come (back), and gets its share step by step.
    pub slow_start: Option<SlowStart>,
    /// Who sees it otherwise than the verdict says; at most [`Standing::DISAGREEMENTS_MAX`].
    pub disagreements: Vec<Disagreement>,
}

/// A backend that gets no requests for a while because of those that it had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ejection {
    /// What took it out.
    pub by: EjectedBy,
    /// The time is over, and one request of the fleet at a time tries it. Breakers only: an
    /// outlier comes back by itself.
    pub is_half_open: bool,
    /// How long it is out.
    pub open_for: Duration,
    /// Ejections that followed each other closely, this one included.
    pub times: u32,
    /// Why, with the counts that it rests on.
    pub reason: Reason,
    /// When it was taken out, or became half-open, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
}

/// What takes a backend out.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum EjectedBy {
    /// Its circuit breaker: its requests failed.
    Breaker,
    /// Outlier detection: it did worse than the rest of its pool.
    Outlier,
}

/// A ramp that is the same on all proxies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SlowStart {
    /// When it began by the control plane's clock, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// From the first request to the whole share.
    pub duration: Duration,
}

/// One party that sees a backend otherwise than the verdict says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Disagreement {
    /// The proxy; `None`: the control plane's checks.
    pub proxy: Option<ProxyId>,
    /// What it sees.
    pub reason: Reason,
}

impl Standing {
    /// Disagreements that are kept of one backend; a fleet of thousands would fill pages.
    pub const DISAGREEMENTS_MAX: usize = 64;
}

impl EjectedBy {
    /// As the wire, the command line and JSON spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Breaker => "breaker",
            Self::Outlier => "outlier",
        }
    }
}
