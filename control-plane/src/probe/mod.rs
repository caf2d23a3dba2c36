//! Active checks: one prober for the whole fleet, so that the load on backends does
//! not grow with the number of proxies, and all proxies believe the same.
//!
//! Each backend has a task that sleeps, probes and judges; `lb_core::health` decides
//! what answers mean. A supervisor starts, replaces and stops the tasks as the registry
//! changes. Verdicts that change go to the registry, those of one moment in one commit.
//!
//! | part | does |
//! |---|---|
//! | [`schedule`] | one backend: when to probe, and what to make of it |
//! | [`lanes`] | how many probes are under way at once |
//! | [`resolve`] | the addresses of one backend |
//! | [`http`], [`tcp`] | one probe |

mod http;
mod lanes;
mod report;
mod resolve;
mod schedule;
mod tcp;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use lb_core::model::{AdminState, Backend, BackendId, HealthPolicy, Key, Kind, PoolName};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::{
    report::{CheckReport, Checks},
    resolve::Resolution,
};
use crate::{
    discovery::Resolver,
    registry::Registry,
    resilience::{Checked, Resilience},
};

/// What the prober works with.
#[derive(Debug)]
pub(crate) struct Prober {
    /// What is shown of checks.
    pub(crate) checks: Arc<Checks>,
    /// Hears of each check.
    pub(crate) resilience: Arc<Resilience>,
    /// Judges what the checks have come to.
    pub(crate) checked: mpsc::Sender<Checked>,
    /// Knows the addresses of names.
    pub(crate) resolver: Arc<Resolver>,
}

/// What the tasks share.
#[derive(Debug)]
struct Shared {
    prober: Prober,
    lanes: lanes::Lanes,
}

/// What a backend's task works from; another one needs another task.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Target {
    backend: Backend,
    policy: HealthPolicy,
    /// Of the last change of the backend or its pool.
    revision: u64,
}

impl Target {
    /// Whether a change from `other` matters to probing. Weights and labels do not.
    fn is_probed_like(&self, other: &Self) -> bool {
        let disabled = |target: &Self| target.backend.admin_state == AdminState::Disabled;
        self.policy == other.policy
            && self.backend.incarnation == other.backend.incarnation
            && self.backend.address == other.backend.address
            && disabled(self) == disabled(other)
    }

    /// Whether a pass of the one speaks for the other.
    fn is_checked_like(&self, other: &Self) -> bool {
        self.policy.protocol() == other.policy.protocol()
            && self.backend.address == other.backend.address
    }
}

/// Probes the backends of the registry until it is told to stop.
pub(crate) async fn run(registry: Registry, prober: Prober, stop: CancellationToken) {
    let tracker = TaskTracker::new();
    let shared = Arc::new(Shared { prober, lanes: lanes::Lanes::default() });
    let mut supervisor =
        Supervisor { registry, shared, tasks: HashMap::new(), tracker, stop: stop.clone() };
    supervisor.follow_all();
    while let Some(keys) = stop.run_until_cancelled(supervisor.registry.touched()).await {
        keys.iter().for_each(|key| supervisor.follow(key));
    }
    supervisor.tracker.close();
    supervisor.tracker.wait().await;
}

#[derive(Debug)]
struct Supervisor {
    registry: Registry,
    shared: Arc<Shared>,
    tasks: HashMap<BackendId, (Target, CancellationToken)>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Supervisor {
    fn follow_all(&mut self) {
        let ids: Vec<BackendId> =
            self.registry.read(|view| view.catalog.backends().keys().cloned().collect());
        ids.into_iter().for_each(|id| self.follow_backend(id));
    }

    fn follow(&mut self, key: &Key) {
        match key.known_kind() {
            Some(Kind::Backend) => {
                if let Ok(id) = BackendId::new(&key.name) {
                    self.follow_backend(id);
                }
            }
            Some(Kind::Pool) => {
                let Ok(pool) = PoolName::new(&key.name) else { return };
                let ids: Vec<BackendId> = self.registry.read(|view| {
                    let members = view.catalog.members(&pool);
                    members.into_iter().flat_map(BTreeMap::values).cloned().collect()
                });
                ids.into_iter().for_each(|id| self.follow_backend(id));
            }
            _ => {}
        }
    }

    /// Makes the task of a backend what it should be.
    fn follow_backend(&mut self, id: BackendId) {
        let wanted = self.registry.read(|view| {
            let stored = view.catalog.backends().get(&id)?;
            let (backend, revision) = (stored.value.clone(), stored.revision);
            let pool = view.catalog.pools().get(&backend.pool)?;
            let (policy, revision) = (pool.value.health.clone(), revision.max(pool.revision));
            let status = view.catalog.status(&backend).cloned();
            let is_alone = backend.is_wanted() && view.catalog.tries_unchecked(&pool.value);
            Some((Target { backend, policy, revision }, status, is_alone))
        });
        let Some((target, status, is_alone)) = wanted else {
            if let Some((_, task)) = self.tasks.remove(&id) {
                task.cancel();
            }
            self.shared.prober.checks.forget(&id);
            return;
        };
        let asked_anew = self.tasks.contains_key(&id);
        if let Some((running, task)) = self.tasks.get(&id) {
            if running.is_probed_like(&target) {
                return;
            }
            task.cancel();
            if running.backend.incarnation != target.backend.incarnation {
                self.shared.prober.checks.forget(&id);
            } else if !running.is_checked_like(&target) {
                self.shared.prober.checks.begin_anew(&id);
            }
        }
        let task = self.stop.child_token();
        let shared = Arc::clone(&self.shared);
        let run = schedule::run(target.clone(), status, asked_anew, is_alone, shared);
        let until = task.clone();
        self.tracker.spawn(async move { until.run_until_cancelled(run).await });
        self.tasks.insert(id, (target, task));
    }
}
