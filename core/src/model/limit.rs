//! A limit: how many requests may pass, counted over what.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use super::{
    Incarnation, Invalid, LimitKey, LimitName, PoolName, Rate, RouteName, invalid::shorten,
};

/// A named limit on the rate of requests, which a token bucket keeps: `burst` requests at
/// once, and then `rate`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limit {
    /// Unique among limits.
    pub name: LimitName,
    /// Which requests it counts.
    pub target: LimitTarget,
    key: LimitKey,
    /// How many may pass in the long run, for each key.
    pub rate: Rate,
    burst: u32,
    scope: LimitScope,
    /// It only counts what it would refuse, to be tried out; default no.
    pub shadow: bool,
    /// Which life of it: one that counts something else is another one, with full buckets.
    /// Set by the registry.
    pub incarnation: Incarnation,
    /// For [`crate::limit::KeyHasher`], the same on all proxies. Made by the registry, and told
    /// to proxies only.
    pub secret: [u64; 2],
}

/// Which requests a limit counts.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum LimitTarget {
    /// All.
    #[default]
    All,
    /// Those that go to this pool.
    Pool(PoolName),
    /// Those that match this route.
    Route(RouteName),
}

/// Over what a limit is counted.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum LimitScope {
    /// Over all proxies together.
    #[default]
    Fleet,
    /// Over each proxy by itself.
    Proxy,
    /// Over each backend, for what all proxies together send it.
    Backend,
}

impl Limit {
    /// What a burst may be.
    pub const BURST: RangeInclusive<u32> = 1..=100_000_000;

    /// A limit on all requests together, over the fleet, with a second's worth of burst.
    #[must_use]
    pub fn new(name: LimitName, rate: Rate) -> Self {
        Self {
            name,
            target: LimitTarget::default(),
            key: LimitKey::default(),
            rate,
            burst: rate.one_second(),
            scope: LimitScope::default(),
            shadow: false,
            incarnation: Incarnation(0),
            secret: [0; 2],
        }
    }

    /// Replaces the burst; it must be in [`Self::BURST`].
    pub fn with_burst(mut self, burst: u32) -> Result<Self, Invalid> {
        if !Self::BURST.contains(&burst) {
            let (least, most) = (Self::BURST.start(), Self::BURST.end());
            return Err(Invalid::value(
                "limit.burst",
                format!(
                    "burst {burst} is outside {least} to {most}; a bucket that holds nothing \
                     refuses everything, and without a burst it holds a second's worth"
                ),
            ));
        }
        self.burst = burst;
        Ok(self)
    }

    /// Replaces what it is counted over and by. What is counted over each backend cannot
    /// also be told apart by a key.
    pub fn counted(mut self, scope: LimitScope, key: LimitKey) -> Result<Self, Invalid> {
        if scope == LimitScope::Backend && key != LimitKey::All {
            return Err(Invalid::value(
                "limit.key",
                format!(
                    "key {key} does not go with scope backend, which counts by backend; take key \
                     all, or scope fleet"
                ),
            ));
        }
        self.scope = scope;
        self.key = key;
        Ok(self)
    }

    /// How many may come at once; default a second's worth of the rate, at least 1.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// What tells requests apart; default all together.
    #[must_use]
    pub fn key(&self) -> &LimitKey {
        &self.key
    }

    /// Over what it is counted; default the fleet.
    #[must_use]
    pub fn scope(&self) -> LimitScope {
        self.scope
    }

    /// Whether both count the same requests into the same buckets, however many may pass.
    #[must_use]
    pub fn counts_like(&self, other: &Self) -> bool {
        (&self.target, &self.key, self.scope) == (&other.target, &other.key, other.scope)
    }
}

impl LimitScope {
    /// Every name, in the order in which help texts list them.
    pub const NAMES: [&str; 3] = ["fleet", "proxy", "backend"];
}

impl FromStr for LimitScope {
    type Err = Invalid;

    fn from_str(name: &str) -> Result<Self, Invalid> {
        match name {
            "fleet" => Ok(Self::Fleet),
            "proxy" => Ok(Self::Proxy),
            "backend" => Ok(Self::Backend),
            _ => {
                let shown = shorten(name);
                Err(Invalid::unknown(
                    "limit.scope",
                    "unknown_scope",
                    format!("unknown scope {shown:?}; known are {}", Self::NAMES.join(", ")),
                ))
            }
        }
    }
}

impl fmt::Display for LimitScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fleet => Self::NAMES[0],
            Self::Proxy => Self::NAMES[1],
            Self::Backend => Self::NAMES[2],
        })
    }
}

impl FromStr for LimitTarget {
    type Err = Invalid;

    /// Reads `all`, `pool:NAME` or `route:NAME`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            Some(("pool", name)) => PoolName::new(name).map(Self::Pool),
            Some(("route", name)) => RouteName::new(name).map(Self::Route),
            _ => {
                let shown = shorten(text);
                Err(Invalid::unknown(
                    "limit.target",
                    "unknown_target",
                    format!("unknown target {shown:?}; known are all, pool:NAME, route:NAME"),
                ))
            }
        }
    }
}

impl fmt::Display for LimitTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Pool(name) => write!(f, "pool:{name}"),
            Self::Route(name) => write!(f, "route:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(rate: &str) -> Limit {
        Limit::new(LimitName::new("api").unwrap(), rate.parse().unwrap())
    }

    #[test]
    fn a_burst_is_a_seconds_worth_unless_it_is_given() {
        for (rate, burst) in [("100/s", 100), ("30/m", 1), ("1/d", 1)] {
            assert_eq!(limit(rate).burst(), burst, "{rate}");
        }
        assert_eq!(limit("100/s").with_burst(5).unwrap().burst(), 5);
    }

    #[test]
    fn a_burst_of_nothing_or_of_everything_is_refused() {
        for burst in [0, 100_000_001, u32::MAX] {
            let error = limit("100/s").with_burst(burst).unwrap_err();
            assert_eq!(error.field, "limit.burst");
            assert!(error.message.contains(&format!("burst {burst} is outside")), "{error}");
        }
    }

    #[test]
    fn backends_are_not_told_apart_twice() {
        let by_client = |scope| limit("1/s").counted(scope, LimitKey::ClientAddress);
        assert_eq!(by_client(LimitScope::Backend).unwrap_err().field, "limit.key");
        assert_eq!(by_client(LimitScope::Proxy).unwrap().scope(), LimitScope::Proxy);
        assert!(limit("1/s").counted(LimitScope::Backend, LimitKey::All).is_ok());
    }

    #[test]
    fn names_read_back_and_mistakes_are_named() {
        for name in LimitScope::NAMES {
            assert_eq!(name.parse::<LimitScope>().unwrap().to_string(), name);
        }
        for text in ["all", "pool:default", "route:api"] {
            assert_eq!(text.parse::<LimitTarget>().unwrap().to_string(), text);
        }
        for text in ["", "pool", "backend:b1"] {
            assert_eq!(text.parse::<LimitTarget>().unwrap_err().code, "unknown_target", "{text}");
        }
        assert_eq!("pool:".parse::<LimitTarget>().unwrap_err().field, "pool.name");
        assert!("global".parse::<LimitScope>().unwrap_err().message.contains("fleet, proxy"));
    }
}
