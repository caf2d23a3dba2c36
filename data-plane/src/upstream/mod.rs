//! Connections to backends, of one worker: made, kept, and used again.

mod connect;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    io,
    time::{Duration, Instant},
};

use lb_core::model::BackendConnections;
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use tokio::{io::Interest, net::TcpStream};

pub(crate) use self::connect::{ConnectError, connect, is_exhaustion};

/// However long a backend says: what was removed, or is not needed, must not stay open.
const IDLE_FOR_MAX: Duration = Duration::from_secs(60);
/// A request that must not be sent twice takes a connection this fresh, or a new one.
const FRESH: Duration = Duration::from_secs(1);

/// A connection to a backend.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) stream: TcpStream,
    /// When it is too old, plus or minus a tenth.
    retires: Instant,
    idle_for: Duration,
}

#[derive(Debug)]
struct Idle {
    upstream: Upstream,
    since: Instant,
    /// From when on it is not used.
    expires: Instant,
}

/// The idle connections of one worker, by [`crate::live::BackendState::serial`].
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    idle: RefCell<HashMap<u64, Vec<Idle>, BuildHasherDefault<SerialHasher>>>,
    count: Cell<usize>,
}

impl Upstream {
    pub(crate) fn new(
        stream: TcpStream,
        now: Instant,
        policy: &BackendConnections,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let age = policy.age_max.mul_f64(0.9 + 0.2 * rng.f64());
        Self { stream, retires: now + age, idle_for: policy.keep_alive_timeout }
    }

    /// Learns from a backend's `Keep-Alive: timeout=N`: one second less than it says.
    pub(crate) fn set_idle_timeout(&mut self, seconds: u64) {
        self.idle_for = Duration::from_secs(seconds.saturating_sub(1)).min(IDLE_FOR_MAX);
    }
}

impl Upstreams {
    /// The connection that was idle for the shortest time and still lives.
    /// `idempotent` tells whether the request could be repeated if it does not.
    pub(crate) fn take(&self, serial: u64, idempotent: bool, now: Instant) -> Option<Upstream> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&serial)?;
        while let Some(candidate) = connections.pop() {
            if !idempotent && now >= candidate.since + FRESH {
                // Those below were idle for longer. They are good enough for other requests.
                connections.push(candidate);
                return None;
            }
            self.count.set(self.count.get() - 1);
            if now >= candidate.expires {
                // It may be its age; others are younger.
                continue;
            }
            // What cannot be repeated is worth a system call: a close that has arrived
            // may not have been reported yet.
            let stream = &candidate.upstream.stream;
            if is_open(stream) && (idempotent || is_silent(stream)) {
                return Some(candidate.upstream);
            }
        }
        None
    }

    /// Keeps a connection whose exchange has ended cleanly, unless `idle_max` are kept.
    pub(crate) fn keep(&self, serial: u64, upstream: Upstream, now: Instant, idle_max: usize) {
        let expires = upstream.retires.min(now + upstream.idle_for);
        if now >= expires {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(serial).or_default();
        if connections.len() < idle_max {
            connections.push(Idle { upstream, since: now, expires });
            self.count.set(self.count.get() + 1);
        }
    }

    /// Closes all idle connections to one backend.
    pub(crate) fn forget(&self, serial: u64) {
        if let Some(connections) = self.idle.borrow_mut().remove(&serial) {
            self.count.set(self.count.get() - connections.len());
        }
    }

    /// Takes out what has been idle for too long, or was closed by its backend. Thousands may
    /// be at once, and to close them takes as long as thousands of requests: that is for the
    /// caller to do bit by bit.
    pub(crate) fn sweep(&self, now: Instant) -> Vec<Upstream> {
        let mut swept = Vec::new();
        if self.count.get() == 0 {
            return swept;
        }
        let is_over = |idle: &mut Idle| now >= idle.expires || !is_open(&idle.upstream.stream);
        self.idle.borrow_mut().retain(|_, connections| {
            let over = connections.extract_if(.., is_over);
            swept.extend(over.map(|idle| idle.upstream));
            !connections.is_empty()
        });
        self.count.set(self.count.get() - swept.len());
        swept
    }

    /// Closes idle connections, this many at most: half of some backends', those that have been
    /// idle for longest. Whether there were any.
    pub(crate) fn make_room(&self, most: usize) -> bool {
        let mut left = most;
        for connections in self.idle.borrow_mut().values_mut() {
            if left == 0 {
                break;
            }
            let half = connections.len().div_ceil(2);
            left -= connections.drain(..half.min(left)).len();
        }
        self.count.set(self.count.get() - (most - left));
        left < most
    }

    /// How many connections are idle.
    pub(crate) fn idle(&self) -> usize {
        self.count.get()
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.count.set(0);
    }
}

