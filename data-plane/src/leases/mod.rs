//! This proxy's shares of what holds over the whole fleet.
//!
//! [`lb_core::lease`] says what may be used when. Here the control thread holds the shares,
//! reports about them and takes in grants; workers decide about requests by what it
//! publishes, without waiting for anybody.
//!
//! | part | does |
//! |---|---|
//! | `answers` | what a pool with adaptive concurrency learns from its requests |
//! | `cap` | slots for requests in progress, as workers take them |
//! | `line` | the requests of a pool that wait for a slot, of all workers |
//! | `rate` | rates, as workers follow them |
//! | `published` | a value that the control thread changes and workers keep a copy of |
//! | `held` | one quantity on the control thread |
//! | `keys` | the same of a limit by key |
//! | `frames` | messages that repeat what has not changed |
//! | `keeper` | the conversation with the control plane |
//! | `remembered` | what is kept on disk for the next start |

mod answers;
mod cap;
mod frames;
mod held;
mod keeper;
mod keys;
mod line;
mod published;
mod rate;
mod remembered;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use lb_core::{
    lease::{Holder, Quantity, Wanted},
    limit::Table,
    model::{PoolEntry, PoolName},
};
use tokio::{sync::Notify, time::timeout};

pub(crate) use self::{
    cap::{Cap, Permit, PoolCaps},
    keeper::run,
    line::{Line, Waiter},
    published::Copy,
    rate::{KeyLease, KeyPaces, RateLease},
    remembered::Shelf,
};
use self::{
    held::{Held, HeldRate, HeldSlots},
    keys::HeldKeys,
    remembered::Remembered,
};
use crate::{live::BackendState, worker::now};

/// All shares of this proxy. Its lock is the control thread's alone.
#[derive(Debug)]
pub(crate) struct Leases {
    state: Mutex<State>,
    /// A worker has something that the control plane should know soon.
    news: Arc<Notify>,
    workers: usize,
    /// The process ends, and takes nothing any more.
    is_leaving: AtomicBool,
    /// What it had is given back, as far as that is possible.
    has_left: Notify,
}

/// How long a process that ends waits for its slots to be given back: otherwise they are
/// free when their lease and the longest request must have ended.
const LEAVE_MAX: Duration = Duration::from_millis(300);

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<Quantity, Held>,
    lines: BTreeMap<PoolName, Arc<Line>>,
    /// Of an earlier start of this proxy.
    remembered: Remembered,
    /// Holders that were made since the process began.
    holders: u64,
    /// Another process has this one's place.
    is_retired: bool,
}

