//! One attempt: sends a request to one backend and brings its response back.
//!
//! The upload goes on while the response comes in, so a backend may answer early,
//! or echo what it reads.

use std::{future::poll_fn, io, sync::Arc, task::Poll, time::Instant};

use lb_core::model::Listener;
use tokio::io::AsyncWriteExt as _;

use super::{
    deliver::{Received, is_large},
    exchange::Exchange,
    failure::{Ended, Failure},
    prepare::Prepared,
    relay::{Relay, RelayError, Waiting},
    stream::Stream,
};
use crate::{
    h1::{
        HEAD_BYTES_MAX, Version,
        body::{BodyLength, Framing},
        field_storage,
        response::{self, Delivery},
        scan::HeadScan,
    },
    live::{BackendState, PoolConfig},
    upstream::{Upstream, connect},
    worker::{Buffer, Lent, now, until},
};

/// Interim responses (1xx) before the final one; more are a backend gone mad.
const INTERIM_MAX: usize = 16;

/// One attempt at one backend.
#[derive(Debug)]
pub(super) struct Conversation<'e, 'x, S> {
    pub(super) exchange: &'e mut Exchange<'x, S>,
    pub(super) prepared: &'e Prepared,
    pub(super) pool: &'e PoolConfig,
    pub(super) listener: &'e Listener,
    pub(super) backend: &'e Arc<BackendState>,
    pub(super) upload: &'e mut Relay,
    /// The request was written once before.
    pub(super) resent: &'e mut bool,
    pub(super) keep_alive: bool,
    pub(super) started: Instant,
}

/// A head of a backend's.
enum Head {
    Final(Received),
    /// What the client is told of an interim response; nothing of most.
    Interim(Vec<u8>),
}

enum Event {
    Uploaded(Result<(), RelayError>),
    Received(io::Result<usize>),
    ClientReset,
    TimedOut,
}

impl<S: Stream> Conversation<'_, '_, S> {
    /// Sends the request and passes the response on.
    pub(super) async fn run(mut self) -> Ended {
        let idempotent = self.prepared.method.is_idempotent() && self.upload.is_replayable();
        let worker = self.exchange.worker;
        while let Some(upstream) =
            worker.upstreams.take(self.backend.serial, idempotent, self.started)
        {
            // A kept connection may have been closed by the backend just now, which is
            // no fault of the backend's.
            match self.on(upstream).await {
                Ended::Failed(failure) if failure.resendable && !failure.written => {
                    self.upload.rewind();
                }
                Ended::Failed(failure) if failure.resendable && idempotent && !*self.resent => {
                    // Once, and not on a connection that may be closing like this one:
                    // a request that kills whoever takes it must not take them all.
                    *self.resent = true;
                    worker.upstreams.forget(self.backend.serial);
                    self.upload.rewind();
                }
                ended => return ended,
            }
        }
        match self.connect().await {
            Ok(upstream) => self.on(upstream).await,
            Err(failure) => Ended::Failed(failure),
        }
    }

    async fn connect(&mut self) -> Result<Upstream, Failure> {
        let worker = self.exchange.worker;
        let timer = &self.exchange.connection.timer;
        let (addresses, timeout) = (&self.backend.addresses, self.pool.connect_timeout);
        let now = now();
        match connect(addresses, timeout, timer, &worker.wheel, now).await {
            Ok(stream) => Ok(Upstream::new(stream, now, &mut worker.rng.borrow_mut())),
            Err(error) => Err(self.connect_failure(&error)),
        }
    }

    /// Runs the attempt on one connection.
    async fn on(&mut self, mut upstream: Upstream) -> Ended {
        let mut upstream_in = self.exchange.worker.buffers.small();
        self.enlarge_for_upload();
        let received = match self.receive_head(&mut upstream, &mut upstream_in).await {
            Ok(received) => received,
            Err(ended) => return ended,
        };
        let status = received.status;
        let ended = self.pass_on(received, upstream, upstream_in).await;
        if matches!(ended, Ended::Answered { .. }) {
            self.exchange.worker.shard.count_status(status);
        }
        ended
    }

    /// A large upload goes through a large buffer.
    fn enlarge_for_upload(&mut self) {
        if is_large(self.prepared.body) && !self.upload.is_read() {
            let mut buffer = self.exchange.worker.buffers.large();
            buffer.append(self.exchange.client_in.data());
            self.exchange.client_in = buffer;
        }
    }

