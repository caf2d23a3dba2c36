//! Keeps the retry budget of every pool: the shell around
//! [`lb_core::resilience::retry_budget`].
//!
//! It runs on the control thread and needs no control plane: the number of proxies that
//! share a pool's floor is the one that was told last.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use lb_core::{
    model::PoolName,
    resilience::retry_budget::{RetryBudget, TICK},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    live::{Config, Retries},
    status::Status,
    worker::now,
};

/// The budgets of the pools that are served from.
#[derive(Debug, Default)]
struct Budgets {
    pools: BTreeMap<PoolName, Account>,
}

#[derive(Debug)]
struct Account {
    retries: Arc<Retries>,
    budget: RetryBudget,
    /// At the last tick.
    granted: u32,
    /// Counted until the last tick.
    requests: u64,
}

/// Grants permits for as long as there are configurations: at every tick, and at once
/// when there is a new one, so that a new pool need not wait for its first.
pub(crate) async fn run(mut config: watch::Receiver<Arc<Config>>, status: Arc<Status>) {
    let mut budgets = Budgets::default();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = config.changed() => if changed.is_err() { return },
        }
        let current = Arc::clone(&config.borrow_and_update());
        budgets.tick(&current, status.proxies(), now());
    }
}

impl Budgets {
    /// Counts what was requested and retried since the last tick, and grants anew.
    fn tick(&mut self, config: &Config, proxies: u32, now: Instant) {
        let mut former = std::mem::take(&mut self.pools);
        for pool in &config.pools {
            // A pool that was removed and added again is another one.
            let known = former.remove(&pool.name);
            let known = known.filter(|account| Arc::ptr_eq(&account.retries, &pool.retries));
            let mut account = known.unwrap_or_else(|| Account::open(&pool.retries, now));
            let requests = account.retries.requests();
            let fresh = requests - std::mem::replace(&mut account.requests, requests);
            let budget = &mut account.budget;
            account.granted = account.retries.renew(account.granted, |spent| {
                let permits = budget.tick(&pool.retry, proxies, now, fresh, spent.into());
                (permits, budget.earned(), budget.spent(now))
            });
            self.pools.insert(pool.name.clone(), account);
        }
    }
}

impl Account {
    fn open(retries: &Arc<Retries>, now: Instant) -> Self {
        let retries = Arc::clone(retries);
        Self { retries, budget: RetryBudget::new(now), granted: 0, requests: 0 }
    }
}

#[cfg(test)]
mod tests {
    use lb_core::model::{ListenerName, Pool, Resource, Snapshot};

    use super::*;
    use crate::live::Compiler;

    fn snapshot(budget_floor: u32) -> Snapshot {
        let mut pool = Pool::new(PoolName::default_pool());
        pool.resilience.retry.budget_floor = budget_floor;
        Snapshot::default().changed(vec![Resource::Pool(pool)], &[]).0
    }

    fn permits(config: &Config) -> usize {
        (0..10_000).take_while(|_| config.pools[0].retries.take()).count()
    }

    #[test]
    fn a_pool_gets_its_part_of_the_floor_and_its_share() {
        let mut compiler = Compiler::new(2, vec![ListenerName::default_listener()]);
        let (mut budgets, mut at) = (Budgets::default(), now());
        let config = compiler.compile(&snapshot(10), None);
        assert_eq!(permits(&config), 0);
        // All that there are within ten seconds; what was spent is not forgotten by then.
        let mut spend = |budgets: &mut Budgets, config: &Config| {
            let mut all = 0;
            for _ in 0..38 {
                budgets.tick(config, 4, at);
                all += permits(config);
                at += TICK;
            }
            all
        };
        budgets.tick(&config, 4, now());
        assert_eq!(permits(&config), 18, "at once");
        for worker in [0, 1] {
            (0..50).for_each(|_| config.pools[0].retries.count_request(worker));
        }
        assert_eq!(spend(&mut budgets, &config), 27);
        assert_eq!(config.pools[0].retries.remaining_ratio(), 0.0);
        // A change of the pool neither gives back nor takes what was spent.
        let config = compiler.compile(&snapshot(20), None);
        budgets.tick(&config, 4, at);
        assert!(permits(&config) > 0);
        assert!(config.pools[0].retries.remaining_ratio() > 0.3);
    }

    #[test]
    fn a_pool_that_is_gone_is_forgotten() {
        let mut compiler = Compiler::new(1, vec![ListenerName::default_listener()]);
        let mut budgets = Budgets::default();
        let config = compiler.compile(&snapshot(10), None);
        budgets.tick(&config, 1, now());
        assert_eq!(permits(&config), 75);
        budgets.tick(&compiler.compile(&Snapshot::default(), None), 1, now());
        assert!(budgets.pools.is_empty());
        let config = compiler.compile(&snapshot(10), None);
        budgets.tick(&config, 1, now());
        assert_eq!(permits(&config), 75);
    }
}
