//! How many client connections may be open.
//!
//! At a bound, accepting pauses: clients wait in the system's queue, and none is refused.
//! Only one client that takes more than its share is turned away.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::Notify;

use crate::live::Padded;

/// The client connections of the process, counted.
#[derive(Debug)]
pub(crate) struct Admission {
    open: Padded<AtomicUsize>,
    open_max: usize,
    /// The most that there may be at present: fewer while memory is short.
    bound: AtomicUsize,
    /// By the process's number of the listener.
    listeners: Box<[Padded<AtomicUsize>]>,
    /// Used only for listeners that bound the connections of a client.
    clients: Mutex<HashMap<Client, u32>>,
    /// A connection has ended.
    room: Notify,
}

/// A client on a listener: an IPv4 address, or the /64 of an IPv6 address, which one
/// customer has for himself.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Client {
    listener: usize,
    address: IpAddr,
}

impl Client {
    pub(crate) fn new(listener: usize, address: IpAddr) -> Self {
        let address = match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64 << 64;
                std::net::Ipv6Addr::from_bits(network).into()
            }
        };
        Self { listener, address }
    }
}

impl Admission {
    pub(crate) fn new(open_max: usize, listeners: usize) -> Self {
        Self {
            open: Padded::default(),
            open_max,
            bound: AtomicUsize::new(open_max),
            listeners: (0..listeners).map(|_| Padded::default()).collect(),
            clients: Mutex::default(),
            room: Notify::new(),
        }
    }

    /// The most client connections of the process.
    pub(crate) fn open_max(&self) -> usize {
        self.open_max
    }

    /// The client connections of the process.
    pub(crate) fn open(&self) -> usize {
        self.open.0.load(Relaxed)
    }

    /// How many listeners there are.
    pub(crate) fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// How many of the process's connections the listener may have. `listener_max` 0 means
    /// that it has no bound of its own.
    pub(crate) fn places(&self, listener_max: u32) -> usize {
        let bound = self.bound.load(Relaxed);
        if listener_max == 0 { bound } else { bound.min(listener_max as usize) }
    }

    /// Whether the process or the listener has as many connections as it may.
    pub(crate) fn is_full(&self, listener: usize, listener_max: u32) -> bool {
        self.open() >= self.bound.load(Relaxed)
            || self.listeners[listener].0.load(Relaxed) >= self.places(listener_max)
    }

    /// Lets so many in from now on.
    pub(crate) fn set_bound(&self, bound: usize) {
        if self.bound.swap(bound, Relaxed) < bound {
            self.look_again();
        }
    }

    /// Counts a connection. Several workers may do so at once and exceed a bound by their
    /// number.
    pub(crate) fn enter(&self, listener: usize) {
        self.open.0.fetch_add(1, Relaxed);
        self.listeners[listener].0.fetch_add(1, Relaxed);
    }

    /// Counts it down again.
    pub(crate) fn leave(&self, listener: usize) {
        self.open.0.fetch_sub(1, Relaxed);
        self.listeners[listener].0.fetch_sub(1, Relaxed);
        self.room.notify_waiters();
    }

    /// Returns once there is room, for the first that takes it. The listener's bound is
    /// asked for each time: it may change meanwhile.
    pub(crate) async fn room(&self, listener: usize, listener_max: impl Fn() -> u32) {
        loop {
            let room = self.room.notified();
            if !self.is_full(listener, listener_max()) {
                return;
            }
            room.await;
        }
    }

    /// Lets those who wait for room look again: a bound has changed.
    pub(crate) fn look_again(&self) {
        self.room.notify_waiters();
    }

    /// Counts one more connection of a client, unless it has `max`.
    pub(crate) fn enter_client(&self, client: Client, max: u32) -> bool {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let count = clients.entry(client).or_insert(0);
        if *count >= max {
            return false;
        }
        *count += 1;
        true
    }

    /// Counts one less.
    pub(crate) fn leave_client(&self, client: Client) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_and_each_listener_have_bounds() {
        let admission = Admission::new(3, 2);
        admission.enter(0);
        assert!(admission.is_full(0, 1) && !admission.is_full(0, 2) && !admission.is_full(1, 1));
        admission.enter(1);
        admission.enter(1);
        assert!(admission.is_full(0, 0));
        admission.leave(1);
        assert!(!admission.is_full(0, 0));
    }

    #[test]
    fn an_ipv6_client_is_a_network() {
        let admission = Admission::new(10, 1);
        let client = |text: &str| Client::new(0, text.parse().unwrap());
        assert!(admission.enter_client(client("2001:db8::1"), 1));
        assert!(!admission.enter_client(client("2001:db8::ffff"), 1));
        assert!(admission.enter_client(client("2001:db8:0:1::1"), 1));
        assert!(admission.enter_client(client("192.0.2.1"), 1));
        assert!(!admission.enter_client(client("::ffff:192.0.2.1"), 1));
        admission.leave_client(client("192.0.2.1"));
        assert!(admission.enter_client(client("192.0.2.1"), 1));
    }

    /// A wake-up that is lost is a failure, and no test that hangs.
    async fn in_time<T>(wait: impl Future<Output = T>) -> T {
        tokio::time::timeout(std::time::Duration::from_secs(1), wait).await.expect("nobody woke it")
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_when_a_connection_ends() {
        let admission = Admission::new(1, 1);
        admission.enter(0);
        let room = in_time(admission.room(0, || 0));
        tokio::join!(room, async { admission.leave(0) });
    }

    #[tokio::test(start_paused = true)]
    async fn fewer_are_let_in_while_memory_is_short() {
        let admission = Admission::new(10, 1);
        admission.enter(0);
        admission.set_bound(1);
        assert!(admission.is_full(0, 0));
        assert_eq!((admission.places(5), admission.open_max()), (1, 10));
        let room = in_time(admission.room(0, || 0));
        tokio::join!(room, async { admission.set_bound(2) });
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_when_the_bound_is_raised() {
        let admission = Admission::new(10, 1);
        admission.enter(0);
        let max = std::cell::Cell::new(1);
        let room = in_time(admission.room(0, || max.get()));
        tokio::join!(room, async {
            max.set(2);
            admission.look_again();
        });
    }
}
