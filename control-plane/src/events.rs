//! What happened lately: a bounded log that can be read and followed.
//!
//! A reader remembers the last sequence number that it has seen and asks for what
//! came after. So a slow reader costs nothing, loses at most what fell out of the log,
//! and can tell that it did by the gap in the numbers.
//!
//! A log that is full merges what was repeated, and then gives up what there is most of:
//! [`event_log`].

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use lb_core::{
    event_log::{self, Entry},
    model::Reason,
};
use tokio::sync::watch;

use crate::clock::unix_ms;

/// How many events are remembered.
pub const EVENTS_MAX: usize = 1000;
/// How many are left when the log was full: looking for what to give up takes a while.
const EVENTS_LEFT: usize = EVENTS_MAX / 8 * 7;

/// Something that happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// Counts the events of this process, from 1.
    pub sequence: u64,
    /// When; of several like it, the last one.
    pub at_unix_ms: u64,
    /// When the first of them happened.
    pub first_unix_ms: u64,
    /// How many they were: more than one only in a log that was full.
    pub count: u64,
    /// What.
    pub what: EventType,
    /// pool, backend, listener, route, limit, proxy, config or store.
    pub kind: &'static str,
    /// Of the object or proxy; of a config, its path.
    pub name: String,
    /// Of the state that it belongs to.
    pub revision: u64,
    /// Why; empty when there is nothing to say.
    pub reason: Reason,
}

impl Entry for Event {
    type Type = EventType;
    type Same<'a> = (EventType, &'static str, &'a str, &'a str);

    fn of_type(&self) -> EventType {
        self.what
    }

    /// The text of a reason may hold figures that differ each time.
    fn same(&self) -> Self::Same<'_> {
        (self.what, self.kind, &self.name, &self.reason.code)
    }

    fn absorb(&mut self, earlier: &Self) {
        self.count += earlier.count;
        self.first_unix_ms = self.first_unix_ms.min(earlier.first_unix_ms);
    }
}

