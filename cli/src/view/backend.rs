//! A backend: what is wanted of it, what is known about it, and its traffic.

use std::collections::BTreeMap;

use lb_proto::v1 as pb;
use serde::Serialize;

use super::{
    DrainView, KeptView, ReasonView, SlotsView, StandingView, Traffic, UnansweredView,
    object::admin_state, some_unix_ms, standing::EjectionView,
};

/// One backend with verdict, checks and traffic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct BackendView {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) pool: String,
    pub(crate) weight: u32,
    /// 0: no limit.
    pub(crate) max_in_flight: u32,
    pub(crate) admin_state: &'static str,
    pub(crate) labels: BTreeMap<String, String>,
    /// What discovered it; nothing when it was added by hand.
    pub(crate) source: Option<String>,
    pub(crate) revision: u64,
    pub(crate) incarnation: u64,
    pub(crate) health: &'static str,
    pub(crate) reason: ReasonView,
    pub(crate) since_unix_ms: Option<u64>,
    #[serde(flatten)]
    pub(crate) standing: StandingView,
    /// Whether it gets requests, by all that the fleet knows; an older control plane does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) picked: Option<bool>,
    /// Its requests fail, and it gets them all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kept: Option<KeptView>,
    /// Requests in progress of which none is answered; nothing while some are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unanswered: Option<UnansweredView>,
    pub(crate) resolved_addresses: Vec<String>,
    pub(crate) checks: Option<ChecksView>,
    pub(crate) traffic: Traffic,
    pub(crate) proxies: Vec<ProxyTraffic>,
    /// Only where requests in progress are limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slots: Option<SlotsView>,
    /// Only while it is draining.
    pub(crate) drain: Option<DrainView>,
}

/// What the prober saw.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ChecksView {
    pub(crate) passes_in_a_row: u64,
    pub(crate) failures_in_a_row: u64,
    pub(crate) last_check_unix_ms: Option<u64>,
    pub(crate) last_success_unix_ms: Option<u64>,
    pub(crate) next_check_unix_ms: Option<u64>,
    pub(crate) last_duration_us: u32,
    pub(crate) last_result: ReasonView,
    pub(crate) checks_total: u64,
    pub(crate) failures_total: u64,
    /// The last check was made by the settings of this revision.
    pub(crate) checked_revision: u64,
    /// What is checked was changed, and no check was made by the new settings yet.
    pub(crate) awaited: bool,
    /// Of the name in its address; nothing for literal addresses.
    pub(crate) resolution: Option<ResolutionView>,
}

/// How a name resolves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ResolutionView {
    pub(crate) resolved_unix_ms: Option<u64>,
    pub(crate) ttl_ms: u32,
    pub(crate) next_unix_ms: Option<u64>,
    pub(crate) failing_since_unix_ms: Option<u64>,
    pub(crate) failure: ReasonView,
}

/// One proxy's share of the traffic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ProxyTraffic {
    pub(crate) proxy_id: String,
    /// It avoids the backend for what it sees itself, whatever the verdict.
    pub(crate) avoided: bool,
    pub(crate) traffic: Traffic,
}

impl BackendView {
    /// The verdict, and what the operator wants when it is not "enabled".
    pub(crate) fn state(&self) -> String {
        match (self.admin_state, &self.drain) {
            ("enabled", _) => {
                let ejection = self.standing.ejection.as_ref().map(EjectionView::state);
                let failing = self.kept.as_ref().map(|_| "failing");
                let used = self.is_helping().then_some("used");
                let words = [Some(self.health), ejection.or(failing), used];
                words.into_iter().flatten().collect::<Vec<_>>().join(", ")
            }
            (_, Some(drain)) => drain.state(),
            (admin, None) => format!("{} ({admin})", self.health),
        }
    }

    /// Its checks, if the last ones failed.
    pub(crate) fn failing_checks(&self) -> Option<&ChecksView> {
        self.checks.as_ref().filter(|checks| checks.failures_in_a_row > 0)
    }

    /// Whether its check passed since it is what it is, as far as the control plane remembers.
    pub(crate) fn has_passed_a_check(&self) -> bool {
        self.checks.as_ref().is_some_and(|checks| checks.last_success_unix_ms.is_some())
    }

