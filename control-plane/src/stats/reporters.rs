//! The processes of each proxy that report.
//!
//! Mostly there is one. When another one takes over, both report for as long as the former
//! has connections: each counts its reports for itself, and each has requests in flight.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    time::Duration,
};

use lb_core::model::{BackendId, Incarnation, InstanceId, PoolName, ProxyId};
use tokio::time::Instant;

use super::{
    BackendPart, PERIODS_MAX, Report,
    process::{Overload, Process},
    recent::Rate,
    total,
};

/// A former process that was silent for so long will not repeat a report any more.
pub(super) const FORMER_FOR: Duration = Duration::from_secs(600);
/// Processes of one proxy that are told apart; a proxy that is taken over more often in ten
/// minutes loses sight of the one that was silent for longest.
const PROCESSES_MAX: usize = 32;

/// Reports of a process of which the numbers are missing, at most: a proxy repeats what was not
/// answered under the same number, so that hardly any is lost. A greater jump is a new beginning.
pub(super) const LOST_MAX: u64 = 10_000;

/// Proxies with their processes.
#[derive(Debug, Default)]
pub(super) struct Reporters(HashMap<ProxyId, Reporting>);

/// What is kept of one proxy.
#[derive(Debug, Default)]
pub(super) struct Reporting {
    /// The process that is live, as far as is known.
    present: Option<InstanceId>,
    running: HashMap<InstanceId, Running>,
    /// Counters of all of them.
    counted: Process,
    rate: Rate,
}

/// One process.
#[derive(Debug)]
pub(super) struct Running {
    sequence: u64,
    fresh_until: Instant,
    /// Its gauges are those of its newest report.
    gauges: Process,
    /// Of its newest report; a backend that it does not name has nothing in flight.
    in_flight: HashMap<(BackendId, Incarnation), Busy>,
    /// Of the report before that one.
    in_flight_before: HashMap<(BackendId, Incarnation), Busy>,
    /// Backends that it avoids, by its newest report.
    avoided: HashSet<(BackendId, Incarnation)>,
}

/// What a process has in flight at one backend.
#[derive(Clone, Debug)]
struct Busy {
    pool: PoolName,
    in_flight: u32,
    /// Of these, requests whose response has not begun.
    unanswered: u32,
    /// Since when it has told of such, without a report in between that had none.
    unanswered_since: Instant,
}

/// Where a report stands among those of its process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// It was heard; this is the number of the last one.
    Repeated(u64),
    /// It was not, and so many before it are missing.
    New {
        /// Never heard.
        missing: u64,
        /// Its proxy gives up more than before, or less.
        overload_worse: Option<bool>,
    },
}

impl Reporters {
    /// Takes a report's place among those of its process.
    pub(super) fn turn(
        &mut self,
        report: &Report,
        present: Option<&InstanceId>,
        now: Instant,
    ) -> Turn {
        let reporting = self.0.entry(report.proxy.clone()).or_default();
        reporting.present = present.cloned();
        reporting.make_room(&report.instance);
        let running = match reporting.running.entry(report.instance.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            // What it counted before this control plane heard of it is not known to be lost.
            Entry::Vacant(new) => new.insert(Running {
                sequence: report.sequence.saturating_sub(1),
                fresh_until: now,
                gauges: Process::default(),
                in_flight: HashMap::new(),
                in_flight_before: HashMap::new(),
                avoided: HashSet::new(),
            }),
        };
        if report.sequence <= running.sequence {
            return Turn::Repeated(running.sequence);
        }
        let missing = report.sequence - running.sequence - 1;
        let missing = if missing > LOST_MAX { 0 } else { missing };
        running.sequence = report.sequence;
        running.fresh_until = report.fresh_until(now);
        // What a process gives up that is being replaced says nothing of the proxy.
        let overload_worse = (present == Some(&report.instance))
            .then(|| report.process.overload.is_worse_than(&running.gauges.overload))
            .flatten();
        running.gauges.clone_from(&report.process);
        running.in_flight_before = std::mem::take(&mut running.in_flight);
        running.avoided.clear();
        reporting.counted.add(&report.process);
        reporting.rate.add(now, report.interval, &report.process.requests);
        Turn::New { missing, overload_worse }
    }

    /// Notes what a report says of the present of a backend that there is.
    pub(super) fn note_gauges(
        &mut self,
        report: &Report,
        key: (BackendId, Incarnation),
        part: &BackendPart,
        now: Instant,
    ) {
        let running = self.0.get_mut(&report.proxy).map(|reporting| &mut reporting.running);
        let Some(running) = running.and_then(|all| all.get_mut(&report.instance)) else { return };
        if part.avoided {
            running.avoided.insert(key.clone());
        }
        if part.in_flight > 0 {
            let before = running.in_flight_before.get(&key).filter(|busy| busy.unanswered > 0);
            let busy = Busy {
                pool: part.pool.clone(),
                in_flight: part.in_flight,
                unanswered: part.unanswered,
                unanswered_since: before.map_or(now, |busy| busy.unanswered_since),
            };
            running.in_flight.insert(key, busy);
        }
    }

    /// What is kept of one proxy.
    pub(super) fn get(&self, proxy: &ProxyId) -> Option<&Reporting> {
        self.0.get(proxy)
    }

