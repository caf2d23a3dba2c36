//! Waits for a request and takes it from the connection.

use std::{
    future::poll_fn,
    mem,
    task::Poll,
    time::{Duration, Instant},
};

use super::{
    answer::protocol_error,
    connection::{Connection, Next},
    exchange::Exchange,
    prepare::{self, Outcome, prepare},
    respond::OwnAnswer,
    stream::Stream,
};
use crate::{
    h1::{fields::is_token_byte, lower_minor, request::scan_error, scan::HeadScan},
    reason::Reason,
    worker::{Loaded, Moment, now, until},
};

/// Empty lines before a request are passed over up to this; a flood of them would keep a
/// worker busy and its deadlines away.
pub(super) const EMPTY_LINE_BYTES_MAX: usize = 64;
/// A client that asks again within this time after an answer is a busy one, for which the
/// exchange is kept as long: making it anew is a good part of what a request costs.
pub(super) const SETTLES_AFTER: Duration = Duration::from_millis(100);
/// For a head on a listener that is not configured (yet).
const UNCONFIGURED_TIMEOUT: Duration = Duration::from_secs(10);

/// What a request was read with. What it says is in its [`Outcome`], which is written where it
/// stays: it is large.
pub(super) struct Read {
    /// The configuration that it is served from.
    pub(super) config: Loaded,
    pub(super) started: Instant,
    /// The head for a backend.
    pub(super) head: Vec<u8>,
}

impl<S: Stream> Exchange<'_, S> {
    /// Waits for the first bytes of the next request; tells what follows when none came.
    pub(super) async fn wait_a_moment(&mut self) -> Option<Next> {
        let (worker, buffer) = (self.worker, &mut self.client_in);
        let Connection { stream, timer, busy, .. } = &mut *self.connection;
        worker.wheel.arm(timer, *busy, SETTLES_AFTER);
        let mut was_asked = false;
        poll_fn(|context| {
            // Storage is taken only when there is something to read: hardly before the first
            // look, and mostly at each one that follows.
            let comes =
                mem::replace(&mut was_asked, true) || stream.poll_readable(context).is_ready();
            if comes && let Poll::Ready(read) = buffer.poll_fill(stream, context) {
                let is_there = read.is_ok_and(|count| count > 0);
                return Poll::Ready((!is_there).then_some(Next::Close));
            }
            if worker.is_stopping() {
                return Poll::Ready(Some(Next::Idle));
            }
            timer.poll(context).map(|()| Some(Next::Idle))
        })
        .await
    }

    /// Reads until a head is complete; `None` when the client left.
    ///
    /// A head that is there at once is parsed at once. One that comes in pieces is looked
    /// through piece by piece, each byte once, and parsed when its end is there.
    pub(super) async fn read_request(
        &mut self,
        outcome: &mut Option<Outcome>,
    ) -> Result<Option<Read>, OwnAnswer> {
        let mut scan = HeadScan::default();
        // Since when more of it is waited for.
        let mut in_pieces = None;
        loop {
            if self.skip_empty_lines() {
                scan = HeadScan::default();
            }
            if self.connection.skipped > EMPTY_LINE_BYTES_MAX {
                return Err(protocol_error("too many empty lines come before the request"));
            }
            if let Some(&first) = self.client_in.data().first() {
                if !is_token_byte(first) && first != b'\r' {
                    return Err(protocol_error("this is not HTTP/1"));
                }
                if in_pieces.is_none()
                    && let Some(read) = self.parse(outcome)
                {
                    return Ok(Some(read));
                }
                let config = self.worker.config();
                let data = self.client_in.data();
                if scan.advance(data, self.limits(&config)).map_err(scan_error)?.is_some() {
                    return match self.parse(outcome) {
                        Some(read) => Ok(Some(read)),
                        None => Err(protocol_error("the head does not end with its empty line")),
                    };
                }
                if in_pieces.is_none() {
                    let began = now();
                    in_pieces = Some(began);
                    let timeout = config.listeners[self.connection.listener]
                        .as_ref()
                        .map_or(UNCONFIGURED_TIMEOUT, |config| config.listener.header_timeout);
                    self.worker.wheel.arm(&self.connection.timer, began, timeout);
                }
            }
            let is_fresh = self.connection.requests == 0;
            let Connection { stream, timer, busy, .. } = &mut *self.connection;
            let (timer, buffer) = (&*timer, &mut self.client_in);
            let worker = self.worker;
            let mut waited = false;
            let read = poll_fn(|context| match buffer.poll_fill(stream, context) {
                // Empty lines only: it is as idle as before them.
                Poll::Pending if buffer.is_empty() && worker.is_stopping() && !is_fresh => {
                    Poll::Ready(Ok(0))
                }
                Poll::Pending => {
                    // Others may need its place more than one who has asked for nothing yet.
                    if !mem::replace(&mut waited, true) {
                        let since = in_pieces.filter(|_| !is_fresh).unwrap_or(*busy);
                        worker.wheel.mark_idle(timer, since);
                    }
                    Poll::Pending
                }
                polled @ Poll::Ready(_) => polled,
            });
            let read = until(timer, read).await;
            let is_given_up = waited && read.is_err() && !timer.is_idle();
            if waited {
                timer.mark_busy();
            }
            match read {
                Ok(Ok(count)) if count > 0 => {}
                Err(_) if is_given_up => return Ok(None),
                Err(_) if !self.client_in.is_empty() => {
                    return Err(OwnAnswer::new(
                        408,
                        Reason::ClientHeaderTimeout,
                        "the request's head was not complete in time",
                    ));
                }
                _ => {
                    if !self.client_in.is_empty() {
                        self.worker.shard.count_client_abort();
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// Reads the head that is there, if it is complete, and takes it out of the buffer.
    fn parse(&mut self, outcome: &mut Option<Outcome>) -> Option<Read> {
        // The latest: a request that is complete after a change is served by it.
        let config = self.worker.config();
        let Moment { at: started, nanos } = self.worker.clock.now();
        self.begin_record(started);
        let mut head = self.worker.buffers.output();
        let context = prepare::Context {
            peer: self.connection.peer,
            listener: config.listeners[self.connection.listener].as_ref(),
            listener_name: &config.listener_names[self.connection.listener],
            limits: self.limits(&config),
            management: config.management.as_ref(),
            request_id: self.worker.rng.borrow_mut().u128(..),
            config: &config,
            worker: self.worker,
            started,
            nanos,
            key: &self.connection.key,
        };
        let stream = &self.connection.stream;
        let local = || stream.local_address().ok();
        let record = self.record.as_deref_mut();
        let data = self.client_in.data();
        let Some(length) = prepare(data, context, local, record, &mut head, outcome) else {
            self.worker.buffers.return_output(head);
            return None;
        };
        if length == 0 && lower_minor(self.client_in.data_mut()) {
            self.worker.buffers.return_output(head);
            return self.parse(outcome);
        }
        self.client_in.consume(length);
        if self.client_in.is_empty() {
            // It may be long before there is something to read again.
            self.client_in.park();
        }
        Some(Read { config, started, head })
    }

    /// Skips empty lines before a request (RFC 9112, 2.2). True when there were any:
    /// the head begins elsewhere than was thought.
    pub(super) fn skip_empty_lines(&mut self) -> bool {
        if self.client_in.data().first() != Some(&b'\r') {
            return false;
        }
        let before = self.client_in.data().len();
        while self.client_in.data().starts_with(b"\r\n") {
            self.client_in.consume(2);
        }
        let skipped = before - self.client_in.data().len();
        self.connection.skipped += skipped;
        skipped > 0
    }
}
