//! A backend: one address that serves requests.

use std::{borrow::Cow, collections::BTreeMap, fmt, net::SocketAddr};

use super::{
    Address, BackendId, BackendStatus, Drain, Host, Invalid, MaxInFlight, PoolName, Source,
};

/// One address that serves requests, as the operator wants it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backend {
    /// Unique over all pools.
    pub id: BackendId,
    /// The pool that it belongs to.
    pub pool: PoolName,
    /// Where it listens.
    pub address: Address,
    /// Its share beside the others of the pool.
    pub weight: Weight,
    /// What the operator wants of it.
    pub admin_state: AdminState,
    /// For people and automation; they decide nothing.
    pub labels: Labels,
    /// The source that discovered it; none if it was added by hand.
    pub source: Option<Source>,
    /// How its drain goes; only while it is draining.
    pub drain: Option<Drain>,
    /// Requests in progress at it, over all proxies; none is no limit.
    pub max_in_flight: Option<MaxInFlight>,
    /// Tells it apart from an earlier backend of the same id.
    pub incarnation: Incarnation,
}

impl Backend {
    /// One that was added by hand, with nothing said of it but where it is.
    #[must_use]
    pub fn new(id: BackendId, pool: PoolName, address: Address) -> Self {
        Self {
            id,
            pool,
            address,
            weight: Weight::default(),
            admin_state: AdminState::Enabled,
            labels: Labels::default(),
            source: None,
            drain: None,
            max_in_flight: None,
            incarnation: Incarnation::default(),
        }
    }

    /// Whether the operator wants it to get new requests.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.admin_state == AdminState::Enabled && self.weight.get() > 0
    }

    /// Whether it is wanted, and it is known where it is. Whether it gets requests is decided
    /// for its pool as a whole ([`candidates`](crate::health::candidates)).
    #[must_use]
    pub fn is_in_use(&self, status: Option<&BackendStatus>) -> bool {
        self.is_wanted() && !self.addresses(status).is_empty()
    }

    /// Where it is: as it was resolved, or as it is written. Nothing for a name that was not
    /// resolved yet.
    #[must_use]
    pub fn addresses<'a>(&self, status: Option<&'a BackendStatus>) -> Cow<'a, [SocketAddr]> {
        match (status.map(|status| &*status.addresses), self.address.host()) {
            (Some(resolved), _) if !resolved.is_empty() => Cow::Borrowed(resolved),
            (_, Host::Ip(ip)) => Cow::Owned(vec![SocketAddr::new(*ip, self.address.port())]),
            (_, Host::Name(_)) => Cow::Borrowed(&[]),
        }
    }
}

/// The revision at which a backend was added.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Incarnation(pub u64);

/// A share, 0 to 256 as HAProxy has it; 0 takes no new requests.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Weight(u16);

impl Weight {
    /// The largest weight.
    pub const MAX: u32 = 256;
    /// Takes no new requests.
    pub const NONE: Self = Self(0);

    /// Checks the range 0 to 256.
    pub fn new(weight: u32) -> Result<Self, Invalid> {
        match u16::try_from(weight) {
            Ok(value) if weight <= Self::MAX => Ok(Self(value)),
            _ => Err(Invalid::value(
                "backend.weight",
                format!("weight {weight} is outside 0 to {} (0 takes no new requests)", Self::MAX),
            )),
        }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the operator wants of a backend.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum AdminState {
    /// Serves when it is healthy.
    #[default]
    Enabled,
    /// Gets nothing, whatever its health.
    Disabled,
    /// Finishes what it has and gets nothing new.
    Draining,
}

impl AdminState {
    /// As the command line and JSON spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Draining => "draining",
        }
    }
}

/// At most 64 short pairs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Checks sizes: at most 64 pairs, keys of 1 to 63 bytes, values of at most 255.
    pub fn new(labels: BTreeMap<String, String>) -> Result<Self, Invalid> {
        if labels.len() > 64 {
            return Err(Invalid::value(
                "backend.labels",
                format!("{} labels are too many; at most 64 are allowed", labels.len()),
            ));
        }
        let fits =
            |(key, value): (&String, &String)| (1..=63).contains(&key.len()) && value.len() <= 255;
        if !labels.iter().all(fits) {
            return Err(Invalid::value(
                "backend.labels",
                "a label's key has 1 to 63 bytes and its value at most 255",
            ));
        }
        Ok(Self(labels))
    }

    /// The pairs in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_haproxys_range() {
        assert_eq!(Weight::new(0).unwrap().get(), 0);
        assert_eq!(Weight::new(256).unwrap().get(), 256);
        for bad in [257, 1_000_000_000, u32::MAX] {
            assert!(Weight::new(bad).unwrap_err().message.contains("0 to 256"));
        }
    }
}
