//! Slots for requests in progress, as workers take them.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Release},
        },
    },
    time::Instant,
};

use lb_core::lease::{Quantity, SharedSlots};
use tokio::sync::Notify;

use super::Line;
use crate::{live::Padded, worker::now};

/// The slots of one backend or one pool, for all workers.
#[derive(Debug)]
pub(crate) struct Cap {
    pub(crate) quantity: Quantity,
    slots: Padded<SharedSlots>,
    /// A slot came back that others wait for.
    is_returned: AtomicBool,
    news: Arc<Notify>,
}

/// The slots that requests of one pool need.
#[derive(Debug)]
pub(crate) struct PoolCaps {
    line: Arc<Line>,
    pool: Option<Arc<Cap>>,
    /// By the backends' places in the pool.
    backends: Box<[Option<Arc<Cap>>]>,
}

/// The slots that one request has. Dropped, it gives them back.
#[derive(Debug)]
pub(crate) struct Permit {
    caps: Arc<PoolCaps>,
    backend: u32,
}

impl Cap {
    pub(super) fn new(quantity: Quantity, news: Arc<Notify>, now: Instant) -> Self {
        let slots = Padded(SharedSlots::new(now));
        Self { quantity, slots, is_returned: AtomicBool::new(false), news }
    }

    pub(super) fn slots(&self) -> &SharedSlots {
        &self.slots.0
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
    ) -> Self {
        Self { line, pool, backends }
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
        let caps = (0u32..).zip(&self.backends);
        let is_full = move |cap: &Option<Arc<Cap>>| {
            cap.as_ref().is_some_and(|cap| cap.slots().free(now) == 0)
        };
        caps.filter(move |(_, cap)| is_full(cap)).map(|(slot, _)| slot)
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
        Some(Permit { caps: Arc::clone(self), backend: slot })
    }

    fn of(&self, slot: u32) -> Option<&Arc<Cap>> {
        self.backends.get(slot as usize)?.as_ref()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Self { caps, backend } = self;
        let taken = caps.of(*backend).into_iter().chain(&caps.pool);
        taken.for_each(|cap| cap.give_back());
        caps.line.freed();
    }
}

impl Cap {
    /// Lets every request through from now on: nothing is limited any more.
    pub(super) fn lift(&self) {
        self.slots.0.lift();
    }

    /// Slots that could be taken now.
    pub(super) fn free(&self) -> u64 {
        self.slots.0.free(now())
    }
}
