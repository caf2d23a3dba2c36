//! What is lent: the name of a quantity, and how the configuration wants it.

use std::{fmt, sync::Arc, time::Duration};

use super::{OnLoss, Terms};
use crate::{
    model::{Backend, Limit, LimitKey, LimitScope, MaxInFlight, Pool},
    resilience::concurrency,
};

/// Names one quantity in the whole fleet.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Quantity {
    /// What it belongs to.
    pub kind: QuantityKind,
    /// The name of that.
    pub name: Arc<str>,
    /// Which life of that name, for what has lives; else 0.
    pub incarnation: u64,
}

/// What a quantity belongs to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum QuantityKind {
    /// Requests in progress in a pool.
    Pool,
    /// Requests in progress at a backend.
    Backend,
    /// The rate of a limit.
    Limit,
}

/// How much the configuration wants lent, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// Over the whole fleet, in the quantity's unit: slots, or millionths of a token per
    /// second ([`crate::limit::MICROS`]).
    pub amount: u64,
    /// Of which kind it is.
    pub sort: Sort,
}

/// How a quantity is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sort {
    /// By requests that hold a slot each.
    Slots {
        /// How long one may hold it beyond a lease: the request timeout.
        hold: Duration,
        /// Their number is found out within these bounds; the amount is the most then.
        adaptive: Option<concurrency::Policy>,
    },
    /// As a rate, by all requests together.
    Rate {
        /// Over the whole fleet.
        burst: u32,
    },
    /// As a rate, by each key on its own.
    RateByKey {
        /// Of each key, over the whole fleet.
        burst: u32,
    },
}

impl Quantity {
    /// The slots of a pool, if their number is limited.
    #[must_use]
    pub fn of_pool(pool: &Pool) -> Option<(Self, Wanted)> {
        let adaptive = pool.concurrency.adaptive();
        let amount = match (adaptive, pool.concurrency.max_in_flight) {
            (Some(policy), _) => policy.limit_max,
            (None, Some(amount)) => amount.get(),
            (None, None) => return None,
        };
        let name = pool.name.as_str().into();
        let quantity = Self { kind: QuantityKind::Pool, name, incarnation: 0 };
        let sort = Sort::Slots { hold: pool.request_timeout, adaptive };
        Some((quantity, Wanted { amount: amount.into(), sort }))
    }

    /// The slots of a backend of this pool, if their number is limited.
    #[must_use]
    pub fn of_backend(backend: &Backend, pool: &Pool) -> Option<(Self, Wanted)> {
        let amount = backend.max_in_flight?;
        let quantity = Self {
            kind: QuantityKind::Backend,
            name: backend.id.as_str().into(),
            incarnation: backend.incarnation.0,
        };
        let sort = Sort::Slots { hold: pool.request_timeout, adaptive: None };
        Some((quantity, Wanted { amount: amount.get().into(), sort }))
    }

    /// The rate of a limit, if it holds over more than one proxy. Over backends it is one by
    /// key: each backend is a key.
    #[must_use]
    pub fn of_limit(limit: &Limit) -> Option<(Self, Wanted)> {
        let burst = limit.burst();
        let sort = match (limit.scope(), limit.key()) {
            (LimitScope::Proxy, _) => return None,
            (LimitScope::Fleet, LimitKey::All) => Sort::Rate { burst },
            (LimitScope::Fleet | LimitScope::Backend, _) => Sort::RateByKey { burst },
        };
        let quantity = Self {
            kind: QuantityKind::Limit,
            name: limit.name.as_str().into(),
            incarnation: limit.incarnation.0,
        };
        Some((quantity, Wanted { amount: limit.rate.micros(), sort }))
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)
    }
}

impl QuantityKind {
    /// As people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Backend => "backend",
            Self::Limit => "limit",
        }
    }
}

impl Wanted {
    /// How it is lent.
    #[must_use]
    pub fn terms(&self) -> Terms {
        match self.sort {
            Sort::Slots { hold, .. } => Terms::slots(hold),
            Sort::Rate { .. } | Sort::RateByKey { .. } => Terms::rate(),
        }
    }

    /// What a proxy does about it while the control plane is away. A limit that is found out
    /// and has no highest value protects by its being about right, and need not hold exactly.
    #[must_use]
    pub fn on_loss(&self) -> OnLoss {
        match self.sort {
            Sort::Slots { adaptive: Some(policy), .. }
                if policy.limit_max == *MaxInFlight::RANGE.end() =>
            {
                OnLoss::Keep
            }
            Sort::Slots { .. } => OnLoss::OneEach { of: self.amount },
            Sort::Rate { .. } | Sort::RateByKey { .. } => OnLoss::SafeShare,
        }
    }

    /// Whether the same account goes on with this instead of `former`.
    #[must_use]
    pub fn continues(&self, former: &Self) -> bool {
        std::mem::discriminant(&self.sort) == std::mem::discriminant(&former.sort)
    }
}
