//! What is kept of one backend.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lb_core::{
    health::Flap,
    model::{
        self, AdminState, BackendId, EjectedBy, Ejection, Health, Incarnation, PoolName, Reason,
        ResiliencePolicy, SlowStart,
    },
    resilience::{breaker::Breaker, outlier::Sample},
    stats::BackendCounters,
};

use super::{At, Beginning, Checked};

/// Everything that is known about one life of one backend.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) incarnation: Incarnation,
    pub(super) pool: PoolName,
    /// Of the pool.
    pub(super) policy: ResiliencePolicy,
    /// The prober's last word.
    pub(super) check: Option<Checked>,
    pub(super) breaker: Breaker,
    pub(super) flap: Flap,
    /// Why it is held down although its check passes.
    pub(super) hold: Option<Reason>,
    /// What its breaker did, while it is not closed.
    pub(super) tripped: Option<Ejection>,
    /// It differs from the rest of its pool.
    pub(super) outlier: Option<Ejection>,
    pub(super) slow_start: Option<SlowStart>,
    /// When that is over. Proxies are told the wall time at which it began; here a clock that is
    /// set back must not begin it anew.
    pub(super) warm_from: Instant,
    /// Why it should be out and is not, by its breaker and as an outlier.
    pub(super) kept: BTreeMap<EjectedBy, Kept>,
    /// As it was when it was last compared with what is declared.
    pub(super) is_disabled: bool,
    /// Since the last look for outliers.
    pub(super) seen: Seen,
    /// Until when what it failed with lately may trip its breaker.
    pub(super) failing_until: Instant,
    /// When its status was last stored.
    pub(super) told: Option<Instant>,
}

/// A backend that there is a reason to take out, and that its pool cannot spare.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Kept {
    pub(crate) by: EjectedBy,
    /// What its requests show, and why it stays.
    pub(crate) reason: Reason,
    pub(crate) since_unix_ms: u64,
}

/// How requests to it ended.
#[derive(Debug, Default)]
pub(super) struct Seen {
    requests: u64,
    failures: u64,
    latencies: u64,
    latency_sum_us: u64,
}

impl Seen {
    pub(super) fn add(&mut self, counters: &BackendCounters) {
        let failures = counters.failures.total();
        self.requests += counters.successes + failures;
        self.failures += failures;
        self.latencies += counters.latency.count();
        self.latency_sum_us += counters.latency.sum_us();
    }

    pub(super) fn take(&mut self, backend: &BackendId) -> Sample {
        let Self { requests, failures, latencies, latency_sum_us } = std::mem::take(self);
        let latency_mean = latency_sum_us.checked_div(latencies).map(Duration::from_micros);
        Sample { backend: backend.clone(), requests, failures, latency_mean }
    }
}

impl Backend {
    /// Goes on from a status that was stored: by this process, or by the one before it.
    pub(super) fn resumed(backend: &model::Backend, beginning: Beginning, at: At<'_>) -> Self {
        let Beginning { term, lease } = beginning;
        let known = at.catalog.status(backend);
        let pool = at.catalog.pools().get(&backend.pool);
        let health = known.map_or(Health::Unknown, |known| known.health);
        let standing = known.map(|known| known.standing.clone()).unwrap_or_default();
        let tripped = standing.ejection.filter(|ejection| ejection.by == EjectedBy::Breaker);
        let breaker = match &tripped {
            // Whoever still probes by a token of the former process has reported, or is lost,
            // before another token is given out.
            Some(ejection) => Breaker::resumed(term, lease, ejection.times, at.now + lease),
            None => Breaker::new(term, lease),
        };
        let tripped = tripped.map(|ejection| Ejection {
            is_half_open: false,
            open_for: lease,
            since_unix_ms: at.unix_ms,
            ..ejection
        });
        let ramp_left = standing.slow_start.map_or(Duration::ZERO, |ramp| {
            let over = at.unix_ms.saturating_sub(ramp.since_unix_ms);
            ramp.duration.saturating_sub(Duration::from_millis(over))
        });
        Self {
            incarnation: backend.incarnation,
            pool: backend.pool.clone(),
            policy: pool.map(|pool| pool.value.resilience).unwrap_or_default(),
            check: known.map(|known| Checked { status: known.clone(), failing_since: None }),
            breaker,
            flap: Flap::new(health, at.now),
            hold: None,
            tripped,
            outlier: None,
            slow_start: standing.slow_start,
            warm_from: at.now + ramp_left,
            kept: BTreeMap::new(),
            is_disabled: backend.admin_state == AdminState::Disabled,
            seen: Seen::default(),
            failing_until: at.now,
            told: None,
        }
    }

    /// The verdict that is shown.
    pub(super) fn shown(&self) -> Health {
        self.flap.shown()
    }

    /// Why it is out.
    pub(super) fn ejection(&self) -> Option<&Ejection> {
        self.tripped.as_ref().or(self.outlier.as_ref())
    }

    /// It should be out and is not.
    pub(super) fn keep(&mut self, by: EjectedBy, reason: Reason, at: At<'_>) {
        let since_unix_ms = self.kept.get(&by).map_or(at.unix_ms, |kept| kept.since_unix_ms);
        self.kept.insert(by, Kept { by, reason, since_unix_ms });
    }

    /// Why it is in although it should be out. One that is down is not in.
    pub(super) fn why_kept(&self) -> Option<&Kept> {
        let is_in = self.ejection().is_none() && self.shown() != Health::Down;
        is_in.then(|| self.kept.values().next()).flatten()
    }

    /// Whether an operator who disables it, and enables it again, forgives it something that a
    /// look at it now and then might miss.
    pub(super) fn has_a_record(&self, now: Instant) -> bool {
        self.ejection().is_some() || !self.kept.is_empty() || self.breaker.remembers(now)
    }

    /// Whether it has its whole share.
    pub(super) fn is_warm(&self, now: Instant) -> bool {
        now >= self.warm_from
    }
}
