//! What the proxies report, added up.
//!
//! Reports carry what was counted since the last one. Each is numbered, so a report
//! that arrives twice counts once, and a missing one is noticed. Sums never go back:
//! what a lost proxy or a removed backend did stays in the totals of its pool.
//!
//! Requests in flight are a gauge: only a proxy's newest report speaks of the present,
//! and not for longer than three periods.

mod leavings;
mod process;
mod rate;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lb_core::{
    model::{BackendId, Incarnation, PoolName, ProxyId},
    overload::Stage,
    stats::BackendCounters,
};
use tokio::time::Instant;
use tracing::debug;

use self::leavings::Leavings;
use self::rate::Rate;
pub use self::{
    leavings::Leaving,
    process::{Overload, OwnAnswers, Process},
};
use crate::{registry::Catalog, resilience::ProbeReport};

/// A gauge without a report for so many periods says nothing any more.
const PERIODS_MAX: u32 = 3;
/// No honest report counts this much; larger numbers would overflow sums.
pub const COUNT_MAX: u64 = 1 << 48;

/// One report of one proxy.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whose.
    pub proxy: ProxyId,
    /// Of which start of it.
    pub instance: String,
    /// Grows by one with each report of an instance.
    pub sequence: u64,
    /// When it was sent, by its process's own monotonic clock since its start.
    pub sent: Duration,
    /// Tokens that its proxy has used.
    pub probes: Vec<ProbeReport>,
    /// How long the proxy counted.
    pub interval: Duration,
    /// The revision that it served from when it counted.
    pub applied_revision: u64,
    /// Backends that have anything to tell.
    pub backends: Vec<BackendPart>,
    /// The process itself.
    pub process: Process,
}

/// What one report says of one backend.
#[derive(Clone, Debug)]
pub struct BackendPart {
    /// The backend's pool, as the proxy knows it.
    pub pool: PoolName,
    /// Which.
    pub backend: BackendId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Since the last report.
    pub counters: BackendCounters,
    /// Now, upgraded connections included.
    pub in_flight: u32,
    /// Upgraded connections.
    pub upgraded: u32,
    /// Requests and upgraded connections that were cut at the end of a drain.
    pub cut: u32,
    /// Failures since the last success of the period.
    pub trailing_failures: u64,
}

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

/// The statistics of the fleet.
#[derive(Debug, Default)]
pub struct Statistics(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    backends: HashMap<(BackendId, Incarnation), BackendSums>,
    pools: BTreeMap<PoolName, Sum>,
    proxies: HashMap<ProxyId, Reporter>,
    leavings: Leavings,
    all: Sum,
    process: Process,
    reports: Reports,
}

/// What became of one report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counted {
    /// The number of the last report of its process that was counted.
    pub sequence: u64,
    /// It was not heard before, and its process is the one that serves now.
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

#[derive(Debug)]
struct BackendSums {
    pool: PoolName,
    all: Sum,
    by_proxy: BTreeMap<ProxyId, ProxySum>,
}

#[derive(Debug, Default)]
struct ProxySum {
    sum: Sum,
    in_flight: u32,
    /// The report that told `in_flight`.
    told_in: u64,
}

#[derive(Debug)]
struct Reporter {
    instance: String,
    sequence: u64,
    /// The instance before, which still reports while its last connections end, and its
    /// last report.
    former: Option<(String, u64)>,
    process: Process,
    rate: Rate,
    fresh_until: Instant,
}

impl Reporter {
    fn is_fresh(&self, now: Instant) -> bool {
        now < self.fresh_until
    }
}

