//! Counters and latencies of requests.

use lb_proto::{convert::histogram_from_wire, v1 as pb};
use serde::Serialize;

use super::{RecentView, some_unix_ms};
use crate::format;

/// What happened to the requests of a backend, a pool or the fleet: totals of what backends were
/// given, since `since_unix_ms`, and what clients were answered lately.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Traffic {
    pub(crate) requests_total: u64,
    pub(crate) successes_total: u64,
    pub(crate) failures_total: u64,
    pub(crate) failures: FailuresView,
    pub(crate) retries_total: u64,
    pub(crate) in_flight: u32,
    /// Of a pool or the fleet, answers to clients.
    pub(crate) requests_per_second: f64,
    pub(crate) latency_p50_us: Option<u64>,
    pub(crate) latency_p99_us: Option<u64>,
    pub(crate) latency_mean_us: Option<u64>,
    pub(crate) bytes_to_backend_total: u64,
    pub(crate) bytes_from_backend_total: u64,
    /// When the control plane, which has the totals, was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since_unix_ms: Option<u64>,
    /// Of a pool or the fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recent: Option<RecentView>,
}

/// Failed requests by kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct FailuresView {
    pub(crate) connect: u64,
    pub(crate) reset: u64,
    pub(crate) timeout: u64,
    pub(crate) protocol: u64,
    pub(crate) status_5xx: u64,
}

impl FailuresView {
    /// The kinds that happened: `connect 3, timeout 1`.
    pub(crate) fn by_kind(&self) -> String {
        let kinds = [
            ("connect", self.connect),
            ("reset", self.reset),
            ("timeout", self.timeout),
            ("protocol", self.protocol),
            ("status 5xx", self.status_5xx),
        ];
        let happened: Vec<String> = kinds
            .iter()
            .filter(|(_, number)| *number > 0)
            .map(|(kind, number)| format!("{kind} {number}"))
            .collect();
        if happened.is_empty() { "none".to_owned() } else { happened.join(", ") }
    }
}

impl Traffic {
    /// The same with what clients were answered lately, if the control plane tells.
    pub(crate) fn with_recent(mut self, recent: Option<pb::RecentAnswers>) -> Self {
        self.recent = recent.map(RecentView::from);
        if let Some(recent) = &self.recent {
            self.requests_per_second = recent.answers_per_second;
        }
        self
    }

    /// The share that went well, p50 and p99 in microseconds: of what clients were answered
    /// lately; of an older control plane what its backends did since its start.
    pub(crate) fn outcome(&self) -> (String, Option<u64>, Option<u64>) {
        match &self.recent {
            Some(recent) => (recent.ok_ratio(), recent.latency_p50_us, recent.latency_p99_us),
            None => (self.ok_ratio(), self.latency_p50_us, self.latency_p99_us),
        }
    }

    /// How it goes: what clients were answered lately; of an older control plane what its
    /// backends did since its start, which is said.
    pub(crate) fn line(&self) -> String {
        let rate = format::rate(self.requests_per_second);
        let when = match &self.recent {
            Some(recent) => format!("{}: {rate} req/s", recent.window()),
            None => format!("{rate} req/s; since the control plane started:"),
        };
        let (ok, p50, p99) = self.outcome();
        format!(
            "{when}  {ok} ok  p50 {}  p99 {}  in flight {}",
            format::latency(p50),
            format::latency(p99),
            self.in_flight
        )
    }

    /// The share of clients' requests that went well: one that failed at one backend and
    /// was moved to another counts as it ended there.
    pub(crate) fn ok_ratio(&self) -> String {
        let failed = self.failures_total.saturating_sub(self.retries_total);
        format::percent(self.successes_total, self.successes_total + failed)
    }
}

impl From<Option<pb::BackendTotals>> for Traffic {
    fn from(wire: Option<pb::BackendTotals>) -> Self {
        let wire = wire.unwrap_or_default();
        let failures = wire.failures.unwrap_or_default();
        let latency = histogram_from_wire(wire.latency);
        Self {
            requests_total: wire.requests,
            successes_total: wire.successes,
            failures_total: [
                failures.connect,
                failures.reset,
                failures.timeout,
                failures.protocol,
                failures.status_5xx,
            ]
            .into_iter()
            .fold(0, u64::saturating_add),
            failures: FailuresView {
                connect: failures.connect,
                reset: failures.reset,
                timeout: failures.timeout,
                protocol: failures.protocol,
                status_5xx: failures.status_5xx,
            },
            retries_total: wire.retries,
            in_flight: wire.in_flight,
            requests_per_second: wire.request_rate,
            latency_p50_us: latency.quantile_us(0.5),
            latency_p99_us: latency.quantile_us(0.99),
            latency_mean_us: latency.mean_us(),
            bytes_to_backend_total: wire.bytes_to_backend,
            bytes_from_backend_total: wire.bytes_from_backend,
            since_unix_ms: some_unix_ms(wire.since_unix_ms),
            recent: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_core::stats::LatencyHistogram;

    use super::*;

    #[test]
    fn failures_add_up_and_name_their_kinds() {
        let failures = pb::Failures { connect: 3, timeout: 1, ..pb::Failures::default() };
        let traffic = Traffic::from(Some(pb::BackendTotals {
            failures: Some(failures),
            ..pb::BackendTotals::default()
        }));
        assert_eq!(traffic.failures_total, 4);
        assert_eq!(traffic.failures.by_kind(), "connect 3, timeout 1");
        assert_eq!(FailuresView::default().by_kind(), "none");
    }

    #[test]
    fn what_another_backend_made_good_did_not_fail() {
        let moved = Traffic {
            successes_total: 4,
            failures_total: 2,
            retries_total: 2,
            ..Traffic::default()
        };
        assert_eq!(moved.ok_ratio(), "100%");
        assert_eq!(Traffic { retries_total: 1, ..moved }.ok_ratio(), "80.00%");
    }

    #[test]
    fn percentiles_come_from_the_histogram() {
        let mut histogram = LatencyHistogram::default();
        (1..=100).for_each(|ms| histogram.record(ms * 1000));
        let (buckets, counts) = histogram.sparse().unzip();
        let wire = pb::Histogram { buckets, counts, sum_us: histogram.sum_us() };
        let traffic = Traffic::from(Some(pb::BackendTotals {
            latency: Some(wire),
            ..pb::BackendTotals::default()
        }));
        assert!((50_000..65_000).contains(&traffic.latency_p50_us.unwrap()));
        assert!((99_000..125_000).contains(&traffic.latency_p99_us.unwrap()));
        assert_eq!(traffic.latency_mean_us, Some(50_500));
    }

    #[test]
    fn a_histogram_that_makes_no_sense_does_no_harm() {
        let wire = pb::Histogram { buckets: vec![u32::MAX, 7], counts: vec![1], sum_us: 1 };
        let traffic = Traffic::from(Some(pb::BackendTotals {
            latency: Some(wire),
            ..pb::BackendTotals::default()
        }));
        assert!(traffic.latency_p50_us.is_some());
    }
}
