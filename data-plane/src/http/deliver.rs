//! Brings a backend's response to the client, while what is left of the request goes
//! on its way.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use lb_core::model::HttpLimits;

use super::{
    connection::Next,
    converse::Conversation,
    exchange::ONE_WRITE_MAX,
    failure::Ended,
    relay::{Reading, Relay, RelayError, Waiting},
    stream::Stream,
};
use crate::{
    h1::body::{BodyLength, Framing},
    live::FailureKind,
    reason::Reason,
    upstream::Upstream,
    worker::{Buffer, now},
};

/// A head came in; what must be known of it when its bytes are gone.
pub(super) struct Received {
    pub(super) status: u16,
    pub(super) body: BodyLength,
    pub(super) framing: Framing,
    pub(super) backend_keeps: bool,
    pub(super) client_keeps: bool,
    pub(super) head: Vec<u8>,
}

impl<S: Stream> Conversation<'_, '_, S> {
    /// Passes the response on, and what is left of the request meanwhile.
    pub(super) async fn pass_on(
        &mut self,
        received: Received,
        mut upstream: Upstream,
        mut upstream_in: Buffer,
    ) -> Ended {
        let worker = self.exchange.worker;
        let failed_status = received.status >= 500;
        let body = Reading {
            length: received.body,
            limits: &HttpLimits::DEFAULT,
            trailers: self.prepared.takes_trailers,
        };
        let mut download = Relay::new(received.head, body, received.framing, &worker.pipes);
        if download.absorb(&mut upstream_in, ONE_WRITE_MAX).is_err() {
            // Nothing was sent yet: the client can still be told.
            return self.protocol_failure("the chunked body is malformed");
        }
        let mut uploading = !self.upload.is_done();
        let result =
            self.relay_both(&mut download, &mut uploading, &mut upstream, &mut upstream_in).await;
        let ended = now();
        self.exchange.connection.busy = ended;
        let latency = u64::try_from((ended - self.started).as_micros()).unwrap_or(u64::MAX);
        let (to_backend, from_backend) = (self.upload.written, download.written);
        let index = worker.index;
        self.backend.count_bytes(index, to_backend, from_backend);
        let failure = match &result {
            Ok(()) if failed_status => Some(FailureKind::Status5xx),
            Err(RelayError::Read | RelayError::Truncated) => Some(FailureKind::Reset),
            Err(RelayError::Chunks(_)) => Some(FailureKind::Protocol),
            // The client left or stalled, which says nothing against the backend.
            Ok(()) | Err(RelayError::Write(_)) => None,
        };
        self.backend.count_end(index, failure, result.is_ok().then_some(latency));
        let failed = failure.is_some();
        worker.shard.count_status(received.status);
        if let Some(record) = &mut self.exchange.record {
            record.attempt_answered(self.backend, received.status, ended);
            record.answered(received.status, from_backend);
            match result {
                Ok(()) => {}
                Err(RelayError::Read | RelayError::Truncated) => {
                    record.reason(Reason::BackendReset)
                }
                Err(RelayError::Chunks(_)) => record.reason(Reason::BackendProtocolError),
                Err(RelayError::Write(_)) => record.reason(Reason::ClientAbort),
            }
        }
        if result.is_err() {
            // The head is out: only a reset tells the client that this is not all.
            self.exchange.connection.stream.abort();
            if matches!(result, Err(RelayError::Write(_))) {
                worker.shard.count_client_abort();
            }
            return Ended::Answered { next: Next::Close, failed };
        }
        let is_long = download.written > ONE_WRITE_MAX as u64;
        worker.buffers.return_output(download.into_out());
        // More than was announced makes the connection unusable, and so does a request
        // that the backend did not read to its end.
        if received.backend_keeps && upstream_in.is_empty() && self.upload.is_done() {
            let idle_max = self.pool.connections.idle_max as usize;
            worker.upstreams.keep(self.backend.serial, upstream, ended, idle_max);
        }
        if received.client_keeps {
            return Ended::Answered { next: Next::Idle, failed };
        }
        // A client that asked for the end should send nothing more; any other might, and
        // what it sends would cut a response short that is still on its way.
        if self.prepared.understood.keep_alive || is_long || !self.upload.is_done() {
            self.exchange.linger().await;
        }
        Ended::Answered { next: Next::Close, failed }
    }

    async fn relay_both(
        &mut self,
        download: &mut Relay,
        uploading: &mut bool,
        upstream: &mut Upstream,
        upstream_in: &mut Buffer,
    ) -> Result<(), RelayError> {
        let exchange = &mut *self.exchange;
        let connection = &mut *exchange.connection;
        let upload = &mut *self.upload;
        let (body_idle, write_idle) =
            (self.pool.connections.response_idle_timeout, self.listener.write_idle_timeout);
        let mut waited = false;
        poll_fn(|context: &mut Context<'_>| {
            if let Poll::Ready(done) =
                download.poll(context, &mut upstream.stream, upstream_in, &mut connection.stream)
            {
                return Poll::Ready(done);
            }
            if *uploading {
                let client_in = &mut exchange.client_in;
                let client = &mut connection.stream;
                // A failed upload leaves the response to say what became of it.
                *uploading =
                    upload.poll(context, client, client_in, &mut upstream.stream).is_pending();
            }
            let progressed = std::mem::take(&mut download.progressed)
                | std::mem::take(&mut upload.progressed)
                | !std::mem::replace(&mut waited, true);
            if progressed {
                let idle_for = match download.waiting {
                    Waiting::Reader => body_idle,
                    Waiting::Writer => write_idle,
                };
                exchange.worker.wheel.arm(&connection.timer, now(), idle_for);
            }
            if !*uploading && connection.stream.is_reset(context) {
                let reset = io::ErrorKind::ConnectionReset;
                return Poll::Ready(Err(RelayError::Write(reset.into())));
            }
            connection.timer.poll(context).map(|()| {
                Err(match download.waiting {
                    Waiting::Reader => RelayError::Read,
                    Waiting::Writer => RelayError::Write(io::ErrorKind::TimedOut.into()),
                })
            })
        })
        .await
    }
}
