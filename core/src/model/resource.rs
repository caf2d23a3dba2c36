//! Any object of the state, and how it is named.

use std::{fmt, str::FromStr, sync::Arc};

use super::{
    Backend, BackendStatus, Invalid, Limit, Listener, Pool, Route, SessionKeys, invalid::shorten,
};

/// The kinds of objects, in the order in which they must be applied: what others
/// refer to comes first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// [`Pool`]
    Pool,
    /// [`Backend`]
    Backend,
    /// [`BackendStatus`]
    Status,
    /// [`Listener`]
    Listener,
    /// [`Route`]
    Route,
    /// [`Limit`]
    Limit,
    /// [`SessionKeys`]: goes to proxies and to nobody else.
    SessionKeys,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Self; 7] = [
        Self::Pool,
        Self::Backend,
        Self::Status,
        Self::Listener,
        Self::Route,
        Self::Limit,
        Self::SessionKeys,
    ];

    /// As it is spelled on the wire and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Backend => "backend",
            Self::Status => "status",
            Self::Listener => "listener",
            Self::Route => "route",
            Self::Limit => "limit",
            Self::SessionKeys => "session_keys",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let shown = shorten(text);
            Invalid::unknown(
                "kind",
                "unknown_kind",
                format!("unknown kind {shown:?}; known are pool, backend, listener, route, limit"),
            )
        })
    }
}

/// Names one object of the state.
///
/// The kind is text, because a newer control plane may have kinds that this
/// build does not know and yet must hold, hash and report.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// [`Kind::name`], or what a newer peer sent.
    pub kind: Arc<str>,
    /// Unique within the kind.
    pub name: Arc<str>,
}

impl Key {
    /// Names an object.
    #[must_use]
    pub fn new(kind: &str, name: &str) -> Self {
        Self { kind: kind.into(), name: name.into() }
    }

    /// The kind, when this build knows it.
    #[must_use]
    pub fn known_kind(&self) -> Option<Kind> {
        self.kind.parse().ok()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// One decoded, checked object.
#[expect(
    clippy::large_enum_variant,
    reason = "few exist at a time, each on its way to where its kind is kept"
)]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Resource {
    /// A pool.
    Pool(Pool),
    /// A backend.
    Backend(Backend),
    /// The status of a backend.
    Status(BackendStatus),
    /// A listener.
    Listener(Listener),
    /// A route.
    Route(Route),
    /// A limit.
    Limit(Limit),
    /// The keys that sign sessions.
    SessionKeys(SessionKeys),
}

impl Resource {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pool(_) => Kind::Pool,
            Self::Backend(_) => Kind::Backend,
            Self::Status(_) => Kind::Status,
            Self::Listener(_) => Kind::Listener,
            Self::Route(_) => Kind::Route,
            Self::Limit(_) => Kind::Limit,
            Self::SessionKeys(_) => Kind::SessionKeys,
        }
    }

    /// The backend, if it is one.
    #[must_use]
    pub fn as_backend(&self) -> Option<&Backend> {
        match self {
            Self::Backend(backend) => Some(backend),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Pool(pool) => pool.name.as_str(),
            Self::Backend(backend) => backend.id.as_str(),
            Self::Status(status) => status.backend.as_str(),
            Self::Listener(listener) => listener.name.as_str(),
            Self::Route(route) => route.name.as_str(),
            Self::Limit(limit) => limit.name.as_str(),
            Self::SessionKeys(_) => SessionKeys::NAME,
        }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::new(self.kind().name(), self.name())
    }
}
