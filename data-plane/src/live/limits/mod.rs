//! Rate limits as workers ask them: which ones apply to a request, and whether it may pass.
//!
//! What a limit remembers is in [`LimitState`] and outlives configurations; how many may pass
//! is in [`LimitConfig`]. For each destination there is a list of those that apply, so that a
//! request without limits costs one branch, and one with limits looks at these only.

mod compile;
mod copies;
mod state;

use std::{num::NonZero, rc::Rc, sync::Arc, time::Instant};

use lb_core::{
    lease::Quantity,
    limit::{Alike, Decision, Pace, Quota, Table, Taken},
    model::{Limit, LimitKey, LimitScope},
};

pub(super) use self::compile::LimitCompiler;
use self::copies::{LastTold, Which, of};
pub(crate) use self::{
    copies::{LimitCopies, Telling, Told},
    state::{LimitState, LimitSums},
};
use super::{PoolIndex, RouteIndex};
use crate::leases::{KeyLease, RateLease};

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
    /// The only one of those, if requests cannot fall back on another pool; else where none stands.
    only: LimitIndex,
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
    usual: Usual,
    /// The fields `RateLimit-Policy` and, until its figures, `RateLimit`.
    fields: Arc<str>,
}

/// What it takes to know the number under which a limit counts the usual request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Usual {
    /// Nothing: all are counted together.
    All,
    /// The connection remembers its peer's.
    Peer,
    /// What the head says.
    Head,
    /// No request is: it only counts, and others refuse.
    None,
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

    /// The only one to ask before a backend is picked, where requests cannot fall back on another
    /// pool.
    #[inline(always)]
    pub(crate) fn only_one(&self, route: RouteIndex, pool: PoolIndex) -> Option<&LimitConfig> {
        self.all.get(self.applicable(route, pool)?.only)
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
        let usual = match limit.key() {
            _ if limit.shadow => Usual::None,
            LimitKey::All => Usual::All,
            LimitKey::ClientAddress => Usual::Peer,
            LimitKey::Header(_) | LimitKey::Cookie(_) | LimitKey::Path => Usual::Head,
        };
        Self { which: Which::new(version, 0), limit, state, source, usual, fields: fields.into() }
    }

    /// The same at this place of a configuration.
    fn at(self, index: LimitIndex) -> Self {
        Self { which: Which::new(self.which.version(), index), ..self }
    }

    /// What a client is told of it that was let pass.
    #[inline(always)]
    pub(crate) fn told(&self, decision: &Decision) -> Told {
        Told::new(self.which, decision.remaining(), decision.reset_seconds())
    }

    /// What it takes to know the number of the usual request.
    #[inline(always)]
    pub(crate) fn usual(&self) -> Usual {
        self.usual
    }

    /// Asks for one token for the usual request, whose key has this number: what it is told.
    /// Nothing if anything about it is unusual; then it has taken nothing, and [`Self::take`]
    /// is to be asked.
    #[inline(always)]
    pub(crate) fn take_usual(
        &self,
        key: u64,
        copies: &LimitCopies,
        worker: usize,
        nanos: u64,
    ) -> Option<Telling> {
        let copies = copies.all.borrow();
        let copy = copies.get(self.which.index()).filter(|copy| copy.which == Some(self.which))?;
        // What comes before the start is far more than any stage lasts, and so unusual.
        let elapsed = nanos.wrapping_sub_signed(copy.began);
        let (taken, pace) = match &self.source {
            Source::ByKey(lease) => lease.take_usual(key, &copy.paces, elapsed)?,
            Source::Whole(lease) => {
                let pace = lease.current(&copy.pace)?;
                let taken = self.state.bucket().take_usual(pace, elapsed)?;
                lease.count(worker);
                (taken, pace)
            }
            Source::Own(pace) => (self.state.bucket().take_usual(pace, elapsed)?, pace),
            Source::OwnByKey(pace, table) => (table.take_usual(key, pace, elapsed)?, pace),
        };
        self.state.count_taken(worker);
        if taken.is_among(&copy.told.alike.get()) {
            return Some(Telling::Again(Rc::clone(&copy.told.fields)));
        }
        Some(self.telling(&taken, pace, &copy.told))
    }

    #[cold]
    fn telling(&self, taken: &Taken, pace: &Pace, last: &LastTold) -> Telling {
        let told = self.told(&taken.decision(pace));
        if last.told != Some(told) {
            return Telling::Anew(told);
        }
        last.alike.set(taken.alike());
        Telling::Again(Rc::clone(&last.fields))
    }

    /// Asks for one token; of a limit by key, for the key of this number.
    pub(crate) fn take(&self, key: u64, asking: &Asking<'_>) -> Decision {
        let Asking { worker, copies, now } = *asking;
        let origin = copies.origin;
        let copies = &mut *copies.all.borrow_mut();
        let copy = of(copies, self.which);
        // The pace may be another from here on.
        copy.told.alike.set(Alike::NONE);
        let decision = match &self.source {
            Source::Own(pace) => {
                copy.began = pace.start_after(origin);
                self.state.bucket().take(pace, now)
            }
            Source::OwnByKey(pace, table) => {
                copy.began = pace.start_after(origin);
                table.take(key, pace, now)
            }
            Source::Whole(lease) => {
                lease.count(worker);
                let pace = lease.pace(&mut copy.pace);
                copy.began = pace.start_after(origin);
                self.state.bucket().take(pace, now)
            }
            Source::ByKey(lease) => {
                let decision = lease.take(key, &mut copy.paces, now);
                copy.began = lease.cold(&mut copy.paces).start_after(origin);
                decision
            }
        };
        self.state.count(worker, &decision);
        decision
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
                let copies = &mut *copies.all.borrow_mut();
                let copy = of(copies, self.which);
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

#[cfg(test)]
mod tests;
