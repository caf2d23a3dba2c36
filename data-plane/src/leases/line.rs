//! The requests of a pool that wait for a slot, of all workers: in the order in which they
//! came, no more than a bound.
//!
//! A slot that becomes free is not handed over, because only the request itself knows which
//! backends it may go to. Instead the first in line gets a *turn*: it looks whether there is
//! a slot for it, and if not, passes the turn on to the next. A free slot thus reaches the
//! first who can use it, and nobody looks for slots that are not there.
//!
//! While nobody waits, requests read one number here.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use lb_core::{
    limit::{Queue, QueueFull, Ticket},
    stats::whole_us,
};
use tokio::sync::Notify;

use crate::live::Padded;

/// Those who wait.
#[derive(Debug)]
pub(crate) struct Line {
    waiting: Padded<AtomicU64>,
    places: Mutex<Places>,
    /// Those who waited, and how long together.
    waited: AtomicU64,
    waited_us: AtomicU64,
    /// Told when somebody begins to wait.
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Places {
    queue: Queue,
    places: BTreeMap<Ticket, Place>,
    /// Turns that were given and neither used nor passed on.
    turns: usize,
    /// Slots that became free while everybody had a turn: whoever finds none may have looked
    /// before.
    missed: usize,
}

#[derive(Debug, Default)]
struct Place {
    has_turn: bool,
    waker: Option<Waker>,
}

/// One place in the line. Dropped, it is given up, and a turn with it passed on.
#[derive(Debug)]
pub(crate) struct Waiter {
    line: Arc<Line>,
    ticket: Ticket,
}

impl Line {
    pub(super) fn new(news: Arc<Notify>) -> Self {
        Self {
            waiting: Padded::default(),
            places: Mutex::default(),
            waited: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
            news,
        }
    }

    /// How many may wait from now on.
    pub(super) fn set_length(&self, length_max: usize) {
        self.lock().queue.set_length(length_max);
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.0.load(Relaxed)
    }

    /// Notes how long one has waited.
    pub(crate) fn count_wait(&self, wait: Duration) {
        self.waited.fetch_add(1, Relaxed);
        self.waited_us.fetch_add(whole_us(wait), Relaxed);
    }

    /// How many have waited, and how long together.
    pub(crate) fn waits(&self) -> (u64, Duration) {
        (self.waited.load(Relaxed), Duration::from_micros(self.waited_us.load(Relaxed)))
    }

    /// Joins the end. If no turn is on its way, it begins with one.
    pub(crate) fn join(self: &Arc<Self>, now: Instant) -> Result<Waiter, QueueFull> {
        let places = &mut *self.lock();
        let ticket = places.queue.join(now)?;
        let has_turn = places.turns == 0;
        places.turns += usize::from(has_turn);
        places.places.insert(ticket, Place { has_turn, waker: None });
        places.make_up();
        if self.waiting.0.fetch_add(1, SeqCst) == 0 {
            self.news.notify_one();
        }
        // Whoever gives a slot back from now on sees that somebody waits.
        fence(SeqCst);
        Ok(Waiter { line: Arc::clone(self), ticket })
    }

