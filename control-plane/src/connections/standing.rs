//! What a connection is at, and whether it can be done without.

use std::time::Duration;

use tokio::time::Instant;

/// Whoever was at work until just now may be again, and loses a request if it is closed then.
const IDLE_FOR: Duration = Duration::from_millis(250);
/// Whoever takes nothing of its answer for this long does not want it.
const STALLED_FOR: Duration = Duration::from_secs(10);

/// What a connection is at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// It has never asked for anything.
    is_silent: bool,
    /// In progress.
    requests: u32,
    /// Those of them that have not come in whole, and are not being answered.
    incoming: u32,
    /// Since when it has been at nothing, or since it began to send.
    since: Instant,
    /// Since when it has not taken what it is sent.
    stalled: Option<Instant>,
}

/// Why a connection can be done without: in the order in which they go.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Idle {
    /// It has never asked for anything.
    Silent(Instant),
    /// All that it has asked for is answered, or was not asked to the end.
    Waiting(Instant),
    /// It does not take its answer.
    Stalled(Instant),
}

impl Standing {
    pub(super) fn new(now: Instant) -> Self {
        Self { is_silent: true, requests: 0, incoming: 0, since: now, stalled: None }
    }

    pub(super) fn gives_way(&self, now: Instant) -> Option<Idle> {
        let is_waiting = self.requests == self.incoming;
        match self.stalled {
            _ if self.is_silent => Some(Idle::Silent(self.since)),
            _ if is_waiting && now - self.since >= IDLE_FOR => Some(Idle::Waiting(self.since)),
            Some(stalled) if now - stalled >= STALLED_FOR => Some(Idle::Stalled(stalled)),
            _ => None,
        }
    }

    /// The head of a request has come in.
    pub(super) fn began(&mut self, now: Instant) {
        if self.requests == self.incoming {
            self.since = now;
        }
        self.is_silent = false;
        self.requests += 1;
        self.incoming += 1;
    }

    /// The whole of one has, or it is answered without it.
    pub(super) fn received(&mut self) {
        self.incoming -= 1;
    }

    /// One has been answered.
    pub(super) fn answered(&mut self, now: Instant) {
        self.requests -= 1;
        if self.requests == self.incoming {
            self.since = now;
        }
    }

    /// Something was sent to it, or could not be.
    pub(super) fn writes(&mut self, is_stalled: bool) {
        self.stalled = is_stalled.then(|| self.stalled.unwrap_or_else(Instant::now));
    }
}
