//! What the proxies report, added up.
//!
//! Reports carry what was counted since the last one. Each is numbered, so a report
//! that arrives twice counts once, and a missing one is noticed. Sums never go back:
//! what a lost proxy or a removed backend did stays in the totals of its pool.
//!
//! Requests in flight are a gauge: only a proxy's newest report speaks of the present,
//! and not for longer than three periods.

mod clients;
mod leavings;
mod limits;
mod process;
mod recent;
mod report;
mod reporters;
mod sessions;
mod unanswered;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lb_core::{
    limit::RefusalNews,
    model::{BackendId, Incarnation, InstanceId, LimitName, PoolName, ProxyId},
    overload::Stage,
    stats::BackendCounters,
};
use tokio::time::Instant;
use tracing::debug;

use self::sessions::Sessions;
use self::{clients::Clients, leavings::Leavings};
pub use self::{
    clients::{Answers, AnswersPart, RecentAnswers},
    leavings::{Asked, Leaving},
    limits::{LimitCounts, LimitPart, LimitShare, LimitTotals, ShareBasis},
    process::{Overload, OwnAnswers, Process},
    report::{BackendPart, Report},
    unanswered::Unanswered,
};
use self::{
    recent::Rate,
    reporters::{Reporters, Reporting, Running, Turn},
};
use crate::registry::Catalog;

/// A gauge without a report for so many periods says nothing any more.
const PERIODS_MAX: u32 = 3;
/// No honest report counts this much; larger numbers would overflow sums.
pub const COUNT_MAX: u64 = 1 << 48;

/// Added up over reports.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Since the control plane started.
    pub counters: BackendCounters,
    /// Now.
    pub in_flight: u32,
    /// Requests per second, lately.
    pub request_rate: f64,
}

/// What one proxy has to do with one backend.
#[derive(Clone, Debug, Default)]
pub struct Share {
    /// Its part of the totals.
    pub totals: Totals,
    /// It avoids the backend for what it sees itself.
    pub avoided: bool,
}

/// The statistics of the fleet.
#[derive(Debug, Default)]
pub struct Statistics(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    backends: HashMap<(BackendId, Incarnation), BackendSums>,
    pools: BTreeMap<PoolName, Sum>,
    proxies: Reporters,
    leavings: Leavings,
    limits: limits::Limits,
    sessions: Sessions,
    clients: Clients,
    all: Sum,
    process: Process,
    reports: Reports,
}

/// What became of one report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counted {
    /// The number of the last report of its process that was counted.
    pub sequence: u64,
    /// It was not heard before.
    pub is_news: bool,
    /// Its proxy gives up more than before, or less.
    pub overload_worse: Option<bool>,
}

/// What became of the reports.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reports {
    /// Taken into the sums.
    pub counted: u64,
    /// Seen before.
    pub repeated: u64,
    /// Never seen: what they told is missing in the sums.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Sum {
    counters: BackendCounters,
    rate: Rate,
}

#[derive(Debug, Default)]
struct BackendSums {
    all: Sum,
    by_proxy: BTreeMap<ProxyId, Sum>,
    /// When a report came last that told of an answer.
    answered: Option<Instant>,
}

impl Statistics {
    /// Counts a report. Backends that are not in the catalog count for their pool only.
    /// `present` is the process of the proxy that follows the control plane, if one does.
    pub fn count(
        &self,
        report: &Report,
        present: Option<&InstanceId>,
        catalog: &Catalog,
    ) -> Counted {
        let now = Instant::now();
        let sums = &mut *self.lock();
        let (missing, overload_worse) = match sums.proxies.turn(report, present, now) {
            Turn::Repeated(last) => {
                debug!(proxy = %report.proxy, sequence = report.sequence, "report repeated");
                sums.reports.repeated += 1;
                return Counted { sequence: last, is_news: false, overload_worse: None };
            }
            Turn::New { missing, overload_worse } => (missing, overload_worse),
        };
        if missing > 0 {
            debug!(proxy = %report.proxy, missing, "reports were lost");
        }
        sums.reports.counted += 1;
        sums.reports.lost = sums.reports.lost.saturating_add(missing);
        sums.process.add(&report.process);
        sums.leavings.note(report, catalog, now);
        sums.sessions.note(report, catalog, now);
        sums.clients.note(report, catalog, now);
        for part in &report.backends {
            sums.add(report, part, catalog, now);
        }
        for part in &report.limits {
            sums.limits.add(report, part, catalog, now);
        }
        Counted { sequence: report.sequence, is_news: true, overload_worse }
    }

