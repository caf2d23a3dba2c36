//! A pool: its policy, and how its backends are.

use std::collections::BTreeMap;

use lb_core::model::{BackendConnections, Pool, PoolName};
use lb_proto::v1 as pb;
use serde::Serialize;

use super::{
    AffinityView, ConcurrencyView, PanicView, SlotsView, SourceView, Traffic, object::Fields,
    resilience::ResilienceView,
};
use crate::format::setting;

/// A pool with the number of its backends by state, and its traffic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PoolView {
    pub(crate) name: String,
    pub(crate) algorithm: String,
    pub(crate) choices: Option<u32>,
    pub(crate) error_hold_ms: Option<u32>,
    pub(crate) health: String,
    pub(crate) health_path: Option<String>,
    pub(crate) health_interval_ms: u32,
    pub(crate) health_edge_interval_ms: u32,
    pub(crate) health_timeout_ms: u32,
    pub(crate) rise: u32,
    pub(crate) fall: u32,
    pub(crate) connect_timeout_ms: u32,
    pub(crate) request_timeout_ms: u32,
    pub(crate) response_idle_timeout_ms: u32,
    pub(crate) tunnel_idle_timeout_ms: u32,
    pub(crate) keep_alive_timeout_ms: u32,
    /// Of each backend, for each worker.
    pub(crate) max_idle_connections: u32,
    pub(crate) max_connection_age_ms: u32,
    #[serde(flatten)]
    pub(crate) resilience: ResilienceView,
    #[serde(flatten)]
    pub(crate) affinity: AffinityView,
    #[serde(flatten)]
    pub(crate) concurrency: ConcurrencyView,
    /// Takes its requests while it has no backend for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fallback_pool: Option<String>,
    /// What they are answered when that cannot serve either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fallback_answer: Option<AnswerView>,
    pub(crate) sources: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backends: Option<Counts>,
    /// Backends that get requests, by all that the fleet knows; an older control plane does not
    /// tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) serving: Option<u32>,
    /// Only while backends that are not well are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) panic: Option<PanicView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) source_status: Vec<SourceView>,
    /// Only where requests in progress are limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slots: Option<SlotsView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) traffic: Option<Traffic>,
    /// What became of the sessions of its requests.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) sessions_total: BTreeMap<String, u64>,
}

/// An answer that needs no backend.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct AnswerView {
    pub(crate) status: u32,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

/// Backends by state.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Counts {
    /// Those that serve: their checks pass, and no breaker or outlier detection keeps them out.
    pub(crate) up: u32,
    /// Kept out by a breaker or as an outlier, although their checks pass.
    pub(crate) out: u32,
    pub(crate) down: u32,
    pub(crate) unknown: u32,
    pub(crate) disabled: u32,
    pub(crate) draining: u32,
}

impl PoolView {
    /// The settings of one with every default, with those that it would have if it had
    /// sessions by cookie.
    pub(super) fn default_fields() -> Fields {
        let pool = Self::from(pb::Pool::from(&Pool::new(PoolName::default_pool())));
        let mut fields = pool.fields();
        fields.extend(AffinityView::cookie_defaults());
        fields
    }

    /// Its settings, named as their flags.
    pub(crate) fn fields(&self) -> Fields {
        let mut fields = vec![("algorithm", self.algorithm.clone())];
        if let Some(choices) = self.choices {
            fields.push(("choices", choices.to_string()));
        }
        if let Some(hold_ms) = self.error_hold_ms {
            fields.push(("error-hold", setting(hold_ms)));
        }
        fields.push(("health", self.health.clone()));
        if let Some(path) = &self.health_path {
            fields.push(("health-path", path.clone()));
        }
        if self.health != "none" {
            fields.extend([
                ("health-interval", setting(self.health_interval_ms)),
                ("health-timeout", setting(self.health_timeout_ms)),
                ("rise", self.rise.to_string()),
                ("fall", self.fall.to_string()),
            ]);
        }
        fields.extend([
            ("connect-timeout", setting(self.connect_timeout_ms)),
            ("request-timeout", setting(self.request_timeout_ms)),
            ("response-idle-timeout", setting(self.response_idle_timeout_ms)),
            ("tunnel-idle-timeout", setting(self.tunnel_idle_timeout_ms)),
            ("keep-alive-timeout", setting(self.keep_alive_timeout_ms)),
            ("max-idle-connections", self.max_idle_connections.to_string()),
            ("max-connection-age", setting(self.max_connection_age_ms)),
        ]);
        fields.extend(self.resilience.fields());
        fields.extend(self.affinity.fields());
        fields.extend(self.concurrency.fields());
        if let Some(pool) = &self.fallback_pool {
            fields.push(("fallback-pool", pool.clone()));
        }
        if let Some(answer) = &self.fallback_answer {
            fields.extend([
                ("fallback-status", answer.status.to_string()),
                ("fallback-content-type", answer.content_type.clone()),
                ("fallback-body", shortened(&answer.body)),
            ]);
        }
        if !self.sources.is_empty() {
            fields.push(("sources", self.sources.join(", ")));
        }
        fields
    }
}

