//! How a breaker is closed by what is no request: how much is forgotten depends on who vouches
//! for the backend.

use std::time::Instant;

use super::{Breaker, ClosedBy, Event, State};
use crate::model::BreakerPolicy;

impl Breaker {
    /// Hears that its checks, which had taken the backend down, have brought it up again: it
    /// was mended or started anew, and what failed before says nothing about it. How often it
    /// was open in a row is remembered all the same: one that crashes over and over would
    /// otherwise be tried as often as one that fails for the first time.
    pub fn came_back(&mut self, policy: &BreakerPolicy, now: Instant) -> Option<Event> {
        self.sightings.clear();
        self.refused = None;
        let is_closed = matches!(self.state, State::Closed { .. });
        (!is_closed).then(|| self.close(policy, ClosedBy::Checks, now))
    }

    /// Closes it by order: the pool has shrunk, and its cap with it.
    pub fn release(&mut self, policy: &BreakerPolicy, now: Instant) -> Option<Event> {
        let is_closed = matches!(self.state, State::Closed { .. });
        (!is_closed).then(|| self.close(policy, ClosedBy::Order, now))
    }

    /// Forgets all that it knows of the backend, times open in a row included: somebody who
    /// knows says that it is well.
    pub fn begin_anew(&mut self, policy: &BreakerPolicy, now: Instant) -> Option<Event> {
        let event = self.release(policy, now);
        self.sightings.clear();
        self.refused = None;
        self.opens = 0;
        self.state = State::Closed { quiet_at: None };
        event
    }

    /// Whether it is open, or would be open for longer than the first time if it opened now.
    #[must_use]
    pub fn remembers(&self, now: Instant) -> bool {
        let State::Closed { quiet_at } = &self.state else { return true };
        self.opens > 0 && quiet_at.is_some_and(|at| now < at)
    }
}
