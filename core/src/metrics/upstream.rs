//! What both planes tell of requests at backends: a proxy its own, the control plane the
//! sums of the fleet.

use std::fmt;

use super::{Definition, Exposition};
use crate::stats::BackendCounters;

/// What happened at the backends of one pool, or at one backend.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Values of the labels that all these families have: the pool, then the backend.
    pub labels: &'a [&'a str],
    /// What was counted.
    pub counters: &'a BackendCounters,
    /// Requests that are being worked on.
    pub in_flight: u32,
}

/// The families about a pool's backends together.
#[derive(Clone, Copy, Debug)]
pub struct PoolFamilies {
    /// Requests given to backends.
    pub requests: Definition,
    /// Attempts that have ended, by result.
    pub attempts: Definition,
    /// Requests that left for another backend.
    pub retries: Definition,
    /// Bytes, by direction.
    pub bytes: Definition,
    /// Requests in flight.
    pub in_flight: Definition,
    /// How long they took, as a histogram.
    pub duration: Definition,
}

/// The families about single backends.
#[derive(Clone, Copy, Debug)]
pub struct BackendFamilies {
    /// Requests given to it.
    pub selections: Definition,
    /// Attempts that have ended, by result.
    pub attempts: Definition,
    /// Bytes, by direction; `None` where they are not told.
    pub bytes: Option<Definition>,
    /// How long its requests took in all, in seconds.
    pub duration: Definition,
    /// Requests in flight.
    pub in_flight: Definition,
}

impl PoolFamilies {
    /// Writes them, in the order of the fields.
    pub fn expose(&self, to: &mut Exposition<'_>, pools: &[Sample<'_>]) -> fmt::Result {
        counts(to, &self.requests, pools, |counters| counters.requests)?;
        labelled_counts(to, &self.attempts, pools, results)?;
        counts(to, &self.retries, pools, |counters| counters.retries)?;
        labelled_counts(to, &self.bytes, pools, directions)?;
        in_flight(to, &self.in_flight, pools)?;
        to.family(&self.duration, |family| {
            pools.iter().try_for_each(|pool| family.histogram(pool.labels, &pool.counters.latency))
        })
    }
}

impl BackendFamilies {
    /// Writes them, in the order of the fields.
    pub fn expose(&self, to: &mut Exposition<'_>, backends: &[Sample<'_>]) -> fmt::Result {
        counts(to, &self.selections, backends, |counters| counters.requests)?;
        labelled_counts(to, &self.attempts, backends, results)?;
        if let Some(bytes) = &self.bytes {
            labelled_counts(to, bytes, backends, directions)?;
        }
        to.family(&self.duration, |family| {
            backends.iter().try_for_each(|backend| {
                family.seconds(backend.labels, backend.counters.latency.sum_us() as f64 / 1e6)
            })
        })?;
        in_flight(to, &self.in_flight, backends)
    }
}

fn counts(
    to: &mut Exposition<'_>,
    definition: &Definition,
    samples: &[Sample<'_>],
    count: impl Fn(&BackendCounters) -> u64,
) -> fmt::Result {
    to.family(definition, |family| {
        samples.iter().try_for_each(|sample| family.counter(sample.labels, count(sample.counters)))
    })
}

fn labelled_counts<const N: usize>(
    to: &mut Exposition<'_>,
    definition: &Definition,
    samples: &[Sample<'_>],
    counts: impl Fn(&BackendCounters) -> [(&'static str, u64); N],
) -> fmt::Result {
    to.family(definition, |family| {
        samples.iter().try_for_each(|sample| {
            counts(sample.counters).into_iter().try_for_each(|(label, count)| {
                family.counter(&[sample.labels, &[label]].concat(), count)
            })
        })
    })
}

fn in_flight(
    to: &mut Exposition<'_>,
    definition: &Definition,
    samples: &[Sample<'_>],
) -> fmt::Result {
    to.family(definition, |family| {
        samples
            .iter()
            .try_for_each(|sample| family.gauge(sample.labels, f64::from(sample.in_flight)))
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

fn directions(counters: &BackendCounters) -> [(&'static str, u64); 2] {
    [("to_backend", counters.bytes_to_backend), ("from_backend", counters.bytes_from_backend)]
}