impl Statistics {
    /// Counts a report. Backends that are not in the catalog count for their pool only.
    pub fn count(&self, report: &Report, catalog: &Catalog) -> Counted {
        let now = Instant::now();
        let sums = &mut *self.lock();
        let reporter = sums.proxies.entry(report.proxy.clone()).or_insert_with(|| Reporter {
            instance: report.instance.clone(),
            // A control plane that restarted takes up the count wherever it is.
            sequence: report.sequence.saturating_sub(1),
            former: None,
            process: Process::default(),
            rate: Rate::default(),
            fresh_until: now,
        });
        let is_former =
            reporter.former.as_ref().is_some_and(|(former, _)| *former == report.instance);
        if !is_former && reporter.instance != report.instance {
            let instance = std::mem::replace(&mut reporter.instance, report.instance.clone());
            reporter.former = Some((instance, reporter.sequence));
            reporter.sequence = 0;
        }
        let last = match &mut reporter.former {
            Some((_, sequence)) if is_former => sequence,
            _ => &mut reporter.sequence,
        };
        if report.sequence <= *last {
            debug!(proxy = %report.proxy, sequence = report.sequence, "report repeated");
            sums.reports.repeated += 1;
            return Counted { sequence: *last, is_news: false, overload_worse: None };
        }
        let missing = report.sequence - *last - 1;
        if missing > 0 {
            debug!(proxy = %report.proxy, missing, "reports were lost");
        }
        *last = report.sequence;
        sums.reports.counted += 1;
        sums.reports.lost += missing;
        let fresh_until = now + report.interval.max(Duration::from_millis(100)) * PERIODS_MAX;
        reporter.fresh_until = fresh_until;
        let before = reporter.process.overload.clone();
        reporter.process.add(&report.process);
        // What a process gives up that is being replaced says nothing of the proxy.
        if is_former {
            reporter.process.overload.clone_from(&before);
        }
        let overload_worse = reporter.process.overload.is_worse_than(&before);
        reporter.rate.add(now, report.process.requests);
        sums.process.add(&report.process);
        sums.leavings.note(report, fresh_until, catalog);
        for part in &report.backends {
            sums.add(&report.proxy, report.sequence, part, catalog, now);
        }
        Counted { sequence: report.sequence, is_news: !is_former, overload_worse }
    }

    /// The totals of one backend, and the share of each proxy in them.
    #[must_use]
    pub fn backend(
        &self,
        id: &BackendId,
        incarnation: Incarnation,
    ) -> (Totals, Vec<(ProxyId, Totals)>) {
        let now = Instant::now();
        let sums = self.lock();
        let Some(backend) = sums.backends.get(&(id.clone(), incarnation)) else {
            return (Totals::default(), Vec::new());
        };
        let shares: Vec<(ProxyId, Totals)> = backend
            .by_proxy
            .iter()
            .map(|(proxy, share)| {
                let in_flight = sums.in_flight(proxy, share, now);
                (proxy.clone(), share.sum.totals(now, in_flight))
            })
            .collect();
        let in_flight = shares.iter().map(|(_, share)| share.in_flight).sum();
        (backend.all.totals(now, in_flight), shares)
    }

    /// What each proxy that reports has left of one backend, while that drains.
    #[must_use]
    pub fn leavings(&self, id: &BackendId, incarnation: Incarnation) -> HashMap<ProxyId, Leaving> {
        let sums = &*self.lock();
        let current = |proxy: &ProxyId| sums.proxies.get(proxy).map(|r| r.instance.as_str());
        sums.leavings.of(id, incarnation, current, Instant::now())
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
        let found = |id| {
            let backend = sums.backends.get(id)?;
            Some((backend.all.counters.clone(), sums.backend_in_flight(backend, now)))
        };
        ids.iter().map(|id| found(id).unwrap_or_default()).collect()
    }