/// Declares the types of events with their names. One list makes all of them, so that a
/// type cannot be left out of [`EventType::ALL`] and thereby out of the counts.
macro_rules! event_types {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// The types of events.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum EventType {
            $($(#[$doc])* $variant,)*
        }

        impl EventType {
            /// Every type; each at the index of its count.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// As it is spelled on the wire.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

event_types! {
    /// An object was added or changed.
    ObjectChanged = "object_changed",
    /// An object was removed.
    ObjectRemoved = "object_removed",
    /// A backend may get traffic.
    BackendUp = "backend_up",
    /// A backend gets no more traffic.
    BackendDown = "backend_down",
    /// The first check of a new backend failed.
    BackendCheckFailed = "backend_check_failed",
    /// A backend gets nothing new, and finishes what it has.
    DrainStarted = "drain_started",
    /// The time of a drain is up: what is left is cut.
    DrainDeadline = "drain_deadline",
    /// A drain could go on, and what it comes to is refused.
    DrainHeldUp = "drain_held_up",
    /// Nothing is left of what a backend had.
    Drained = "drained",
    /// A backend's breaker opened: it gets no requests.
    BreakerOpened = "breaker_opened",
    /// One request of the fleet at a time tries a backend.
    BreakerHalfOpened = "breaker_half_opened",
    /// A backend's breaker closed: it gets requests again.
    BreakerClosed = "breaker_closed",
    /// A backend that differs from the rest of its pool gets no requests for a while.
    BackendEjected = "backend_ejected",
    /// It gets requests again.
    BackendRestored = "backend_restored",
    /// Checks and proxies, or proxies among themselves, do not see the same of a backend.
    ViewsDiffer = "views_differ",
    /// They do again.
    ViewsAgree = "views_agree",
    /// There is a reason to take a backend out, but its pool cannot spare it.
    EjectionRefused = "ejection_refused",
    /// It is out now, or there is no reason any more.
    EjectionRefusedEnded = "ejection_refused_ended",
    /// Few backends of a pool are well, and others are used all the same.
    PoolPanic = "pool_panic",
    /// Only those that are well are used again, or none.
    PoolPanicEnded = "pool_panic_ended",
    /// A key that signs sessions was made, announced, activated, or dropped.
    SessionKeysChanged = "session_keys_changed",
    /// A source of a pool does not answer; its last backends are kept.
    SourceFailed = "source_failed",
    /// It answers again.
    SourceRecovered = "source_recovered",
    /// A proxy opened its stream.
    ProxyConnected = "proxy_connected",
    /// A proxy caught up with the registry.
    ProxySynced = "proxy_synced",
    /// A proxy refused an object, or a whole state.
    ProxyRejected = "proxy_rejected",
    /// A proxy's stream ended, or its lease ran out.
    ProxyLost = "proxy_lost",
    /// A proxy's stream is refused, and it hears of no change.
    ProxyRefused = "proxy_refused",
    /// A proxy was stopped in order, and said so.
    ProxyStopped = "proxy_stopped",
    /// Somebody said that a proxy will not come back.
    ProxyForgotten = "proxy_forgotten",
    /// A proxy gives up more than before for want of connections or memory.
    ProxyOverloaded = "proxy_overloaded",
    /// It gives up less.
    ProxyRelieved = "proxy_relieved",
    /// A limit began to refuse requests.
    LimitReached = "limit_reached",
    /// It has refused none for a while.
    LimitRelieved = "limit_relieved",
    /// A file of declared state was read again and not applied.
    ConfigRejected = "config_rejected",
    /// The store failed, and takes no writes until it could be opened again.
    StoreFailed = "store_failed",
    /// The store takes writes again.
    StoreRecovered = "store_recovered",
}

impl EventType {
    /// Whether it is a warning in the log: less of a pool serves, or serves well, from then on.
    #[must_use]
    pub fn is_a_loss(self) -> bool {
        matches!(
            self,
            Self::BreakerOpened | Self::BackendEjected | Self::EjectionRefused | Self::ViewsDiffer
        )
    }

    /// Whether it tells what a backend's traffic says of it.
    #[must_use]
    pub fn is_of_a_standing(self) -> bool {
        matches!(
            self,
            Self::BreakerOpened
                | Self::BreakerHalfOpened
                | Self::BreakerClosed
                | Self::BackendEjected
                | Self::BackendRestored
                | Self::ViewsDiffer
                | Self::ViewsAgree
        )
    }
}

/// The log.
#[derive(Debug)]
pub struct EventLog {
    events: Mutex<VecDeque<Event>>,
    latest: watch::Sender<u64>,
    /// In the order of [`EventType::ALL`].
    counts: [AtomicU64; EventType::ALL.len()],
}

impl EventLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self {
            events: Mutex::new(VecDeque::new()),
            latest: watch::Sender::new(0),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// How often each type of event happened since the process began.
    pub fn counts(&self) -> impl Iterator<Item = (EventType, u64)> {
        EventType::ALL.into_iter().zip(self.counts.iter().map(|count| count.load(Relaxed)))
    }

    /// Adds an event.
    pub fn record(
        &self,
        what: EventType,
        kind: &'static str,
        name: &str,
        revision: u64,
        reason: Reason,
    ) {
        self.counts[what as usize].fetch_add(1, Relaxed);
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == EVENTS_MAX {
            event_log::compact(&mut events, EVENTS_LEFT);
        }
        let (sequence, at_unix_ms) = (*self.latest.borrow() + 1, unix_ms());
        let name = name.to_owned();
        events.push_back(Event {
            sequence,
            at_unix_ms,
            first_unix_ms: at_unix_ms,
            count: 1,
            what,
            kind,
            name,
            revision,
            reason,
        });
        // Within the lock, so that numbers appear in their order.
        self.latest.send_replace(sequence);
    }

    /// The sequence of the newest event; 0 before the first.
    #[must_use]
    pub fn latest(&self) -> u64 {
        *self.latest.borrow()
    }

    /// A reader that begins with the last `past` events.
    #[must_use]
    pub fn reader(&self, past: usize) -> EventReader<'_> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = self.latest.subscribe();
        // Numbers are missing of what was given up.
        let seen = match events.range(events.len().saturating_sub(past)..).next() {
            Some(first) => first.sequence - 1,
            None => *latest.borrow(),
        };
        EventReader { log: self, latest, seen }
    }

    fn after(&self, seen: u64) -> Vec<Event> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = events.iter().rev().take_while(|event| event.sequence > seen).count();
        events.range(events.len() - fresh..).cloned().collect()
    }
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new()
    }
}

