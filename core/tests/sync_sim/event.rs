//! What can happen, when, and between whom.

use std::cmp::Ordering;

use lb_core::{
    model::Version,
    sync::{Answer, Held, Nonce, Rejection, Session, Transmission},
};

/// What one run came across, to see that the runs cover what they claim.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) steps: u64,
    pub(crate) commits: u64,
    pub(crate) deltas: u64,
    pub(crate) snapshots: u64,
    pub(crate) applied: u64,
    pub(crate) stale: u64,
    pub(crate) diverged: u64,
    pub(crate) resyncs: u64,
    pub(crate) would_empty: u64,
    pub(crate) rejections: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) strays: u64,
    pub(crate) corruptions: u64,
    pub(crate) proxy_restarts: u64,
    pub(crate) publisher_restarts: u64,
    pub(crate) epochs: u64,
}

impl Report {
    pub(crate) fn sent(&self) -> u64 {
        self.deltas + self.snapshots
    }
}

/// One connection, as both ends see it.
pub(crate) struct Connection {
    pub(crate) proxy: usize,
    pub(crate) proxy_process: u32,
    /// Of the control plane.
    pub(crate) process: u32,
    pub(crate) session: Option<Session>,
    /// The control plane got the Hello.
    pub(crate) greeted: bool,
    /// Where something was lost, nothing follows.
    pub(crate) broken: [bool; 2],
    pub(crate) latest_ms: [u64; 2],
    pub(crate) unacknowledged: Option<Nonce>,
    /// All that the proxy applied during this connection, or before it.
    pub(crate) applied: Vec<Version>,
}

impl Connection {
    pub(crate) fn new(
        proxy: usize,
        proxy_process: u32,
        process: u32,
        now_ms: u64,
        held: Option<Held>,
    ) -> Self {
        Self {
            proxy,
            proxy_process,
            process,
            session: None,
            greeted: false,
            broken: [false; 2],
            latest_ms: [now_ms; 2],
            unacknowledged: None,
            applied: held.iter().map(|held| held.version).collect(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    Up = 0,
    Down = 1,
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Hello(Option<Held>, Vec<Rejection>),
    Answer {
        answer: Answer,
        /// The start of the control plane that asked.
        asked_by: u32,
    },
    Transmission(Transmission),
    Heartbeat(Held),
}

#[derive(Debug)]
pub(crate) enum Event {
    Write,
    Fault,
    Heartbeats,
    Settle,
    Poll,
    Connect { proxy: usize, process: u32 },
    Applied { proxy: usize, process: u32, nonce: Nonce, by: u32 },
    Delivery { connection: usize, message: Box<Message> },
    ProxyNotices { connection: usize },
    ControlPlaneNotices { connection: usize },
}

#[derive(Debug)]
pub(crate) struct Scheduled {
    pub(crate) at_ms: u64,
    pub(crate) number: u64,
    pub(crate) event: Event,
}

impl Ord for Scheduled {
    /// The earliest is the greatest, for a heap that gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ms, other.number).cmp(&(self.at_ms, self.number))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}
