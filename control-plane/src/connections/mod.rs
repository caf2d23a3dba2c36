//! Who may be connected to a port of the control plane.
//!
//! A connection costs a descriptor, and descriptors are needed for the store and for probes,
//! too. So each port has a bound. At the bound, a new connection takes the place of those that
//! ask for nothing: first of those that never have, then of those that are between two requests or
//! take their time to send one, then of those that do not take their answer; of the same kind
//! those go first that have been so for longest. Only when all are at work is a new connection
//! closed at once.

mod body;
mod linger;
mod standing;
mod stream;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Release},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::{body::Held, standing::Standing};
pub(crate) use self::{
    body::TooSlow,
    linger::linger,
    stream::{Handshake, Peer, Watched},
};
use crate::listen::Listener;

/// After a failure to accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two warnings of the same.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Of the places, those that are freed at once: finding them costs a look at all.
const FREED_PART: usize = 32;

/// The connections to one port.
#[derive(Debug)]
pub(crate) struct Connections {
    /// What is said of the port in logs.
    port: &'static str,
    max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    entered: u64,
    places: BTreeMap<u64, Arc<Seat>>,
    told: Option<Instant>,
}

/// What is known of one connection.
#[derive(Debug)]
struct Seat {
    standing: Mutex<Standing>,
    /// What the token says, at the price of a look.
    is_given_up: AtomicBool,
    given_up: CancellationToken,
}

/// A connection's place; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    number: u64,
    seat: Arc<Seat>,
}

/// How many connections the ports for gRPC, which proxies use, and for HTTP may have, in a process
/// that may have so many open files: five eighths of them and one.
pub(crate) fn shares(descriptors: u64) -> (usize, usize) {
    let eighths = |parts: u64| (descriptors / 8 * parts).max(8);
    let share = |parts| usize::try_from(eighths(parts)).unwrap_or(usize::MAX);
    (share(5), share(1))
}

impl Connections {
    pub(crate) fn new(port: &'static str, max: usize) -> Arc<Self> {
        Arc::new(Self { port, max, open: Mutex::default() })
    }

    /// Accepts the next connection that finds a place.
    pub(crate) async fn next(
        self: &Arc<Self>,
        listener: &Listener,
        handshake: Handshake,
    ) -> Watched {
        loop {
            match listener.accept().await {
                Ok(stream) => match self.enter(Instant::now()) {
                    Some(place) => return Watched::new(stream, place, handshake),
                    None => debug!(port = self.port, "a connection is closed: all are at work"),
                },
                Err(error) => {
                    self.tell(|| {
                        warn!(port = self.port, %error, "accepting pauses until what it takes is free again");
                    });
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Takes a place, if need be from those who can do without.
    fn enter(self: &Arc<Self>, now: Instant) -> Option<Place> {
        let mut open = self.open();
        if open.places.len() >= self.max && !open.make_room(self.max / FREED_PART + 1, now) {
            drop(open);
            self.tell(|| {
                warn!(
                    port = self.port,
                    max = self.max,
                    "there are as many connections as there may be, and all are at work: new ones \
                     are closed; raise the limit of open files, or see who they are"
                );
            });
            return None;
        }
        open.entered += 1;
        let number = open.entered;
        let seat = Arc::new(Seat {
            standing: Mutex::new(Standing::new(now)),
            is_given_up: AtomicBool::new(false),
            given_up: CancellationToken::new(),
        });
        open.places.insert(number, Arc::clone(&seat));
        Some(Place { connections: Arc::clone(self), number, seat })
    }

    /// Says something, unless something was said just now.
    fn tell(&self, say: impl FnOnce()) {
        let now = Instant::now();
        let mut open = self.open();
        if open.told.is_none_or(|told| now - told >= TELL_AGAIN) {
            open.told = Some(now);
            drop(open);
            say();
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Gives up so many connections, if there are any that can be. False if there is none.
    fn make_room(&mut self, count: usize, now: Instant) -> bool {
        let mut idle: Vec<_> = self
            .places
            .iter()
            .filter_map(|(number, seat)| Some((seat.standing().gives_way(now)?, *number)))
            .collect();
        idle.sort_unstable();
        for (_, number) in idle.iter().take(count) {
            if let Some(seat) = self.places.remove(number) {
                seat.give_up();
            }
        }
        !idle.is_empty()
    }
}

impl Seat {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self) {
        // Whoever is woken by the token looks here.
        self.is_given_up.store(true, Release);
        self.given_up.cancel();
    }

    /// A request comes in. What is returned is held until it has been answered.
    fn begin(self: &Arc<Self>) -> Held {
        self.standing().began(Instant::now());
        Held::new(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_given_up(place: &Place) -> bool {
        place.seat.given_up.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_nothing_makes_room_and_who_is_at_work_does_not() {
        let connections = Connections::new("test", 3);
        let start = Instant::now();
        let silent = connections.enter(start).unwrap();
        let idle = connections.enter(start).unwrap();
        drop(idle.seat.begin());
        let busy = connections.enter(start).unwrap();
        let request = busy.seat.begin();
        request.received();
        tokio::time::advance(Duration::from_secs(1)).await;
        let fourth = connections.enter(Instant::now()).unwrap();
        assert!(is_given_up(&silent) && !is_given_up(&idle) && !is_given_up(&busy));
        let at_work = fourth.seat.begin();
        at_work.received();
        let fifth = connections.enter(Instant::now()).unwrap();
        assert!(is_given_up(&idle) && !is_given_up(&busy) && !is_given_up(&fourth));
        // It sends its request and never comes to its end.
        let half = fifth.seat.begin();
        tokio::time::advance(Duration::from_secs(1)).await;
        let sixth = connections.enter(Instant::now()).unwrap();
        assert!(is_given_up(&fifth));
        sixth.seat.begin().received();
        drop(half);
        let _kept = sixth.seat.begin();
        _kept.received();
        assert!(connections.enter(Instant::now()).is_none(), "all are at work");
        drop(request);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(connections.enter(Instant::now()).is_some() && is_given_up(&busy));
    }

    #[test]
    fn descriptors_are_left_for_everything_else() {
        assert_eq!(shares(256), (160, 32));
        assert_eq!(shares(10), (8, 8));
    }
}
