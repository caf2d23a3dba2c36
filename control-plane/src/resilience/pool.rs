//! What is kept of one pool.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lb_core::{
    model::ProxyId,
    resilience::{ejection::Ejections, outlier::Outliers},
};

use super::peers::Peers;

/// For how long a pool that had a request counts as one with traffic.
const TRAFFIC_LASTS: Duration = Duration::from_secs(5);
/// What the request rate is averaged over.
const RATE_OVER: Duration = Duration::from_secs(2);

/// Traffic below which a cold backend is in no danger, in requests per second. A ramp would
/// then only puzzle whoever adds a backend and sends it a few requests.
const RAMP_RATE_MIN: f64 = 10.0;

/// Who is out, and who sends.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) ejections: Ejections,
    pub(super) outliers: Outliers,
    pub(super) peers: Peers,
    /// When each proxy last had a request for it.
    senders: BTreeMap<ProxyId, Instant>,
    rate: Rate,
}

/// A mean that forgets.
#[derive(Debug, Default)]
struct Rate {
    per_second: f64,
    since: Option<Instant>,
    count: u64,
}

impl Rate {
    fn add(&mut self, count: u64, now: Instant) {
        self.count += count;
        self.advance(now);
    }

    fn advance(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed < RATE_OVER / 4 {
            return;
        }
        let measured = self.count as f64 / passed.as_secs_f64();
        let weight = (-passed.as_secs_f64() / RATE_OVER.as_secs_f64()).exp();
        self.per_second = self.per_second * weight + measured * (1.0 - weight);
        (self.since, self.count) = (Some(now), 0);
    }
}

impl Pool {
    /// Notes requests that a proxy had for it.
    pub(super) fn sent(&mut self, proxy: &ProxyId, requests: u64, now: Instant) {
        self.rate.add(requests, now);
        match self.senders.get_mut(proxy) {
            Some(at) => *at = now,
            None => drop(self.senders.insert(proxy.clone(), now)),
        }
    }

    /// Whether anybody has had requests for it lately.
    pub(super) fn has_traffic(&self, now: Instant) -> bool {
        self.senders.values().any(|at| is_recent(*at, now))
    }

    /// Whether this proxy has.
    pub(super) fn has_traffic_at(&self, proxy: &ProxyId, now: Instant) -> bool {
        self.senders.get(proxy).is_some_and(|at| is_recent(*at, now))
    }

    /// Whether any other has.
    pub(super) fn has_traffic_beside(&self, proxy: &ProxyId, now: Instant) -> bool {
        self.senders.iter().any(|(other, at)| other != proxy && is_recent(*at, now))
    }

    /// Whether a backend that comes (back) is led up to its share.
    pub(super) fn deserves_ramps(&mut self, now: Instant) -> bool {
        self.rate.advance(now);
        self.rate.per_second >= RAMP_RATE_MIN
    }

    /// Forgets a proxy.
    pub(super) fn forget(&mut self, proxy: &ProxyId) {
        self.senders.remove(proxy);
    }
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) <= TRAFFIC_LASTS
}
