//! What the proxies report, as sums of the fleet.

use std::fmt;

use lb_core::{
    metrics::{
        Exposition,
        upstream::{BackendFamilies, PoolFamilies, Sample},
    },
    model::PoolName,
};

use super::{self as names, scrape::Member};
use crate::{
    drain,
    grpc::Context,
    leases::AdaptiveView,
    stats::{Process, Totals},
};

const POOLS: PoolFamilies = PoolFamilies {
    requests: names::FLEET_UPSTREAM_REQUESTS,
    attempts: names::FLEET_UPSTREAM_ATTEMPTS,
    retries: names::FLEET_UPSTREAM_RETRIES,
    bytes: names::FLEET_UPSTREAM_BYTES,
    in_flight: names::FLEET_UPSTREAM_IN_FLIGHT,
    duration: names::FLEET_UPSTREAM_DURATION,
};
const BACKENDS: BackendFamilies = BackendFamilies {
    selections: names::FLEET_BACKEND_SELECTIONS,
    attempts: names::FLEET_BACKEND_ATTEMPTS,
    bytes: None,
    duration: names::FLEET_BACKEND_DURATION,
    in_flight: names::FLEET_BACKEND_IN_FLIGHT,
};

pub(super) fn write_sums(context: &Context, exposition: &mut Exposition<'_>) -> fmt::Result {
    write_processes(&context.statistics.process(), exposition)?;
    let overloaded = context.statistics.overloaded();
    exposition.family(&names::FLEET_OVERLOADED, |family| {
        overloaded.iter().try_for_each(|(stage, count)| family.gauge(&[stage], f64::from(*count)))
    })?;
    let pools: Vec<(PoolName, Totals)> = context.statistics.pools().into_iter().collect();
    let labels: Vec<[&str; 1]> = pools.iter().map(|(pool, _)| [pool.as_str()]).collect();
    let samples = pools.iter().zip(&labels).map(|((_, totals), labels)| Sample {
        labels,
        counters: &totals.counters,
        in_flight: totals.in_flight,
    });
    POOLS.expose(exposition, &samples.collect::<Vec<_>>())?;
    write_adaptive(context, exposition)?;
    exposition.family(&names::FLEET_SESSION_REQUESTS, |family| {
        context.statistics.sessions().iter().try_for_each(|(pool, results)| {
            let mut results = results.iter();
            results.try_for_each(|(result, count)| family.counter(&[pool.as_str(), result], count))
        })
    })
}

/// Writes how the limits of pools with adaptive concurrency are.
fn write_adaptive(context: &Context, exposition: &mut Exposition<'_>) -> fmt::Result {
    let pools = context.leases.adaptive();
    let mut family = |definition, of: fn(&AdaptiveView) -> f64| {
        exposition.family(definition, |family| {
            pools.iter().try_for_each(|(pool, view)| family.gauge(&[pool], of(view)))
        })
    };
    family(&names::POOL_CONCURRENCY_LIMIT, |view| view.limit as f64)?;
    family(&names::POOL_UNQUEUED, |view| view.unqueued.unwrap_or_default().as_secs_f64())?;
    family(&names::POOL_QUEUEING, |view| view.queueing().as_secs_f64())
}

fn write_processes(process: &Process, exposition: &mut Exposition<'_>) -> fmt::Result {
    exposition.family(&names::FLEET_REQUESTS, |family| {
        let mut classes =
            ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(process.status_classes);
        classes.try_for_each(|(class, count)| family.counter(&[class], count))
    })?;
    exposition.counter(&names::FLEET_REQUESTS_RECEIVED, process.requests)?;
    exposition.family(&names::FLEET_OWN_ANSWERS, |family| {
        process.own_answers.iter().try_for_each(|(reason, count)| family.counter(&[reason], count))
    })?;
    exposition.counter(&names::FLEET_CLIENT_ABORTS, process.client_aborts)?;
    exposition.counter(&names::FLEET_ACCESS_LOG_DROPPED, process.access_log_dropped)?;
    exposition.gauge(&names::FLEET_CONNECTIONS, f64::from(process.client_connections))?;
    exposition.gauge(&names::FLEET_CONNECTIONS_MAX, f64::from(process.connections_max))
}

pub(super) fn write_backends(
    context: &Context,
    members: &[Member],
    exposition: &mut Exposition<'_>,
) -> fmt::Result {
    let ids: Vec<_> = members.iter().map(|m| (m.id.clone(), m.incarnation)).collect();
    let figures = context.statistics.backends(&ids);
    let labels: Vec<[&str; 2]> =
        members.iter().map(|member| [member.pool.as_str(), member.id.as_str()]).collect();
    let samples = figures.iter().zip(&labels).map(|((counters, in_flight), labels)| Sample {
        labels,
        counters,
        in_flight: *in_flight,
    });
    BACKENDS.expose(exposition, &samples.collect::<Vec<_>>())
}

/// Writes what draining backends have left; nothing of those that have drained.
pub(super) fn write_drains(context: &Context, exposition: &mut Exposition<'_>) -> fmt::Result {
    let reports = drain::reports(context);
    exposition.family(&names::DRAIN_LEFT, |family| {
        reports.iter().try_for_each(|(backend, report)| {
            let (pool, id, left) = (backend.pool.as_str(), backend.id.as_str(), report.left());
            family.gauge(&[pool, id, "requests"], left.requests.into())?;
            family.gauge(&[pool, id, "upgraded"], left.upgraded.into())?;
            family.gauge(&[pool, id, "unheard_proxies"], left.unheard.into())
        })
    })
}
