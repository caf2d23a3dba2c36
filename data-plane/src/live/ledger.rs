//! What every pool's backends did, those that are gone included. A pool that is gone itself is
//! told for an hour more.
//!
//! A counter that Prometheus reads must not go down, but a backend's counters go with the
//! backend. So the ledger keeps each backend's state until nobody else has it: not the
//! configuration, no request that began under an older one, nobody who reports. What it
//! counted until then is final, and is added to its pool.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lb_core::{departed::Departed, model::PoolName, stats::BackendCounters};

use super::backend::{BackendState, Live};
use crate::worker::now;

/// Backends that may be gone before the ledger looks for them, at least.
const SETTLE_EVERY: usize = 64;

/// The counters of all pools since the process began.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Accounts>);

#[derive(Debug, Default)]
struct Accounts {
    by_pool: BTreeMap<PoolName, Account>,
    departed: Departed<PoolName>,
    /// How many there were when they were looked through.
    looked_through: usize,
}

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
        // The same for pools; which of them are wanted is not known here.
        if accounts.by_pool.len() >= 2 * accounts.looked_through + SETTLE_EVERY {
            accounts.forget_gone(|_| false);
        }
        let account = accounts.by_pool.entry(state.pool.clone()).or_default();
        account.backends.push(Arc::clone(&state.live));
        // Bounds what is kept when nobody asks for totals.
        if account.backends.len() >= 2 * account.looked_through + SETTLE_EVERY {
            account.settle();
        }
    }

    /// The totals of every pool that there is, and of those that are not gone for long, in the
    /// order of their names. `is_there` tells which are configured.
    pub(crate) fn totals(
        &self,
        is_there: impl Fn(&PoolName) -> bool,
    ) -> Vec<(PoolName, PoolTotals)> {
        let mut accounts = self.lock();
        accounts.forget_gone(is_there);
        let totals = accounts.by_pool.iter();
        totals
            .map(|(pool, account)| {
                let mut totals = PoolTotals { counters: account.settled.clone(), in_flight: 0 };
                for live in &account.backends {
                    live.add_to(&mut totals.counters);
                    totals.in_flight += live.in_flight();
                }
                (pool.clone(), totals)
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accounts {
    /// Drops what pools did that have been gone for long.
    fn forget_gone(&mut self, is_there: impl Fn(&PoolName) -> bool) {
        let mut gone = Vec::new();
        for (pool, account) in &mut self.by_pool {
            account.settle();
            if account.backends.is_empty() && !is_there(pool) {
                gone.push(pool.clone());
            }
        }
        for pool in self.departed.overdue(gone, now()) {
            self.by_pool.remove(&pool);
        }
        self.looked_through = self.by_pool.len();
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
    use lb_core::{
        departed::KEPT_MAX,
        model::{BackendId, Incarnation},
    };

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
        let totals = ledger.totals(|_| true);
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
        assert_eq!(ledger.lock().by_pool[&PoolName::default_pool()].backends.len(), 1);
    }

    #[test]
    fn pools_that_are_gone_are_bounded_and_those_that_are_wanted_stay() {
        let (ledger, trouble) = (Ledger::default(), Arc::new(Trouble::new()));
        let name = |number: u64| PoolName::new(&format!("p{number:04}")).unwrap();
        for number in 0..1000 {
            let identity = Identity {
                id: BackendId::new("b1").unwrap(),
                incarnation: Incarnation(number),
                address: "127.0.0.1:1".parse().unwrap(),
            };
            let pool = name(number);
            ledger.open(&BackendState::new(identity, pool, number, Box::new([]), 2, &trouble));
            let kept = ledger.lock().by_pool.len();
            assert!(kept < 2 * (KEPT_MAX + SETTLE_EVERY) + 2, "{kept}");
        }
        let last = name(999);
        let told = ledger.totals(|pool| *pool == last);
        assert_eq!(told.len(), KEPT_MAX + 1);
        assert_eq!(told.last().unwrap().0, last);
    }

    #[test]
    fn what_is_kept_is_bounded_by_what_is_in_use() {
        let ledger = Ledger::default();
        for incarnation in 0..1000 {
            backend(&ledger, incarnation).count_request(0);
            let kept = ledger.lock().by_pool[&PoolName::default_pool()].backends.len();
            assert!(kept < 2 * SETTLE_EVERY, "{kept}");
        }
        assert_eq!(totals(&ledger).0, 1000);
    }
}
