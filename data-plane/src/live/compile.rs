//! From a snapshot to what workers serve from.

mod compiled;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use lb_core::{
    balance::{Candidate, Phase, Picker},
    health::candidates,
    model::{
        Affinity, Algorithm, BackendEntry, ListenerName, Pool, PoolEntry, PoolName, Snapshot,
        Version,
    },
};

use self::compiled::{Compiled, Known, States, are_quiet};
use super::{
    BackendState, Caution, Config, Identity, Ledger, ListenerConfig, LoopMark, Management, Outlook,
    Padded, PoolConfig, Retries, Routes, Sticky, Trouble,
    facts::Facts,
    limits::LimitCompiler,
    outlook::{Members, tell_panic},
    routes::RouteCompiler,
    sticky,
};
use crate::{leases::Leases, worker::now};

/// Compiles snapshots, and carries over what must survive.
#[derive(Debug)]
pub(crate) struct Compiler {
    workers: usize,
    listeners: Arc<[ListenerName]>,
    phase: Phase,
    serials: u64,
    configs: u64,
    pools: BTreeMap<PoolName, Compiled>,
    ledger: Arc<Ledger>,
    trouble: Arc<Trouble>,
    outlook: Outlook,
    leases: Arc<Leases>,
    management: Option<Management>,
    /// What `management` was made from.
    told: Option<Result<Vec<SocketAddr>, String>>,
    routes: RouteCompiler,
    limits: LimitCompiler,
    /// What has been replaced, and that requests may still hold.
    replaced: Vec<Arc<Config>>,
}

impl Compiler {
    #[cfg(test)]
    pub(crate) fn new(workers: usize, listeners: Vec<ListenerName>) -> Self {
        Self::with_limit_keys(workers, listeners, 100)
    }

    /// A compiler for a proxy whose limits by key tell `limit_keys` keys apart each.
    pub(crate) fn with_limit_keys(
        workers: usize,
        listeners: Vec<ListenerName>,
        limit_keys: usize,
    ) -> Self {
        Self {
            leases: Arc::new(Leases::new(workers)),
            workers,
            listeners: listeners.into(),
            phase: Phase::default(),
            serials: 0,
            configs: 0,
            pools: BTreeMap::new(),
            ledger: Arc::default(),
            trouble: Arc::new(Trouble::new()),
            outlook: Outlook::default(),
            management: None,
            told: None,
            routes: RouteCompiler::new(workers),
            limits: LimitCompiler::new(workers, limit_keys),
            replaced: Vec::new(),
        }
    }

    /// Takes a configuration that no request begins with any more, and drops it when the last one
    /// has ended: whoever drops the last copy goes through all of its backends, which would keep a
    /// worker from its requests.
    pub(crate) fn bury(&mut self, config: Arc<Config>) {
        self.replaced.retain(|config| Arc::strong_count(config) > 1);
        self.replaced.push(config);
    }

    /// The counters of all pools, removed backends included.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// The shares of what holds over the whole fleet.
    pub(crate) fn leases(&self) -> Arc<Leases> {
        Arc::clone(&self.leases)
    }

    /// How workers tell that it should be compiled anew.
    pub(crate) fn trouble(&self) -> Arc<Trouble> {
        Arc::clone(&self.trouble)
    }

    /// A control plane is heard, whose clock tells `now_unix_ms`; 0 when it does not say. Whether
    /// that changes what is to be served.
    pub(crate) fn hear(&mut self, now_unix_ms: u64) -> bool {
        self.outlook.hear(now_unix_ms);
        self.replaced.retain(|config| Arc::strong_count(config) > 1);
        self.is_unsettled()
    }

    /// No control plane is heard any more. Whether that changes what is to be served.
    pub(crate) fn lose(&mut self) -> bool {
        self.outlook.lose();
        self.is_unsettled()
    }

    fn is_unsettled(&self) -> bool {
        let failures = self.trouble.failures();
        self.pools.values().any(|pool| pool.is_unsettled(failures))
    }

