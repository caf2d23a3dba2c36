//! Brings a backend's response to the client, while what is left of the request goes
//! on its way.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::Instant,
};

use lb_core::{
    model::{HttpLimits, Listener},
    stats::whole_us,
};

use super::{
    answer::bad_chunks,
    connection::Next,
    converse::Conversation,
    exchange::ONE_WRITE_MAX,
    failure::{Discarded, Ended},
    presence,
    relay::{Reading, Relay, RelayError, Waiting},
    stream::{Presence, Stream},
    timing::{Patience, SILENT_FOR},
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
    pub(super) passes_trailers: bool,
    pub(super) backend_keeps: bool,
    pub(super) client_keeps: bool,
    pub(super) head: Vec<u8>,
}

/// Why a response did not arrive whole.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// What it says against the backend; nothing, if the client left or stalled, or the
    /// time of a drain was over.
    failure: Option<FailureKind>,
    /// Of the reason vocabulary.
    reason: Reason,
}

impl Cut {
    fn by_backend(failure: FailureKind, reason: Reason) -> Self {
        Self { failure: Some(failure), reason }
    }

    fn by_client(reason: Reason) -> Self {
        Self { failure: None, reason }
    }

    /// What became of a download. A backend need not wait for ever for a client that takes
    /// nothing.
    fn of_download(error: RelayError, client_was_slow: bool) -> Self {
        let cut = Self::from(error);
        if client_was_slow && cut.reason == Reason::BackendReset {
            return Self::by_client(cut.reason);
        }
        cut
    }

    /// Nobody's fault.
    fn by_drain() -> Self {
        Self { failure: None, reason: Reason::DrainDeadline }
    }

    fn of_upload(error: &RelayError) -> Self {
        Self::by_client(match error {
            RelayError::Chunks(error) => bad_chunks(*error).reason,
            RelayError::Read | RelayError::Truncated | RelayError::Write(_) => Reason::ClientAbort,
        })
    }
}

impl From<RelayError> for Cut {
    fn from(error: RelayError) -> Self {
        match error {
            RelayError::Read | RelayError::Truncated => {
                Self::by_backend(FailureKind::Reset, Reason::BackendReset)
            }
            RelayError::Chunks(_) => {
                Self::by_backend(FailureKind::Protocol, Reason::BackendProtocolError)
            }
            RelayError::Write(_) => Self::by_client(Reason::ClientAbort),
        }
    }
}