/// The beginning of a text, on one line.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    let shown: String = text.chars().take(SHOWN).flat_map(char::escape_default).collect();
    if text.chars().nth(SHOWN).is_some() { shown + "..." } else { shown }
}

impl Counts {
    /// All of them.
    pub(crate) fn total(&self) -> u32 {
        self.up + self.out + self.down + self.unknown + self.disabled + self.draining
    }

    /// Those whose state keeps them from serving: `2 down, 1 disabled`.
    pub(crate) fn sentence(&self) -> String {
        let counts = [
            (self.down, "down"),
            (self.unknown, "unknown"),
            (self.disabled, "disabled"),
            (self.draining, "draining"),
        ];
        let there = counts.iter().filter(|(count, _)| *count > 0);
        there.map(|(count, state)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
    }
}

impl From<pb::Pool> for PoolView {
    fn from(wire: pb::Pool) -> Self {
        let resilience = ResilienceView::from(&wire);
        let concurrency = ConcurrencyView::from(&wire);
        let least = wire.algorithm == "least_connections";
        let check = wire.health_check.unwrap_or_default();
        Self {
            name: wire.name,
            algorithm: wire.algorithm,
            choices: least.then_some(wire.choices),
            error_hold_ms: wire.error_hold_ms.filter(|_| least),
            health_path: (check.protocol == "http").then_some(check.path),
            health: check.protocol,
            health_interval_ms: check.interval_ms,
            health_edge_interval_ms: check.edge_interval_ms,
            health_timeout_ms: check.timeout_ms,
            rise: check.rise,
            fall: check.fall,
            connect_timeout_ms: wire.connect_timeout_ms,
            request_timeout_ms: wire.request_timeout_ms,
            response_idle_timeout_ms: wire.response_idle_timeout_ms,
            tunnel_idle_timeout_ms: wire.tunnel_idle_timeout_ms,
            keep_alive_timeout_ms: wire.keep_alive_timeout_ms,
            max_idle_connections: wire
                .max_idle_connections
                .unwrap_or_else(|| BackendConnections::default().idle_max),
            max_connection_age_ms: wire.max_connection_age_ms,
            resilience,
            affinity: wire.affinity.into(),
            concurrency,
            fallback_pool: Some(wire.fallback_pool).filter(|name| !name.is_empty()),
            fallback_answer: wire.fallback_answer.map(|answer| AnswerView {
                status: answer.status,
                content_type: answer.content_type,
                body: String::from_utf8_lossy(&answer.body).into_owned(),
            }),
            sources: wire.sources,
            backends: None,
            serving: None,
            panic: None,
            source_status: Vec::new(),
            slots: None,
            traffic: None,
            sessions_total: BTreeMap::new(),
        }
    }
}

impl PoolView {
    /// Which of its backends are used although they are not well, and why; nothing in normal times.
    pub(crate) fn panic_sentence(&self) -> Option<String> {
        let panic = self.panic.as_ref()?;
        Some(panic.sentence(self.resilience.panic_threshold_percent))
    }

    /// What answers while no backend of it can; nothing if its requests are answered 503.
    pub(crate) fn instead(&self, serves: impl Fn(&str) -> bool) -> Option<String> {
        match (&self.fallback_pool, &self.fallback_answer) {
            (Some(pool), _) if serves(pool) => Some(format!("its fallback pool {pool} answers")),
            (_, Some(answer)) => Some(format!("its static answer {} is given", answer.status)),
            _ => None,
        }
    }
}

impl From<pb::PoolStatus> for PoolView {
    fn from(wire: pb::PoolStatus) -> Self {
        let mut view = Self::from(wire.pool.unwrap_or_default());
        view.backends = Some(Counts {
            up: wire.up.saturating_sub(wire.out),
            out: wire.out,
            down: wire.down,
            unknown: wire.unknown,
            disabled: wire.disabled,
            draining: wire.draining,
        });
        view.serving = wire.serving;
        view.panic = wire.panic.map(PanicView::from);
        view.source_status = wire.sources.into_iter().map(SourceView::from).collect();
        view.slots = wire.slots.map(SlotsView::from);
        view.traffic = Some(Traffic::from(wire.totals).with_recent(wire.recent));
        view.sessions_total = wire.sessions;
        view
    }
}
