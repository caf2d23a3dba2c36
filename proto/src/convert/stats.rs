//! Counters and histograms.

use lb_core::stats::{BackendCounters, Failures, LatencyHistogram};

use crate::v1 as pb;

/// The sparse form of the wire.
#[must_use]
pub fn histogram_to_wire(histogram: &LatencyHistogram) -> pb::Histogram {
    let (buckets, counts) = histogram.sparse().unzip();
    pb::Histogram { buckets, counts, sum_us: histogram.sum_us() }
}

/// Reads the sparse form; an absent histogram is empty.
#[must_use]
pub fn histogram_from_wire(wire: Option<pb::Histogram>) -> LatencyHistogram {
    let wire = wire.unwrap_or_default();
    LatencyHistogram::from_sparse(wire.buckets.into_iter().zip(wire.counts), wire.sum_us)
}

/// The counters of one entry of a report, which names no backend yet.
#[must_use]
pub fn counters_to_wire(counters: &BackendCounters) -> pb::BackendReport {
    pb::BackendReport {
        requests: counters.requests,
        successes: counters.successes,
        failures: Some(counters.failures.into()),
        latency: Some(histogram_to_wire(&counters.latency)),
        bytes_to_backend: counters.bytes_to_backend,
        bytes_from_backend: counters.bytes_from_backend,
        retries: counters.retries,
        ..pb::BackendReport::default()
    }
}

/// The counters of one entry of a report.
#[must_use]
pub fn counters_from_wire(wire: pb::BackendReport) -> BackendCounters {
    BackendCounters {
        requests: wire.requests,
        successes: wire.successes,
        failures: wire.failures.unwrap_or_default().into(),
        retries: wire.retries,
        bytes_to_backend: wire.bytes_to_backend,
        bytes_from_backend: wire.bytes_from_backend,
        latency: histogram_from_wire(wire.latency),
    }
}

impl From<Failures> for pb::Failures {
    fn from(failures: Failures) -> Self {
        Self {
            connect: failures.connect,
            reset: failures.reset,
            timeout: failures.timeout,
            protocol: failures.protocol,
            status_5xx: failures.status_5xx,
            status_gateway: failures.status_gateway,
        }
    }
}

impl From<pb::Failures> for Failures {
    fn from(wire: pb::Failures) -> Self {
        Self {
            connect: wire.connect,
            reset: wire.reset,
            timeout: wire.timeout,
            protocol: wire.protocol,
            status_5xx: wire.status_5xx,
            // One of them is counted as what it is; a lie would be taken for more failures.
            status_gateway: wire.status_gateway.min(wire.status_5xx),
        }
    }
}
