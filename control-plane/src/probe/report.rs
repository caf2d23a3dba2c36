//! What the prober saw of each backend, for people who ask why.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lb_core::{
    model::{BackendId, PoolName, Reason},
    moment::Moment,
    stats::{LatencyHistogram, whole_us},
};

use super::Resolution;

/// The checks of one backend since the control plane started.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct CheckReport {
    /// Passes since the last failure.
    pub(crate) passes_in_a_row: u64,
    /// Failures since the last pass.
    pub(crate) failures_in_a_row: u64,
    /// Nothing before the first check.
    pub(crate) last_check: Option<Moment>,
    /// Nothing when no check of this kind, path and address has passed.
    pub(crate) last_success: Option<Moment>,
    /// Nothing when none is planned.
    pub(crate) next_check: Option<Moment>,
    /// How long the last check took.
    pub(crate) last_duration: Duration,
    /// What came of it.
    pub(crate) last_result: Reason,
    /// Checks made.
    pub(crate) checks_total: u64,
    /// Checks that did not pass.
    pub(crate) failures_total: u64,
    /// The last check was made by the settings of this revision, of the backend or its pool.
    pub(crate) checked_revision: u64,
    /// What is checked was changed, and no check was made by the new settings yet.
    pub(crate) awaited: bool,
    /// Of the name in its address; nothing for literal addresses.
    pub(crate) resolution: Option<Resolution>,
}

/// The checks of one pool since the control plane started, removed backends included.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolChecks {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) durations: LatencyHistogram,
}

/// The reports of all backends.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    backends: Mutex<HashMap<BackendId, CheckReport>>,
    pools: Mutex<BTreeMap<PoolName, PoolChecks>>,
}

impl Checks {
    /// The report of one backend, if it was ever looked at.
    pub(crate) fn report(&self, id: &BackendId) -> Option<CheckReport> {
        self.lock().get(id).cloned()
    }

    pub(super) fn update(&self, id: &BackendId, change: impl FnOnce(&mut CheckReport)) {
        let mut reports = self.lock();
        match reports.get_mut(id) {
            Some(report) => change(report),
            None => change(reports.entry(id.clone()).or_default()),
        }
    }

    /// Something else is checked from now on: what passed before says nothing of it.
    pub(super) fn begin_anew(&self, id: &BackendId) {
        if let Some(report) = self.lock().get_mut(id) {
            (report.passes_in_a_row, report.failures_in_a_row) = (0, 0);
            report.last_success = None;
            report.awaited = true;
        }
    }

    /// The sums of each pool that was ever checked.
    pub(crate) fn pools(&self) -> BTreeMap<PoolName, PoolChecks> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Drops the sums of pools.
    pub(crate) fn forget_pools(&self, gone: &[PoolName]) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|name, _| !gone.contains(name));
    }

    /// Counts a check for the pool of its backend.
    pub(super) fn count(&self, pool: &PoolName, passed: bool, took: Duration) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let checks = match pools.get_mut(pool) {
            Some(checks) => checks,
            None => pools.entry(pool.clone()).or_default(),
        };
        checks.passed += u64::from(passed);
        checks.failed += u64::from(!passed);
        checks.durations.record(whole_us(took));
    }

    pub(super) fn forget(&self, id: &BackendId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BackendId, CheckReport>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
