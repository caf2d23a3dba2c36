//! The compiled configuration: one immutable value that all workers serve from.
//!
//! It is compiled on the control thread from a [`lb_core::model::Snapshot`], pools
//! that did not change are taken over as they are, and each worker swaps it in
//! between two requests. What must survive the swap (counters, requests in flight,
//! the round-robin cursor) hangs on it by [`Arc`] and is carried over by identity.

mod backend;
mod caution;
mod compile;
mod facts;
mod identity;
mod ledger;
mod limits;
mod loop_mark;
mod management;
mod outlook;
mod retries;
mod route_counters;
mod routes;
mod sticky;
mod trial;
mod trouble;

use std::{sync::Arc, sync::atomic::AtomicU64, time::Duration};

use lb_core::{
    affinity::KeyRing,
    balance::{FEW, HashKey, Loads, PickContext, Picker},
    health::panic::Panic,
    lease::{Quantity, QuantityKind},
    model::{
        BackendConnections, BreakerPolicy, Fallback, Listener, ListenerName, PoolName, RetryPolicy,
        SessionKeys, Version,
    },
};

use crate::leases::PoolCaps;

pub(crate) use self::{
    backend::{BackendState, CountedBy, FailureKind, bump},
    caution::{Asked, Caution},
    compile::Compiler,
    identity::Identity,
    ledger::{Ledger, PoolTotals},
    limits::{
        Asking, Basis, LimitConfig, LimitCopies, LimitIndex, LimitSums, Limits, Telling, Told,
        Usual,
    },
    loop_mark::{LoopMark, PASSAGES_MAX},
    management::Management,
    outlook::Outlook,
    retries::Retries,
    route_counters::{CountersIndex, CountersPlaces, RouteCounters},
    routes::{Destination as RouteDestination, PoolIndex, RouteIndex, Routes},
    sticky::{CookieSticky, SessionCounts, Sticky},
    trial::Trial,
    trouble::Trouble,
};

/// Everything that a worker needs to serve.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// Counts configurations of this process: what workers say they have applied.
    pub(crate) serial: u64,
    /// What it was compiled from.
    pub(crate) version: Option<Version>,
    /// By the process's own listener numbers; `None` for a name that the control
    /// plane does not know.
    pub(crate) listeners: Vec<Option<ListenerConfig>>,
    /// The names of all of them.
    pub(crate) listener_names: Arc<[ListenerName]>,
    /// In order of their names; routes point into it.
    pub(crate) pools: Vec<Arc<PoolConfig>>,
    /// The limits on requests; none most of the time.
    pub(crate) limits: Option<Arc<Limits>>,
    /// What clients of the routes were answered; routes point into it.
    pub(crate) route_counters: Arc<[Arc<RouteCounters>]>,
    /// What else is known of these.
    pub(crate) counters_places: Arc<CountersPlaces>,
    /// Some backend's requests are to be cut: those who wait are to look again.
    pub(crate) cuts: bool,
    /// What signs sessions; none while no pool has ever had any.
    pub(crate) session_keys: Option<Arc<SessionKeys>>,
    /// What says of a request that it has passed here.
    pub(crate) mark: LoopMark,
    /// Where `/lb/...` goes; `None` when that is ordinary traffic.
    pub(crate) management: Option<Management>,
}

/// A listener with its routes.
#[derive(Clone, Debug)]
pub(crate) struct ListenerConfig {
    pub(crate) listener: Arc<Listener>,
    pub(crate) routes: Arc<Routes>,
}

/// A pool, ready to pick from.
#[derive(Debug)]
pub(crate) struct PoolConfig {
    pub(crate) name: PoolName,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) connections: BackendConnections,
    pub(crate) retry: RetryPolicy,
    /// How long an errored request counts as in flight; zero where no picker looks.
    pub(crate) error_hold: Duration,
    /// The slots that its requests need; nothing where nothing is limited.
    pub(crate) caps: Option<Arc<PoolCaps>>,
    /// How long a request may wait for one.
    pub(crate) queue_timeout: Duration,
    /// Whether its picker looks at requests in flight.
    pub(crate) watches_load: bool,
    pub(crate) picker: Picker,
    /// Picks start here; shared by all workers.
    pub(crate) cursor: Arc<Padded<AtomicU64>>,
    /// What keeps its clients with their backends; nothing in most pools.
    pub(crate) sticky: Option<Box<Sticky>>,
    /// When a backend of it is avoided, and for how long.
    pub(crate) breaker: BreakerPolicy,
    /// What picks must heed; nothing most of the time.
    pub(crate) caution: Option<Box<Caution>>,
    /// Why backends are picked that are not well.
    pub(crate) panic: Option<Panic>,
    /// What its retries may be taken from; as long-lived as the pool's name.
    pub(crate) retries: Arc<Retries>,
    /// Where its requests go when it has no backend for them.
    pub(crate) fallback: Fallback,
    /// How many went to another pool, and how many got its own answer; as long-lived as its
    /// name.
    pub(crate) fallen: Arc<Fallen>,
    /// By slot. All of the pool, those that get no requests included.
    pub(crate) backends: Arc<[Arc<BackendState>]>,
}