    /// The proxies that avoid it for what they see themselves; nothing if there are none.
    pub(crate) fn avoided_by(&self) -> Option<String> {
        let avoiding = self.proxies.iter().filter(|proxy| proxy.avoided);
        let ids: Vec<&str> = avoiding.map(|proxy| proxy.proxy_id.as_str()).collect();
        (!ids.is_empty()).then(|| ids.join(", "))
    }

    /// Whether its checks pass and nobody keeps it out for what its requests came to.
    pub(crate) fn is_healthy(&self) -> bool {
        self.health == "up" && self.standing.ejection.is_none() && self.failing_checks().is_none()
    }

    /// Whether an operator should know of it, if it is wanted.
    pub(crate) fn is_amiss(&self) -> bool {
        !self.is_healthy()
            || self.kept.is_some()
            || !self.standing.disagreements.is_empty()
            || self.avoided_by().is_some()
    }

    /// What it answers nothing of, for longer than is usual.
    pub(crate) fn hanging(&self) -> Option<&UnansweredView> {
        self.unanswered.as_ref().filter(|unanswered| unanswered.is_long(&self.traffic))
    }

    /// Whether it gets new requests: what the proxies would pick.
    pub(crate) fn serves(&self) -> bool {
        self.picked.unwrap_or_else(|| self.is_well())
    }

    /// Whether it gets requests although it is not well, since its pool has few others.
    pub(crate) fn is_helping(&self) -> bool {
        self.serves() && !self.is_well()
    }

    /// Whether nothing is against it.
    fn is_well(&self) -> bool {
        self.health == "up"
            && self.admin_state == "enabled"
            && self.weight > 0
            && self.standing.ejection.is_none()
    }
}

impl From<pb::BackendView> for BackendView {
    fn from(wire: pb::BackendView) -> Self {
        let backend = wire.backend.unwrap_or_default();
        let mut status = wire.status.unwrap_or_default();
        let standing = StandingView::take(&mut status);
        let admin_state = admin_state(&backend);
        let health = match status.health() {
            pb::Health::Unknown => "unknown",
            pb::Health::Up => "up",
            pb::Health::Down => "down",
        };
        Self {
            id: backend.id,
            address: backend.address,
            pool: backend.pool,
            weight: backend.weight.unwrap_or(1),
            max_in_flight: backend.max_in_flight,
            admin_state,
            labels: backend.labels,
            source: Some(backend.source).filter(|source| !source.is_empty()),
            revision: wire.revision,
            incarnation: backend.incarnation,
            health,
            reason: status.reason.into(),
            since_unix_ms: some_unix_ms(status.since_unix_ms),
            standing,
            picked: wire.picked,
            kept: wire.kept.map(KeptView::from),
            unanswered: wire.unanswered.map(UnansweredView::from),
            resolved_addresses: status.addresses,
            checks: wire.checks.map(ChecksView::from),
            traffic: wire.totals.into(),
            slots: wire.slots.map(SlotsView::from),
            drain: DrainView::read(backend.drain, wire.drain),
            proxies: wire
                .proxies
                .into_iter()
                .map(|proxy| ProxyTraffic {
                    proxy_id: proxy.proxy_id,
                    avoided: proxy.avoided,
                    traffic: proxy.totals.into(),
                })
                .collect(),
        }
    }
}

impl From<pb::CheckReport> for ChecksView {
    fn from(wire: pb::CheckReport) -> Self {
        Self {
            passes_in_a_row: wire.passes_in_a_row,
            failures_in_a_row: wire.failures_in_a_row,
            last_check_unix_ms: some_unix_ms(wire.last_check_unix_ms),
            last_success_unix_ms: some_unix_ms(wire.last_success_unix_ms),
            next_check_unix_ms: some_unix_ms(wire.next_check_unix_ms),
            last_duration_us: wire.last_duration_us,
            last_result: wire.last_result.into(),
            checks_total: wire.checks_total,
            failures_total: wire.failures_total,
            checked_revision: wire.checked_revision,
            awaited: wire.awaited,
            resolution: wire.resolution.map(|resolution| ResolutionView {
                resolved_unix_ms: some_unix_ms(resolution.resolved_unix_ms),
                ttl_ms: resolution.ttl_ms,
                next_unix_ms: some_unix_ms(resolution.next_unix_ms),
                failing_since_unix_ms: some_unix_ms(resolution.failing_since_unix_ms),
                failure: resolution.failure.into(),
            }),
        }
    }
}