    /// The totals of one backend, and the share of each proxy in them.
    #[must_use]
    pub fn backend(
        &self,
        id: &BackendId,
        incarnation: Incarnation,
    ) -> (Totals, Vec<(ProxyId, Share)>) {
        let now = Instant::now();
        let sums = self.lock();
        let key = (id.clone(), incarnation);
        let Some(backend) = sums.backends.get(&key) else {
            return (Totals::default(), Vec::new());
        };
        let shares: Vec<(ProxyId, Share)> = backend
            .by_proxy
            .iter()
            .map(|(proxy, share)| {
                let reporting = sums.proxies.get(proxy);
                let in_flight = reporting.map_or(0, |known| known.in_flight(&key, now));
                let avoided = reporting.is_some_and(|known| known.avoids(&key, now));
                (proxy.clone(), Share { totals: share.totals(now, in_flight), avoided })
            })
            .collect();
        let in_flight = total(shares.iter().map(|(_, share)| share.totals.in_flight));
        (backend.all.totals(now, in_flight), shares)
    }

    /// The totals of one limit, and those of each proxy.
    #[must_use]
    pub fn limit(
        &self,
        limit: &LimitName,
        incarnation: Incarnation,
    ) -> (LimitTotals, Vec<(ProxyId, LimitTotals)>) {
        self.lock().limits.of(limit, incarnation)
    }

    /// Which limits began to refuse requests since the last call, and which have stopped.
    #[must_use]
    pub fn limit_news(&self) -> Vec<(LimitName, RefusalNews)> {
        self.lock().limits.news()
    }

