//! Slots for requests in progress, as workers take them.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use lb_core::lease::{Quantity, QuantityKind, SharedSlots};
use tokio::sync::Notify;

use super::{
    Line,
    answers::{Answers, Place},
};
use crate::{live::Padded, worker::now};

/// The slots of one backend or one pool, for all workers.
#[derive(Debug)]
pub(crate) struct Cap {
    pub(crate) quantity: Quantity,
    slots: Padded<SharedSlots>,
    /// A slot came back that others wait for.
    is_returned: AtomicBool,
    /// No lease is in force, and without one there is nothing to use.
    lacks_lease: AtomicBool,
    /// How many slots there are where other caps see to it that no more are taken.
    lifted_to: AtomicU64,
    /// What is learnt from the requests, if the number of slots may follow from it.
    pub(super) answers: Option<Answers>,
    /// So many requests hold slots that nobody counts any more.
    overdue: AtomicU64,
    news: Arc<Notify>,
}

/// The slots that requests of one pool need.
#[derive(Debug)]
pub(crate) struct PoolCaps {
    line: Arc<Line>,
    pool: Option<Arc<Cap>>,
    /// By the backends' places in the pool.
    backends: Box<[Option<Arc<Cap>>]>,
    /// The pool's number of slots follows from how long answers take.
    is_adaptive: bool,
}

/// The slots that one request has. Dropped, it gives them back.
#[derive(Debug)]
pub(crate) struct Permit {
    caps: Arc<PoolCaps>,
    backend: u32,
    since: Instant,
    /// Only where the pool is adaptive.
    place: Option<Place>,
}

impl Cap {
    pub(super) fn new(quantity: Quantity, news: Arc<Notify>, workers: usize, now: Instant) -> Self {
        let slots = Padded(SharedSlots::new(now));
        let answers = (quantity.kind == QuantityKind::Pool).then(|| Answers::new(workers));
        Self {
            quantity,
            slots,
            is_returned: AtomicBool::new(false),
            lacks_lease: AtomicBool::new(false),
            lifted_to: AtomicU64::new(u64::MAX),
            answers,
            overdue: AtomicU64::new(0),
            news,
        }
    }

    pub(super) fn slots(&self) -> &SharedSlots {
        &self.slots.0
    }

    fn lacks_lease(&self) -> bool {
        self.lacks_lease.load(Relaxed)
    }

    /// Whether there is nothing to use for want of a control plane.
    pub(super) fn set_lacks_lease(&self, lacks: bool) {
        if lacks != self.lacks_lease() {
            self.lacks_lease.store(lacks, Relaxed);
        }
    }

    /// Whether a slot came back since the last call that others wait for.
    pub(super) fn was_returned(&self) -> bool {
        self.is_returned.swap(false, AcqRel)
    }

    fn give_back(&self) {
        if self.slots.0.give_back() {
            self.is_returned.store(true, Release);
            self.news.notify_one();
        }
    }
}

impl PoolCaps {
    pub(super) fn new(
        line: Arc<Line>,
        pool: Option<Arc<Cap>>,
        backends: Box<[Option<Arc<Cap>>]>,
        is_adaptive: bool,
    ) -> Self {
        Self { line, pool, backends, is_adaptive }
    }

    /// The requests that wait.
    pub(crate) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// All of its caps.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Cap>> {
        self.pool.iter().chain(self.backends.iter().flatten())
    }

    /// Whether the pool itself has room for one more.
    pub(crate) fn has_room(&self, now: Instant) -> bool {
        self.pool.as_ref().is_none_or(|cap| cap.slots().free(now) > 0)
    }

    /// The backends that have no room for one more.
    pub(crate) fn full(&self, now: Instant) -> impl Iterator<Item = u32> {
        self.slots_where(move |cap| cap.slots().free(now) == 0)
    }

    /// Whether a backend has no room for one more.
    pub(crate) fn is_full(&self, slot: u32, now: Instant) -> bool {
        self.of(slot).is_some_and(|cap| cap.slots().free(now) == 0)
    }

    /// Whether nothing of the pool may begin in this proxy for want of a control plane.
    pub(crate) fn lacks_lease(&self) -> bool {
        self.pool.as_deref().is_some_and(Cap::lacks_lease)
    }

    /// The backends at which nothing may begin for that reason.
    pub(crate) fn without_lease(&self) -> impl Iterator<Item = u32> {
        self.slots_where(Cap::lacks_lease)
    }

    fn slots_where(&self, is_so: impl Fn(&Cap) -> bool) -> impl Iterator<Item = u32> {
        let caps = (0u32..).zip(&self.backends);
        caps.filter(move |(_, cap)| cap.as_deref().is_some_and(&is_so)).map(|(slot, _)| slot)
    }

    /// Takes what a request to this backend needs, if all of it is free.
    pub(crate) fn take(self: &Arc<Self>, slot: u32, now: Instant) -> Option<Permit> {
        let backend = self.of(slot);
        if backend.is_some_and(|cap| !cap.slots().take(now)) {
            return None;
        }
        if self.pool.as_ref().is_some_and(|cap| !cap.slots().take(now)) {
            if let Some(cap) = backend {
                cap.give_back();
                self.line.freed();
            }
            return None;
        }
        let place = self.is_adaptive.then_some(Place::Waiting(now));
        Some(Permit { caps: Arc::clone(self), backend: slot, since: now, place })
    }

    fn answers(&self) -> Option<&Answers> {
        self.pool.as_ref()?.answers.as_ref()
    }

    fn of(&self, slot: u32) -> Option<&Arc<Cap>> {
        self.backends.get(slot as usize)?.as_ref()
    }
}

