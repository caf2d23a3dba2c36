//! The answers, as they are written. Fields may be added; none may change.

use lb_core::{
    model::{Algorithm, Backend, BackendStatus, Health, Host},
    stats::BackendCounters,
};
use serde::Serialize;

use crate::grpc::Context;

/// `GET /lb/health`.
#[derive(Debug, Serialize)]
pub(super) struct HealthAnswer {
    pub(super) status: &'static str,
    pub(super) total_backends: usize,
    pub(super) healthy_backends: usize,
    pub(super) unhealthy_backends: usize,
    /// Healthy, enabled, and with a weight.
    pub(super) serving_backends: usize,
    /// Live proxies.
    pub(super) proxies: usize,
}

/// `GET /lb/stats`.
#[derive(Debug, Serialize)]
pub(super) struct StatsAnswer {
    pub(super) load_balancer: &'static str,
    /// Answered, whoever answered: successful and failed.
    pub(super) total_requests: u64,
    /// Answered with a status below 500.
    pub(super) successful_requests: u64,
    /// Answered with 5xx.
    pub(super) failed_requests: u64,
    /// 1 while nothing was answered.
    pub(super) success_rate: f64,
    /// Of requests that a backend answered, in milliseconds.
    pub(super) average_response_time: f64,
    pub(super) circuit_breaker: BreakerAnswer,
    pub(super) rate_limiter: LimiterAnswer,
    pub(super) backends: BackendCounts,
    /// Now.
    pub(super) active_requests: u32,
    /// Clients that left before their answer; not among the total.
    pub(super) client_aborts: u64,
    /// Per second, lately.
    pub(super) request_rate: f64,
    /// Live proxies.
    pub(super) proxies: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct BreakerAnswer {
    pub(super) state: &'static str,
    pub(super) failure_count: u64,
    pub(super) success_count: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct LimiterAnswer {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) total_requests: u64,
    pub(super) allowed_requests: u64,
    pub(super) rejected_requests: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct BackendCounts {
    pub(super) algorithm: &'static str,
    pub(super) total_backends: usize,
    pub(super) healthy_backends: usize,
    pub(super) unhealthy_backends: usize,
}

/// One backend of `GET /lb/backends`.
#[derive(Debug, Serialize)]
pub(super) struct BackendAnswer {
    pub(super) id: String,
    host: String,
    port: u16,
    weight: u16,
    enabled: bool,
    healthy: bool,
    /// Requests that it has not yet answered.
    active_connections: u32,
    total_requests: u64,
    failed_requests: u64,
    /// In milliseconds; 0 while there is none.
    average_response_time: f64,
    pool: String,
    /// enabled, disabled or draining.
    state: &'static str,
    /// up, down or unknown.
    health: &'static str,
    /// Why it is so.
    health_reason: String,
}

impl BackendAnswer {
    /// One backend, as it is known now.
    pub(super) fn of(context: &Context, backend: &Backend) -> Self {
        let status = context.registry.read(|view| view.catalog.status(backend).cloned());
        let (totals, _) = context.statistics.backend(&backend.id, backend.incarnation);
        Self::new(backend, status.as_ref(), &totals.counters, totals.in_flight)
    }

    /// Backends with their statuses, in their order.
    pub(super) fn all(context: &Context, known: &[(Backend, Option<BackendStatus>)]) -> Vec<Self> {
        let keys: Vec<_> =
            known.iter().map(|(backend, _)| (backend.id.clone(), backend.incarnation)).collect();
        let figures = context.statistics.backends(&keys);
        let answer = |((backend, status), (counters, in_flight)): (&(_, Option<_>), _)| {
            Self::new(backend, status.as_ref(), &counters, in_flight)
        };
        known.iter().zip(figures).map(answer).collect()
    }

    fn new(
        backend: &Backend,
        status: Option<&BackendStatus>,
        counters: &BackendCounters,
        in_flight: u32,
    ) -> Self {
        let health = status.map_or(Health::Unknown, |status| status.health);
        Self {
            id: backend.id.to_string(),
            host: match backend.address.host() {
                Host::Ip(ip) => ip.to_string(),
                Host::Name(name) => name.to_string(),
            },
            port: backend.address.port(),
            weight: backend.weight.get(),
            enabled: backend.admin_state == lb_core::model::AdminState::Enabled,
            healthy: health == Health::Up,
            active_connections: in_flight,
            total_requests: counters.requests,
            failed_requests: counters.failures.total(),
            average_response_time: mean_ms(counters),
            pool: backend.pool.to_string(),
            state: backend.admin_state.name(),
            health: health.name(),
            health_reason: status.map_or_else(
                || "waiting for the first check".to_owned(),
                |status| status.reason.message.clone(),
            ),
        }
    }
}

/// The mean latency, 0 while there is none.
pub(super) fn mean_ms(counters: &BackendCounters) -> f64 {
    counters.latency.mean_us().map_or(0.0, |us| us as f64 / 1000.0)
}

/// The class that did it in the old balancer; what came later has its name.
pub(super) fn class_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RoundRobin => "RoundRobinBalancer",
        Algorithm::WeightedRoundRobin => "WeightedRoundRobinBalancer",
        Algorithm::IpHash => "IPHashBalancer",
        Algorithm::LeastConnections(_) => "LeastConnectionsBalancer",
    }
}