    /// The proxies.
    pub(super) fn ids(&self) -> impl Iterator<Item = &ProxyId> {
        self.0.keys()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Reporting> {
        self.0.values()
    }

    /// The process of a proxy that is live, as far as is known.
    pub(super) fn present(&self, proxy: &ProxyId) -> Option<&InstanceId> {
        self.0.get(proxy)?.present.as_ref()
    }

    /// Drops former processes that will not be heard again.
    pub(super) fn forget_ended(&mut self, now: Instant) {
        for reporting in self.0.values_mut() {
            let Reporting { present, running, .. } = reporting;
            running.retain(|instance, process| {
                present.as_ref() == Some(instance) || now < process.fresh_until + FORMER_FOR
            });
        }
    }

    /// Drops a proxy.
    pub(super) fn forget(&mut self, proxy: &ProxyId) {
        self.0.remove(proxy);
    }
}

impl Reporting {
    /// Processes whose newest report speaks of the present.
    pub(super) fn fresh(&self, now: Instant) -> impl Iterator<Item = &Running> {
        self.running.values().filter(move |process| now < process.fresh_until)
    }

    /// Requests in flight at one backend.
    pub(super) fn in_flight(&self, key: &(BackendId, Incarnation), now: Instant) -> u32 {
        let counts = self.fresh(now).filter_map(|process| process.in_flight.get(key));
        total(counts.map(|busy| busy.in_flight))
    }

    /// Requests at one backend whose response has not begun, and since when there are any; of each
    /// process by itself.
    pub(super) fn unanswered(
        &self,
        key: &(BackendId, Incarnation),
        now: Instant,
    ) -> impl Iterator<Item = (u32, Instant)> {
        let busy = self.fresh(now).filter_map(move |process| process.in_flight.get(key));
        busy.filter(|busy| busy.unanswered > 0).map(|busy| (busy.unanswered, busy.unanswered_since))
    }

    /// Backends at which it has something in flight, with how much; of each process by itself.
    pub(super) fn busy(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (&(BackendId, Incarnation), u32)> {
        let fresh = self.fresh(now).flat_map(|process| &process.in_flight);
        fresh.map(|(key, busy)| (key, busy.in_flight))
    }

    /// Whether it avoids a backend for what it sees itself.
    pub(super) fn avoids(&self, key: &(BackendId, Incarnation), now: Instant) -> bool {
        self.fresh(now).any(|process| process.avoided.contains(key))
    }

    /// What the process that is live gives up, as far as is known.
    pub(super) fn overload(&self, now: Instant) -> Overload {
        let live = self.live().filter(|process| now < process.fresh_until);
        live.map(|process| process.gauges.overload.clone()).unwrap_or_default()
    }

    fn live(&self) -> Option<&Running> {
        self.running.get(self.present.as_ref()?)
    }

    /// Requests per second, lately.
    pub(super) fn rate(&self, now: Instant) -> f64 {
        self.rate.per_second(now)
    }

    /// Counters of all processes, and gauges as they were told last: of the one that is live,
    /// and of those that finish their connections beside it.
    pub(super) fn figures(&self, now: Instant) -> Process {
        let is_present = |instance: &InstanceId| self.present.as_ref() == Some(instance);
        let counted = || {
            let all = self.running.iter();
            all.filter(|(instance, process)| is_present(instance) || now < process.fresh_until)
                .map(|(_, process)| &process.gauges)
        };
        let present = self.live();
        Process {
            client_connections: total(counted().map(|gauges| gauges.client_connections)),
            worker_connections: present
                .map(|process| process.gauges.worker_connections.clone())
                .unwrap_or_default(),
            resident_bytes: counted().map(|gauges| gauges.resident_bytes).sum(),
            connections_max: present.map_or(0, |process| process.gauges.connections_max),
            memory_max: present.map_or(0, |process| process.gauges.memory_max),
            overload: self.overload(now),
            ..self.counted.clone()
        }
    }

    /// Processor time of all its processes.
    pub(super) fn cpu_us(&self) -> u64 {
        self.running.values().map(|process| process.gauges.cpu_us).sum()
    }

    fn make_room(&mut self, newcomer: &InstanceId) {
        if self.running.len() < PROCESSES_MAX || self.running.contains_key(newcomer) {
            return;
        }
        let former = self.running.iter().filter(|(id, _)| self.present.as_ref() != Some(*id));
        let silent = former.min_by_key(|(_, process)| process.fresh_until);
        if let Some(instance) = silent.map(|(instance, _)| instance.clone()) {
            self.running.remove(&instance);
        }
    }
}

impl Running {
    /// The gauges of its newest report.
    pub(super) fn gauges(&self) -> &Process {
        &self.gauges
    }

    /// What it has in flight at backends that there are, with their pools.
    pub(super) fn all_in_flight(&self) -> impl Iterator<Item = (&PoolName, u32)> {
        self.in_flight.values().map(|busy| (&busy.pool, busy.in_flight))
    }
}

impl Report {
    /// Until when its gauges speak of the present.
    pub(super) fn fresh_until(&self, now: Instant) -> Instant {
        // One that tells of long ago is followed by others that do not.
        let period = self.interval.clamp(Duration::from_millis(100), Duration::from_secs(60));
        now + period * PERIODS_MAX
    }
}