impl Leases {
    /// Holds nothing yet.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            state: Mutex::default(),
            news: Arc::default(),
            workers,
            is_leaving: AtomicBool::new(false),
            has_left: Notify::new(),
        }
    }

    /// What was kept of an earlier start of this proxy; before anything is compiled.
    pub(crate) fn remember(&self, remembered: Remembered) {
        self.lock().remembered = remembered;
    }

    /// The slots that requests of a pool need; none if the configuration limits nothing.
    pub(crate) fn caps(
        &self,
        entry: &PoolEntry,
        backends: &[Arc<BackendState>],
        some_have_slots: bool,
    ) -> Option<Arc<PoolCaps>> {
        let of_pool = Quantity::of_pool(&entry.pool);
        if of_pool.is_none() && !some_have_slots {
            return None;
        }
        let of_backends: Vec<_> = entry
            .backends
            .values()
            .map(|backend| Quantity::of_backend(&backend.backend, &entry.pool))
            .collect();
        let state = &mut *self.lock();
        let concurrency = entry.pool.concurrency;
        let line = Arc::clone(
            state
                .lines
                .entry(entry.pool.name.clone())
                .or_insert_with(|| Arc::new(Line::new(Arc::clone(&self.news)))),
        );
        line.set_length(concurrency.queue_length as usize);
        let of_all: Option<u64> = of_backends.iter().map(|one| Some(one.as_ref()?.1.amount)).sum();
        let pool = of_pool.map(|(quantity, wanted)| {
            let is_implied =
                !concurrency.is_adaptive && of_all.is_some_and(|sum| sum <= wanted.amount);
            let cap = state.cap((quantity, wanted), &line, backends, self);
            state.set_implied(&cap.quantity, is_implied);
            cap
        });
        let caps = of_backends.into_iter().zip(backends).map(|(wanted, backend)| {
            wanted.map(|wanted| state.cap(wanted, &line, std::slice::from_ref(backend), self))
        });
        let caps: Box<[Option<Arc<Cap>>]> = caps.collect();
        let capped = caps.iter().flatten().count() as u64;
        for cap in caps.iter().flatten() {
            state.share_waiting(&cap.quantity, capped, pool.clone());
        }
        Some(Arc::new(PoolCaps::new(line, pool, caps, concurrency.is_adaptive)))
    }

    /// The rate that a limit has in this proxy, which is one of `proxies`, as far as is known.
    pub(crate) fn rate(&self, quantity: &Quantity, wanted: Wanted, proxies: u32) -> Arc<RateLease> {
        let state = &mut *self.lock();
        if let Some(Held::Rate(held)) = state.held.get_mut(quantity) {
            held.change(wanted, now());
            return Arc::clone(&held.lease);
        }
        let (number, holder) = state.holder(quantity, wanted, proxies);
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
        proxies: u32,
        table: impl FnOnce() -> Table,
    ) -> Arc<KeyLease> {
        let state = &mut *self.lock();
        if let Some(Held::Keys(held)) = state.held.get_mut(quantity) {
            held.change(wanted, now());
            return Arc::clone(&held.lease);
        }
        let proxies = state.remembered.get(quantity).map_or(proxies, |(_, proxies)| proxies);
        let (number, _) = state.holder(quantity, wanted, proxies);
        let held = HeldKeys::new(number, wanted, proxies, table(), now());
        let lease = Arc::clone(&held.lease);
        state.replace(quantity.clone(), Held::Keys(held));
        lease
    }

    /// Gives up what the configuration wants no more. `is_there` tells whether what a
    /// quantity belongs to is still in it: then it is limited no more.
    pub(crate) fn retain(&self, wanted: &BTreeSet<Quantity>, is_there: impl Fn(&Quantity) -> bool) {
        let state = &mut *self.lock();
        for (quantity, held) in state.held.extract_if(.., |quantity, _| !wanted.contains(quantity))
        {
            held.give_up(is_there(&quantity));
        }
        // Those of pools that are gone, once nobody waits there.
        state.lines.retain(|_, line| Arc::strong_count(line) > 1);
    }

    /// Another process takes this one's place: what it remembers of this one's safe shares is
    /// its own from now on, and used by both would be used twice.
    pub(crate) fn retire(&self) {
        let state = &mut *self.lock();
        state.is_retired = true;
        state.held.values_mut().for_each(|held| held.retire(now()));
    }

    /// Gives back what this process holds: it serves no more.
    pub(crate) async fn leave(&self) {
        if self.lock().held.is_empty() {
            return;
        }
        self.is_leaving.store(true, Relaxed);
        self.news.notify_one();
        timeout(LEAVE_MAX, self.has_left.notified()).await.ok();
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
        leases: &Leases,
    ) -> Arc<Cap> {
        if let Some(Held::Slots(held)) = self.held.get_mut(&quantity) {
            held.change(wanted, line, backends);
            return Arc::clone(&held.cap);
        }
        let holder = self.holder(&quantity, wanted, 1);
        let cap =
            Arc::new(Cap::new(quantity.clone(), Arc::clone(&leases.news), leases.workers, now()));
        let held = HeldSlots::new(holder, wanted, Arc::clone(&cap), line, backends, now());
        self.replace(quantity, Held::Slots(held));
        // Nothing can be sent before something is lent.
        leases.news.notify_one();
        cap
    }

    /// Whether what this bounds is bounded by other caps as much.
    fn set_implied(&mut self, quantity: &Quantity, is_implied: bool) {
        if let Some(Held::Slots(held)) = self.held.get_mut(quantity) {
            held.set_implied(is_implied, now());
        }
    }

    /// Requests that wait may go to any of so many backends, and need a slot of their pool, too.
    fn share_waiting(&mut self, quantity: &Quantity, among: u64, pool: Option<Arc<Cap>>) {
        if let Some(Held::Slots(held)) = self.held.get_mut(quantity) {
            held.waiting_among = among;
            held.pool = pool;
        }
    }

    /// A holder, and its number.
    fn holder(&mut self, quantity: &Quantity, wanted: Wanted, proxies: u32) -> (u64, Holder) {
        self.holders += 1;
        // What was remembered is of this process's former start, and is used once.
        let (safe, proxies) = self.remembered.take(quantity).unwrap_or((0, proxies));
        let holder = Holder::new(wanted.terms(), wanted.on_loss(), safe, proxies, now());
        (self.holders, holder)
    }

    fn replace(&mut self, quantity: Quantity, mut held: Held) {
        if self.is_retired {
            held.retire(now());
        }
        if let Some(former) = self.held.insert(quantity, held) {
            former.give_up(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_core::{
        lease::{QuantityKind, Sort},
        limit::MICROS,
    };

    use super::*;

    const SAFE: u64 = 25 * MICROS;

    fn quantity(name: &str) -> Quantity {
        Quantity { kind: QuantityKind::Limit, name: name.into(), incarnation: 1 }
    }

    /// A process that begins with what was kept, and what it has of two limits when it has
    /// heard nobody for long.
    fn process() -> (Leases, Arc<RateLease>, Arc<KeyLease>) {
        let leases = Leases::new(1);
        let shares = [(quantity("whole"), (SAFE, 4)), (quantity("by-key"), (0, 4))];
        leases.remember(Remembered::new(shares.into_iter()));
        let wanted = |sort| Wanted { amount: 100 * MICROS, sort };
        let whole = wanted(Sort::Rate { burst: 100 });
        let by_key = wanted(Sort::RateByKey { burst: 100 });
        let table = || Table::new(10, by_key.amount, 100);
        let whole = leases.rate(&quantity("whole"), whole, 1);
        let by_key = leases.rate_by_key(&quantity("by-key"), by_key, 1, table);
        (leases, whole, by_key)
    }

    fn rates(whole: &RateLease, by_key: &KeyLease) -> [u64; 2] {
        let alone = now() + Duration::from_secs(10);
        [whole.newest().rate(alone), by_key.newest().cold.rate(alone)]
    }

    #[test]
    fn what_is_remembered_is_used_once_and_what_is_wanted_no_more_is_gone() {
        let (leases, whole, by_key) = process();
        let other = Wanted { amount: 100 * MICROS, sort: Sort::Rate { burst: 400 } };
        assert_eq!(whole.newest().burst(), 25);
        leases.rate(&quantity("whole"), other, 1);
        assert_eq!(whole.newest().burst(), 100, "a change");
        leases.retain(&[quantity("by-key")].into(), |_| true);
        assert_eq!(leases.lock().held.len(), 1);
        let again = leases.rate(&quantity("whole"), other, 1);
        assert_eq!(rates(&again, &by_key), [0, SAFE]);
    }

    #[tokio::test]
    async fn slots_of_a_new_cap_are_asked_for_at_once_and_shared_by_those_who_wait() {
        let leases = Leases::new(1);
        let line = Arc::new(Line::new(Arc::default()));
        let wanted = Wanted { amount: 2, sort: Sort::Slots { hold: LEAVE_MAX, adaptive: None } };
        let slots = Quantity { kind: QuantityKind::Pool, ..quantity("web") };
        leases.lock().cap((slots.clone(), wanted), &line, &[], &leases);
        assert!(timeout(Duration::ZERO, leases.news.notified()).await.is_ok());
        let state = &mut *leases.lock();
        state.share_waiting(&slots, 3, None);
        let Some(Held::Slots(held)) = state.held.get(&slots) else { panic!("it is held") };
        assert_eq!(held.waiting_among, 3);
    }

    #[test]
    fn of_two_processes_only_the_new_one_has_the_safe_shares() {
        let (old, old_whole, old_by_key) = process();
        let (_new, new_whole, new_by_key) = process();
        assert_eq!(rates(&old_whole, &old_by_key), [SAFE, SAFE]);
        old.retire();
        assert_eq!(rates(&old_whole, &old_by_key), [0, 0]);
        assert_eq!(rates(&new_whole, &new_by_key), [SAFE, SAFE]);
        let wanted = Wanted { amount: 100 * MICROS, sort: Sort::RateByKey { burst: 9 } };
        let late = old.rate_by_key(&quantity("late"), wanted, 4, || Table::new(10, 1, 9));
        assert_eq!(rates(&old_whole, &late)[1], 0, "nor of what comes later");
    }
}
