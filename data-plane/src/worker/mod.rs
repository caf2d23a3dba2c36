//! A worker: one thread that serves its share of the clients from beginning to end.
//!
//! Everything here belongs to one thread and needs no lock: connections to backends,
//! buffers, timers, the configuration in use. What workers share is in
//! [`crate::live`], and is little.

mod admission;
mod buffers;
mod clock;
mod dates;
mod mailbox;
mod pipes;
mod replays;
mod run;
mod stays;
mod timer;
mod turns;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    pin::pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::{Duration, Instant},
};

use lb_core::overload::Stage;
use tracing::warn;

pub(crate) use self::{
    admission::{Admission, Client},
    buffers::{Buffer, Buffers},
    clock::Moment,
    mailbox::{Accepted, Fleet, Mail, WorkerHandle},
    pipes::{Pipe, Pipes},
    replays::{REPLAY_MAX, Replays, Room, replays_max},
    run::spawn,
    stays::{Guest, Stays},
    timer::{Timer, Wheel},
};
use self::{clock::Clock, dates::Dates, turns::Turns};
use crate::{
    access_log::Lines,
    live::{BackendState, Config, CountedBy, LimitCopies, PoolConfig},
    stats::Shard,
    upstream::Upstreams,
};

/// A client that asks again within this time is at work, and is not closed to make room: its
/// next request would be lost.
const IDLE_FOR: Duration = Duration::from_millis(250);

/// As many connections that end after one request in half a second are the rule, and no exception.
const BRIEF_MANY: u32 = 64;
/// By how many connections a worker may be ahead of another where they are brief: the difference
/// is another one in a moment, and following it costs more than it gives.
const BRIEF_SLACK: usize = 16;

/// Connections that are closed one after the other before requests have their turn again: about a
/// millisecond's worth.
const CLOSED_AT_ONCE: usize = 64;
/// How often a worker says that it lacks descriptors.
const ROOM_TOLD_EVERY: Duration = Duration::from_secs(60);

/// A configuration, as requests hold it.
pub(crate) type Loaded = Rc<Arc<Config>>;

/// What the tasks of one worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) wheel: Wheel,
    pub(crate) buffers: Rc<Buffers>,
    pub(crate) pipes: Rc<Pipes>,
    /// Room for bodies that may be sent again.
    pub(crate) replays: Rc<Replays>,
    pub(crate) access_log: Option<Rc<Lines>>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) upstreams: Upstreams,
    pub(crate) shard: Arc<Shard>,
    pub(crate) dates: Dates,
    pub(crate) rng: RefCell<fastrand::Rng>,
    pub(crate) clock: Clock,
    pub(crate) limit_copies: LimitCopies,
    config: RefCell<Loaded>,
    phase: Cell<Phase>,
    stage: Cell<Stage>,
    /// Connections that there is memory for, when it comes to refusing requests.
    places: Cell<usize>,
    turns: Cell<Turns>,
    /// Which connections give their places back, by the number of their listener.
    pub(crate) stays: Box<[Stays]>,
    /// Connections that ended after one request since this was looked at last.
    brief: Cell<u32>,
    /// By how many connections it may be ahead of other workers.
    slack: Cell<usize>,
    /// When it may say again that it lacks descriptors.
    tells_of_room: Cell<Instant>,
    /// Errored requests that still count as in flight, in order of their release.
    held: RefCell<VecDeque<(Instant, Arc<BackendState>)>>,
}

impl Worker {
    pub(crate) fn new(index: usize, config: Arc<Config>, fleet: Arc<Fleet>, seed: u64) -> Self {
        let clock = Clock::new();
        let stays = (0..fleet.admission.listeners()).map(|_| Stays::default()).collect();
        let access_log = fleet.access_log.as_ref().map(|log| Rc::new(Lines::new(Arc::clone(log))));
        Self {
            index,
            wheel: Wheel::new(now()),
            buffers: Rc::default(),
            pipes: Rc::new(Pipes::new(fleet.pipes_max)),
            replays: Replays::new(fleet.replays_max),
            access_log,
            upstreams: Upstreams::default(),
            shard: Arc::clone(&fleet.workers[index].shard),
            fleet,
            dates: Dates::new(),
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            clock,
            limit_copies: LimitCopies::new(clock.origin()),
            config: RefCell::new(Rc::new(config)),
            phase: Cell::new(Phase::Serving),
            stage: Cell::default(),
            places: Cell::new(usize::MAX),
            turns: Cell::new(Turns::new(now())),
            stays,
            brief: Cell::default(),
            slack: Cell::default(),
            tells_of_room: Cell::new(now()),
            held: RefCell::default(),
        }
    }

    /// The configuration in use; a request keeps the one that it began with.
    pub(crate) fn config(&self) -> Loaded {
        Rc::clone(&self.config.borrow())
    }

    /// Whether this pool is as the configuration in use has it.
    pub(crate) fn serves_from(&self, pool: &PoolConfig) -> bool {
        let config = self.config.borrow();
        let place = config.place_of(&pool.name);
        place.is_some_and(|place| std::ptr::eq(&*config.pools[place], pool))
    }

