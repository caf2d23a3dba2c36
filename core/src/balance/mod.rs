//! Which backend gets a request.
//!
//! A [`Picker`] is built from the backends that may be picked, off the request path
//! and once for each change of that set; all workers of a proxy then share it. It
//! never changes. What does change lives with the caller: one atomic cursor per
//! pool, the requests in flight, a generator per worker. So a pick takes no lock,
//! allocates nothing, and a new configuration is a new picker beside the old cursor.
//!
//! | algorithm | structure | a pick costs |
//! |---|---|---|
//! | `round_robin` | the backends in order | one shared counter |
//! | `weighted_round_robin` | one cycle of turns, laid out in advance; beyond 65 536 turns, classes of equal weight | the same; beyond, a short search more |
//! | `ip_hash`, affinity by a field | a Maglev table | one hash |
//! | `least_connections` | a list with weights | 64 counters at most |
//!
//! Several proxies that start a cycle at the same place send their first requests to
//! the same backends: after a push, 64 proxies put ten times the fair share on
//! the first few. A [`Phase`] spreads their starts over the cycle.

mod cycle;
mod least_connections;
mod maglev;
mod round_robin;
mod slot_table;
mod split;
mod weight_classes;
mod weighted;

use std::{fmt, net::IpAddr, sync::atomic::AtomicU64};

pub use self::split::Split;
use self::{
    least_connections::LeastConnections, maglev::Maglev, round_robin::RoundRobin,
    weight_classes::WeightClasses, weighted::Weighted,
};
use crate::model::Algorithm;

/// One backend that may be picked.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The caller's index, which picks return.
    pub slot: u32,
    /// Unique among the candidates; every proxy knows the backend by it.
    pub id: &'a str,
    /// Its share beside the others; 0 is never picked.
    pub weight: u16,
}

/// Where this proxy stands among the live ones: at `index / count` of a cycle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Phase {
    /// From 0; the proxy with the smallest id has 0.
    pub index: u32,
    /// How many proxies there are.
    pub count: u32,
}

impl Default for Phase {
    /// The only proxy.
    fn default() -> Self {
        Self { index: 0, count: 1 }
    }
}

/// The requests in flight.
pub trait Loads {
    /// To the backend in this slot, from this proxy.
    fn in_flight(&self, slot: u32) -> u32;
}

/// What stays the same from one request of a client to the next.
#[derive(Clone, Copy, Debug)]
pub enum HashKey<'a> {
    /// The client's address, as [`crate::client_address`] found it.
    Client(IpAddr),
    /// The value of a field ([`crate::model::HeaderAffinity`]): a user or a tenant. Clients
    /// choose it, and so can all choose the same; a secret in the hash would not change
    /// that.
    Value(&'a [u8]),
}

/// What a pick may look at.
#[derive(Debug)]
pub struct PickContext<'a, L: Loads> {
    /// What `ip_hash` hashes.
    pub key: HashKey<'a>,
    /// The pool's cursor, shared by all workers of the proxy; it begins at
    /// [`Picker::start`] and is kept from one picker of the pool to the next.
    pub cursor: &'a AtomicU64,
    /// The requests in flight.
    pub loads: &'a L,
    /// The worker's generator.
    pub rng: &'a mut fastrand::Rng,
    /// The backends on which this request has failed already, or that have no room for it;
    /// in ascending order, if there are more than [`FEW`].
    pub excluded: &'a [u32],
}

/// So many slots are looked through faster than searched.
pub const FEW: usize = 16;

/// Whether a list has a slot. One of more than [`FEW`] must be in ascending order: where backends
/// are capped, nearly all of a large pool may be without room.
fn lists(excluded: &[u32], slot: u32) -> bool {
    match excluded.len() {
        ..=FEW => excluded.contains(&slot),
        _ => excluded.binary_search(&slot).is_ok(),
    }
}

impl<L: Loads> PickContext<'_, L> {
    /// Nearly always there are no exclusions, and then this is one comparison.
    #[inline]
    fn excludes(&self, slot: u32) -> bool {
        !self.excluded.is_empty() && lists(self.excluded, slot)
    }
}

/// Chooses one backend for each request.
pub struct Picker(Kind);

enum Kind {
    RoundRobin(RoundRobin),
    WeightClasses(WeightClasses),
    Maglev(Maglev),
    LeastConnections(LeastConnections),
}

