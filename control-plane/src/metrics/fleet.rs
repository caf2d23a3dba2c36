//! What the proxies report, as sums of the fleet.

use std::fmt;

use lb_core::{metrics::Exposition, model::PoolName, stats::BackendCounters};

use super::{self as names, scrape::Member};
use crate::{
    grpc::Context,
    stats::{Process, Totals},
};

pub(super) fn write_sums(context: &Context, exposition: &mut Exposition<'_>) -> fmt::Result {
    write_processes(&context.statistics.process(), exposition)?;
    let pools: Vec<(PoolName, Totals)> = context.statistics.pools().into_iter().collect();
    exposition.family(&names::FLEET_UPSTREAM_REQUESTS, |family| {
        pools.iter().try_for_each(|(pool, totals)| {
            family.counter(&[pool.as_str()], totals.counters.requests)
        })
    })?;
    exposition.family(&names::FLEET_UPSTREAM_ATTEMPTS, |family| {
        pools.iter().try_for_each(|(pool, totals)| {
            results(&totals.counters)
                .into_iter()
                .try_for_each(|(result, count)| family.counter(&[pool.as_str(), result], count))
        })
    })?;
    exposition.family(&names::FLEET_UPSTREAM_RETRIES, |family| {
        pools.iter().try_for_each(|(pool, totals)| {
            family.counter(&[pool.as_str()], totals.counters.retries)
        })
    })?;
    exposition.family(&names::FLEET_UPSTREAM_BYTES, |family| {
        pools.iter().try_for_each(|(pool, totals)| {
            let counters = &totals.counters;
            family.counter(&[pool.as_str(), "to_backend"], counters.bytes_to_backend)?;
            family.counter(&[pool.as_str(), "from_backend"], counters.bytes_from_backend)
        })
    })?;
    exposition.family(&names::FLEET_UPSTREAM_IN_FLIGHT, |family| {
        pools.iter().try_for_each(|(pool, totals)| {
            family.gauge(&[pool.as_str()], f64::from(totals.in_flight))
        })
    })?;
    exposition.family(&names::FLEET_UPSTREAM_DURATION, |family| {
        pools.iter().try_for_each(|(pool, totals)| {
            family.histogram(&[pool.as_str()], &totals.counters.latency)
        })
    })
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
    exposition.gauge(&names::FLEET_CONNECTIONS, f64::from(process.client_connections))
}

pub(super) fn write_backends(
    context: &Context,
    members: &[Member],
    exposition: &mut Exposition<'_>,
) -> fmt::Result {
    let ids: Vec<_> = members.iter().map(|m| (m.id.clone(), m.incarnation)).collect();
    let figures = context.statistics.backends(&ids);
    let backends = || {
        members.iter().zip(&figures).map(|(member, (counters, in_flight))| {
            ([member.pool.as_str(), member.id.as_str()], counters, *in_flight)
        })
    };
    exposition.family(&names::FLEET_BACKEND_SELECTIONS, |family| {
        backends().try_for_each(|(labels, counters, _)| family.counter(&labels, counters.requests))
    })?;
    exposition.family(&names::FLEET_BACKEND_ATTEMPTS, |family| {
        backends().try_for_each(|([pool, id], counters, _)| {
            results(counters)
                .into_iter()
                .try_for_each(|(result, count)| family.counter(&[pool, id, result], count))
        })
    })?;
    exposition.family(&names::FLEET_BACKEND_DURATION, |family| {
        backends().try_for_each(|(labels, counters, _)| {
            family.seconds(&labels, counters.latency.sum_us() as f64 / 1e6)
        })
    })?;
    exposition.family(&names::FLEET_BACKEND_IN_FLIGHT, |family| {
        backends()
            .try_for_each(|(labels, _, in_flight)| family.gauge(&labels, f64::from(in_flight)))
    })
}

fn results(counters: &BackendCounters) -> [(&'static str, u64); 6] {
    let failures = &counters.failures;
    [
        ("success", counters.successes),
        ("status_5xx", failures.status_5xx),
        ("connect", failures.connect),
        ("reset", failures.reset),
        ("timeout", failures.timeout),
        ("protocol", failures.protocol),
    ]
}