    /// What each of these proxies has left of one backend, while that drains; in their order.
    #[must_use]
    pub fn leaving<'a>(
        &self,
        id: &BackendId,
        incarnation: Incarnation,
        asked: impl IntoIterator<Item = Asked<'a>>,
    ) -> Vec<Leaving> {
        let (key, now) = ((id.clone(), incarnation), Instant::now());
        let sums = self.lock();
        asked.into_iter().map(|asked| sums.leavings.of(&key, asked, now)).collect()
    }

    /// The processes that may have something in flight, as far as they tell: those that were heard
    /// lately.
    #[must_use]
    pub fn processes(&self, lease: Duration) -> Vec<(ProxyId, InstanceId)> {
        self.lock().leavings.processes(lease, Instant::now())
    }

    /// Whether a process has told what it has in flight.
    #[must_use]
    pub fn has_told(&self, proxy: &ProxyId, instance: &InstanceId) -> bool {
        self.lock().leavings.has_told(proxy, instance)
    }

    /// What clients were answered in the last seconds.
    #[must_use]
    pub fn recent(&self) -> RecentAnswers {
        self.lock().clients.recent(Instant::now())
    }

    /// What became of the sessions of each pool since the control plane started.
    #[must_use]
    pub fn sessions(&self) -> BTreeMap<PoolName, OwnAnswers> {
        self.lock().sessions.pools()
    }

    /// Requests that sessions brought to a backend in the last five seconds.
    #[must_use]
    pub fn session_requests(&self, id: &BackendId, incarnation: Incarnation) -> u64 {
        self.lock().sessions.lately(id, incarnation, Instant::now())
    }

    /// What became of the reports since the control plane started.
    #[must_use]
    pub fn reports(&self) -> Reports {
        self.lock().reports
    }

    /// Counters and requests in flight of several backends, in their order.
    #[must_use]
    pub fn backends(&self, ids: &[(BackendId, Incarnation)]) -> Vec<(BackendCounters, u32)> {
        let now = Instant::now();
        let sums = self.lock();
        // Each proxy is looked at once, however many backends are asked for.
        let mut in_flight: HashMap<&(BackendId, Incarnation), u32> = HashMap::new();
        for (key, count) in sums.proxies.iter().flat_map(|known| known.busy(now)) {
            let sum = in_flight.entry(key).or_default();
            *sum = sum.saturating_add(count);
        }
        let found = |key| {
            let backend = sums.backends.get(key)?;
            let in_flight = in_flight.get(key).copied().unwrap_or_default();
            Some((backend.all.counters.clone(), in_flight))
        };
        ids.iter().map(|key| found(key).unwrap_or_default()).collect()
    }

    /// The totals of every pool that was ever reported.
    #[must_use]
    pub fn pools(&self) -> BTreeMap<PoolName, Totals> {
        let now = Instant::now();
        let sums = self.lock();
        let mut in_flight: HashMap<&PoolName, u32> = HashMap::new();
        for (pool, count) in sums.in_flight(now) {
            let sum = in_flight.entry(pool).or_default();
            *sum = sum.saturating_add(count);
        }
        sums.pools
            .iter()
            .map(|(name, sum)| {
                let in_flight = in_flight.get(name).copied().unwrap_or_default();
                (name.clone(), sum.totals(now, in_flight))
            })
            .collect()
    }

    /// Everything together.
    #[must_use]
    pub fn all(&self) -> Totals {
        let now = Instant::now();
        let sums = self.lock();
        let in_flight = total(sums.in_flight(now).map(|(_, count)| count));
        sums.all.totals(now, in_flight)
    }

    /// The processes of all proxies together; gauges of those that report.
    #[must_use]
    pub fn process(&self) -> Process {
        let now = Instant::now();
        let sums = self.lock();
        let fresh = || sums.proxies.iter().flat_map(|known| known.fresh(now)).map(Running::gauges);
        Process {
            client_connections: total(fresh().map(|gauges| gauges.client_connections)),
            worker_connections: Vec::new(),
            connections_max: total(fresh().map(|gauges| gauges.connections_max)),
            memory_max: 0,
            overload: Overload::default(),
            resident_bytes: fresh().map(|gauges| gauges.resident_bytes).sum(),
            cpu_us: sums.proxies.iter().map(Reporting::cpu_us).sum(),
            ..sums.process.clone()
        }
    }

    /// How many proxies are at each stage of overload but the normal one.
    #[must_use]
    pub fn overloaded(&self) -> Vec<(&'static str, u32)> {
        let (sums, now) = (self.lock(), Instant::now());
        let stages = Stage::ALL.into_iter().filter(|stage| *stage != Stage::Normal);
        let at = |stage: Stage| {
            let known = sums.proxies.iter();
            let count = known.filter(|known| known.overload(now).stage == stage.name()).count();
            (stage.name(), u32::try_from(count).unwrap_or(u32::MAX))
        };
        stages.map(at).collect()
    }

    /// Those of which something is kept.
    #[must_use]
    pub(crate) fn proxies(&self) -> Vec<ProxyId> {
        // Whatever else is kept of a proxy is kept of one that reports.
        self.lock().proxies.ids().cloned().collect()
    }

    /// The processes of one proxy together, and its requests per second.
    #[must_use]
    pub fn proxy(&self, id: &ProxyId) -> Option<(Process, f64)> {
        let now = Instant::now();
        let sums = self.lock();
        let reporting = sums.proxies.get(id)?;
        Some((reporting.figures(now), reporting.rate(now)))
    }

    /// Drops what is kept for backends and limits that are gone. The pools keep the sums.
    pub fn forget_removed(&self, catalog: &Catalog) {
        let sums = &mut *self.lock();
        sums.backends.retain(|(id, incarnation), _| is_known(catalog, id, *incarnation));
        sums.limits.forget_removed(catalog);
        sums.sessions.forget_removed(catalog);
        let (Sums { proxies, leavings, .. }, now) = (sums, Instant::now());
        leavings.forget_ended(|proxy| proxies.present(proxy), catalog, now);
        proxies.forget_ended(now);
    }

    /// The pools whose clients were answered something.
    #[must_use]
    pub fn answered_pools(&self) -> Vec<PoolName> {
        self.lock().clients.names().cloned().collect()
    }

    /// Drops the sums of pools that are gone for long. What they did stays in the whole.
    pub fn forget_pools(&self, pools: &[PoolName]) {
        let sums = &mut *self.lock();
        sums.pools.retain(|name, _| !pools.contains(name));
        sums.sessions.forget_pools(pools);
        sums.clients.forget_pools(pools);
    }

    /// Drops what is kept for one proxy, of whose processes one may be known to have `ended`. The
    /// sums keep what it did, and drains wait for others of its processes that were heard within a
    /// lease.
    pub fn forget_proxy(&self, id: &ProxyId, ended: Option<&InstanceId>, lease: Duration) {
        let mut sums = self.lock();
        sums.proxies.forget(id);
        sums.leavings.forget(id, ended, lease, Instant::now());
        sums.limits.forget_proxy(id);
        for backend in sums.backends.values_mut() {
            backend.by_proxy.remove(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sums {
    fn add(&mut self, report: &Report, part: &BackendPart, catalog: &Catalog, now: Instant) {
        if !catalog.pools().contains_key(&part.pool) && !self.pools.contains_key(&part.pool) {
            return;
        }
        let heard = (now, report.interval);
        self.all.add(heard, &part.counters);
        self.pools.entry(part.pool.clone()).or_default().add(heard, &part.counters);
        if !is_known(catalog, &part.backend, part.incarnation) {
            return;
        }
        let BackendPart { backend, incarnation, counters, .. } = part;
        let key = (backend.clone(), *incarnation);
        self.proxies.note_gauges(report, key.clone(), part, now);
        let backend = self.backends.entry(key).or_default();
        if part.is_answered() {
            backend.answered = Some(now);
        }
        backend.all.add(heard, counters);
        backend.by_proxy.entry(report.proxy.clone()).or_default().add(heard, counters);
    }

    /// What is in flight anywhere, with its pool.
    fn in_flight(&self, now: Instant) -> impl Iterator<Item = (&PoolName, u32)> {
        let fresh = self.proxies.iter().flat_map(move |known| known.fresh(now));
        fresh.flat_map(Running::all_in_flight)
    }
}

/// The sum of what was told, which ends at the greatest number: anybody may have told anything.
pub(crate) fn total(counts: impl Iterator<Item = u32>) -> u32 {
    counts.fold(0, u32::saturating_add)
}

fn is_known(catalog: &Catalog, id: &BackendId, incarnation: Incarnation) -> bool {
    catalog.backends().get(id).is_some_and(|stored| stored.value.incarnation == incarnation)
}

impl Sum {
    /// Adds what was heard now, and counted for so long.
    fn add(&mut self, (now, counted_for): (Instant, Duration), counters: &BackendCounters) {
        self.counters.add(counters);
        self.rate.add(now, counted_for, &counters.requests);
    }

    fn totals(&self, now: Instant, in_flight: u32) -> Totals {
        let request_rate = self.rate.per_second(now);
        Totals { counters: self.counters.clone(), in_flight, request_rate }
    }
}

#[cfg(test)]
pub(crate) mod tests;