impl Picker {
    /// Lays out whatever picks of this algorithm read. Candidates of weight 0 are
    /// left out; the others keep their order where it shows, in the round robins.
    ///
    /// Takes up to 30 ms for 10 000 backends, for `ip_hash` up to 200 ms: not for a
    /// thread that serves requests.
    #[must_use]
    pub fn build(algorithm: Algorithm, candidates: &[Candidate<'_>]) -> Self {
        let members: Vec<_> = candidates.iter().copied().filter(|c| c.weight > 0).collect();
        Self(match algorithm {
            Algorithm::RoundRobin => Kind::RoundRobin(RoundRobin::in_order(&members)),
            Algorithm::WeightedRoundRobin => match weighted::build(&members) {
                Weighted::Turns(turns) => Kind::RoundRobin(turns),
                Weighted::Classes(classes) => Kind::WeightClasses(classes),
            },
            Algorithm::IpHash => Kind::Maglev(Maglev::build(&members)),
            Algorithm::LeastConnections(parameters) => {
                Kind::LeastConnections(LeastConnections::build(&members, parameters.choices()))
            }
        })
    }

    /// How many backends can be picked.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::RoundRobin(picker) => picker.len(),
            Kind::WeightClasses(picker) => picker.len(),
            Kind::Maglev(picker) => picker.len(),
            Kind::LeastConnections(picker) => picker.len(),
        }
    }

    /// Whether no backend can be picked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where a new cursor starts: at `index / count` of the cycle; 0 for algorithms
    /// that have none. An impossible phase is read as one that is possible.
    #[must_use]
    pub fn start(&self, phase: Phase) -> u64 {
        let cycle = match &self.0 {
            Kind::RoundRobin(picker) => picker.cycle(),
            Kind::WeightClasses(picker) => picker.cycle(),
            Kind::Maglev(_) | Kind::LeastConnections(_) => 0,
        };
        start_of(cycle, phase)
    }

    /// Picks a slot that is not in `excluded`; `None` when there is none left.
    #[inline]
    pub fn pick<L: Loads>(&self, context: &mut PickContext<'_, L>) -> Option<u32> {
        match &self.0 {
            Kind::RoundRobin(picker) => picker.pick(context),
            Kind::WeightClasses(picker) => picker.pick(context),
            Kind::Maglev(picker) => picker.pick(context),
            Kind::LeastConnections(picker) => picker.pick(context),
        }
    }
}

/// The turn at `index / count` of a cycle.
fn start_of(cycle: u64, phase: Phase) -> u64 {
    let count = u64::from(phase.count.max(1));
    let index = u64::from(phase.index) % count;
    // A cycle is short of 2^48 turns; divided first, the product cannot overflow.
    cycle / count * index + cycle % count * index / count
}

impl fmt::Debug for Picker {
    /// Names the algorithm and the number of backends: the tables are too long to read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.0 {
            Kind::RoundRobin(_) => "round robin",
            Kind::WeightClasses(_) => "weight classes",
            Kind::Maglev(_) => "maglev",
            Kind::LeastConnections(_) => "least connections",
        };
        write!(f, "Picker({name}, {} backends)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_divide_a_cycle_evenly() {
        let names: Vec<_> = (0..50).map(|i| format!("backend{i}")).collect();
        let candidates: Vec<_> =
            (0..50).zip(&names).map(|(slot, id)| Candidate { slot, id, weight: 1 }).collect();
        let picker = Picker::build(Algorithm::RoundRobin, &candidates);
        let starts: Vec<_> = (0..8).map(|index| picker.start(Phase { index, count: 8 })).collect();
        assert_eq!(starts, [0, 6, 12, 18, 25, 31, 37, 43]);
        assert_eq!(picker.start(Phase::default()), 0);
        assert_eq!(picker.start(Phase { index: 9, count: 8 }), 6);
        assert_eq!(picker.start(Phase { index: 3, count: 0 }), 0);
        assert_eq!(picker.start(Phase { index: u32::MAX - 1, count: u32::MAX }), 49);
    }

    #[test]
    fn algorithms_without_a_cycle_start_at_nought() {
        let candidates = [Candidate { slot: 0, id: "a", weight: 1 }];
        let picker = Picker::build(Algorithm::IpHash, &candidates);
        assert_eq!(picker.start(Phase { index: 3, count: 4 }), 0);
        assert_eq!(format!("{picker:?}"), "Picker(maglev, 1 backends)");
    }
}