    /// The totals of every pool that was ever reported.
    #[must_use]
    pub fn pools(&self) -> BTreeMap<PoolName, Totals> {
        let now = Instant::now();
        let sums = self.lock();
        let mut in_flight: HashMap<&PoolName, u32> = HashMap::new();
        for backend in sums.backends.values() {
            *in_flight.entry(&backend.pool).or_default() += sums.backend_in_flight(backend, now);
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
        let in_flight = sums.backends.values().map(|b| sums.backend_in_flight(b, now)).sum();
        sums.all.totals(now, in_flight)
    }

    /// The processes of all proxies together; gauges of those that report.
    #[must_use]
    pub fn process(&self) -> Process {
        let now = Instant::now();
        let sums = self.lock();
        let fresh = || sums.proxies.values().filter(|reporter| reporter.is_fresh(now));
        Process {
            client_connections: fresh().map(|r| r.process.client_connections).sum(),
            worker_connections: Vec::new(),
            connections_max: fresh().map(|r| r.process.connections_max).sum(),
            memory_max: 0,
            overload: Overload::default(),
            resident_bytes: fresh().map(|r| r.process.resident_bytes).sum(),
            cpu_us: sums.proxies.values().map(|r| r.process.cpu_us).sum(),
            ..sums.process.clone()
        }
    }

    /// How many proxies are at each stage of overload but the normal one.
    #[must_use]
    pub fn overloaded(&self) -> Vec<(&'static str, u32)> {
        let sums = self.lock();
        let stages = Stage::ALL.into_iter().filter(|stage| *stage != Stage::Normal);
        let at = |stage: Stage| {
            let reporters = sums.proxies.values();
            let count = reporters.filter(|r| r.process.overload.stage == stage.name()).count();
            (stage.name(), u32::try_from(count).unwrap_or(u32::MAX))
        };
        stages.map(at).collect()
    }

    /// The process of one proxy, and its requests per second.
    #[must_use]
    pub fn proxy(&self, id: &ProxyId) -> Option<(Process, f64)> {
        let now = Instant::now();
        let sums = self.lock();
        let reporter = sums.proxies.get(id)?;
        Some((reporter.process.clone(), reporter.rate.per_second(now)))
    }

    /// Drops what is kept for backends that are gone. Their pools keep the sums.
    pub fn forget_removed(&self, catalog: &Catalog) {
        let sums = &mut *self.lock();
        sums.backends.retain(|(id, incarnation), _| is_known(catalog, id, *incarnation));
        let Sums { proxies, leavings, .. } = sums;
        let current = |proxy: &ProxyId| proxies.get(proxy).map(|r| r.instance.as_str());
        leavings.forget_ended(current, Instant::now());
    }

    /// A proxy that is gone has nothing in flight.
    pub fn lose(&self, id: &ProxyId) {
        if let Some(reporter) = self.lock().proxies.get_mut(id) {
            reporter.fresh_until = Instant::now();
            reporter.process.overload = Overload::default();
        }
    }

    /// Drops what is kept for one proxy. The sums keep what it did.
    pub fn forget_proxy(&self, id: &ProxyId) {
        let mut sums = self.lock();
        sums.proxies.remove(id);
        sums.leavings.forget(id);
        for backend in sums.backends.values_mut() {
            backend.by_proxy.remove(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sums {
    fn add(
        &mut self,
        proxy: &ProxyId,
        sequence: u64,
        part: &BackendPart,
        catalog: &Catalog,
        now: Instant,
    ) {
        if !catalog.pools().contains_key(&part.pool) && !self.pools.contains_key(&part.pool) {
            return;
        }
        self.all.add(now, &part.counters);
        self.pools.entry(part.pool.clone()).or_default().add(now, &part.counters);
        if !is_known(catalog, &part.backend, part.incarnation) {
            return;
        }
        let BackendPart { pool, backend, incarnation, counters, in_flight, .. } = part;
        let key = (backend.clone(), *incarnation);
        let backend = self.backends.entry(key).or_insert_with(|| BackendSums {
            pool: pool.clone(),
            all: Sum::default(),
            by_proxy: BTreeMap::new(),
        });
        backend.all.add(now, counters);
        let share = backend.by_proxy.entry(proxy.clone()).or_default();
        share.sum.add(now, counters);
        share.in_flight = *in_flight;
        share.told_in = sequence;
    }

    /// A backend that the newest report does not name has nothing in flight there.
    fn in_flight(&self, proxy: &ProxyId, share: &ProxySum, now: Instant) -> u32 {
        match self.proxies.get(proxy) {
            Some(reporter) if reporter.sequence == share.told_in && reporter.is_fresh(now) => {
                share.in_flight
            }
            _ => 0,
        }
    }

    fn backend_in_flight(&self, backend: &BackendSums, now: Instant) -> u32 {
        backend.by_proxy.iter().map(|(proxy, share)| self.in_flight(proxy, share, now)).sum()
    }
}

fn is_known(catalog: &Catalog, id: &BackendId, incarnation: Incarnation) -> bool {
    catalog.backends().get(id).is_some_and(|stored| stored.value.incarnation == incarnation)
}

impl Sum {
    fn add(&mut self, now: Instant, counters: &BackendCounters) {
        self.counters.add(counters);
        self.rate.add(now, counters.requests);
    }

    fn totals(&self, now: Instant, in_flight: u32) -> Totals {
        let request_rate = self.rate.per_second(now);
        Totals { counters: self.counters.clone(), in_flight, request_rate }
    }
}

#[cfg(test)]
mod tests;
