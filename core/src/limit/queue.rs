//! Requests that wait for a slot: in the order in which they came, no more than a bound,
//! no longer than a deadline.
//!
//! Whoever shows interest no more says so ([`Queue::cancel`]), in whatever state it is:
//! when its turn had come already, the caller has a slot to pass on, and is told.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A bounded queue in which all wait for at most the same time.
#[derive(Debug)]
pub struct Queue {
    waiting: VecDeque<Waiting>,
    length_max: usize,
    wait_max: Duration,
    tickets: u64,
}

/// A place in a [`Queue`]; later ones compare greater.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(u64);

/// The queue has as many entries as are allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{length_max} {} already",
    if *length_max == 1 { "request waits" } else { "requests wait" }
)]
pub struct QueueFull {
    /// How many are allowed.
    pub length_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    ticket: Ticket,
    deadline: Instant,
}

impl Queue {
    /// The default of the bound: requests of one pool that wait in one proxy.
    pub const LENGTH_MAX: usize = 100;
    /// The default of the longest wait: that of a connection attempt, which a request that
    /// waits for a slot stands before.
    pub const WAIT_MAX: Duration = crate::model::Pool::QUEUE_TIMEOUT;

    /// An empty queue; with a `length_max` of 0 nobody waits.
    #[must_use]
    pub fn new(length_max: usize, wait_max: Duration) -> Self {
        Self { waiting: VecDeque::new(), length_max, wait_max, tickets: 0 }
    }

    /// Changes how many may wait; those who do, stay.
    pub fn set_length(&mut self, length_max: usize) {
        self.length_max = length_max;
    }

    /// Joins the end.
    pub fn join(&mut self, now: Instant) -> Result<Ticket, QueueFull> {
        if self.waiting.len() >= self.length_max {
            return Err(QueueFull { length_max: self.length_max });
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        // Not before the one ahead, whatever the clock does: order is what the rest relies on.
        let deadline = now + self.wait_max;
        let deadline = self.waiting.back().map_or(deadline, |last| deadline.max(last.deadline));
        self.waiting.push_back(Waiting { ticket, deadline });
        Ok(ticket)
    }

    /// Takes out the first whose deadline has not come, for a slot that is free. Those
    /// before it are left to [`Queue::expire`], which is to be called first.
    pub fn next(&mut self, now: Instant) -> Option<Ticket> {
        let index = self.waiting.iter().position(|waiting| now < waiting.deadline)?;
        self.waiting.remove(index).map(|waiting| waiting.ticket)
    }

    /// Takes out one whose deadline has come; to be called until there is none.
    pub fn expire(&mut self, now: Instant) -> Option<Ticket> {
        let first = self.waiting.front()?;
        if now < first.deadline {
            return None;
        }
        self.waiting.pop_front().map(|waiting| waiting.ticket)
    }

    /// Takes this one out. `false` if it is not in the queue any more: it was given a
    /// slot, which is to be passed on, or its deadline has come.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let Ok(index) = self.waiting.binary_search_by_key(&ticket, |waiting| waiting.ticket) else {
            return false;
        };
        self.waiting.remove(index).is_some()
    }

    /// When [`Queue::expire`] has something next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.deadline)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(Self::LENGTH_MAX, Self::WAIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::epoch;

    #[test]
    fn the_bound_and_the_deadline_are_exact() {
        let now = epoch();
        let mut queue = Queue::new(2, Duration::from_secs(3));
        let first = queue.join(now).unwrap();
        let second = queue.join(now + Duration::from_secs(1)).unwrap();
        assert_eq!(queue.join(now), Err(QueueFull { length_max: 2 }));
        assert_eq!(queue.next_deadline(), Some(now + Duration::from_secs(3)));
        assert_eq!(queue.expire(now + Duration::from_millis(2999)), None);
        assert_eq!(queue.expire(now + Duration::from_secs(3)), Some(first));
        assert_eq!(queue.expire(now + Duration::from_secs(3)), None);
        assert_eq!(queue.next(now + Duration::from_secs(3)), Some(second));
        assert!(!queue.cancel(second), "it has a slot, which is to be passed on");
        assert!(queue.is_empty());
    }

    #[test]
    fn without_a_length_nobody_waits() {
        let mut queue = Queue::new(0, Duration::from_secs(3));
        assert!(queue.join(epoch()).is_err());
    }

    proptest! {
        /// Whatever comes: everybody who joined leaves once, in order, and not too late.
        #[test]
        fn everybody_leaves_once(steps in prop::collection::vec((0..5_u8, 0..2000_u64), 0..200)) {
            let (mut now, mut queue) = (epoch(), Queue::new(7, Duration::from_secs(3)));
            let mut inside = BTreeMap::new();
            for (action, value) in steps {
                match action {
                    0 => now += Duration::from_millis(value),
                    1 | 2 => match queue.join(now) {
                        Ok(ticket) => prop_assert!(inside.insert(ticket, now).is_none()),
                        Err(_) => prop_assert_eq!(inside.len(), 7),
                    },
                    3 => {
                        while let Some(ticket) = queue.expire(now) {
                            let joined = inside.remove(&ticket).unwrap();
                            prop_assert!(now >= joined + Duration::from_secs(3));
                        }
                        let next = queue.next(now);
                        prop_assert_eq!(next, inside.pop_first().map(|(ticket, _)| ticket));
                    }
                    _ => {
                        let ticket = Ticket(value % 50);
                        prop_assert_eq!(queue.cancel(ticket), inside.remove(&ticket).is_some());
                    }
                }
                prop_assert_eq!(queue.len(), inside.len());
            }
        }
    }
}
