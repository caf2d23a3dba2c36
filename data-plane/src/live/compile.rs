//! From a snapshot to what workers serve from.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use lb_core::{
    balance::{Candidate, Phase, Picker},
    model::{
        Algorithm, BackendEntry, ListenerName, Pool, PoolEntry, PoolName, Snapshot, Version,
        natural_order,
    },
};

use super::{
    BackendState, Config, Identity, Ledger, ListenerConfig, Management, Padded, PoolConfig,
    RouteTable,
};

/// Compiles snapshots, and carries over what must survive.
#[derive(Debug)]
pub(crate) struct Compiler {
    workers: usize,
    listeners: Vec<ListenerName>,
    phase: Phase,
    serials: u64,
    configs: u64,
    pools: BTreeMap<PoolName, Compiled>,
    ledger: Arc<Ledger>,
    management: Option<Management>,
    /// What `management` was made from.
    told: Option<Result<Vec<SocketAddr>, String>>,
}

#[derive(Debug)]
struct Compiled {
    entry: Arc<PoolEntry>,
    config: Arc<PoolConfig>,
    /// What the picker was built from: as long as it stays, so does the cursor.
    members: Members,
}

#[derive(Debug, PartialEq)]
struct Members {
    algorithm: Algorithm,
    ready: Vec<(Identity, u16)>,
}

impl Compiler {
    pub(crate) fn new(workers: usize, listeners: Vec<ListenerName>) -> Self {
        Self {
            workers,
            listeners,
            phase: Phase::default(),
            serials: 0,
            configs: 0,
            pools: BTreeMap::new(),
            ledger: Arc::default(),
            management: None,
            told: None,
        }
    }

    /// The counters of all pools, removed backends included.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
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
                Management::at(addresses, self.serials, self.workers)
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
        for (name, entry) in snapshot.pools() {
            let compiled = match self.pools.remove(name) {
                Some(former) if Arc::ptr_eq(&former.entry, entry) => former,
                former => self.compile_pool(entry, former.as_ref()),
            };
            pools.insert(name.clone(), compiled);
        }
        self.pools = pools;
        self.configs += 1;
        Config {
            serial: self.configs,
            version,
            listeners: self.listeners.iter().map(|name| self.listener(snapshot, name)).collect(),
            pools: self.pools.values().map(|compiled| Arc::clone(&compiled.config)).collect(),
            management: self.management.clone(),
        }
    }

    fn listener(&self, snapshot: &Snapshot, name: &ListenerName) -> Option<ListenerConfig> {
        let listener = Arc::clone(snapshot.listeners().get(name)?);
        let routes = snapshot.routes().values().filter(|route| route.listener == *name);
        let routes = routes.filter_map(|route| {
            // The snapshot is consistent: every route's pool is there.
            let index = self.pools.keys().position(|pool| *pool == route.pool)?;
            Some((&**route, index))
        });
        Some(ListenerConfig { listener, routes: Arc::new(RouteTable::new(routes)) })
    }

    fn compile_pool(&mut self, entry: &Arc<PoolEntry>, former: Option<&Compiled>) -> Compiled {
        let known: HashMap<&Identity, &Arc<BackendState>> = former
            .map(|former| former.config.backends.iter().map(|b| (&b.identity, b)).collect())
            .unwrap_or_default();
        let mut entries: Vec<&Arc<BackendEntry>> = entry.backends.values().collect();
        entries.sort_by(|a, b| natural_order(a.backend.id.as_str(), b.backend.id.as_str()));
        let backends: Vec<Arc<BackendState>> = entries
            .iter()
            .map(|backend| self.backend(entry, backend, known.get(&identity(backend)).copied()))
            .collect();
        let ready = |(slot, backend): (u32, &&Arc<BackendEntry>)| {
            backend.is_ready().then_some((slot, backend.backend.weight.get()))
        };
        let ready: Vec<(u32, u16)> = (0u32..).zip(&entries).filter_map(ready).collect();
        let members = Members {
            algorithm: entry.pool.algorithm,
            ready: ready
                .iter()
                .map(|(slot, weight)| (backends[*slot as usize].identity.clone(), *weight))
                .collect(),
        };
        let candidates: Vec<Candidate<'_>> = ready
            .iter()
            .map(|&(slot, weight)| Candidate {
                slot,
                id: backends[slot as usize].identity.id.as_str(),
                weight,
            })
            .collect();
        let picker = Picker::build(entry.pool.algorithm, &candidates);
        let cursor = match former {
            Some(former) if former.members == members => Arc::clone(&former.config.cursor),
            _ => Arc::new(Padded(AtomicU64::new(picker.start(self.phase)))),
        };
        let config = PoolConfig { picker, cursor, backends, ..empty_pool(&entry.pool) };
        Compiled { entry: Arc::clone(entry), config: Arc::new(config), members }
    }

    fn backend(
        &mut self,
        pool: &PoolEntry,
        entry: &BackendEntry,
        known: Option<&Arc<BackendState>>,
    ) -> Arc<BackendState> {
        let addresses: Box<[SocketAddr]> = entry
            .status
            .as_ref()
            .map(|status| status.addresses.as_slice().into())
            .unwrap_or_default();
        let name = &pool.pool.name;
        if let Some(known) = known
            && known.addresses == addresses
            && known.pool == *name
        {
            return Arc::clone(known);
        }
        self.serials += 1;
        let serial = self.serials;
        Arc::new(match known {
            Some(known) => known.at(name.clone(), serial, addresses),
            None => {
                let (identity, pool) = (identity(entry), name.clone());
                let state = BackendState::new(identity, pool, serial, addresses, self.workers);
                self.ledger.open(&state);
                state
            }
        })
    }
}

