//! Pools whose clients stay with their backends, ready to be served from.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use lb_core::{
    affinity::{self, Decision, Fitness, Met, Presented, decision::resolve},
    balance::Picker,
    health::candidates::Candidates,
    model::{Affinity, Algorithm, BackendEntry, CookieAffinity, PoolEntry, natural_order},
};

use super::{BackendState, Outlook, Padded, PoolConfig, bump};

/// What keeps the clients of a pool with their backends.
#[derive(Debug)]
pub(crate) enum Sticky {
    Cookie(CookieSticky),
    Header(HeaderSticky),
}

/// A signed cookie.
#[derive(Debug)]
pub(crate) struct CookieSticky {
    pub(crate) policy: CookieAffinity,
    /// Of each backend, by slot: whether it may keep its clients, and whether it gets others.
    seats: Box<[Seat]>,
    pub(crate) counts: Arc<SessionCounts>,
}

#[derive(Debug)]
struct Seat {
    state: affinity::BackendState,
    is_picked: bool,
}

/// The value of a field.
#[derive(Debug)]
pub(crate) struct HeaderSticky {
    /// Its name in lower case.
    pub(crate) name: Box<str>,
    pub(super) picker: Picker,
}

/// What became of the sessions of one pool's requests; as long-lived as its sessions are.
#[derive(Debug)]
pub(crate) struct SessionCounts {
    /// One writer each; by [`Met::index`].
    workers: Box<[Padded<[AtomicU64; Met::ALL.len()]>]>,
}

impl Sticky {
    /// What a pool's affinity asks for. `former` is what it was before.
    pub(super) fn compile(
        pool: &PoolEntry,
        backends: &[Arc<BackendState>],
        candidates: &Candidates,
        outlook: &Outlook,
        former: Option<&Self>,
        context: Context<'_>,
    ) -> Option<Box<Self>> {
        match &pool.pool.affinity {
            Affinity::None => None,
            Affinity::Header(header) => {
                let picker = Picker::build(Algorithm::IpHash, context.candidates);
                Some(Box::new(Self::Header(HeaderSticky { name: header.name().into(), picker })))
            }
            Affinity::Cookie(policy) => {
                let counts = match former {
                    Some(Self::Cookie(former)) => Arc::clone(&former.counts),
                    _ => Arc::new(SessionCounts::new(context.workers)),
                };
                let entries = (0u32..).zip(pool.backends.values()).zip(backends);
                let seats =
                    entries.zip(&candidates.places).map(|(((slot, entry), state), place)| Seat {
                        state: affinity::BackendState {
                            slot,
                            incarnation: entry.backend.incarnation,
                            admin_state: entry.backend.admin_state,
                            drain_deadline: deadline(entry, outlook, context.now),
                            fitness: Fitness::of(entry, *place, state.is_avoided()),
                        },
                        is_picked: place.is_candidate(),
                    });
                let (policy, seats) = (policy.clone(), seats.collect());
                Some(Box::new(Self::Cookie(CookieSticky { policy, seats, counts })))
            }
        }
    }

    /// Whether requests without a session may come to a backend.
    pub(crate) fn is_picked(&self, slot: u32) -> bool {
        match self {
            Self::Cookie(cookie) => cookie.seats[slot as usize].is_picked,
            Self::Header(_) => true,
        }
    }

    /// The policy of its cookie.
    pub(crate) fn cookie(&self) -> Option<&CookieSticky> {
        match self {
            Self::Cookie(cookie) => Some(cookie),
            Self::Header(_) => None,
        }
    }
}

/// What else it is compiled from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    /// Those that may be picked.
    pub(super) candidates: &'a [lb_core::balance::Candidate<'a>],
    pub(super) workers: usize,
    pub(super) now: Instant,
}

impl CookieSticky {
    /// Where a request goes that brought this.
    pub(crate) fn decide(
        &self,
        pool: &PoolConfig,
        presented: &Presented,
        now: Instant,
    ) -> Decision {
        let seat = match presented {
            Presented::Session(session) => {
                let id = session.backend();
                let order =
                    |backend: &Arc<BackendState>| natural_order(backend.identity.id.as_str(), id);
                let found = pool.backends.binary_search_by(order).ok();
                found.and_then(|slot| self.seats.get(slot))
            }
            Presented::Nothing | Presented::Refused(_) => None,
        };
        let state = seat.map(|seat| Self::state_of(seat, pool, now));
        resolve(presented, state.as_ref(), self.policy.strict, now)
    }
}

impl CookieSticky {
    /// A backend at this moment.
    fn state_of(seat: &Seat, pool: &PoolConfig, now: Instant) -> affinity::BackendState {
        let is_full = pool.caps.as_ref().is_some_and(|caps| caps.is_full(seat.state.slot, now));
        let fitness = match seat.state.fitness {
            Fitness::Fit if is_full => Fitness::AtCap,
            fitness => fitness,
        };
        affinity::BackendState { fitness, ..seat.state }
    }
}

/// When a backend's sessions move on, while it drains.
fn deadline(entry: &BackendEntry, outlook: &Outlook, now: Instant) -> Option<Instant> {
    let drain = entry.backend.drain.as_ref()?;
    let age = outlook.age(drain.since_unix_ms, now);
    Some(now + drain.sessions_for().saturating_sub(age))
}

impl SessionCounts {
    fn new(workers: usize) -> Self {
        Self { workers: (0..workers).map(|_| Padded::default()).collect() }
    }

    /// Notes what became of the session of a request.
    pub(crate) fn count(&self, worker: usize, met: Met) {
        bump(&self.workers[worker].0[met.index()], 1);
    }

    /// The sums over all workers, in the order of [`Met::ALL`].
    pub(crate) fn sums(&self) -> [u64; Met::ALL.len()] {
        let sum = |index: usize| self.workers.iter().map(|w| w.0[index].load(Relaxed)).sum();
        std::array::from_fn(sum)
    }
}
