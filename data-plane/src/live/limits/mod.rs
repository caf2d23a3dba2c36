//! Rate limits as workers ask them: which ones apply to a request, and whether it may pass.
//!
//! What a limit remembers is in [`LimitState`] and outlives configurations; how many may pass
//! is in [`LimitConfig`]. For each destination there is a list of those that apply, so that a
//! request without limits costs one branch, and one with limits looks at these only.

mod compile;
mod state;

use std::{cell::RefCell, num::NonZero, sync::Arc, time::Instant};

use lb_core::{
    lease::Quantity,
    limit::{Decision, Pace, Quota, Table},
    model::{Limit, LimitKey, LimitScope},
};

pub(super) use self::compile::LimitCompiler;
pub(crate) use self::state::{LimitState, LimitSums};
use super::{PoolIndex, RouteIndex};
use crate::leases::{Copy, KeyLease, KeyPaces, RateLease};

/// Where a limit stands in a configuration.
pub(crate) type LimitIndex = usize;

/// All limits of a configuration.
#[derive(Debug)]
pub(crate) struct Limits {
    all: Box<[LimitConfig]>,
    /// By route: those of each of its pools.
    routes: Box<[Box<[Applicable]>]>,
    /// By pool: those of requests that fall back on it, whatever the route.
    pools: Box<[OfFallback]>,
    /// Whether any of them is of backends.
    any_of_backends: bool,
}

/// The limits of the requests that go by one route to one pool.
#[derive(Debug)]
struct Applicable {
    pool: PoolIndex,
    /// Before a backend is picked. Those in shadow mode are last: they take nothing from a
    /// request that another refuses.
    of_requests: Box<[LimitIndex]>,
    /// Of the backend that is picked, in the same order.
    of_backends: Box<[LimitIndex]>,
}

/// The limits of the requests that fall back on a pool.
#[derive(Debug)]
struct OfFallback {
    /// Of the pool. Those of all requests have counted them already.
    of_requests: Box<[LimitIndex]>,
    /// Of its backends: those of all requests, too.
    of_backends: Box<[LimitIndex]>,
}

/// One limit.
#[derive(Clone, Debug)]
pub(crate) struct LimitConfig {
    /// One with another rate or burst is another.
    which: Which,
    pub(crate) limit: Arc<Limit>,
    pub(crate) state: Arc<LimitState>,
    source: Source,
    /// The fields `RateLimit-Policy` and, until its figures, `RateLimit`.
    pub(crate) fields: Arc<str>,
}

/// Who asks limits, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) worker: usize,
    pub(crate) copies: &'a LimitCopies,
    pub(crate) now: Instant,
}

/// Where its tokens come from.
#[derive(Clone, Debug)]
enum Source {
    /// Each proxy has all of them.
    Own(Pace),
    /// The same, for each key.
    OwnByKey(Pace, Arc<Table>),
    /// The control plane lends this proxy a part.
    Whole(Arc<RateLease>),
    /// The same, for each key.
    ByKey(Arc<KeyLease>),
}

/// What one worker knows of the paces that are lent, by limit. They are looked up at every
/// request and change a few times a second.
#[derive(Debug, Default)]
pub(crate) struct LimitCopies(RefCell<Vec<LimitCopy>>);

#[derive(Debug, Default)]
struct LimitCopy {
    /// Of the state of the limit.
    serial: u64,
    pace: Copy<Pace>,
    paces: Copy<Arc<KeyPaces>>,
    told: LastTold,
}

/// What a client is told of the limit that it is nearest to, in two words: they are compared with
/// what was told last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Told {
    /// Which limit.
    which: Which,
    /// What is left, above in how many seconds the bucket is full.
    figures: u64,
}

/// A limit of one configuration: its version, which no other has (among four billion), above
/// where it stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Which(NonZero<u64>);

/// What the last client was told of a limit.
#[derive(Debug, Default)]
pub(crate) struct LastTold {
    pub(crate) told: Option<Told>,
    /// The fields that say it, and the end of a head.
    pub(crate) fields: Vec<u8>,
}

impl Which {
    fn new(version: NonZero<u32>, index: LimitIndex) -> Self {
        // There are never so many limits.
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        Self(NonZero::<u64>::from(version).saturating_mul(Self::VERSION) | u64::from(index))
    }

    /// Of the version; below is the index.
    const VERSION: NonZero<u64> = NonZero::new(1 << 32).expect("it is not zero");

    fn version(self) -> NonZero<u32> {
        high(self.0.get()).try_into().unwrap_or(NonZero::<u32>::MIN)
    }

    #[inline(always)]
    fn index(self) -> LimitIndex {
        low(self.0.get()) as LimitIndex
    }
}

impl Told {
    /// Where the limit stands.
    #[inline(always)]
    pub(crate) fn limit(self) -> LimitIndex {
        self.which.index()
    }

