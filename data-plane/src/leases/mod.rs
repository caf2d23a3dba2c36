//! This proxy's shares of what holds over the whole fleet.
//!
//! [`lb_core::lease`] says what may be used when. Here the control thread holds the shares,
//! reports about them and takes in grants; workers decide about requests by what it
//! publishes, without waiting for anybody.
//!
//! | part | does |
//! |---|---|
//! | `cap` | slots for requests in progress, as workers take them |
//! | `line` | the requests of a pool that wait for a slot, of all workers |
//! | `rate` | rates, as workers follow them |
//! | `published` | a value that the control thread changes and workers keep a copy of |
//! | `held` | one quantity on the control thread |
//! | `keeper` | the conversation with the control plane |
//! | `remembered` | what is kept on disk for the next start |

mod cap;
mod held;
mod keeper;
mod line;
mod published;
mod rate;
mod remembered;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lb_core::{
    lease::{Holder, OnLoss, Quantity, Wanted},
    limit::Table,
    model::{PoolEntry, PoolName},
};
use tokio::sync::Notify;

use self::held::{Held, HeldKeys, HeldRate, HeldSlots};
pub(crate) use self::{
    cap::{Cap, Permit, PoolCaps},
    keeper::run,
    line::{Line, Waiter},
    rate::{KeyLease, RateLease},
    remembered::{Remembered, Shelf},
};
use crate::{live::BackendState, worker::now};

/// All shares of this proxy. Its lock is the control thread's alone.
#[derive(Debug)]
pub(crate) struct Leases {
    state: Mutex<State>,
    /// A worker has something that the control plane should know soon.
    news: Arc<Notify>,
    workers: usize,
}

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<Quantity, Held>,
    lines: BTreeMap<PoolName, Arc<Line>>,
    /// Of an earlier start of this proxy.
    remembered: Remembered,
    /// Holders that were made since the process began.
    holders: u64,
}

impl Leases {
    /// Holds nothing yet.
    pub(crate) fn new(workers: usize, remembered: Remembered) -> Self {
        let state = State { remembered, ..State::default() };
        Self { state: Mutex::new(state), news: Arc::default(), workers }
    }

    /// The slots that requests of a pool need; none if the configuration limits nothing.
    pub(crate) fn caps(
        &self,
        entry: &PoolEntry,
        backends: &[Arc<BackendState>],
    ) -> Option<Arc<PoolCaps>> {
        let of_pool = Quantity::of_pool(&entry.pool);
        let of_backends: Vec<_> = entry
            .backends
            .values()
            .map(|backend| Quantity::of_backend(&backend.backend, &entry.pool))
            .collect();
        if of_pool.is_none() && of_backends.iter().all(Option::is_none) {
            return None;
        }
        let state = &mut *self.lock();
        let concurrency = entry.pool.concurrency;
        let line = Arc::clone(
            state
                .lines
                .entry(entry.pool.name.clone())
                .or_insert_with(|| Arc::new(Line::new(Arc::clone(&self.news)))),
        );
        line.set_length(concurrency.queue_length as usize);
        let pool = of_pool.map(|wanted| state.cap(wanted, &line, backends, &self.news));
        let caps = of_backends.into_iter().zip(backends).map(|(wanted, backend)| {
            wanted.map(|wanted| state.cap(wanted, &line, std::slice::from_ref(backend), &self.news))
        });
        let caps: Box<[Option<Arc<Cap>>]> = caps.collect();
        let capped = caps.iter().flatten().count() as u64;
        for cap in caps.iter().flatten() {
            state.share_waiting(&cap.quantity, capped);
        }
        Some(Arc::new(PoolCaps::new(line, pool, caps)))
    }

    /// The rate that a limit has in this proxy.
    pub(crate) fn rate(&self, quantity: &Quantity, wanted: Wanted) -> Arc<RateLease> {
        let state = &mut *self.lock();
        if let Some(Held::Rate(held)) = state.held.get_mut(quantity) {
            held.change(wanted, now());
            return Arc::clone(&held.lease);
        }
        let (number, holder) = state.holder(quantity, wanted);
        let held = HeldRate::new(number, holder, wanted, self.workers, now());
        let lease = Arc::clone(&held.lease);
        state.replace(quantity.clone(), Held::Rate(held));
        lease
    }

    /// The rates that the keys of a limit have in this proxy. `table` has their buckets, and
    /// is made if the limit is new here.
    pub(crate) fn rate_by_key(
        &self,
        quantity: &Quantity,
        wanted: Wanted,
        table: impl FnOnce() -> Table,
    ) -> Arc<KeyLease> {
        let state = &mut *self.lock();
        if let Some(Held::Keys(held)) = state.held.get_mut(quantity) {
            held.change(wanted, now());
            return Arc::clone(&held.lease);
        }
        let (number, _) = state.holder(quantity, wanted);
        let proxies = state.remembered.get(quantity).map_or(1, |(_, proxies)| proxies);
        let held = HeldKeys::new(number, wanted, proxies, table(), now());
        let lease = Arc::clone(&held.lease);
        state.replace(quantity.clone(), Held::Keys(held));
        lease
    }

    /// Gives up what the configuration wants no more.
    pub(crate) fn retain(&self, wanted: &BTreeSet<Quantity>) {
        let state = &mut *self.lock();
        for (_, held) in state.held.extract_if(.., |quantity, _| !wanted.contains(quantity)) {
            held.give_up();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cap(
        &mut self,
        (quantity, wanted): (Quantity, Wanted),
        line: &Arc<Line>,
        backends: &[Arc<BackendState>],
        news: &Arc<Notify>,
    ) -> Arc<Cap> {
        if let Some(Held::Slots(held)) = self.held.get_mut(&quantity) {
            held.change(wanted, line, backends);
            return Arc::clone(&held.cap);
        }
        let (number, holder) = self.holder(&quantity, wanted);
        let cap = Arc::new(Cap::new(quantity.clone(), Arc::clone(news), now()));
        let held = HeldSlots::new(number, holder, Arc::clone(&cap), line, backends, now());
        self.replace(quantity, Held::Slots(held));
        cap
    }

    /// Requests that wait may go to any of so many backends.
    fn share_waiting(&mut self, quantity: &Quantity, among: u64) {
        if let Some(Held::Slots(held)) = self.held.get_mut(quantity) {
            held.waiting_among = among;
        }
    }

    /// A holder, and its number.
    fn holder(&mut self, quantity: &Quantity, wanted: Wanted) -> (u64, Holder) {
        self.holders += 1;
        // What was remembered is of this process's former start, and is used once.
        let (safe, proxies) = self.remembered.take(quantity).unwrap_or((0, 1));
        let holder = Holder::new(wanted.terms(), OnLoss::SafeShare, safe, proxies, now());
        (self.holders, holder)
    }

    fn replace(&mut self, quantity: Quantity, held: Held) {
        if let Some(former) = self.held.insert(quantity, held) {
            former.give_up();
        }
    }
}