    /// Notes that a client's connection has ended after so many requests.
    pub(crate) fn note_ended(&self, requests: u32) {
        if requests <= 1 {
            self.brief.set(self.brief.get().saturating_add(1));
        }
    }

    /// Looks at what clients do, twice a second.
    fn look_at_clients(&self) {
        self.stays.iter().for_each(Stays::next_period);
        let many = self.brief.take() >= BRIEF_MANY;
        self.slack.set(if many { BRIEF_SLACK } else { 0 });
    }

    /// By how many connections this worker may be ahead of the calmest one.
    fn hand_over_slack(&self) -> usize {
        self.slack.get()
    }

    /// Whether clients are told to close after the next answer.
    pub(crate) fn is_draining(&self) -> bool {
        self.phase.get() != Phase::Serving
    }

    /// Whether idle connections are closed.
    pub(crate) fn is_stopping(&self) -> bool {
        self.phase.get() == Phase::Stopping
    }

    /// Gives up as much as the proxy does from now on, and closes so many connections of
    /// clients that are idle.
    fn shed(&self, stage: Stage, close: usize, places: usize) {
        self.stage.set(stage);
        self.places.set(places);
        self.replays.set_open(!stage.closes_idle());
        self.buffers.release();
        if close == 0 {
            return;
        }
        let until = now().checked_sub(IDLE_FOR).unwrap_or_else(now);
        let closed = self.wheel.fire_idle(until, close);
        self.shard.count_idle_closed(closed);
    }

    /// Whether idle connections are closed, and answers tell clients to close.
    pub(crate) fn closes_idle(&self) -> bool {
        self.stage.get().closes_idle()
    }

    /// Whether a request is refused because memory runs out: there are more connections than
    /// there is room for, each with one request at most.
    pub(crate) fn refuses_requests(&self) -> bool {
        self.stage.get().refuses_requests() && self.connections() > self.places.get()
    }

    /// The connections of clients that are here, or on their way.
    fn connections(&self) -> usize {
        self.fleet.workers[self.index].connections.0.load(Relaxed)
    }

    /// Whether a client gives up its place after this answer, since others want one. `places`
    /// is how many there are, of a `listener` if that has a bound of its own; and it may be the
    /// client's first answer.
    pub(crate) fn passes_on_place(
        &self,
        listener: Option<usize>,
        places: usize,
        is_first: bool,
    ) -> bool {
        let owing: usize = match listener {
            Some(listener) => self.stays[listener].owing(),
            None => self.stays.iter().map(Stays::owing).sum(),
        };
        // A crowd comes at one moment: most of it has places before it is here, and owes as well.
        let here = self.stays.iter().map(Stays::here).sum();
        let owing = owing + self.connections().saturating_sub(here);
        let mut turns = self.turns.get();
        let places = places / self.fleet.workers.len();
        let passes_on = turns.take(now(), places, owing.saturating_sub(usize::from(is_first)));
        self.turns.set(turns);
        passes_on
    }

    /// Closes some of what is open and not in use: descriptors have run out. Whether there was
    /// anything; who has nothing asks another worker.
    pub(crate) fn free_descriptors(&self) -> bool {
        let now = now();
        if now >= self.tells_of_room.get() {
            self.tells_of_room.set(now + ROOM_TOLD_EVERY);
            warn!(
                worker = self.index,
                "descriptors have run out: connections to backends that are idle are closed to make \
                 room, so that more have to be made; allow this process more open files \
                 (ulimit -n, LimitNOFILE)"
            );
        }
        let made_room = self.make_room();
        if !made_room {
            self.fleet.ask_for_room(self.index);
        }
        made_room
    }

    /// Closes some of what is open and not in use; whether there was anything.
    pub(super) fn make_room(&self) -> bool {
        let had_pipes = self.pipes.clear();
        self.upstreams.make_room(CLOSED_AT_ONCE) || had_pipes
    }

    /// Keeps an errored request counted for a while: a backend that fails fast must
    /// not look idle.
    pub(crate) fn hold(&self, backend: &Arc<BackendState>, now: Instant, hold: Duration) {
        backend.enter(CountedBy::All);
        let release = now + hold;
        let mut held = self.held.borrow_mut();
        // Pools may hold for different times; nearly always this is the end.
        let at = held.partition_point(|(other, _)| *other <= release);
        held.insert(at, (release, Arc::clone(backend)));
    }

    /// Lets go of what was held long enough.
    pub(crate) fn release_held(&self, now: Instant) {
        let mut held = self.held.borrow_mut();
        while let Some((release, backend)) = held.front()
            && *release <= now
        {
            backend.leave(CountedBy::All);
            held.pop_front();
        }
    }
}

/// How far a worker has come on its way to the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Serving,
    Draining,
    Stopping,
}

/// The monotonic clock; it obeys paused time in tests.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A deadline passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TimedOut;

/// Runs a future until the timer fires.
pub(crate) async fn until<F: Future>(timer: &Timer, future: F) -> Result<F::Output, TimedOut> {
    let mut future = pin!(future);
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        timer.poll(context).map(|()| Err(TimedOut))
    })
    .await
}
