//! One verdict about each backend, from everything that the fleet knows.
//!
//! The prober says what its checks see, each proxy reports what its requests came to. Here
//! both are put together, once for all proxies: who is up, whose breaker is open, who differs
//! from the rest of its pool, who begins slowly. [`lb_core::resilience`] and
//! [`lb_core::health`] decide; this keeps their states, and stores what they say as the
//! backends' statuses, which proxies follow like any other part of the state.
//!
//! | part | does |
//! |---|---|
//! | `backend` | what is kept of one backend |
//! | `pool` | what is kept of one pool |
//! | `expected` | knows who is still to be heard |
//! | `reports` | takes in what proxies report, and hands out probe tokens |
//! | `settle` | takes in what the prober says, and moves everything on |
//! | `ejections` | decides who is out, and who comes back |
//! | `kept` | knows who should be out, and stays because the pool cannot spare it |
//! | `verdicts` | makes the statuses that are new |
//! | `words` | says why |
//!
//! A report is answered at once, so its effects are taken in under a lock that is held for
//! microseconds; everything that writes to the store happens in one task.

mod backend;
mod ejections;
mod expected;
mod kept;
mod peers;
mod pool;
mod reports;
mod settle;
mod verdicts;
mod words;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use lb_core::{
    model::{BackendId, BackendStatus, Incarnation, PoolName, ProxyId},
    resilience::{
        breaker::{self, Reporter},
        hearing::Hearing,
    },
};
use tokio::{
    sync::{Notify, mpsc},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(crate) use self::backend::Kept;
pub(crate) use self::ejections::Transition;
pub use self::reports::ProbeReport;
pub(crate) use self::reports::{Role, Token};
use self::{backend::Backend, expected::Expected, pool::Pool};
use crate::{
    clock::{now, unix_ms},
    events::EventLog,
    fleet::Fleet,
    registry::{Catalog, Registry, WriteError},
};

/// Words of the prober that may wait; beyond that, its tasks wait.
pub(crate) const CHECKED_MAX: usize = 1024;
/// Statuses of one commit.
const BATCH_MAX: usize = 512;
/// Between two looks at what time alone changes.
const TICK: Duration = Duration::from_millis(100);
/// How many half-open times a breaker may have in one term of the store, as a power of two:
/// 2 ^ 24 of a tenth of a second are three weeks of nothing else, and the next term begins
/// later than the seconds that have passed.
const TERM_BITS: u32 = 24;
/// Between attempts to store statuses while the store fails.
const RETRY: Duration = Duration::from_secs(5);

/// What the prober says of one backend.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// As the check's thresholds see it. Its standing says nothing.
    pub(crate) status: BackendStatus,
    /// When the first of the failures in a row was, if the last probe failed.
    pub(crate) failing_since: Option<Instant>,
}

/// How all breakers together stand: the one of the seed's statistics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Breakers {
    /// Backends that get nothing.
    pub(crate) open: usize,
    /// Backends that are being tried.
    pub(crate) half_open: usize,
    /// The most failures in a row of any backend that is in.
    pub(crate) failures_in_a_row: u64,
}

/// What the fleet knows about its backends.
#[derive(Debug)]
pub(crate) struct Resilience {
    state: Mutex<State>,
    /// Something was reported that may change a status.
    news: Notify,
}

/// What is judged by: the state of the registry, and the present by both clocks.
#[derive(Clone, Copy, Debug)]
struct At<'a> {
    catalog: &'a Catalog,
    now: Instant,
    unix_ms: u64,
}

impl<'a> At<'a> {
    fn present(catalog: &'a Catalog) -> Self {
        Self { catalog, now: now(), unix_ms: unix_ms() }
    }
}

/// What every breaker begins with.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    term: u64,
    /// After how long without a word a process is lost.
    lease: Duration,
}

#[derive(Debug)]
struct State {
    beginning: Beginning,
    backends: BTreeMap<BackendId, Backend>,
    pools: BTreeMap<PoolName, Pool>,
    /// When each process reported.
    hearing: Hearing,
    /// Those whose reports are still to come.
    expected: Expected,
    /// Backends whose status may have changed.
    dirty: BTreeSet<BackendId>,
    /// Backends whose check has taken them down, whatever the verdict.
    down: BTreeSet<BackendId>,
    /// Backends whose breakers may move.
    failing: BTreeSet<BackendId>,
    /// Backends whose breakers are half-open.
    half_open: BTreeSet<BackendId>,
    /// Backends that may have a reason to be out, and stay.
    retained: BTreeSet<BackendId>,
    /// Of those, the ones of which it was told.
    told_kept: BTreeSet<BackendId>,
    /// Backends whose breakers have opened: the next time is longer.
    remembered: BTreeSet<BackendId>,
    /// The revision that pools and backends were last compared with.
    reconciled: u64,
    /// How often breakers did what, since the process began.
    transitions: BTreeMap<Transition, u64>,
    rng: fastrand::Rng,
}

