//! How fast clients give up their places to others while there are too few.
//!
//! A connection that is closed after each answer costs a new one for each request, about
//! twice the work. So a full proxy would serve half of what it can. Here a part of the places
//! changes hands at a time: whoever waits gets one soon, and nearly all requests come on
//! connections that are open.
//!
//! Places go on only while they come back: where as many as that part are with clients that owe
//! an answer ([`super::stays`]), those who wait have to wait for them, and not for who behaves.

use std::time::{Duration, Instant};

/// How long it takes for a part of the places to change hands.
const TURN: Duration = Duration::from_millis(250);
/// Which part of them, one in so many.
const PART: usize = 5;
/// How many of a worker's places at least: where there are few, everybody takes turns.
const LEAST: usize = 8;

/// The places of one worker that may still change hands in this turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns {
    began: Instant,
    /// Taken in this turn.
    taken: usize,
}

impl Turns {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, taken: 0 }
    }

    /// Takes one of the worker's `places`, if one may change hands now. `owing` are with clients
    /// that do not give them back soon.
    pub(super) fn take(&mut self, now: Instant, places: usize, owing: usize) -> bool {
        if now.saturating_duration_since(self.began) >= TURN {
            *self = Self::new(now);
        }
        let may = self.taken < (places / PART).max(LEAST) && owing < (places / PART).max(1);
        self.taken += usize::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_places_changes_hands_at_a_time() {
        let start = crate::worker::now();
        let mut turns = Turns::new(start);
        let mut taken = |at, places| (0..1000).filter(|_| turns.take(at, places, 0)).count();
        assert_eq!([taken(start, 500), taken(start + TURN / 2, 500)], [100, 0]);
        assert_eq!(taken(start + TURN, 500), 100);
        assert_eq!(taken(start + 3 * TURN, 3), LEAST);
    }

    #[test]
    fn places_that_do_not_come_back_are_followed_by_no_others() {
        let start = crate::worker::now();
        let mut turns = Turns::new(start);
        let mut takes = |owing, places| turns.take(start, places, owing);
        assert!(takes(99, 500) && !takes(100, 500));
        assert!(takes(0, 3) && !takes(1, 3), "where there are few, too");
    }
}