/// Whether the backend has neither closed the connection nor sent anything on it,
/// as far as the runtime was told already: no system call while nothing happened.
fn is_open(stream: &TcpStream) -> bool {
    let peeked = stream.try_io(Interest::READABLE, || Ok(peek(stream)?));
    matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Whether nothing has arrived on the connection, by asking the system.
fn is_silent(stream: &TcpStream) -> bool {
    matches!(peek(stream), Err(Errno::AGAIN))
}

fn peek(stream: &TcpStream) -> Result<(), Errno> {
    recv(stream, &mut [0u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT).map(drop)
}

/// Serials are counted up: they need no mixing.
#[derive(Debug, Default)]
struct SerialHasher(u64);

impl Hasher for SerialHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "only u64 keys are hashed, not {bytes:?}");
    }

    fn write_u64(&mut self, serial: u64) {
        // The map takes its control bits from the top.
        self.0 = serial.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps a connection to each of so many backends, and gives their other ends.
    async fn kept(upstreams: &Upstreams, backends: u64) -> Vec<TcpStream> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, policy) = (listener.local_addr().unwrap(), BackendConnections::default());
        let mut other_ends = Vec::new();
        for serial in 0..backends {
            let stream = TcpStream::connect(address).await.unwrap();
            let (now, rng) = (crate::worker::now(), &mut fastrand::Rng::new());
            upstreams.keep(serial, Upstream::new(stream, now, &policy, rng), now, 10);
            other_ends.push(listener.accept().await.unwrap().0);
        }
        other_ends
    }

    #[tokio::test]
    async fn room_is_made_without_closing_everything() {
        let upstreams = Upstreams::default();
        let other_ends = kept(&upstreams, 10).await;
        assert!(upstreams.make_room(4));
        assert_eq!(upstreams.idle(), 6);
        let mut closed = 0;
        for stream in &other_ends {
            closed += usize::from(peek(stream) == Ok(()));
        }
        assert_eq!(closed, 4);
        assert!(upstreams.make_room(100));
        assert_eq!(upstreams.idle(), 0);
        assert!(!upstreams.make_room(1), "there is nothing left to close");
    }

    #[tokio::test]
    async fn what_expires_is_given_out_to_be_closed_and_the_rest_is_kept() {
        let upstreams = Upstreams::default();
        let mut other_ends = kept(&upstreams, 3).await;
        let soon = crate::worker::now();
        assert!(upstreams.sweep(soon).is_empty());
        drop(other_ends.remove(1));
        let mut closed = upstreams.sweep(soon);
        while closed.is_empty() {
            // Until the runtime has heard of it.
            tokio::task::yield_now().await;
            closed = upstreams.sweep(soon);
        }
        assert_eq!((closed.len(), upstreams.idle()), (1, 2));
        let later = soon + BackendConnections::default().keep_alive_timeout;
        assert_eq!((upstreams.sweep(later).len(), upstreams.idle()), (2, 0));
    }

    #[tokio::test]
    async fn what_is_too_old_for_one_request_is_there_for_the_next() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (upstreams, began) = (Upstreams::default(), crate::worker::now());
        let policy = BackendConnections::default();
        for age_max in [3600, 1] {
            let stream = TcpStream::connect(address).await.unwrap();
            let policy = BackendConnections { age_max: Duration::from_secs(age_max), ..policy };
            let upstream = Upstream::new(stream, began, &policy, &mut fastrand::Rng::new());
            upstreams.keep(7, upstream, began, 10);
        }
        let later = began + FRESH;
        assert!(upstreams.take(7, false, later).is_none());
        assert_eq!(upstreams.idle(), 2, "none is closed for a request that must not be repeated");
        assert!(upstreams.take(7, true, later + FRESH).is_some(), "the other is not as old");
        assert_eq!(upstreams.idle(), 0);
    }
}
