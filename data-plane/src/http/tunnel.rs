//! A connection that has changed to another protocol, say WebSocket: bytes pass both
//! ways unread until both sides have ended.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::net::TcpStream;

use super::{record::Record, stream::Stream, timing::SILENT_FOR};
use crate::{
    leases::Permit,
    live::{BackendState, CountedBy},
    reason::Reason,
    worker::{Buffer, Timer, Worker, now},
};

/// The backend's side of such a connection, and what was read ahead.
#[derive(Debug)]
pub(crate) struct Tunnel {
    upstream: TcpStream,
    up: Direction,
    down: Direction,
    idle_timeout: Duration,
    flight: Flight,
    /// The slots that it has, for as long as it lives.
    permit: Option<Permit>,
    /// How long a request may hold them without a control plane.
    longest: Duration,
    record: Option<Box<Record>>,
}

/// One way through a tunnel.
#[derive(Debug)]
struct Direction {
    buffer: Buffer,
    /// The sender has said its last; the receiver is told once all is written.
    ended: bool,
    closed: bool,
    moved: u64,
    /// What a failed read and a failed write are called.
    reasons: [Reason; 2],
}

const CLIENT: Reason = Reason::ClientAbort;
const BACKEND: Reason = Reason::BackendReset;

/// It counts as in flight for as long as it lives.
#[derive(Debug)]
struct Flight(Arc<BackendState>, CountedBy);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.leave(self.1);
        self.0.leave_upgraded();
    }
}

/// What a tunnel begins with.
#[derive(Debug)]
pub(crate) struct Switched {
    pub(crate) upstream: TcpStream,
    /// Sent by the client behind its request.
    pub(crate) from_client: Buffer,
    /// Sent by the backend behind its 101.
    pub(crate) from_backend: Buffer,
    pub(crate) idle_timeout: Duration,
    pub(crate) record: Option<Box<Record>>,
    pub(crate) permit: Option<Permit>,
    /// How long a request may hold them without a control plane.
    pub(crate) longest: Duration,
}

impl Tunnel {
    pub(crate) fn new(switched: Switched, backend: &Arc<BackendState>, by: CountedBy) -> Self {
        backend.enter(by);
        backend.enter_upgraded();
        Self {
            upstream: switched.upstream,
            up: Direction::new(switched.from_client, [CLIENT, BACKEND]),
            down: Direction::new(switched.from_backend, [BACKEND, CLIENT]),
            idle_timeout: switched.idle_timeout,
            flight: Flight(Arc::clone(backend), by),
            permit: switched.permit,
            longest: switched.longest,
            record: switched.record,
        }
    }

    /// How long nothing may move. Once one side has said its last, nothing may be left of it, and
    /// the other need not hold everything for as long as two that are there.
    fn patience(&self) -> Duration {
        match self.up.ended || self.down.ended {
            true => self.idle_timeout.min(SILENT_FOR),
            false => self.idle_timeout,
        }
    }

    /// Moves bytes until both sides have ended, one has failed, or nothing has moved for
    /// too long.
    pub(crate) async fn run<S: Stream>(mut self, worker: &Rc<Worker>, stream: S, timer: Timer) {
        let mut stream = stream;
        worker.wheel.arm(&timer, now(), self.idle_timeout);
        let ended = poll_fn(|context| {
            let before = (self.up.moved + self.down.moved, self.patience());
            let up = self.up.poll(context, &mut stream, &mut self.upstream);
            let down = self.down.poll(context, &mut self.upstream, &mut stream);
            match (up, down) {
                (Poll::Ready(Err(reason)), _) | (_, Poll::Ready(Err(reason))) => {
                    return Poll::Ready(Err(reason));
                }
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
                _ => {}
            }
            if before != (self.up.moved + self.down.moved, self.patience()) {
                worker.wheel.arm(&timer, now(), self.patience());
            }
            if self.flight.0.is_cutting() {
                return Poll::Ready(Err(Reason::DrainDeadline));
            }
            if self.permit.as_ref().is_some_and(|permit| permit.is_overdue(self.longest)) {
                return Poll::Ready(Err(Reason::SlotLost));
            }
            timer.poll(context).map(|()| Err(Reason::TunnelIdleTimeout))
        })
        .await;
        if ended.is_err() {
            // Neither side shall take what it has for all that there was.
            stream.abort();
            self.upstream.abort();
        }
        if ended == Err(Reason::DrainDeadline) {
            self.flight.0.count_cut();
            worker.shard.count_own_answer(Reason::DrainDeadline);
        }
        if ended == Err(Reason::SlotLost) {
            worker.shard.count_own_answer(Reason::SlotLost);
        }
        self.flight.0.count_bytes(worker.index, self.up.moved, self.down.moved);
        if let (Some(mut record), Some(log)) = (self.record.take(), &worker.access_log) {
            record.tunnelled(self.up.moved, self.down.moved);
            if let Err(reason) = ended {
                record.reason(reason);
            }
            log.finish(*record, now());
        }
    }
}

impl Direction {
    fn new(buffer: Buffer, reasons: [Reason; 2]) -> Self {
        Self { buffer, ended: false, closed: false, moved: 0, reasons }
    }

    /// Ready once the end was passed on.
    fn poll<R: Stream, W: Stream>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<Result<(), Reason>> {
        let [read_failed, write_failed] = self.reasons;
        while !self.closed {
            while !self.buffer.is_empty() {
                let written = Pin::new(&mut *writer).poll_write(context, self.buffer.data());
                let Poll::Ready(count) = written else {
                    self.buffer.hold_up();
                    return Poll::Pending;
                };
                let count = count.unwrap_or(0);
                if count == 0 {
                    return Poll::Ready(Err(write_failed));
                }
                self.buffer.consume(count);
                self.moved += count as u64;
            }
            if self.ended {
                ready!(Pin::new(&mut *writer).poll_shutdown(context)).map_err(|_| write_failed)?;
                self.closed = true;
                break;
            }
            let count = ready!(self.buffer.poll_fill(reader, context)).map_err(|_| read_failed)?;
            self.ended = count == 0;
        }
        Poll::Ready(Ok(()))
    }
}
