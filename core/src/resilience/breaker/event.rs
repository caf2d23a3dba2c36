//! What a breaker shows, and what has changed about it.

use std::time::{Duration, Instant};

use super::super::ejection::Refused;

/// What a breaker shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Requests are sent.
    Closed,
    /// None are.
    Open {
        /// When the first probe may be sent.
        until: Instant,
    },
    /// One at a time is.
    HalfOpen {
        /// Of those that close it.
        successes: u32,
    },
}

/// What has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// No more requests.
    Opened {
        /// Why.
        cause: Cause,
        /// For how long.
        lasts: Duration,
        /// How often in a row.
        times: u32,
    },
    /// It should have opened, and the pool cannot spare the backend.
    Refused {
        /// Why it should have.
        cause: Cause,
        /// Why it must not.
        refused: Refused,
    },
    /// One request at a time.
    HalfOpened,
    /// Requests as before, beginning with a slow start.
    Closed {
        /// By whom.
        by: ClosedBy,
    },
}

/// Why a breaker opens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// So many failures without a success in between.
    Consecutive {
        /// How many.
        failures: u64,
    },
    /// Too large a share of failures in the window.
    Ratio {
        /// How many failed.
        failures: u64,
        /// Of how many.
        requests: u64,
    },
    /// A probe failed.
    ProbeFailed,
    /// The proxy that was sending a probe is lost.
    ProbeLost,
}

/// What closed a breaker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClosedBy {
    /// Requests that succeeded.
    Probes,
    /// Active checks: where nobody has requests to send, or after they had taken the backend
    /// down.
    Checks,
    /// The policy was turned off, or the pool needs the backend.
    Order,
}
