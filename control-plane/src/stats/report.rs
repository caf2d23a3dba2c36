//! What a proxy reports.

use std::time::Duration;

use lb_core::{
    model::{BackendId, Epoch, Incarnation, InstanceId, PoolName, ProxyId},
    stats::BackendCounters,
};

use super::{AnswersPart, LimitPart, OwnAnswers, Process};
use crate::resilience::ProbeReport;

/// A life that no backend has: revisions begin with 1.
const NO_INCARNATION: Incarnation = Incarnation(0);

/// One report of one proxy.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whose.
    pub proxy: ProxyId,
    /// Of which start of it.
    pub instance: InstanceId,
    /// Grows by one with each report of an instance.
    pub sequence: u64,
    /// When it was sent, by its process's own monotonic clock since its start.
    pub sent: Duration,
    /// Tokens that its proxy has used.
    pub probes: Vec<ProbeReport>,
    /// How long the proxy counted.
    pub interval: Duration,
    /// The revision that it served from when it counted.
    pub applied_revision: u64,
    /// Of that revision; nothing if the proxy does not tell.
    pub applied_epoch: Option<Epoch>,
    /// Backends that have anything to tell.
    pub backends: Vec<BackendPart>,
    /// Limits that have anything to tell.
    pub limits: Vec<LimitPart>,
    /// What clients were answered; nothing of a proxy that is too old to tell.
    pub answers: Option<Vec<AnswersPart>>,
    /// The process itself.
    pub process: Process,
    /// What became of the sessions of pools, by result.
    pub sessions: Vec<(PoolName, OwnAnswers)>,
}

impl Report {
    /// Whether it is of a proxy that serves from another store than this one.
    #[must_use]
    pub fn is_of_another_store(&self, epoch: Epoch) -> bool {
        self.applied_epoch.is_some_and(|theirs| theirs != epoch)
    }

    /// Takes out what it says of backends, limits and revisions of another store: they may be
    /// called as others are here. What the process did, and its requests in each pool, count.
    pub fn disown(&mut self) {
        self.applied_revision = 0;
        self.probes.clear();
        self.limits.clear();
        for part in &mut self.backends {
            part.incarnation = NO_INCARNATION;
        }
    }
}

impl BackendPart {
    /// Whether the backend answered anything, or began to: with any status.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        let BackendCounters { successes, failures, .. } = &self.counters;
        *successes > 0 || failures.status_5xx > 0 || self.begun > 0
    }
}

/// What one report says of one backend.
#[derive(Clone, Debug)]
pub struct BackendPart {
    /// The backend's pool, as the proxy knows it.
    pub pool: PoolName,
    /// Which.
    pub backend: BackendId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Since the last report.
    pub counters: BackendCounters,
    /// Now, upgraded connections included.
    pub in_flight: u32,
    /// Of these, requests whose response has not begun; 0 of a proxy that is too old to tell.
    pub unanswered: u32,
    /// Upgraded connections.
    pub upgraded: u32,
    /// Requests and upgraded connections that were cut at the end of a drain.
    pub cut: u32,
    /// Requests that sessions brought here.
    pub sessions: u64,
    /// Failures since the last success of the period.
    pub trailing_failures: u64,
    /// Responses below 500 that have begun, and were not complete at once: evidence that the
    /// backend is reached. They are in `counters` when they end.
    pub begun: u64,
    /// The proxy avoids it for what it sees itself.
    pub avoided: bool,
}