impl Permit {
    /// The client is still sending.
    pub(crate) fn uploads(&mut self, worker: usize) {
        if let (Some(place), Some(answers)) = (&mut self.place, self.caps.answers()) {
            answers.step_aside(place, worker);
        }
    }

    /// The client has sent all: only now the backend is waited for.
    pub(crate) fn has_uploaded(&mut self) {
        if let (Some(place), Some(answers)) = (&mut self.place, self.caps.answers()) {
            answers.ask(place);
        }
    }

    /// The answer begins. One with an error tells nothing of how long others take: it may be
    /// a good deal faster.
    #[inline]
    pub(crate) fn answered(&mut self, status: u16, worker: usize) {
        if let (Some(place), Some(answers)) = (&mut self.place, self.caps.answers()) {
            if (200..400).contains(&status) {
                answers.count(*place, worker);
            }
            answers.step_aside(place, worker);
        }
    }

    /// Nobody waits for the answer any longer.
    pub(crate) fn given_up(&self, worker: usize) {
        if let (Some(place), Some(answers)) = (self.place, self.caps.answers()) {
            answers.give_up(place, worker);
        }
    }

    /// Whether it is counted apart from those that wait for their backends, where the number of
    /// slots follows from these.
    pub(crate) fn is_aside(&self) -> bool {
        self.place.is_some()
    }

    /// Whether this request is to end, because nobody counts its slot any more: no control
    /// plane has answered for as long as a lease and a request may take. `longest` is how
    /// long that is for a request; one that began later has a slot that is counted.
    pub(crate) fn is_overdue(&self, longest: Duration) -> bool {
        let Self { caps, backend, since, .. } = self;
        let mut taken = caps.of(*backend).into_iter().chain(&caps.pool);
        taken.any(|cap| cap.overdue.load(Relaxed) > 0 && now() - *since >= longest && cap.end_one())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Self { caps, backend, .. } = self;
        if let (Some(place), Some(answers)) = (self.place, caps.answers()) {
            answers.end(place);
        }
        let taken = caps.of(*backend).into_iter().chain(&caps.pool);
        taken.for_each(|cap| cap.give_back());
        caps.line.freed();
    }
}

impl Cap {
    /// Lets every request through from now on: nothing is limited any more.
    pub(super) fn lift(&self) {
        self.set_lacks_lease(false);
        self.slots.0.lift();
    }

    /// Lets no request through any more: what it limits is gone.
    pub(super) fn close(&self) {
        self.slots.0.allow(0, now());
    }

    /// So many requests are to end.
    pub(super) fn set_overdue(&self, requests: u64) {
        if requests > 0 || self.overdue.load(Relaxed) > 0 {
            self.overdue.store(requests, Relaxed);
        }
    }

    /// Whether one more is to end.
    fn end_one(&self) -> bool {
        self.overdue.fetch_update(Relaxed, Relaxed, |requests| requests.checked_sub(1)).is_ok()
    }

    /// Slots that are taken.
    pub(crate) fn taken(&self) -> u64 {
        self.slots.0.taken()
    }

    /// Slots that could be taken now.
    pub(crate) fn free(&self) -> u64 {
        let most = self.lifted_to.load(Relaxed).saturating_sub(self.taken());
        self.slots.0.free(now()).min(most)
    }

    /// Has it count only: other caps let no more than so many be taken.
    pub(super) fn lift_to(&self, slots: u64) {
        self.set_lacks_lease(false);
        self.lifted_to.store(slots, Relaxed);
        self.slots.0.lift();
    }

    /// Lets so many be taken until then.
    pub(super) fn allow(&self, slots: u64, until: Instant) {
        self.lifted_to.store(u64::MAX, Relaxed);
        self.slots.0.allow(slots, until);
    }
}

#[cfg(test)]
mod tests;
