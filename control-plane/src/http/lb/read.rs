//! What is asked for.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use lb_core::model::{Algorithm, Health, PoolName};

use super::shape::{
    BackendAnswer, BackendCounts, BreakerAnswer, HealthAnswer, LimiterAnswer, StatsAnswer,
    class_of, mean_ms,
};
use crate::{grpc::Context, resilience::Breakers};

/// `GET /lb/health`
pub(super) async fn health(State(context): State<Arc<Context>>) -> Response {
    let counts = Counts::of(&context);
    let serves = counts.serving > 0;
    let answer = HealthAnswer {
        status: if serves { "healthy" } else { "unhealthy" },
        total_backends: counts.total,
        healthy_backends: counts.healthy,
        unhealthy_backends: counts.total - counts.healthy,
        serving_backends: counts.serving,
        proxies: live_proxies(&context),
    };
    let status = if serves { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(answer)).into_response()
}

/// `GET /lb/stats`
pub(super) async fn stats(State(context): State<Arc<Context>>) -> Response {
    let (process, totals) = (context.statistics.process(), context.statistics.all());
    let [informed, ok, redirected, refused, failed] = process.status_classes;
    let successful = informed + ok + redirected + refused;
    let total = successful + failed;
    let limited = process.own_answers.of("rate_limited").min(total);
    let (counts, breakers) = (Counts::of(&context), context.resilience.breakers());
    let algorithm = class_of(default_algorithm(&context));
    Json(StatsAnswer {
        load_balancer: algorithm,
        total_requests: total,
        successful_requests: successful,
        failed_requests: failed,
        success_rate: success_rate(successful, total),
        average_response_time: mean_ms(&totals.counters),
        circuit_breaker: BreakerAnswer {
            state: breaker_state(breakers),
            failure_count: breakers.failures_in_a_row,
            success_count: successful,
        },
        rate_limiter: LimiterAnswer {
            kind: "token_bucket",
            total_requests: total,
            allowed_requests: total - limited,
            rejected_requests: limited,
        },
        backends: BackendCounts {
            algorithm,
            total_backends: counts.total,
            healthy_backends: counts.healthy,
            unhealthy_backends: counts.total - counts.healthy,
        },
        active_requests: totals.in_flight,
        client_aborts: process.client_aborts,
        request_rate: totals.request_rate,
        proxies: live_proxies(&context),
    })
    .into_response()
}

/// `GET /lb/backends`
pub(super) async fn backends(State(context): State<Arc<Context>>) -> Response {
    // Copied out, so that nobody who writes waits for the figures.
    let known: Vec<_> = context.registry.read(|view| {
        let backends = view.catalog.backends_of(None).into_iter().map(|stored| &stored.value);
        backends.map(|backend| (backend.clone(), view.catalog.status(backend).cloned())).collect()
    });
    Json(BackendAnswer::all(&context, &known)).into_response()
}

/// The one breaker that the seed knew: as bad as the worst of all backends.
fn breaker_state(breakers: Breakers) -> &'static str {
    match breakers {
        Breakers { open: 1.., .. } => "open",
        Breakers { half_open: 1.., .. } => "half_open",
        Breakers { .. } => "closed",
    }
}

/// Rounded to four places.
fn success_rate(successful: u64, total: u64) -> f64 {
    if total == 0 {
        return 1.0;
    }
    (successful as f64 / total as f64 * 10_000.0).round() / 10_000.0
}

/// Of the pool `default`; the default one when somebody removed that pool.
fn default_algorithm(context: &Context) -> Algorithm {
    context.registry.read(|view| {
        let pool = view.catalog.pools().get(&PoolName::default_pool());
        pool.map_or_else(Algorithm::default, |pool| pool.value.algorithm)
    })
}

fn live_proxies(context: &Context) -> usize {
    context.fleet.live().len()
}

/// The backends of all pools.
#[derive(Debug, Default)]
struct Counts {
    total: usize,
    healthy: usize,
    serving: usize,
}

impl Counts {
    fn of(context: &Context) -> Self {
        context.registry.read(|view| {
            let catalog = &view.catalog;
            let mut counts = Self::default();
            for stored in catalog.backends().values() {
                let status = catalog.status(&stored.value);
                let healthy = status.is_some_and(|status| status.health == Health::Up);
                counts.total += 1;
                counts.healthy += usize::from(healthy);
            }
            let pools = catalog.pools().values();
            counts.serving = pools.map(|pool| catalog.judge(&pool.value).candidates).sum();
            counts
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_four_places() {
        assert_eq!(success_rate(148, 150), 0.9867);
        assert_eq!(success_rate(0, 0), 1.0);
        assert_eq!(success_rate(0, 3), 0.0);
    }
}
