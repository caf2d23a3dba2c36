//! A client's connection, from request to request.
//!
//! While it is idle this holds a socket, a timer and little else: buffers and the
//! state of an exchange exist only while there is one, the latter for a moment longer if
//! the client is busy.

use std::{
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use super::{
    exchange::Exchange, limited::KeyMemo, respond::OwnAnswer, stream::Stream, tunnel::Tunnel,
};
use crate::{
    reason::Reason,
    worker::{Timer, Wheel, Worker, now},
};

/// Without a configuration there is a listener all the same: it must answer 503.
const KEEP_ALIVE_WITHOUT_CONFIG: Duration = Duration::from_secs(10);

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    pub(crate) stream: S,
    pub(crate) peer: SocketAddr,
    /// The process's number of the listener.
    pub(crate) listener: usize,
    pub(crate) timer: Timer,
    /// Requests so far.
    pub(crate) requests: u32,
    /// Bytes of empty lines since the last request.
    pub(crate) skipped: usize,
    /// When it was last busy.
    pub(crate) busy: Instant,
    /// The number that a limit had for its peer.
    pub(crate) key: KeyMemo,
}

/// What follows on an exchange.
#[derive(Debug)]
pub(crate) enum Next {
    /// The client may send another request.
    Idle,
    /// The connection ends.
    Close,
    /// The same, once what the client still sends has been read
    /// ([`Exchange::linger`](super::exchange::Exchange::linger)).
    Linger(Option<u64>),
    /// The backend has changed to the protocol that the client asked for.
    Tunnel(Box<Tunnel>),
}

/// Serves a client until its connection ends.
pub(crate) async fn serve<S: Stream>(
    worker: Rc<Worker>,
    stream: S,
    peer: SocketAddr,
    listener: usize,
) {
    let mut connection = Connection::new(stream, peer, listener);
    let mut guest = worker.stays[listener].arrive();
    while connection.wait_for_request(&worker).await {
        let exchange = Box::pin(Exchange::run(&worker, &mut connection, &mut guest));
        match exchange.await {
            Next::Idle => {}
            Next::Close | Next::Linger(_) => break,
            Next::Tunnel(tunnel) => {
                // Its place does not come back soon.
                guest.settles();
                let Connection { stream, timer, .. } = connection;
                return Box::pin(tunnel.run(&worker, stream, timer)).await;
            }
        }
    }
    worker.note_ended(connection.requests);
}

/// Tells a client that it has too many connections, and closes this one.
pub(crate) async fn turn_away<S: Stream>(
    worker: Rc<Worker>,
    stream: S,
    peer: SocketAddr,
    listener: usize,
) {
    let mut connection = Connection::new(stream, peer, listener);
    let answer = OwnAnswer::new(
        429,
        Reason::TooManyConnections,
        "this address has as many connections as one client may have",
    );
    Exchange::begin(&worker, &mut connection).turn_away(&answer).await;
}

impl<S: Stream> Connection<S> {
    fn new(stream: S, peer: SocketAddr, listener: usize) -> Self {
        Self {
            stream,
            peer,
            listener,
            timer: Wheel::timer(),
            requests: 0,
            skipped: 0,
            busy: now(),
            key: KeyMemo::default(),
        }
    }

    /// Waits for the first byte of a request. False when none will come: the client
    /// left, it was silent for too long, or the proxy is stopping or closes what is idle.
    async fn wait_for_request(&mut self, worker: &Worker) -> bool {
        let idle_for = match &worker.config().listeners[self.listener] {
            // A fresh connection has the time of a head for its first byte.
            Some(config) if self.requests == 0 => config.listener.header_timeout,
            Some(config) => config.listener.keep_alive_timeout,
            None => KEEP_ALIVE_WITHOUT_CONFIG,
        };
        worker.wheel.arm(&self.timer, self.busy, idle_for);
        // Others may need its place more than it does.
        worker.wheel.mark_idle(&self.timer, self.busy);
        let comes = poll_fn(|context| {
            match self.stream.poll_readable(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(true),
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => {}
            }
            // A connection without a request may still be bringing its first one.
            if worker.is_stopping() && self.requests > 0 {
                return Poll::Ready(false);
            }
            self.timer.poll(context).map(|()| false)
        })
        .await;
        self.timer.mark_busy();
        comes
    }
}