/// Follows the log.
#[derive(Debug)]
pub struct EventReader<'a> {
    log: &'a EventLog,
    latest: watch::Receiver<u64>,
    seen: u64,
}

impl EventReader<'_> {
    /// The events since the last call; perhaps none.
    pub fn so_far(&mut self) -> Vec<Event> {
        let events = self.log.after(self.seen);
        self.seen = events.last().map_or(self.seen, |event| event.sequence);
        events
    }

    /// The events since the last call; waits for one when there is none. Safe to cancel.
    pub async fn next(&mut self) -> Vec<Event> {
        let seen = self.seen;
        if self.latest.wait_for(|latest| *latest > seen).await.is_err() {
            // The sender lives in the log that is borrowed here.
            debug_assert!(false, "the log cannot end before its reader");
        }
        self.so_far()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(log: &EventLog, name: &str) {
        log.record(EventType::ObjectChanged, "pool", name, 1, Reason::default());
    }

    #[tokio::test]
    async fn a_reader_sees_the_past_that_it_asked_for_and_then_what_comes() {
        let log = EventLog::new();
        ["a", "b", "c"].iter().for_each(|name| record(&log, name));
        let mut reader = log.reader(2);
        let names: Vec<String> = reader.next().await.into_iter().map(|event| event.name).collect();
        assert_eq!(names, ["b", "c"]);
        record(&log, "d");
        assert_eq!(reader.next().await[0].name, "d");
    }

    #[test]
    fn each_type_is_counted_under_its_own_name() {
        let log = EventLog::new();
        for (times, what) in EventType::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| log.record(what, "pool", "a", 1, Reason::default()));
        }
        let expected = EventType::ALL.into_iter().zip(1..);
        assert!(log.counts().eq(expected), "{:?}", log.counts().collect::<Vec<_>>());
        assert_eq!(EventType::ConfigRejected.name(), "config_rejected");
    }

    #[test]
    fn only_what_begins_is_a_loss() {
        let losses = EventType::ALL.into_iter().filter(|what| what.is_a_loss());
        let names: Vec<&str> = losses.map(EventType::name).collect();
        assert_eq!(
            names,
            ["breaker_opened", "backend_ejected", "views_differ", "ejection_refused"]
        );
    }

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_and_can_tell() {
        let log = EventLog::new();
        let mut reader = log.reader(0);
        (0..EVENTS_MAX + 5).for_each(|number| record(&log, &number.to_string()));
        let events = reader.next().await;
        assert_eq!(events.len(), EVENTS_LEFT + 5);
        assert_eq!(events[0].sequence, (EVENTS_MAX - EVENTS_LEFT + 1) as u64);
    }

    #[tokio::test]
    async fn what_is_repeated_pushes_nothing_out_and_is_counted() {
        let log = EventLog::new();
        record(&log, "the one that matters");
        for number in 0..5 * EVENTS_MAX {
            let reason = Reason::new("pool_too_small", format!("for the {number}th time"));
            log.record(EventType::EjectionRefused, "backend", "b", 1, reason);
            let proxy = format!("proxy-{}", number % 1500);
            log.record(EventType::ProxyConnected, "proxy", &proxy, 1, Reason::default());
        }
        let events = log.reader(EVENTS_MAX).next().await;
        assert!(events.len() <= EVENTS_MAX);
        assert_eq!(events[0].name, "the one that matters");
        let refused = events.iter().filter(|e| e.what == EventType::EjectionRefused);
        let (counts, mut newest) = (refused.clone().map(|e| e.count), refused.rev());
        assert_eq!(counts.sum::<u64>(), 5 * EVENTS_MAX as u64);
        assert!(newest.next().unwrap().reason.message.contains("4999th"));
        let last = log.reader(10).next().await;
        assert_eq!(last, events[events.len() - 10..]);
    }

    #[tokio::test]
    async fn asking_for_more_than_there_was_gives_all() {
        let log = EventLog::new();
        record(&log, "a");
        assert_eq!(log.reader(1000).next().await.len(), 1);
    }
}