    /// How many requests are left.
    pub(crate) fn remaining(self) -> u32 {
        high(self.figures)
    }

    /// In how many seconds the bucket is full.
    pub(crate) fn reset_seconds(self) -> u32 {
        low(self.figures)
    }
}

fn high(word: u64) -> u32 {
    low(word >> 32)
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
#[inline(always)]
fn low(word: u64) -> u32 {
    word as u32
}

impl LimitCopies {
    /// What was told last of a limit that stands here.
    #[inline(always)]
    pub(crate) fn told<R>(&self, index: LimitIndex, use_it: impl FnOnce(&mut LastTold) -> R) -> R {
        use_it(&mut at(&mut self.0.borrow_mut(), index).told)
    }
}

/// The copy of a limit that stands here, and has a state of this serial. These are no functions
/// that take another: with two calls a good part of what a limit may cost would go into saving
/// registers.
#[inline(always)]
fn of(copies: &mut Vec<LimitCopy>, index: LimitIndex, serial: u64) -> &mut LimitCopy {
    let copy = at(copies, index);
    if copy.serial != serial {
        copy.begin(serial);
    }
    copy
}

#[inline(always)]
fn at(copies: &mut Vec<LimitCopy>, index: LimitIndex) -> &mut LimitCopy {
    if copies.len() <= index {
        make_room(copies, index);
    }
    &mut copies[index]
}

#[cold]
fn make_room(copies: &mut Vec<LimitCopy>, index: LimitIndex) {
    copies.resize_with(index + 1, LimitCopy::default);
}

impl LimitCopy {
    /// Another limit has this place now.
    #[cold]
    fn begin(&mut self, serial: u64) {
        *self = Self { serial, ..Self::default() };
    }
}

/// What a limit lets pass in this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LimitGauges {
    /// Millionths of a request per second; of a limit by key, of each key that is not hot.
    pub(crate) rate: u64,
    /// Keys of which more than an even share is lent.
    pub(crate) hot_keys: usize,
    pub(crate) basis: Basis,
}

/// Why it is that much.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Basis {
    /// The limit holds for each proxy by itself.
    Own,
    /// A lease of the control plane.
    Leased,
    /// An even share of every key; those that need more have leases.
    EvenShare,
    /// The control plane has not been heard for the length of a lease.
    SafeShare,
}

impl Limits {
    /// All of them, in the order of their names.
    pub(crate) fn all(&self) -> &[LimitConfig] {
        &self.all
    }

    /// What is lent to this proxy for them.
    pub(super) fn quantities(&self) -> impl Iterator<Item = Quantity> {
        let of_limits = self.all.iter().filter_map(|limit| Quantity::of_limit(&limit.limit));
        of_limits.map(|(quantity, _)| quantity)
    }

    /// Those to ask before a backend is picked.
    #[inline]
    pub(crate) fn of_requests(&self, route: RouteIndex, pool: PoolIndex) -> &[LimitIndex] {
        self.applicable(route, pool).map_or(&[], |applicable| &applicable.of_requests)
    }

    /// Those of the backend that is picked.
    #[inline]
    pub(crate) fn of_backends(&self, route: RouteIndex, pool: PoolIndex) -> &[LimitIndex] {
        if !self.any_of_backends {
            return &[];
        }
        self.applicable(route, pool).map_or(&[], |applicable| &applicable.of_backends)
    }

    /// The limits of the backends of a pool for requests that fell back on it: those of all
    /// requests and of the pool, not of a route.
    pub(crate) fn of_fallback(&self, pool: PoolIndex) -> &[LimitIndex] {
        self.pools.get(pool).map_or(&[], |pool| &*pool.of_backends)
    }

    /// The limits of a pool itself, for requests that fell back on it.
    pub(crate) fn of_requests_that_fall_back(&self, pool: PoolIndex) -> &[LimitIndex] {
        self.pools.get(pool).map_or(&[], |pool| &*pool.of_requests)
    }

    #[inline]
    fn applicable(&self, route: RouteIndex, pool: PoolIndex) -> Option<&Applicable> {
        self.routes.get(route)?.iter().find(|applicable| applicable.pool == pool)
    }
}

impl LimitConfig {
    fn new(
        version: NonZero<u32>,
        limit: &Arc<Limit>,
        state: Arc<LimitState>,
        source: Source,
    ) -> Self {
        let quota = Quota::new(limit.rate.micros(), limit.burst());
        let (name, Quota { quota, window_seconds }) = (&limit.name, quota);
        let fields = format!(
            "RateLimit-Policy: \"{name}\";q={quota};w={window_seconds}\r\nRateLimit: \"{name}\";r="
        );
        let limit = Arc::clone(limit);
        Self { which: Which::new(version, 0), limit, state, source, fields: fields.into() }
    }