/// Requests of a pool that had no backend for them.
#[derive(Debug, Default)]
pub(crate) struct Fallen {
    pub(crate) to_pool: AtomicU64,
    pub(crate) to_answer: AtomicU64,
}

impl PoolConfig {
    /// Where requests of this pool count as in flight.
    pub(crate) fn counted_by(&self, worker: usize) -> CountedBy {
        if self.watches_load { CountedBy::All } else { CountedBy::Worker(worker) }
    }

    /// Whether this is what a quantity belongs to, or has it.
    pub(crate) fn has(&self, quantity: &Quantity) -> bool {
        match quantity.kind {
            QuantityKind::Pool => self.name.as_str() == &*quantity.name,
            QuantityKind::Backend => self.backends.iter().any(|state| {
                let Identity { id, incarnation, .. } = &state.identity;
                id.as_str() == &*quantity.name && incarnation.0 == quantity.incarnation
            }),
            QuantityKind::Limit => false,
        }
    }

    /// The backends that get nothing new since this was compiled, or before.
    pub(crate) fn closed(&self) -> impl Iterator<Item = u32> {
        let slots = (0u32..).zip(self.backends.iter());
        slots.filter(|(_, state)| state.is_closed()).map(|(slot, _)| slot)
    }

    /// Picks a backend that is none of the `excluded`.
    #[inline]
    pub(crate) fn pick(
        &self,
        key: HashKey<'_>,
        excluded: &[u32],
        rng: &mut fastrand::Rng,
    ) -> Option<u32> {
        // A request that moves on takes no turn: else those that come next would all begin
        // where it failed. Anywhere in the cycle spreads such requests as weights say.
        let elsewhere;
        let cursor = if excluded.is_empty() {
            &self.cursor.0
        } else {
            elsewhere = AtomicU64::new(rng.u64(..));
            &elsewhere
        };
        let in_order;
        let excluded = if excluded.len() > FEW && !excluded.is_sorted() {
            let mut slots = excluded.to_vec();
            slots.sort_unstable();
            in_order = slots;
            &in_order
        } else {
            excluded
        };
        let picker = match key {
            HashKey::Client(_) => &self.picker,
            HashKey::Value(_) => self.picker_of_values(),
        };
        picker.pick(&mut PickContext { key, cursor, loads: self, rng, excluded })
    }

    /// Hashes the value of the field that the pool's clients are told apart by.
    #[cold]
    fn picker_of_values(&self) -> &Picker {
        match self.sticky.as_deref() {
            Some(Sticky::Header(header)) => &header.picker,
            Some(Sticky::Cookie(_)) | None => &self.picker,
        }
    }
}

impl Loads for PoolConfig {
    fn in_flight(&self, slot: u32) -> u32 {
        self.backends[slot as usize].in_flight()
    }
}

impl Config {
    /// Where a pool stands.
    pub(crate) fn place_of(&self, name: &PoolName) -> Option<PoolIndex> {
        self.pools.binary_search_by(|pool| pool.name.cmp(name)).ok()
    }

    /// A process that has not been told anything yet.
    pub(crate) fn empty(listeners: &[ListenerName]) -> Self {
        Self {
            listeners: listeners.iter().map(|_| None).collect(),
            listener_names: listeners.into(),
            ..Self::default()
        }
    }

    /// The keys that sessions are signed with.
    pub(crate) fn ring(&self) -> Option<&KeyRing> {
        self.session_keys.as_ref().map(|keys| &keys.ring)
    }

    /// The listeners of this process that the control plane does not know.
    pub(crate) fn unknown_listeners(&self) -> impl Iterator<Item = &ListenerName> {
        let all = self.listeners.iter().zip(&*self.listener_names);
        all.filter_map(|(config, name)| config.is_none().then_some(name))
    }
}

/// A value that shares its cache lines with nothing else (two lines, because
/// processors fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);
