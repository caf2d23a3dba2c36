//! The messages of one stream that repeat what has not changed; see [`lb_core::lease::rests_on`].

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use lb_proto::v1 as pb;

/// Frames whose time is remembered: of longer than a lease, at the shortest period.
const FRAMES_MAX: usize = 32;

/// Those that were sent, and what came of them.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Of the last one.
    number: u64,
    /// When the latest were sent.
    sent: VecDeque<(u64, Instant)>,
    /// The control plane understood one: what has not changed need not be spelled out.
    pub(super) is_understood: bool,
}

impl Frames {
    pub(super) fn is_due(&self, period: Duration, now: Instant) -> bool {
        self.next_at(period).is_none_or(|at| now >= at)
    }

    pub(super) fn next_at(&self, period: Duration) -> Option<Instant> {
        self.sent.back().map(|(_, at)| *at + period)
    }

    pub(super) fn send(&mut self, now: Instant) -> u64 {
        self.number += 1;
        if self.sent.len() == FRAMES_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((self.number, now));
        self.number
    }

    /// When a frame was sent that the control plane has understood, if it has.
    pub(super) fn hear(&mut self, message: &pb::LeaseGrants) -> Option<Instant> {
        if message.frame > 0 {
            self.is_understood = message.renews;
        }
        let sent = self.sent.iter().find(|(number, _)| *number == message.frame);
        sent.filter(|_| message.renews).map(|(_, at)| *at)
    }
}
