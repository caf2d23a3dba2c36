//! How a proxy stands, for listings.

use std::time::Duration;

use lb_core::moment::Moment;

use super::{Progress, ProxyInfo};

/// A proxy as people see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProxyState {
    /// Has applied the newest revision.
    Synced,
    /// Has not yet.
    Behind,
    /// Refused something, which keeps its former value.
    Rejected,
    /// Not connected, and may be serving.
    Lost,
    /// Not connected, after it had said that it serves nobody any more.
    Stopped,
}

impl ProxyState {
    /// As it is spelled on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Behind => "behind",
            Self::Rejected => "rejected",
            Self::Lost => "lost",
            Self::Stopped => "stopped",
        }
    }

    /// Whether its stream is open.
    #[must_use]
    pub fn is_connected(self) -> bool {
        !matches!(self, Self::Lost | Self::Stopped)
    }
}

/// One proxy in a listing.
#[derive(Clone, Debug)]
pub struct ProxyView {
    /// What it said of itself.
    pub info: ProxyInfo,
    /// At the moment of the listing.
    pub state: ProxyState,
    /// How far it got.
    pub progress: Progress,
    /// When its stream began.
    pub connected: Moment,
    /// Since it was last heard of.
    pub last_seen: Duration,
    /// From commit to ACK of the last delta.
    pub lag: Duration,
}
