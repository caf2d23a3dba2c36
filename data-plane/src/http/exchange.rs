//! One request and its answer.
//!
//! A backend is picked, and another one when that is safe: always while nothing of
//! the request was written, and once more for an idempotent request to which no byte
//! was answered. What was written and must not be done twice is never sent again.

use std::{future::poll_fn, io, rc::Rc, sync::Arc, time::Instant};

use lb_core::balance::PickContext;
use tokio::io::AsyncWriteExt as _;

use super::{
    connection::{Connection, Next},
    converse::Conversation,
    failure::{Ended, Failure},
    prepare::{self, Prepared, Refused, prepare},
    relay::Relay,
    respond::OwnAnswer,
    stream::Stream,
};
use crate::{
    h1::{
        HEAD_BYTES_MAX, Version,
        body::{BodyLength, Framing},
        request::Method,
        response::Delivery,
        scan::{HeadScan, ScanError},
    },
    live::{BackendState, PoolConfig},
    worker::{Lent, Loaded, Worker, now, until},
};

/// A head and a body that are shorter than this together are copied into one write.
pub(super) const ONE_WRITE_MAX: usize = 16 * 1024;
/// Backends that one request tries at most.
const ATTEMPTS_MAX: usize = 32;
/// An unread request body is drained up to this, so that the answer arrives.
const DRAIN_BYTES_MAX: usize = 64 * 1024;
/// And for this long.
const DRAIN_FOR: std::time::Duration = std::time::Duration::from_secs(1);

/// The requests that a client sends in one go.
#[derive(Debug)]
pub(super) struct Exchange<'a, S> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) connection: &'a mut Connection<S>,
    pub(super) client_in: Lent,
}

impl<'a, S: Stream> Exchange<'a, S> {
    /// Answers requests for as long as their bytes are there.
    pub(super) async fn run(worker: &'a Rc<Worker>, connection: &'a mut Connection<S>) -> Next {
        let client_in = worker.buffers.small();
        let mut exchange = Self { worker, connection, client_in };
        loop {
            if exchange.one().await == Next::Close {
                return Next::Close;
            }
            if exchange.client_in.is_empty() {
                return Next::Idle;
            }
        }
    }

    async fn one(&mut self) -> Next {
        let length = match self.read_head().await {
            Ok(Some(length)) => length,
            Ok(None) => return Next::Close,
            Err(answer) => return self.refuse(&answer, None).await,
        };
        let started = now();
        self.connection.requests += 1;
        self.worker.shard.count_request();
        let config = self.worker.config();
        let mut out = self.worker.buffers.output();
        let context = prepare::Context {
            peer: self.connection.peer,
            listener: config.listeners[self.connection.listener].as_ref(),
            request_id: self.worker.rng.borrow_mut().u128(..),
        };
        let stream = &self.connection.stream;
        let local = || stream.local_address().ok();
        let prepared = prepare(&self.client_in.data()[..length], context, local, &mut out);
        self.client_in.consume(length);
        match prepared {
            Ok(prepared) => self.forward(&prepared, out, &config, started).await,
            Err(Refused { answer, request: Some(understood) }) => {
                self.worker.buffers.return_output(out);
                self.answer(&answer, &understood, &config).await
            }
            Err(Refused { answer, request: None }) => self.refuse(&answer, None).await,
        }
    }

    /// Reads until a head is complete; `None` when the client left.
    async fn read_head(&mut self) -> Result<Option<usize>, OwnAnswer> {
        let mut scan = HeadScan::default();
        let mut armed = false;
        loop {
            if self.skip_empty_lines() {
                scan = HeadScan::default();
            }
            let data = self.client_in.data();
            if data.first().is_some_and(|first| !first.is_ascii_alphanumeric() && *first != b'\r') {
                return Err(protocol_error("this is not HTTP/1"));
            }
            match scan.advance(data) {
                Ok(Some(length)) => return Ok(Some(length)),
                Ok(None) => {}
                Err(error) => return Err(scan_error(error)),
            }
            if !armed {
                armed = true;
                let config = self.worker.config();
                let timeout = config.listeners[self.connection.listener]
                    .as_ref()
                    .map_or(DRAIN_FOR, |config| config.listener.header_timeout);
                self.worker.wheel.arm(&self.connection.timer, now(), timeout);
            }
            if self.client_in.is_full() {
                self.client_in.grow(HEAD_BYTES_MAX + 1);
            }
            let (stream, buffer) = (&mut self.connection.stream, &mut *self.client_in);
            let read = poll_fn(|context| buffer.poll_fill(stream, context));
            match until(&self.connection.timer, read).await {
                Ok(Ok(0)) if self.client_in.is_empty() => return Ok(None),
                Ok(Ok(0)) => {
                    self.worker.shard.count_client_abort();
                    return Ok(None);
                }
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Ok(None),
                Err(_) if self.client_in.is_empty() => return Ok(None),
                Err(_) => {
                    return Err(OwnAnswer::new(
                        408,
                        "client_header_timeout",
                        "the request's head was not complete in time",
                    ));
                }
            }
        }
    }