    /// Makes `/lb/...` management and not traffic.
    pub(crate) fn expose_management(&mut self) {
        self.management = Some(Management::unknown());
    }

    /// Whether `/lb/...` is management.
    pub(crate) fn exposes_management(&self) -> bool {
        self.management.is_some()
    }

    /// Takes note of where the control plane's HTTP is, or why it cannot be reached. Whether
    /// that is new.
    pub(crate) fn set_management(&mut self, told: Result<Vec<SocketAddr>, String>) -> bool {
        if self.told.as_ref() == Some(&told) {
            return false;
        }
        let management = match &told {
            Ok(addresses) => {
                self.serials += 1;
                Management::at(addresses, self.serials, self.workers, &self.trouble)
                    .unwrap_or_else(|invalid| Management::Away(invalid.to_string().into()))
            }
            Err(why) => Management::Away(why.as_str().into()),
        };
        self.management = Some(management);
        self.told = Some(told);
        true
    }

    /// Where this proxy stands among the others. It matters from the next change of
    /// a pool's backends on: a running cycle goes on where it is.
    pub(crate) fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Compiles what is new in a snapshot.
    pub(crate) fn compile(&mut self, snapshot: &Snapshot, version: Option<Version>) -> Config {
        let mut pools = BTreeMap::new();
        // Asked before anything is looked at: what fails from now on is another number.
        let failures = self.trouble.failures();
        for (name, entry) in snapshot.pools() {
            let has_spare = snapshot.has_spare(&entry.pool);
            let is_as_before = |former: &Compiled| {
                Arc::ptr_eq(&former.entry, entry)
                    && former.has_spare == has_spare
                    && !former.is_unsettled(failures)
            };
            let compiled = match self.pools.remove(name) {
                Some(former) if is_as_before(&former) => former,
                former => {
                    let is_spared = has_spare && self.is_spared(&entry.pool, snapshot, &pools);
                    self.compile_pool(entry, (has_spare, is_spared), former.as_ref(), failures)
                }
            };
            pools.insert(name.clone(), compiled);
        }
        let gone = std::mem::replace(&mut self.pools, pools).into_values();
        gone.for_each(|pool| pool.config.backends.iter().for_each(|state| state.set_closed(true)));
        let caps = self.pools.values().filter_map(|pool| pool.config.caps.as_ref());
        let wanted = caps.flat_map(|caps| caps.all()).map(|cap| cap.quantity.clone());
        let limits = self.limits.compile(snapshot, &self.leases, self.phase.count, now());
        let of_limits = limits.iter().flat_map(|limits| limits.quantities());
        let wanted = wanted.chain(of_limits).collect();
        self.leases
            .retain(&wanted, |quantity| self.pools.values().any(|pool| pool.config.has(quantity)));
        self.outlook.settle();
        self.configs += 1;
        let cuts = self.pools.values().flat_map(|pool| &pool.facts).any(|facts| facts.cuts);
        let routes = self.routes.compile(snapshot, self.phase);
        let listener = |name: &ListenerName| {
            let listener = Arc::clone(snapshot.listeners().get(name)?);
            let routes = routes.tables.get(name).cloned();
            let routes = routes.unwrap_or_else(|| Arc::new(Routes::new([])));
            Some(ListenerConfig { listener, routes })
        };
        Config {
            serial: self.configs,
            version,
            listeners: self.listeners.iter().map(listener).collect(),
            listener_names: Arc::clone(&self.listeners),
            pools: self.pools.values().map(|compiled| Arc::clone(&compiled.config)).collect(),
            limits,
            route_counters: Arc::clone(routes.counters),
            counters_places: Arc::clone(routes.places),
            cuts,
            session_keys: snapshot.session_keys().cloned(),
            mark: version.map_or_else(LoopMark::default, |version| LoopMark::of(version.epoch)),
            management: self.management.clone(),
        }
    }

