//! Room for bodies that are kept until their backend answers, so that another one can be sent
//! them.
//!
//! Each is bounded, and so are all of a worker together: where there is no room, a body goes
//! through as it comes, and its request is not sent again once some of it is gone.

use std::{cell::Cell, rc::Rc};

/// The longest body that is kept.
pub(crate) const REPLAY_MAX: usize = 64 * 1024;
/// Of all bodies that a worker keeps: 256 of the longest.
const WORKER_MAX: usize = 256 * REPLAY_MAX;

/// The room of one worker.
#[derive(Debug)]
pub(crate) struct Replays {
    free: Cell<usize>,
}

/// Room for one body, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    home: Rc<Replays>,
    size: usize,
}

impl Replays {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self { free: Cell::new(WORKER_MAX) })
    }

    /// Room for a body of at most this size, if there is any.
    pub(crate) fn room(self: &Rc<Self>, size: usize) -> Option<Room> {
        let left = self.free.get().checked_sub(size).filter(|_| size <= REPLAY_MAX)?;
        self.free.set(left);
        Some(Room { home: Rc::clone(self), size })
    }
}

impl Room {
    /// Whether so much still fits.
    pub(crate) fn holds(&self, size: usize) -> bool {
        size <= self.size
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.home.free.set(self.home.free.get() + self.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_given_back() {
        let replays = Replays::new();
        assert!(replays.room(REPLAY_MAX + 1).is_none());
        let rooms: Vec<Room> = (0..256).map(|_| replays.room(REPLAY_MAX).unwrap()).collect();
        assert!(replays.room(1).is_none());
        assert!(rooms[0].holds(REPLAY_MAX) && !rooms[0].holds(REPLAY_MAX + 1));
        drop(rooms);
        assert!(replays.room(1).is_some());
    }
}