    /// Skips empty lines before a request (RFC 9112, 2.2). True when there were any:
    /// the head begins elsewhere than was thought.
    fn skip_empty_lines(&mut self) -> bool {
        let before = self.client_in.data().len();
        while self.client_in.data().starts_with(b"\r\n") {
            self.client_in.consume(2);
        }
        self.client_in.data().len() < before
    }

    async fn forward(
        &mut self,
        prepared: &Prepared,
        head: Vec<u8>,
        config: &Loaded,
        started: Instant,
    ) -> Next {
        let pool = &config.pools[prepared.pool];
        let Some(listener) = &config.listeners[self.connection.listener] else {
            return Next::Close; // Unreachable: without a listener there was no pool.
        };
        let framing = match prepared.body {
            BodyLength::Chunked => Framing::Chunked,
            BodyLength::Known(_) | BodyLength::UntilClose => Framing::Identity,
        };
        let mut upload = Relay::new(head, prepared.body, framing);
        if upload.absorb(&mut self.client_in, ONE_WRITE_MAX).is_err() {
            return self.refuse(&protocol_error("the chunked body is malformed"), None).await;
        }
        let keep_alive = self.keeps_connection(prepared.keep_alive, config);
        let mut tried = Tried::default();
        let mut resent = false;
        let mut left: Option<&Arc<BackendState>> = None;
        while let Some(slot) = self.pick(pool, prepared, tried.slots(), started) {
            let backend = &pool.backends[slot as usize];
            let flight = InFlight::enter(backend);
            backend.count_request(self.worker.index);
            if let Some(left) = left.replace(backend) {
                left.count_retry(self.worker.index);
            }
            let conversation = Conversation {
                exchange: self,
                prepared,
                pool,
                listener: &listener.listener,
                backend,
                upload: &mut upload,
                resent: &mut resent,
                keep_alive,
                started,
            };
            match conversation.run().await {
                Ended::Answered { next, failed } => {
                    flight.end(failed, self.worker, pool);
                    self.worker.buffers.return_output(upload.into_out());
                    return next;
                }
                Ended::ClientFault(answer) => {
                    drop(flight);
                    return self.refuse(&answer, Some(prepared)).await;
                }
                Ended::Failed(failure) => {
                    flight.end(true, self.worker, pool);
                    backend.count_end(self.worker.index, Some(failure.kind), None);
                    let again = match failure.written {
                        false => true,
                        true => {
                            let once = !resent && prepared.method.is_idempotent();
                            resent = true;
                            once && failure.resendable && upload.is_replayable()
                        }
                    };
                    let more = tried.add(slot, failure);
                    let in_time = now() - started < pool.request_timeout;
                    if !(again && more && in_time) {
                        break;
                    }
                    upload.rewind();
                }
            }
        }
        let answer = tried.answer(pool);
        let body_read = upload.is_read();
        let understood = prepare::Understood {
            method: prepared.method,
            version: prepared.version,
            keep_alive: keep_alive && body_read,
            // What is left of the body is not known any more once some was moved.
            body: if body_read { BodyLength::Known(0) } else { prepared.body },
        };
        self.answer(&answer, &understood, config).await
    }

    fn pick(
        &self,
        pool: &PoolConfig,
        prepared: &Prepared,
        excluded: &[u32],
        now: Instant,
    ) -> Option<u32> {
        self.worker.release_held(now);
        pool.picker.pick(&mut PickContext {
            client: prepared.client,
            cursor: &pool.cursor.0,
            loads: pool,
            rng: &mut self.worker.rng.borrow_mut(),
            excluded,
        })
    }

    /// Whether the client's connection stays open after this request.
    fn keeps_connection(&self, wanted: bool, config: &Loaded) -> bool {
        let requests_max = config.listeners[self.connection.listener]
            .as_ref()
            .map_or(u32::MAX, |config| config.listener.requests_max);
        wanted && !self.worker.is_draining() && self.connection.requests < requests_max
    }

    /// Answers a request that was understood, and keeps the connection if the whole
    /// of it has been read.
    async fn answer(
        &mut self,
        answer: &OwnAnswer,
        request: &prepare::Understood,
        config: &Loaded,
    ) -> Next {
        let keep_alive = request.body == BodyLength::Known(0)
            && self.keeps_connection(request.keep_alive, config);
        let delivery = Delivery { version: request.version, keep_alive };
        let written = self.write(answer, delivery, request.method != Method::Head).await;
        match (written, keep_alive) {
            (Ok(()), true) => Next::Idle,
            (Ok(()), false) => {
                self.linger().await;
                Next::Close
            }
            (Err(_), _) => Next::Close,
        }
    }