    /// Whether this proxy, too, finds a backend in a pool's fallback pool that is well. Two that
    /// stand in for each other are never both avoided altogether: the second one has no spare then.
    /// Nor is a pool whose sessions are strict: their clients may go nowhere else, and try nobody.
    fn is_spared(
        &self,
        pool: &Pool,
        snapshot: &Snapshot,
        done: &BTreeMap<PoolName, Compiled>,
    ) -> bool {
        if matches!(&pool.affinity, Affinity::Cookie(cookie) if cookie.strict) {
            return false;
        }
        let Some(name) = &pool.fallback.pool else { return false };
        let Some(spare) = snapshot.pools().get(name) else { return false };
        let states = done.get(name).or_else(|| self.pools.get(name));
        let states = states.map_or(&[][..], |compiled| &compiled.config.backends);
        let is_avoided = |id| {
            let place = states.binary_search_by(|state| state.identity.id.cmp(id));
            place.is_ok_and(|place| states[place].is_avoided())
        };
        spare.members().any(|(backend, status)| {
            candidates::is_well(backend, status) && !is_avoided(&backend.id)
        })
    }

    /// Compiles a pool. Told is whether its fallback pool has a backend that is well by the fleet's
    /// word, and whether this proxy finds so, too.
    fn compile_pool(
        &mut self,
        entry: &Arc<PoolEntry>,
        (has_spare, is_spared): (bool, bool),
        former: Option<&Compiled>,
        failures: u64,
    ) -> Compiled {
        let breaker = entry.pool.resilience.breaker;
        let were_quiet = former.is_some_and(|former| {
            former.quiet_at == Some(failures) && former.entry.pool.resilience.breaker == breaker
        });
        let were_quiet = were_quiet && !breaker.is_off() && !self.outlook.takes_over();
        let mut known = former.map(|former| former.members().peekable());
        let count = entry.backends.len();
        let none = Arc::default();
        let mut states = States::after(former.map_or(&none, |former| &former.config.backends));
        let (mut facts, mut were_ejected) = (Vec::with_capacity(count), Vec::with_capacity(count));
        // Both in order of ids, so that one walk finds who was here before. Of thousands nearly
        // all are as they were, and are not looked into: that they are the same is seen by where
        // they are kept.
        for (id, backend) in entry.backends.iter() {
            let as_before = |known: &Known<'_>| Arc::ptr_eq(known.entry, backend);
            if let Some(known) = known.as_mut().and_then(|known| known.next_if(as_before)) {
                states.push(known.state);
                facts.push(*known.facts);
                were_ejected.push(known.facts.pick.is_ejected);
                continue;
            }
            let known = known.as_mut().and_then(|known| {
                while let Some(gone) = known.next_if(|known| known.state.identity.id < *id) {
                    gone.state.set_closed(true);
                }
                known.next_if(|known| known.state.identity.id == *id)
            });
            let of_backend = Facts::of(backend);
            facts.push(of_backend);
            were_ejected.push(known.as_ref().is_some_and(|known| known.facts.pick.is_ejected));
            let state = self.backend(entry, backend, known.map(|known| known.state));
            state.set_avoid_after(breaker.consecutive_failures);
            state.set_cutting(of_backend.cuts);
            state.set_closed(!backend.backend.is_wanted());
            states.push(&state);
        }
        let backends = states.finish();
        known.into_iter().flatten().for_each(|gone| gone.state.set_closed(true));
        let now = now();
        let members = Members {
            pool: entry,
            facts: &facts,
            were_ejected: &were_ejected,
            backends: &backends,
            are_quiet: were_quiet,
        };
        let out = self.outlook.out(&members, is_spared, now);
        let quiet_at = (were_quiet || are_quiet(&backends)).then_some(failures);
        let told = facts.iter().map(|facts| facts.pick).zip(out.iter().copied());
        let eligible = candidates::of_facts(&entry.pool, has_spare, told);
        tell_panic(&entry.pool.name, former.and_then(|former| former.config.panic), &eligible);
        // The ids of the places, and not those of the states: these lie apart in memory, and of
        // thousands each would be fetched.
        let members = (0u32..).zip(entry.backends.keys()).zip(&facts).zip(&eligible.places);
        let candidates: Vec<Candidate<'_>> = members
            .filter(|(_, place)| place.is_candidate())
            .map(|(((slot, id), facts), _)| Candidate {
                slot,
                id: id.as_str(),
                weight: facts.weight,
            })
            .collect();
        let ready: Vec<(u32, u16)> = candidates.iter().map(|one| (one.slot, one.weight)).collect();
        let picker = Picker::build(entry.pool.algorithm, &candidates);
        let cursor = match former {
            Some(former) if former.has_members(entry.pool.algorithm, &backends, &ready) => {
                Arc::clone(&former.config.cursor)
            }
            _ => Arc::new(Padded(AtomicU64::new(picker.start(self.phase)))),
        };
        let former_sticky = former.and_then(|former| former.config.sticky.as_deref());
        let context = sticky::Context { candidates: &candidates, workers: self.workers, now };
        let sticky =
            Sticky::compile(entry, &backends, &eligible, &self.outlook, former_sticky, context);
        let has_slots = facts.iter().any(|facts| facts.has_slots);
        let caps = self.leases.caps(entry, &backends, has_slots);
        let mut config = PoolConfig {
            caps,
            picker,
            sticky,
            cursor,
            backends,
            caution: Caution::of(
                &eligible,
                &out,
                self.outlook.ramps(entry, &facts, &eligible, now),
            ),
            panic: eligible.panic,
            ..empty_pool(&entry.pool, self.workers)
        };
        if let Some(former) = former {
            config.retries = Arc::clone(&former.config.retries);
            config.fallen = Arc::clone(&former.config.fallen);
        }
        let (entry, config) = (Arc::clone(entry), Arc::new(config));
        Compiled { entry, config, facts, ready, has_spare, quiet_at }
    }