impl<S: Stream> Conversation<'_, '_, '_, S> {
    /// Passes the response on, and what is left of the request meanwhile.
    pub(super) async fn pass_on(
        &mut self,
        received: Received,
        mut upstream: Upstream,
        mut upstream_in: Buffer,
    ) -> Ended {
        let is_well = FailureKind::of_status(received.status).is_none();
        self.exchange.decide_trial(is_well);
        let worker = self.exchange.worker;
        if let Some(permit) = &mut self.exchange.permit {
            permit.answered(received.status, worker.index);
        }
        let body = Reading {
            length: received.body,
            limits: &HttpLimits::DEFAULT,
            trailers: received.passes_trailers,
            padded: true,
        };
        let mut download = Relay::new(received.head, body, received.framing, &worker.pipes);
        if download.absorb(&mut upstream_in, ONE_WRITE_MAX).is_err() {
            // Nothing was sent yet: the client can still be told.
            return self.broken("the chunked body is malformed", false);
        }
        self.upload.let_go();
        let mut uploading = !self.upload.is_done();
        let result = self
            .relay_both(&mut download, is_well, &mut uploading, &mut upstream, &mut upstream_in)
            .await;
        let ended = now();
        self.exchange.connection.busy = ended;
        let latency = whole_us(ended - self.began);
        let (to_backend, from_backend) = (self.upload.written, download.written);
        let index = worker.index;
        self.backend.count_bytes(index, to_backend, from_backend);
        let failure = match &result {
            Ok(()) => FailureKind::of_status(received.status),
            Err(cut) => cut.failure,
        };
        self.backend.count_end(index, failure, result.is_ok().then_some(latency));
        let failed = failure.is_some();
        let waited = match self.exchange.asked_at() {
            // The usual request is answered by its first attempt.
            Some(asked_at) if asked_at != self.began => whole_us(ended - asked_at),
            _ => latency,
        };
        self.exchange.count_answer(received.status, Some(waited));
        if let Some(record) = &mut self.exchange.record {
            record.attempt_answered(self.backend, received.status, ended);
            record.answered(received.status, from_backend, ended);
            if let Err(cut) = &result {
                record.reason(cut.reason);
            }
        }
        if let Err(cut) = result {
            if cut.reason == Reason::DrainDeadline {
                self.backend.count_cut();
            }
            // The head is out: only a reset tells the client that this is not all.
            self.exchange.connection.stream.abort();
            self.exchange.count_broken(cut.reason);
            if cut.failure.is_none() && self.exchange.is_traffic {
                worker.shard.count_own_answer(cut.reason);
            }
            return Ended::Answered { next: Next::Close, failed };
        }
        let is_long = download.written > ONE_WRITE_MAX as u64;
        worker.buffers.return_output(download.take_out());
        if uploading && !self.upload.is_done() && !self.exchange.is_crowded_now() {
            self.send_rest(&mut upstream, &mut upstream_in).await;
            self.backend.count_bytes(index, self.upload.written - to_backend, 0);
        }
        if received.backend_keeps {
            self.keep(upstream, &upstream_in, ended);
        }
        if received.client_keeps {
            return Ended::Answered { next: Next::Idle, failed };
        }
        // A client that asked for the end should send nothing more; any other might, and
        // what it sends would cut a response short that is still on its way.
        // Closing with something unread would be a reset, which cuts it short, too.
        let has_more = !self.exchange.client_in.data().is_empty() || {
            let stream = &self.exchange.connection.stream;
            poll_fn(|context| Poll::Ready(stream.has_unread(context))).await
        };
        let is_done = self.upload.is_done();
        let lingers = self.prepared.understood.keep_alive || is_long || has_more || !is_done;
        let next = match lingers {
            true => Next::Linger((!is_long && is_done).then_some(0)),
            false => Next::Close,
        };
        Ended::Answered { next, failed }
    }

    /// Gives a response up, because another backend is asked in its place. Its connection
    /// is used again only if all of it has come: nobody waits for the rest.
    pub(super) fn discard(
        &mut self,
        received: Received,
        upstream: Upstream,
        mut upstream_in: Buffer,
    ) -> Discarded {
        let worker = self.exchange.worker;
        let (length, limits) = (received.body, &HttpLimits::DEFAULT);
        let body = Reading { length, limits, trailers: false, padded: true };
        let mut rest = Relay::new(received.head, body, received.framing, &worker.pipes);
        let is_sound = rest.absorb(&mut upstream_in, usize::MAX).is_ok();
        let ended = now();
        if received.backend_keeps && is_sound && rest.is_read() {
            self.keep(upstream, &upstream_in, ended);
        }
        let out = rest.take_out();
        self.backend.count_bytes(worker.index, self.upload.written, out.len() as u64);
        worker.buffers.return_output(out);
        Discarded { status: received.status, latency_us: whole_us(ended - self.began) }
    }

    /// Keeps a connection whose response has ended. More than was announced makes it
    /// unusable, and so does a request that the backend did not read to its end.
    fn keep(&self, upstream: Upstream, upstream_in: &Buffer, now: Instant) {
        if upstream_in.is_empty() && self.upload.is_done() {
            let idle_max = self.pool.connections.idle_max as usize;
            let upstreams = &self.exchange.worker.upstreams;
            upstreams.keep(self.backend.serial, upstream, now, idle_max);
        }
    }

    async fn relay_both(
        &mut self,
        download: &mut Relay,
        is_well: bool,
        uploading: &mut bool,
        upstream: &mut Upstream,
        upstream_in: &mut Buffer,
    ) -> Result<(), Cut> {
        let exchange = &mut *self.exchange;
        let connection = &mut *exchange.connection;
        let upload = &mut *self.upload;
        let response_idle = self.pool.connections.response_idle_timeout;
        let Listener { body_idle_timeout, write_idle_timeout, .. } = *self.listener;
        let (mut passing, mut finished) = (None, false);
        let mut client = Patience::default();
        poll_fn(|context: &mut Context<'_>| {
            if let Poll::Ready(done) =
                download.poll(context, &mut upstream.stream, upstream_in, &mut connection.stream)
            {
                return Poll::Ready(
                    done.map_err(|error| Cut::of_download(error, client.was_slow(now()))),
                );
            }
            if *uploading {
                let client_in = &mut exchange.client_in;
                let client = &mut connection.stream;
                match upload.poll(context, client, client_in, &mut upstream.stream) {
                    Poll::Pending => {}
                    // A backend that reads no more may still say what became of it.
                    Poll::Ready(Ok(()) | Err(RelayError::Write(_))) => *uploading = false,
                    // The client ended the exchange: the backend waits for what never comes.
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Cut::of_upload(&error))),
                }
            }
            let is_first = passing.is_none();
            if is_first {
                passing = Some(self.backend.begin_passing(exchange.worker.index, is_well));
            }
            let progressed = std::mem::take(&mut download.progressed)
                | std::mem::take(&mut upload.progressed)
                | is_first;
            // The backend may well be waiting for the rest of the request.
            let client_is_asked = *uploading && upload.waiting == Waiting::Reader;
            let client_in = &mut exchange.client_in;
            let presence = match *uploading {
                true => Presence::There,
                false => presence::look(&mut connection.stream, client_in, context),
            };
            if presence == Presence::Reset {
                return Poll::Ready(Err(Cut::by_client(Reason::ClientAbort)));
            }
            let has_finished = presence == Presence::Finished;
            if progressed | (has_finished && !std::mem::replace(&mut finished, true)) {
                let idle_for = match download.waiting {
                    Waiting::Reader if client_is_asked => body_idle_timeout.min(response_idle),
                    Waiting::Reader if finished => response_idle.min(SILENT_FOR),
                    Waiting::Reader => response_idle,
                    Waiting::Writer => write_idle_timeout,
                };
                let now = now();
                client.note(download.waiting, now);
                exchange.worker.wheel.arm(&connection.timer, now, idle_for);
            }
            if self.backend.is_cutting() {
                return Poll::Ready(Err(Cut::by_drain()));
            }
            let longest = self.pool.request_timeout;
            if exchange.permit.as_ref().is_some_and(|permit| permit.is_overdue(longest)) {
                return Poll::Ready(Err(Cut::by_client(Reason::SlotLost)));
            }
            connection.timer.poll(context).map(|()| {
                Err(match download.waiting {
                    Waiting::Reader if client_is_asked => Cut::by_client(Reason::ClientBodyTimeout),
                    Waiting::Reader if finished => Cut::by_client(Reason::ClientAbort),
                    Waiting::Reader => {
                        Cut::by_backend(FailureKind::Timeout, Reason::BackendTimeout)
                    }
                    Waiting::Writer => Cut::by_client(Reason::ClientAbort),
                })
            })
        })
        .await
    }
}