    /// Answers what cannot be relied on, and ends the connection.
    async fn refuse(&mut self, answer: &OwnAnswer, prepared: Option<&Prepared>) -> Next {
        let version = prepared.map_or(Version::Http11, |prepared| prepared.version);
        let with_body = prepared.is_none_or(|prepared| prepared.method != Method::Head);
        let delivery = Delivery { version, keep_alive: false };
        if self.write(answer, delivery, with_body).await.is_ok() {
            self.linger().await;
        }
        Next::Close
    }

    async fn write(
        &mut self,
        answer: &OwnAnswer,
        delivery: Delivery,
        with_body: bool,
    ) -> io::Result<()> {
        self.worker.shard.count_status(answer.status);
        self.worker.shard.count_own_answer(answer.reason);
        let mut out = self.worker.buffers.output();
        answer.encode(delivery, with_body, &mut out);
        self.worker.wheel.arm(&self.connection.timer, now(), DRAIN_FOR);
        let written = until(&self.connection.timer, self.connection.stream.write_all(&out)).await;
        self.worker.buffers.return_output(out);
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Says that nothing more comes and reads on for a moment: closing at once would
    /// reset the connection and with it the answer (RFC 9112, 9.6).
    pub(super) async fn linger(&mut self) {
        self.worker.wheel.arm(&self.connection.timer, now(), DRAIN_FOR);
        let (stream, buffer) = (&mut self.connection.stream, &mut *self.client_in);
        let drain = async {
            if stream.shutdown().await.is_err() {
                return;
            }
            let mut drained = 0;
            while drained < DRAIN_BYTES_MAX {
                buffer.clear();
                match poll_fn(|context| buffer.poll_fill(stream, context)).await {
                    Ok(count) if count > 0 => drained += count,
                    _ => return,
                }
            }
        };
        match until(&self.connection.timer, drain).await {
            // Out of time is as good an end as any.
            Ok(()) | Err(_) => {}
        }
    }
}

/// A request that counts as in flight.
struct InFlight<'a> {
    backend: &'a Arc<BackendState>,
}

impl<'a> InFlight<'a> {
    fn enter(backend: &'a Arc<BackendState>) -> Self {
        backend.enter();
        Self { backend }
    }

    /// Ends it; one that failed goes on counting for a while where a picker looks.
    fn end(self, failed: bool, worker: &Worker, pool: &PoolConfig) {
        if failed && !pool.error_hold.is_zero() {
            self.backend.enter();
            worker.hold(self.backend, now(), pool.error_hold);
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.backend.leave();
    }
}

/// The backends on which a request has failed.
#[derive(Debug)]
struct Tried {
    slots: [u32; ATTEMPTS_MAX],
    count: usize,
    last: Option<Failure>,
}

impl Default for Tried {
    fn default() -> Self {
        Self { slots: [0; ATTEMPTS_MAX], count: 0, last: None }
    }
}

impl Tried {
    fn slots(&self) -> &[u32] {
        &self.slots[..self.count]
    }

    /// Whether another one may be tried.
    fn add(&mut self, slot: u32, failure: Failure) -> bool {
        self.last = Some(failure);
        if let Some(free) = self.slots.get_mut(self.count) {
            *free = slot;
            self.count += 1;
        }
        self.count < ATTEMPTS_MAX
    }

    fn answer(self, pool: &PoolConfig) -> OwnAnswer {
        let Some(failure) = self.last else {
            let message = if pool.backends.is_empty() {
                format!(
                    "pool {} has no backends; add one with lbctl add-backend HOST:PORT",
                    pool.name
                )
            } else {
                format!(
                    "none of the {} backends of pool {} is up; lbctl get backends says why",
                    pool.backends.len(),
                    pool.name
                )
            };
            return OwnAnswer::new(503, "no_healthy_backend", message);
        };
        OwnAnswer::new(failure.status(), failure.reason, failure.message)
    }
}

fn scan_error(error: ScanError) -> OwnAnswer {
    match error {
        ScanError::BareLf => protocol_error("a line ends with LF alone"),
        ScanError::LineTooLong => {
            OwnAnswer::new(414, "header_too_large", "the request line is longer than 8 KiB")
        }
        ScanError::HeadTooLong => {
            OwnAnswer::new(431, "header_too_large", "the request's head is longer than 64 KiB")
        }
    }
}

pub(super) fn protocol_error(message: &str) -> OwnAnswer {
    OwnAnswer::new(400, "client_protocol_error", message)
}