    fn backend(
        &mut self,
        pool: &PoolEntry,
        entry: &BackendEntry,
        known: Option<&Arc<BackendState>>,
    ) -> Arc<BackendState> {
        let addresses = entry.backend.addresses(entry.status.as_ref());
        let name = &pool.pool.name;
        let is_same = |known: &&Arc<BackendState>| known.identity.is_of(&entry.backend);
        if let Some(replaced) = known.filter(|known| !is_same(known)) {
            replaced.set_closed(true);
        }
        let known = known.filter(is_same);
        if let Some(known) = known.filter(|known| *known.addresses == *addresses) {
            return Arc::clone(known);
        }
        self.serials += 1;
        let (name, serial, addresses) = (name.clone(), self.serials, addresses.into());
        Arc::new(match known {
            Some(known) => known.at(name, serial, addresses),
            None => {
                let identity = Identity::of(&entry.backend);
                let state = BackendState::new(
                    identity,
                    name,
                    serial,
                    addresses,
                    self.workers,
                    &self.trouble,
                );
                self.ledger.open(&state);
                state
            }
        })
    }
}

/// A pool's policy without backends.
pub(super) fn empty_pool(pool: &Pool, workers: usize) -> PoolConfig {
    PoolConfig {
        name: pool.name.clone(),
        connect_timeout: pool.connect_timeout,
        request_timeout: pool.request_timeout,
        connections: pool.connections,
        retry: pool.resilience.retry,
        error_hold: match pool.algorithm {
            Algorithm::LeastConnections(parameters) => parameters.error_hold(),
            Algorithm::RoundRobin | Algorithm::WeightedRoundRobin | Algorithm::IpHash => {
                Duration::ZERO
            }
        },
        caps: None,
        queue_timeout: pool.concurrency.queue_timeout,
        watches_load: matches!(pool.algorithm, Algorithm::LeastConnections(_)),
        breaker: pool.resilience.breaker,
        sticky: None,
        caution: None,
        panic: None,
        picker: Picker::build(pool.algorithm, &[]),
        cursor: Arc::default(),
        retries: Arc::new(Retries::new(workers)),
        fallback: pool.fallback.clone(),
        fallen: Arc::default(),
        backends: Arc::default(),
    }
}

#[cfg(test)]
mod tests;
