//! What every pool's backends did, those that are gone included.
//!
//! A counter that Prometheus reads must not go down, but a backend's counters go with the
//! backend. So the ledger keeps each backend's state until nobody else has it: not the
//! configuration, no request that began under an older one, nobody who reports. What it
//! counted until then is final, and is added to its pool.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lb_core::{model::PoolName, stats::BackendCounters};

use super::backend::{BackendState, Live};

/// Backends that may be gone before the ledger looks for them, at least.
const SETTLE_EVERY: usize = 64;

/// The counters of all pools since the process began.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<BTreeMap<PoolName, Account>>);

#[derive(Debug, Default)]
struct Account {
    /// Of backends that are gone.
    settled: BackendCounters,
    backends: Vec<Arc<Live>>,
    /// How many were there when they were looked through.
    looked_through: usize,
}

/// What the backends of one pool did.
#[derive(Debug)]
pub(crate) struct PoolTotals {
    pub(crate) counters: BackendCounters,
    pub(crate) in_flight: u32,
}

impl Ledger {
    /// Notes a backend that has just been made.
    pub(super) fn open(&self, state: &BackendState) {
        let mut accounts = self.lock();
        let account = accounts.entry(state.pool.clone()).or_default();
        account.backends.push(Arc::clone(&state.live));
        // Bounds what is kept when nobody asks for totals.
        if account.backends.len() >= 2 * account.looked_through + SETTLE_EVERY {
            account.settle();
        }
    }

    /// The totals of every pool that there ever was, in the order of their names.
    pub(crate) fn totals(&self) -> Vec<(PoolName, PoolTotals)> {
        let mut accounts = self.lock();
        accounts
            .iter_mut()
            .map(|(pool, account)| {
                account.settle();
                let mut totals = PoolTotals { counters: account.settled.clone(), in_flight: 0 };
                for live in &account.backends {
                    live.add_to(&mut totals.counters);
                    totals.in_flight += live.in_flight();
                }
                (pool.clone(), totals)
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PoolName, Account>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// Adds up those that nobody else has any more.
    fn settle(&mut self) {
        let settled = &mut self.settled;
        self.backends.retain_mut(|live| match Arc::get_mut(live) {
            Some(live) => {
                live.add_to(settled);
                false
            }
            None => true,
        });
        self.looked_through = self.backends.len();
    }
}

#[cfg(test)]
mod tests {
    use lb_core::model::{BackendId, Incarnation};

    use super::{
        super::{CountedBy, Identity, Trouble},
        *,
    };

    fn backend(ledger: &Ledger, incarnation: u64) -> BackendState {
        let identity = Identity {
            id: BackendId::new("b1").unwrap(),
            incarnation: Incarnation(incarnation),
            address: "127.0.0.1:1".parse().unwrap(),
        };
        let (pool, trouble) = (PoolName::default_pool(), Arc::new(Trouble::new()));
        let state = BackendState::new(identity, pool, incarnation, Box::new([]), 2, &trouble);
        ledger.open(&state);
        state
    }

    fn totals(ledger: &Ledger) -> (u64, u64, u32) {
        let totals = ledger.totals();
        let (_, pool) = totals.first().unwrap();
        (pool.counters.requests, pool.counters.latency.count(), pool.in_flight)
    }

    #[test]
    fn a_pool_keeps_what_its_removed_backends_did() {
        let ledger = Ledger::default();
        let (first, second) = (backend(&ledger, 1), backend(&ledger, 2));
        first.count_request(0);
        second.count_request(1);
        second.count_end(1, None, Some(5));
        second.enter(CountedBy::Worker(1));
        assert_eq!(totals(&ledger), (2, 1, 1));
        // A request that still has it goes on counting.
        let moved = second.at(PoolName::default_pool(), 3, Box::new([]));
        drop(second);
        moved.count_request(0);
        assert_eq!(totals(&ledger), (3, 1, 1));
        moved.leave(CountedBy::Worker(1));
        drop(moved);
        assert_eq!(totals(&ledger), (3, 1, 0));
        assert_eq!(totals(&ledger), (3, 1, 0));
        assert_eq!(ledger.lock()[&PoolName::default_pool()].backends.len(), 1);
    }

    #[test]
    fn what_is_kept_is_bounded_by_what_is_in_use() {
        let ledger = Ledger::default();
        for incarnation in 0..1000 {
            backend(&ledger, incarnation).count_request(0);
            let kept = ledger.lock()[&PoolName::default_pool()].backends.len();
            assert!(kept < 2 * SETTLE_EVERY, "{kept}");
        }
        assert_eq!(totals(&ledger).0, 1000);
    }
}