    /// Sends, and waits for the head of the final response.
    async fn receive_head(
        &mut self,
        upstream: &mut Upstream,
        upstream_in: &mut Lent,
    ) -> Result<Received, Ended> {
        let worker = self.exchange.worker;
        self.continue_if_expected().await?;
        worker.wheel.arm(&self.exchange.connection.timer, self.started, self.pool.request_timeout);
        let mut uploading = true;
        let mut upload_failed = None;
        let mut scan = HeadScan::default();
        let mut interims = 0;
        loop {
            match scan.advance(upstream_in.data()) {
                Ok(Some(length)) => match self.read_head(upstream, upstream_in, length)? {
                    Head::Final(received) => return Ok(received),
                    Head::Interim(out) => {
                        scan = HeadScan::default();
                        interims += 1;
                        if interims > INTERIM_MAX {
                            return Err(self.protocol_failure("too many interim responses"));
                        }
                        self.write_interim(&out).await?;
                        continue;
                    }
                },
                Ok(None) => {}
                Err(_) => return Err(self.protocol_failure("the response head is malformed")),
            }
            if upstream_in.is_full() {
                upstream_in.grow(HEAD_BYTES_MAX + 1);
            }
            match self.next_event(uploading, upstream, upstream_in).await {
                Event::Uploaded(Ok(())) => {
                    uploading = false;
                    // The backend's time begins when the client has said everything.
                    if self.prepared.body != BodyLength::Known(0) {
                        let timer = &self.exchange.connection.timer;
                        worker.wheel.arm(timer, now(), self.pool.request_timeout);
                    }
                }
                Event::Uploaded(Err(RelayError::Write(error))) => {
                    // The backend may have answered before it stopped reading.
                    uploading = false;
                    upload_failed = Some(error);
                }
                Event::Uploaded(Err(error)) => return Err(self.client_fault(&error)),
                Event::Received(Ok(count)) if count > 0 => {}
                Event::Received(result) => {
                    let error = upload_failed.or_else(|| result.err());
                    return Err(self.reset(upstream_in, error.as_ref()));
                }
                Event::ClientReset => return Err(self.client_left()),
                Event::TimedOut => return Err(self.timed_out(uploading)),
            }
        }
    }

    /// Waits for the first thing that happens on either side.
    async fn next_event(
        &mut self,
        uploading: bool,
        upstream: &mut Upstream,
        upstream_in: &mut Buffer,
    ) -> Event {
        let exchange = &mut *self.exchange;
        let connection = &mut *exchange.connection;
        let upload = &mut *self.upload;
        poll_fn(|context| {
            if uploading {
                let client_in = &mut *exchange.client_in;
                let client = &mut connection.stream;
                if let Poll::Ready(done) =
                    upload.poll(context, client, client_in, &mut upstream.stream)
                {
                    return Poll::Ready(Event::Uploaded(done));
                }
            }
            if let Poll::Ready(result) = upstream_in.poll_fill(&mut upstream.stream, context) {
                return Poll::Ready(Event::Received(result));
            }
            if uploading && std::mem::take(&mut upload.progressed) {
                let idle_for = match upload.waiting {
                    Waiting::Reader => self.listener.body_idle_timeout,
                    Waiting::Writer => self.pool.request_timeout,
                };
                exchange.worker.wheel.arm(&connection.timer, now(), idle_for);
            }
            if !uploading && connection.stream.is_reset(context) {
                return Poll::Ready(Event::ClientReset);
            }
            connection.timer.poll(context).map(|()| Event::TimedOut)
        })
        .await
    }

    /// Tells a client that waits for it to send its body (RFC 9110, 10.1.1).
    async fn continue_if_expected(&mut self) -> Result<(), Ended> {
        let exchange = &mut *self.exchange;
        let waits = self.prepared.expects_continue
            && !self.upload.is_read()
            && exchange.client_in.is_empty();
        if waits {
            let connection = &mut *exchange.connection;
            exchange.worker.wheel.arm(&connection.timer, now(), self.pool.request_timeout);
            let interim = connection.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            if !matches!(until(&connection.timer, interim).await, Ok(Ok(()))) {
                return Err(self.client_left());
            }
        }
        Ok(())
    }

    /// Reads a complete head, and rewrites it for the client. 100 has been said before,
    /// and HTTP/1.0 knows no interim responses.
    fn read_head(
        &mut self,
        upstream: &mut Upstream,
        upstream_in: &mut Buffer,
        length: usize,
    ) -> Result<Head, Ended> {
        let mut storage = field_storage();
        let bytes = &upstream_in.data()[..length];
        let head = match response::parse(bytes, self.prepared.method, &mut storage) {
            Ok(head) => head,
            Err(bad) => return Err(self.protocol_failure(bad.0)),
        };
        match head.status {
            101 => return Err(self.protocol_failure("it switched protocols without being asked")),
            ..200 => {
                let mut out = Vec::new();
                if head.status != 100 && self.prepared.version == Version::Http11 {
                    head.encode(Delivery { version: Version::Http11, keep_alive: true }, &mut out);
                }
                upstream_in.consume(length);
                return Ok(Head::Interim(out));
            }
            _ => {}
        }
        if let Some(seconds) = head.keep_alive_timeout {
            upstream.set_idle_timeout(seconds);
        }
        let framing = head.framing(self.prepared.version);
        // Without a framing only the end of the connection ends the body; and a body
        // that is still coming in cannot be told from the next request. A stop may have
        // begun since the request came.
        let client_keeps = self.keep_alive
            && framing.is_some()
            && self.upload.is_done()
            && !self.exchange.worker.is_draining();
        let delivery = Delivery { version: self.prepared.version, keep_alive: client_keeps };
        let mut out = self.exchange.worker.buffers.output();
        head.encode(delivery, &mut out);
        let received = Received {
            status: head.status,
            body: head.body,
            framing: framing.unwrap_or(Framing::Identity),
            backend_keeps: head.keep_alive,
            client_keeps,
            head: out,
        };
        upstream_in.consume(length);
        Ok(Head::Final(received))
    }

    /// Passes an interim response on.
    async fn write_interim(&mut self, out: &[u8]) -> Result<(), Ended> {
        if out.is_empty() {
            return Ok(());
        }
        let connection = &mut *self.exchange.connection;
        match until(&connection.timer, connection.stream.write_all(out)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(self.client_left()),
        }
    }
}
