//! What became of sessions, as the proxies tell.

use std::collections::{BTreeMap, HashMap};

use lb_core::model::{BackendId, Incarnation, PoolName};
use tokio::time::Instant;

use super::{Report, process::OwnAnswers, recent::Rate};
use crate::registry::Catalog;

/// Seconds in which requests say that sessions are in use.
const IN_USE_SECONDS: usize = 5;

/// Sums by pool, and what came lately by backend.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pools: BTreeMap<PoolName, OwnAnswers>,
    backends: HashMap<(BackendId, Incarnation), Rate<IN_USE_SECONDS>>,
}

impl Sessions {
    /// Takes a report in. Pools that are not in the catalog, and were never, do not count.
    pub(super) fn note(&mut self, report: &Report, catalog: &Catalog, now: Instant) {
        for (pool, results) in &report.sessions {
            if catalog.pools().contains_key(pool) || self.pools.contains_key(pool) {
                self.pools.entry(pool.clone()).or_default().add(results);
            }
        }
        for part in report.backends.iter().filter(|part| part.sessions > 0) {
            if super::is_known(catalog, &part.backend, part.incarnation) {
                let key = (part.backend.clone(), part.incarnation);
                self.backends.entry(key).or_default().add(now, report.interval, &part.sessions);
            }
        }
    }

    /// What became of the sessions of each pool.
    pub(super) fn pools(&self) -> BTreeMap<PoolName, OwnAnswers> {
        self.pools.clone()
    }

    /// Requests that sessions brought to a backend lately.
    pub(super) fn lately(&self, id: &BackendId, incarnation: Incarnation, now: Instant) -> u64 {
        self.backends.get(&(id.clone(), incarnation)).map_or(0, |rate| rate.lately(now))
    }

    /// Drops the sums of pools.
    pub(super) fn forget_pools(&mut self, pools: &[PoolName]) {
        self.pools.retain(|name, _| !pools.contains(name));
    }

    /// Drops what is kept for backends that are gone.
    pub(super) fn forget_removed(&mut self, catalog: &Catalog) {
        self.backends.retain(|(id, incarnation), _| super::is_known(catalog, id, *incarnation));
    }
}
