//! What the control plane knows about a backend.

use std::net::SocketAddr;

use super::{AdminState, BackendId, Incarnation, Standing};

/// The verdict about one backend, and the addresses that its name stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackendStatus {
    /// Which backend.
    pub backend: BackendId,
    /// Which life of it: a status of an earlier one is void.
    pub incarnation: Incarnation,
    /// The verdict.
    pub health: Health,
    /// The most promising first.
    pub addresses: Vec<SocketAddr>,
    /// Why the verdict is what it is.
    pub reason: Reason,
    /// When the verdict last changed, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// Whether it was up at any time of this life: one that never was gets no traffic, however
    /// few others are left.
    pub was_up: bool,
    /// What its traffic says of it.
    pub standing: Standing,
}

/// The verdict of the control plane about one backend.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Health {
    /// Never checked: no traffic yet.
    #[default]
    Unknown,
    /// Gets traffic.
    Up,
    /// Gets none.
    Down,
}

impl BackendStatus {
    /// Whether a backend of this health was ever up, by what was known before. One that has no
    /// verdict any more has to pass a check anew.
    #[must_use]
    pub fn was_up_by(health: Health, before: Option<&Self>) -> bool {
        match health {
            Health::Up => true,
            Health::Down => before.is_some_and(|before| before.was_up),
            Health::Unknown => false,
        }
    }
}

impl Health {
    /// As the command line and JSON spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A machine-readable reason and a sentence for people.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reason {
    /// One of the reason vocabulary, such as `backend_connect_refused`.
    pub code: String,
    /// What happened, in words.
    pub message: String,
}

impl Reason {
    /// Puts both together.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }

    /// What there is to say of a backend in this state before its first check.
    #[must_use]
    pub fn not_checked(state: AdminState) -> Self {
        let message = match state {
            AdminState::Disabled => "disabled backends are not checked",
            AdminState::Enabled | AdminState::Draining => "waiting for the first check",
        };
        Self::new("not_checked", message)
    }
}