impl Resilience {
    /// Nothing is known. `term` is the store's, by which tokens of this process are told from
    /// those of all before it; after a `lease` without a word a process of a proxy is lost.
    /// `former` are the proxies that were connected to the process before this one, if they are
    /// known; no proxies if there was none.
    pub(crate) fn new(term: u64, lease: Duration, former: Option<Vec<ProxyId>>) -> Self {
        let expected = Expected::new(former, now() + lease);
        let state = State {
            beginning: Beginning { term: term << TERM_BITS, lease },
            backends: BTreeMap::new(),
            pools: BTreeMap::new(),
            hearing: Hearing::new(),
            expected,
            dirty: BTreeSet::new(),
            down: BTreeSet::new(),
            failing: BTreeSet::new(),
            half_open: BTreeSet::new(),
            retained: BTreeSet::new(),
            told_kept: BTreeSet::new(),
            remembered: BTreeSet::new(),
            reconciled: 0,
            transitions: BTreeMap::new(),
            rng: fastrand::Rng::new(),
        };
        Self { state: Mutex::new(state), news: Notify::new() }
    }

    /// Hears of one active check.
    pub(crate) fn probed(&self, id: &BackendId, incarnation: Incarnation, passed: bool) {
        let mut state = self.lock();
        if state.half_open.contains(id)
            && let Some(backend) = state.backends.get_mut(id)
            && backend.incarnation == incarnation
        {
            backend.breaker.checked(passed);
        }
    }

    /// Forgets a proxy that is no longer listed.
    pub(crate) fn forget(&self, proxy: &ProxyId) {
        self.lock().forget(proxy);
    }

    /// How the breakers stand.
    pub(crate) fn breakers(&self) -> Breakers {
        let (state, now) = (self.lock(), now());
        let mut breakers = Breakers::default();
        let failing = state.failing.iter().filter_map(|id| state.backends.get(id));
        for backend in failing {
            match backend.breaker.phase() {
                breaker::Phase::Closed => {
                    let run = backend.breaker.failures_in_a_row(now);
                    breakers.failures_in_a_row = breakers.failures_in_a_row.max(run);
                }
                breaker::Phase::Open { .. } => breakers.open += 1,
                breaker::Phase::HalfOpen { .. } => breakers.half_open += 1,
            }
        }
        breakers
    }

    /// The backends that should be out for their requests, and stay because their pools cannot
    /// spare them.
    pub(crate) fn kept(&self) -> BTreeMap<BackendId, Kept> {
        let state = self.lock();
        let kept = state.retained.iter().filter_map(|id| {
            let kept = state.backends.get(id)?.why_kept()?;
            Some((id.clone(), kept.clone()))
        });
        kept.collect()
    }

    /// The same of one backend.
    pub(crate) fn kept_of(&self, id: &BackendId) -> Option<Kept> {
        self.lock().backends.get(id)?.why_kept().cloned()
    }

    /// Whether there is anything that an operator may forgive.
    fn may_forgive(&self) -> bool {
        self.lock().may_forgive(now())
    }

    /// How often breakers did what, since the process began.
    pub(crate) fn transitions(&self) -> BTreeMap<Transition, u64> {
        self.lock().transitions.clone()
    }

    /// Drops the counts of pools.
    pub(crate) fn forget_pools(&self, pools: &[PoolName]) {
        self.lock().transitions.retain(|transition, _| !pools.contains(&transition.pool));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Judges, and stores the verdicts, until it is told to stop.
pub(crate) async fn run(
    resilience: Arc<Resilience>,
    registry: Registry,
    fleet: Arc<Fleet>,
    events: Arc<EventLog>,
    mut checked: mpsc::Receiver<Checked>,
    stop: CancellationToken,
) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut revisions = registry.revisions();
    loop {
        let mut fresh = Vec::new();
        tokio::select! {
            count = checked.recv_many(&mut fresh, BATCH_MAX) => if count == 0 { return },
            _ = tick.tick() => {}
            () = resilience.news.notified() => {}
            // Whoever disables a backend may enable it before the next tick.
            changed = revisions.changed(), if resilience.may_forgive() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        while fresh.len() < BATCH_MAX
            && let Ok(word) = checked.try_recv()
        {
            fresh.push(word);
        }
        let lives = |reporter: &Reporter| {
            fleet
                .member(&reporter.proxy)
                .is_some_and(|member| member.is_live && member.instance == reporter.instance)
        };
        let (statuses, told) = registry.read(|view| {
            let (mut state, at) = (resilience.lock(), At::present(&view.catalog));
            state.lose_silent(lives, at);
            state.expected.connected = fleet.live();
            state.settle(view, fresh, at)
        });
        for (what, id, reason) in told {
            if what.is_a_loss() {
                warn!(backend = %id, reason.code, reason.message, "{}", what.name());
            } else {
                info!(backend = %id, reason.code, reason.message, "{}", what.name());
            }
            events.record(what, "backend", id.as_str(), registry.revision(), reason);
        }
        if statuses.is_empty() {
            continue;
        }
        let ids: Vec<BackendId> = statuses.iter().map(|status| status.backend.clone()).collect();
        match registry.record(statuses).await {
            Ok(()) => {}
            Err(WriteError::Stopping) => return,
            Err(error) => {
                warn!(%error, verdicts = ids.len(), "verdicts could not be stored");
                resilience.lock().dirty.extend(ids);
                if stop.run_until_cancelled(sleep(RETRY)).await.is_none() {
                    return;
                }
            }
        }
    }
}
