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
/// Of the memory that the proxy may have, all workers keep at most one part in so many.
const MEMORY_PART: u64 = 8;

/// How much each of these workers may keep, in bytes, of a proxy that may have so much memory;
/// 0 stands for no bound.
pub(crate) fn replays_max(memory: u64, workers: usize) -> usize {
    let share = usize::try_from(memory / MEMORY_PART).unwrap_or(usize::MAX) / workers.max(1);
    if memory == 0 { WORKER_MAX } else { share.min(WORKER_MAX) }
}

/// The room of one worker.
#[derive(Debug)]
pub(crate) struct Replays {
    free: Cell<usize>,
    is_closed: Cell<bool>,
}

/// Room for one body, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    home: Rc<Replays>,
    size: usize,
}

impl Replays {
    pub(crate) fn new(max: usize) -> Rc<Self> {
        Rc::new(Self { free: Cell::new(max), is_closed: Cell::default() })
    }

    /// Whether further bodies are kept: not while memory is short.
    pub(super) fn set_open(&self, is_open: bool) {
        self.is_closed.set(!is_open);
    }

    /// Room for a body of at most this size, if there is any.
    pub(crate) fn room(self: &Rc<Self>, size: usize) -> Option<Room> {
        if self.is_closed.get() {
            return None;
        }
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
        let replays = Replays::new(WORKER_MAX);
        assert!(replays.room(REPLAY_MAX + 1).is_none());
        let rooms: Vec<Room> = (0..256).map(|_| replays.room(REPLAY_MAX).unwrap()).collect();
        assert!(replays.room(1).is_none());
        assert!(rooms[0].holds(REPLAY_MAX) && !rooms[0].holds(REPLAY_MAX + 1));
        drop(rooms);
        replays.set_open(false);
        assert!(replays.room(1).is_none(), "memory is short");
        replays.set_open(true);
        assert!(replays.room(1).is_some());
    }

    #[test]
    fn workers_share_a_part_of_the_memory() {
        assert_eq!([replays_max(0, 2), replays_max(1 << 40, 2)], [WORKER_MAX; 2]);
        assert_eq!(replays_max(64 << 20, 4), 2 << 20);
    }
}