    /// The same at this place of a configuration.
    fn at(self, index: LimitIndex) -> Self {
        Self { which: Which::new(self.which.version(), index), ..self }
    }

    /// What a client is told of it that was let pass.
    #[inline(always)]
    pub(crate) fn told(&self, decision: &Decision) -> Told {
        let (remaining, reset) = (decision.remaining(), decision.reset_seconds());
        Told { which: self.which, figures: u64::from(remaining) << 32 | u64::from(reset) }
    }

    /// The same as [`Self::take`] where time counts less: several limits, or one of a backend.
    pub(crate) fn take_of_several(&self, key: u64, asking: &Asking<'_>) -> Decision {
        let decision = self.take_of_any(key, asking);
        self.state.count(asking.worker, &decision);
        decision
    }

    /// Asks for one token; of a limit by key, for the key of this number.
    #[inline(always)]
    pub(crate) fn take(&self, key: u64, asking: &Asking<'_>) -> Decision {
        let decision = match &self.source {
            Source::ByKey(lease) => self.take_by_key(lease, key, asking),
            _ => self.take_of_any(key, asking),
        };
        self.state.count(asking.worker, &decision);
        decision
    }

    // Out of the way of the dearest kind, which has no register to spare.
    #[inline(never)]
    fn take_of_any(&self, key: u64, asking: &Asking<'_>) -> Decision {
        let Asking { worker, copies, now } = *asking;
        match &self.source {
            Source::Own(pace) => self.state.bucket().take(pace, now),
            Source::OwnByKey(pace, table) => table.take(key, pace, now),
            Source::Whole(lease) => {
                lease.count(worker);
                let copies = &mut *copies.0.borrow_mut();
                let copy = of(copies, self.which.index(), self.state.serial);
                self.state.bucket().take(lease.pace(&mut copy.pace), now)
            }
            Source::ByKey(lease) => self.take_by_key(lease, key, asking),
        }
    }

    #[inline(always)]
    fn take_by_key(&self, lease: &KeyLease, key: u64, asking: &Asking<'_>) -> Decision {
        let copies = &mut *asking.copies.0.borrow_mut();
        let copy = of(copies, self.which.index(), self.state.serial);
        lease.take(key, &mut copy.paces, asking.now)
    }

    /// Gives a token back that was the last one that this worker took of this limit, for a
    /// request which another limit refused.
    #[cold]
    pub(crate) fn give_back(&self, key: u64, asking: &Asking<'_>) {
        let Asking { worker, copies, now } = *asking;
        match &self.source {
            Source::Own(_) => self.state.bucket().give_back(),
            Source::OwnByKey(pace, table) => table.give_back(key, pace, now),
            // What another limit refuses is no reason to be lent more.
            Source::Whole(lease) => {
                self.state.bucket().give_back();
                lease.uncount(worker);
            }
            Source::ByKey(lease) => {
                let copies = &mut *copies.0.borrow_mut();
                let copy = of(copies, self.which.index(), self.state.serial);
                lease.give_back(key, &mut copy.paces, now);
            }
        }
        self.state.count_returned(worker);
    }

    /// What it came to in this process.
    pub(crate) fn sums(&self) -> LimitSums {
        let mut sums = self.state.sums();
        sums.forgiven = match &self.source {
            Source::Own(_) | Source::Whole(_) => 0,
            Source::OwnByKey(_, table) => table.forgiven(),
            Source::ByKey(lease) => lease.table().forgiven(),
        };
        sums
    }

    /// What may pass at `now`, and why.
    pub(crate) fn gauges(&self, now: Instant) -> LimitGauges {
        match &self.source {
            Source::Own(pace) | Source::OwnByKey(pace, _) => {
                LimitGauges { rate: pace.rate(now), hot_keys: 0, basis: Basis::Own }
            }
            Source::Whole(lease) => {
                let pace = lease.newest();
                let basis = if pace.is_leased(now) { Basis::Leased } else { Basis::SafeShare };
                LimitGauges { rate: pace.rate(now), hot_keys: 0, basis }
            }
            Source::ByKey(lease) => {
                let (paces, basis) = (lease.newest(), Basis::EvenShare);
                LimitGauges { rate: paces.cold.rate(now), hot_keys: paces.hot_keys(), basis }
            }
        }
    }

    /// What tells requests apart, in words.
    pub(crate) fn each(&self) -> String {
        match (self.limit.scope(), self.limit.key()) {
            (LimitScope::Backend, _) => " to each backend".to_owned(),
            (_, LimitKey::All) => String::new(),
            (_, LimitKey::ClientAddress) => " for each client address".to_owned(),
            (_, LimitKey::Header(name)) => format!(" for each value of the header {name}"),
            (_, LimitKey::Cookie(name)) => format!(" for each value of the cookie {name}"),
            (_, LimitKey::Path) => " for each path".to_owned(),
        }
    }
}