    /// A slot has become free.
    pub(crate) fn freed(&self) {
        fence(SeqCst);
        if self.waiting.0.load(SeqCst) > 0 {
            let places = &mut *self.lock();
            if !places.give_turn(None) {
                // As many turns are on their way, and none of them needs to be told twice.
                places.missed = (places.missed + 1).min(places.turns);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Gives a turn to the first who has none, behind this one; whether there is one.
    fn give_turn(&mut self, behind: Option<Ticket>) -> bool {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let mut places = self.places.range_mut((from, Bound::Unbounded));
        let Some((_, place)) = places.find(|(_, place)| !place.has_turn) else { return false };
        place.has_turn = true;
        self.turns += 1;
        if let Some(waker) = place.waker.take() {
            waker.wake();
        }
        true
    }

    /// Gives turns for what became free while everybody had one, to those who have none now. When
    /// no turn is left that could find nothing, nothing is missed any more.
    fn make_up(&mut self) {
        while self.missed > 0 && self.give_turn(None) {
            self.missed -= 1;
        }
        self.missed = self.missed.min(self.turns);
    }

    /// A turn found nothing: the next one behind has it, or the first, if a slot came meanwhile.
    fn pass_on(&mut self, from: Ticket) {
        self.turns -= 1;
        let is_given = self.give_turn((self.missed == 0).then_some(from));
        self.missed = self.missed.saturating_sub(usize::from(is_given));
    }
}

impl Waiter {
    /// Ready when it has a turn, to be used or passed on.
    pub(crate) fn poll_turn(&self, context: &Context<'_>) -> Poll<()> {
        let places = &mut *self.line.lock();
        match places.places.get_mut(&self.ticket) {
            Some(place) if !place.has_turn => {
                place.waker = Some(context.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// There was no slot for it: the next one may look.
    pub(crate) fn pass_on(&self) {
        let places = &mut *self.line.lock();
        if let Some(place) = places.places.get_mut(&self.ticket)
            && std::mem::take(&mut place.has_turn)
        {
            places.pass_on(self.ticket);
        }
    }

    /// It has a slot: its turn is used.
    pub(crate) fn leave(self) {
        let places = &mut *self.line.lock();
        if let Some(place) = places.places.get_mut(&self.ticket)
            && std::mem::take(&mut place.has_turn)
        {
            places.turns -= 1;
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let places = &mut *self.line.lock();
        places.queue.cancel(self.ticket);
        let place = places.places.remove(&self.ticket);
        self.line.waiting.0.fetch_sub(1, SeqCst);
        if place.is_some_and(|place| place.has_turn) {
            places.pass_on(self.ticket);
        }
        places.make_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::now;

    fn line(length: usize) -> Arc<Line> {
        let line = Arc::new(Line::new(Arc::default()));
        line.set_length(length);
        line
    }

    fn has_turn(waiter: &Waiter) -> bool {
        waiter.poll_turn(&Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn a_place_that_is_given_up_is_free_and_who_begins_to_wait_is_reported() {
        let news = Arc::<Notify>::default();
        let line = Arc::new(Line::new(Arc::clone(&news)));
        line.set_length(1);
        for _ in 0..2 {
            drop(line.join(now()).unwrap());
            let told = tokio::time::timeout(Duration::ZERO, news.notified()).await;
            assert!(told.is_ok());
        }
    }

    #[test]
    fn turns_go_down_the_line_in_order() {
        let (line, now) = (line(3), now());
        let first = line.join(now).unwrap();
        assert!(has_turn(&first), "it may look whether a slot has come back meanwhile");
        first.pass_on();
        let [second, third] = [(); 2].map(|()| line.join(now).unwrap());
        assert!(!has_turn(&first) && has_turn(&second) && !has_turn(&third));
        assert!(line.join(now + Duration::from_secs(1)).is_err());
        second.pass_on();
        assert!(has_turn(&third));
        third.pass_on();
        line.freed();
        assert!(has_turn(&first) && !has_turn(&second) && !has_turn(&third));
        line.freed();
        assert!(has_turn(&second) && !has_turn(&third));
        first.leave();
        assert!(!has_turn(&third), "the slot is used");
        drop(second);
        assert!(has_turn(&third), "whoever gives up passes on");
        assert_eq!(line.waiting(), 1);
        third.leave();
        assert_eq!((line.waiting(), line.lock().turns), (0, 0));
        line.freed();
    }
    #[test]
    fn a_slot_that_comes_back_while_the_last_turn_fails_is_looked_for_again() {
        let (line, now) = (line(3), now());
        let [first, second] = [(); 2].map(|()| line.join(now).unwrap());
        line.freed();
        assert!(has_turn(&first) && has_turn(&second));
        // The second has looked already, and finds nothing.
        line.freed();
        second.pass_on();
        assert!(has_turn(&first) && has_turn(&second), "the first who had no turn");
        second.pass_on();
        assert!(!has_turn(&second), "once for each slot");
        line.freed();
        line.freed();
        drop(second);
        first.pass_on();
        assert!(has_turn(&first), "it may have looked before what the other was told of");
        first.pass_on();
        assert!(!has_turn(&first));
        line.freed();
        line.freed();
        first.pass_on();
        assert!(has_turn(&first), "the only one that waits");
    }

    #[test]
    fn a_slot_that_came_back_while_all_had_turns_is_for_who_came_behind_them() {
        let (line, now) = (line(2), now());
        let first = line.join(now).unwrap();
        line.freed();
        let second = line.join(now).unwrap();
        assert!(has_turn(&second), "the slot is there, or was found");
        first.leave();
        drop(second);
        // Nor when the other one came before.
        let [first, second] = [(); 2].map(|()| line.join(now).unwrap());
        line.freed();
        line.freed();
        first.leave();
        let third = line.join(now).unwrap();
        assert!(has_turn(&second) && has_turn(&third));
        second.leave();
        third.leave();
        let places = line.lock();
        assert_eq!((places.turns, places.missed), (0, 0));
    }

    #[test]
    fn each_of_several_slots_that_come_back_while_turns_fail_is_looked_for_again() {
        let (line, now) = (line(2), now());
        let [first, second] = [(); 2].map(|()| line.join(now).unwrap());
        line.freed();
        assert!(has_turn(&first) && has_turn(&second));
        // Both have looked already, and found nothing.
        line.freed();
        line.freed();
        first.pass_on();
        assert!(has_turn(&first));
        first.leave();
        second.pass_on();
        assert!(has_turn(&second), "the other slot is there");
    }
}