fn identity(entry: &BackendEntry) -> Identity {
    Identity {
        id: entry.backend.id.clone(),
        incarnation: entry.backend.incarnation,
        address: entry.backend.address.clone(),
    }
}

/// A pool's policy without backends.
pub(super) fn empty_pool(pool: &Pool) -> PoolConfig {
    PoolConfig {
        name: pool.name.clone(),
        connect_timeout: pool.connect_timeout,
        request_timeout: pool.request_timeout,
        connections: pool.connections,
        error_hold: match pool.algorithm {
            Algorithm::LeastConnections(parameters) => parameters.error_hold(),
            Algorithm::RoundRobin | Algorithm::WeightedRoundRobin | Algorithm::IpHash => {
                Duration::ZERO
            }
        },
        watches_load: matches!(pool.algorithm, Algorithm::LeastConnections(_)),
        picker: Picker::build(pool.algorithm, &[]),
        cursor: Arc::default(),
        backends: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use lb_core::model::{
        Backend, BackendId, BackendStatus, Health, Incarnation, Key, Reason, Resource, Weight,
    };

    use super::{super::CountedBy, *};

    fn with(snapshot: &Snapshot, changes: Vec<Resource>) -> Snapshot {
        let (next, rejected) = snapshot.changed(changes, &[]);
        assert_eq!(rejected, []);
        next
    }

    fn backend(id: &str, incarnation: u64, port: u16) -> [Resource; 2] {
        let id = BackendId::new(id).unwrap();
        let incarnation = Incarnation(incarnation);
        [
            Resource::Backend(Backend {
                id: id.clone(),
                pool: PoolName::default_pool(),
                address: format!("127.0.0.1:{port}").parse().unwrap(),
                weight: Weight::default(),
                admin_state: Default::default(),
                labels: Default::default(),
                incarnation,
            }),
            Resource::Status(BackendStatus {
                backend: id,
                incarnation,
                health: Health::Up,
                addresses: vec![([127, 0, 0, 1], port).into()],
                reason: Reason::default(),
                since_unix_ms: 0,
            }),
        ]
    }

    fn three() -> Snapshot {
        let pool = Resource::Pool(Pool::new(PoolName::default_pool()));
        let backends = [backend("b1", 1, 1), backend("b2", 1, 2), backend("b10", 1, 10)];
        with(
            &Snapshot::default(),
            [pool].into_iter().chain(backends.into_iter().flatten()).collect(),
        )
    }

    fn compiler() -> Compiler {
        Compiler::new(2, vec![ListenerName::default_listener()])
    }

    #[test]
    fn backends_stand_in_the_order_in_which_people_count() {
        let config = compiler().compile(&three(), None);
        let ids: Vec<&str> =
            config.pools[0].backends.iter().map(|b| b.identity.id.as_str()).collect();
        assert_eq!(ids, ["b1", "b2", "b10"]);
        assert_eq!(config.pools[0].picker.len(), 3);
    }

    #[test]
    fn an_unchanged_pool_is_taken_over_as_it_is() {
        let (mut compiler, snapshot) = (compiler(), three());
        let before = compiler.compile(&snapshot, None);
        let other = Resource::Pool(Pool::new(PoolName::new("other").unwrap()));
        let after = compiler.compile(&with(&snapshot, vec![other]), None);
        assert!(Arc::ptr_eq(&before.pools[0], &after.pools[0]));
    }

    #[test]
    fn the_cursor_stays_while_the_members_do() {
        let (mut compiler, snapshot) = (compiler(), three());
        let before = compiler.compile(&snapshot, None);
        before.pools[0].cursor.0.store(7, Relaxed);
        let mut slower = Pool::new(PoolName::default_pool());
        slower.request_timeout = Duration::from_secs(99);
        let snapshot = with(&snapshot, vec![Resource::Pool(slower)]);
        let same = compiler.compile(&snapshot, None);
        assert_eq!(same.pools[0].cursor.0.load(Relaxed), 7);
        compiler.set_phase(Phase { index: 1, count: 2 });
        let more = compiler.compile(&with(&snapshot, backend("b3", 5, 3).into()), None);
        assert_eq!(more.pools[0].cursor.0.load(Relaxed), 2);
    }

    #[test]
    fn counters_live_as_long_as_the_backend_does() {
        let (mut compiler, snapshot) = (compiler(), three());
        let before = compiler.compile(&snapshot, None);
        let state = |config: &Config| Arc::clone(&config.pools[0].backends[0]);
        state(&before).enter(CountedBy::All);
        state(&before).count_request(1);
        let mut moved = backend("b1", 1, 1);
        if let Resource::Status(status) = &mut moved[1] {
            status.addresses = vec!["[::1]:1".parse().unwrap()];
        }
        let after = compiler.compile(&with(&snapshot, moved.into()), None);
        assert_eq!(state(&after).in_flight(), 1);
        assert_eq!(state(&after).counters().requests, 1);
        assert_ne!(state(&after).serial, state(&before).serial);
        let (snapshot, _) = snapshot.changed(vec![], &[Key::new("backend", "b1")]);
        let again = compiler.compile(&with(&snapshot, backend("b1", 9, 1).into()), None);
        assert_eq!((state(&again).in_flight(), state(&again).counters().requests), (0, 0));
    }

    #[test]
    fn what_is_not_ready_is_not_picked() {
        let snapshot = three();
        let mut down = backend("b2", 1, 2);
        if let Resource::Status(status) = &mut down[1] {
            status.health = Health::Down;
        }
        let config = compiler().compile(&with(&snapshot, down.into()), None);
        assert_eq!((config.pools[0].backends.len(), config.pools[0].picker.len()), (3, 2));
    }
}
