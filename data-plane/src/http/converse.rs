//! One attempt: sends a request to one backend and brings its response back.
//!
//! The upload goes on while the response comes in, so a backend may answer early,
//! or echo what it reads.

use std::{
    future::poll_fn,
    io, mem,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use lb_core::{model::Listener, resilience::retry::Fault};

use super::{
    attempts::{Again, Attempts},
    deliver::Received,
    exchange::Exchange,
    failure::{Ended, Failure},
    prepare::Prepared,
    presence,
    relay::{Relay, RelayError, Waiting},
    response_head::Head,
    stream::{Presence, Stream},
    timing::STALLED_FOR,
};
use crate::{
    h1::{body::BodyLength, scan::HeadScan},
    live::{BackendState, FailureKind, Limits, PoolConfig},
    upstream::{ConnectError, Upstream, connect},
    worker::{Buffer, now},
};

/// Interim responses (1xx) before the final one; more are a backend gone mad.
const INTERIM_MAX: usize = 16;
/// How often it is tried again to connect when descriptors have run out.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(20);

/// One attempt at one backend.
#[derive(Debug)]
pub(super) struct Conversation<'e, 'x, 'p, S> {
    pub(super) exchange: &'e mut Exchange<'x, S>,
    pub(super) prepared: &'e Prepared,
    pub(super) pool: &'e PoolConfig,
    pub(super) listener: &'e Listener,
    /// Those of the configuration that the request is served from.
    pub(super) limits: Option<&'e Limits>,
    pub(super) backend: &'e Arc<BackendState>,
    pub(super) upload: &'e mut Relay,
    pub(super) attempts: &'e mut Attempts<'p>,
    pub(super) keep_alive: bool,
    /// When this attempt began.
    pub(super) began: Instant,
    /// The client was told something that the backend said.
    pub(super) told: bool,
}

/// What a backend answers in the end.
enum Answer {
    Response(Received),
    Switched(Vec<u8>),
}

enum Event {
    Uploaded(Result<(), RelayError>),
    Received(io::Result<usize>),
    /// The client says no more, and may have left.
    ClientFinished,
    ClientReset,
    DrainDeadline,
    SlotLost,
    TimedOut,
    /// The client sends nothing of its body, and others need its place.
    GivenUp,
}

impl<S: Stream> Conversation<'_, '_, '_, S> {
    /// Sends the request and passes the response on.
    pub(super) async fn run(mut self) -> Ended {
        let is_idempotent = self.prepared.understood.method.is_idempotent();
        let worker = self.exchange.worker;
        let (mut connecting_since, mut made_room) = (None, false);
        loop {
            // Not for ever: what is too long to be kept may go while it is sent.
            let idempotent = is_idempotent && self.upload.is_replayable();
            // Once a kept connection has ended under it, none is used that may be closing like
            // that one: a request that kills whoever takes it must not take them all.
            let taken = match self.attempts.met_kept_end {
                true => None,
                false => worker.upstreams.take(self.backend.serial, idempotent, self.began),
            };
            if let Some(upstream) = taken {
                // A kept connection may have been closed by the backend just now, which is
                // no fault of the backend's.
                match self.on(upstream).await {
                    // One whose drain is over is not asked again.
                    Ended::Failed(failure) if failure.kind.is_none() => {
                        return Ended::Failed(failure);
                    }
                    Ended::Failed(failure) if failure.silent && !failure.written => {}
                    Ended::Failed(failure)
                        if failure.silent && is_idempotent && self.upload.is_replayable() =>
                    {
                        self.attempts.met_kept_end = true;
                        worker.upstreams.forget(self.backend.serial);
                        let failure = Failure { kept: true, ..failure };
                        // Another backend is asked, if there is one; else this one once more.
                        if self.attempts.may_follow() || !self.attempts.may_repeat(failure.fault())
                        {
                            return Ended::Failed(failure);
                        }
                    }
                    ended => return ended,
                }
                self.upload.rewind();
                continue;
            }
            let began = now();
            if !self.upload.is_read() {
                self.attempts.begin_time(began);
            }
            let since = *connecting_since.get_or_insert(began);
            match self.connect(began).await {
                Ok(upstream) => return self.on(upstream).await,
                Err(error) if error.is_exhaustion() && began - since < self.connect_timeout() => {
                    // It is this process that has no descriptor left: what is idle is
                    // closed, and what ends meanwhile can be used. Where the first did not
                    // help, others have their turn.
                    if !worker.free_descriptors() {
                        worker.wheel.pause(&self.exchange.connection.timer, DESCRIPTOR_PAUSE).await;
                    } else if mem::replace(&mut made_room, true) {
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) => return Ended::Failed(self.connect_failure(&error)),
            }
        }
    }

    async fn connect(&mut self, now: Instant) -> Result<Upstream, ConnectError> {
        let worker = self.exchange.worker;
        let timer = &self.exchange.connection.timer;
        // No attempt outlasts the request.
        let left = self.pool.request_timeout.saturating_sub(now - self.attempts.started());
        let timeout = self.connect_timeout().min(left);
        let addresses = &self.backend.addresses;
        let stream = connect(addresses, timeout, timer, &worker.wheel, now).await?;
        worker.shard.count_connect();
        let rng = &mut worker.rng.borrow_mut();
        Ok(Upstream::new(stream, now, &self.pool.connections, rng))
    }

    /// Runs the attempt on one connection.
    async fn on(&mut self, mut upstream: Upstream) -> Ended {
        let mut upstream_in = self.exchange.worker.buffers.buffer();
        match self.receive_answer(&mut upstream, &mut upstream_in).await {
            Ok(Answer::Response(received)) => {
                if FailureKind::of_status(received.status) == Some(FailureKind::StatusGateway)
                    && let Some(again) = self.again(Fault::Status(received.status))
                {
                    let response = self.discard(received, upstream, upstream_in);
                    return Ended::Left(self.unwell(response), again);
                }
                self.pass_on(received, upstream, upstream_in).await
            }
            Ok(Answer::Switched(head)) => self.switch(&head, upstream, upstream_in).await,
            Err(ended) => ended,
        }
    }

    fn again(&mut self, fault: Fault) -> Option<Again> {
        self.exchange.again(self.attempts, fault, self.upload)
    }

    /// Sends, and waits for the head of the final response.
    async fn receive_answer(
        &mut self,
        upstream: &mut Upstream,
        upstream_in: &mut Buffer,
    ) -> Result<Answer, Ended> {
        let worker = self.exchange.worker;
        self.continue_if_expected().await?;
        let was_read = self.upload.is_read();
        if !was_read && let Some(permit) = &mut self.exchange.permit {
            permit.uploads(worker.index);
        }
        // While its client sends, an attempt takes as long as that.
        let is_whole = was_read && self.upload.is_replayable();
        let mut try_timeout = self.try_timeout(is_whole);
        self.arm_until_head(try_timeout);
        let (mut uploading, mut finished) = (true, false);
        let mut upload_failed = None;
        let mut interims = 0;
        let mut scan: Option<HeadScan> = None;
        loop {
            match self.next_event(uploading, finished, upstream, upstream_in).await {
                Event::Uploaded(Ok(())) => {
                    uploading = false;
                    if !was_read {
                        try_timeout = self.begin_backends_time();
                    } else if self.prepared.understood.body != BodyLength::Known(0) {
                        self.arm_until_head(try_timeout);
                    }
                }
                Event::Uploaded(Err(RelayError::Write(error))) => {
                    // The backend may have answered before it stopped reading, and is to do so
                    // in its time.
                    uploading = false;
                    upload_failed = Some(error);
                    if !was_read {
                        try_timeout = self.begin_backends_time();
                    }
                }
                Event::Uploaded(Err(error)) => return Err(self.client_fault(&error)),
                Event::Received(Ok(count)) if count > 0 => {
                    while let Some(head) = self.read_head(upstream, upstream_in, &mut scan)? {
                        match head {
                            Head::Final(received) => return Ok(Answer::Response(received)),
                            Head::Switched(head) => return Ok(Answer::Switched(head)),
                            Head::Interim(out) => {
                                // Whoever says so much is at work on it.
                                if try_timeout.take().is_some() {
                                    self.arm_until_head(None);
                                }
                                interims += 1;
                                if interims > INTERIM_MAX {
                                    return Err(self.protocol_failure("too many interim responses"));
                                }
                                self.told |= !out.is_empty();
                                self.write_interim(&out).await?;
                            }
                        }
                    }
                }
                Event::Received(result) => {
                    let error = upload_failed.or_else(|| result.err());
                    let silent = upstream_in.is_empty() && interims == 0;
                    if silent && uploading && self.awaits_client() {
                        return Err(Self::body_is_late());
                    }
                    return Err(self.reset(silent, error.as_ref()));
                }
                Event::ClientFinished => {
                    finished = true;
                    self.arm_for_finished();
                }
                Event::TimedOut if finished => {
                    self.note_given_up();
                    return Err(self.client_left());
                }
                Event::ClientReset => {
                    self.note_given_up();
                    return Err(self.client_left());
                }
                Event::DrainDeadline => return Err(self.cut_off(upstream_in.is_empty())),
                Event::SlotLost => return Err(Self::slot_lost()),
                Event::TimedOut if try_timeout.take().is_some() => {
                    if let Some(again) = self.again(Fault::TryTimeout) {
                        self.note_given_up();
                        return Err(Ended::Left(self.slow(), again));
                    }
                    // There is nobody else to ask: this one has the time that is left.
                    self.arm_until_head(None);
                }
                Event::TimedOut => {
                    self.note_given_up();
                    return Err(self.timed_out(uploading));
                }
                Event::GivenUp => {
                    self.note_given_up();
                    return Err(Self::body_is_late());
                }
            }
        }
    }

    /// Nobody waits for this backend's answer any longer.
    fn note_given_up(&self) {
        if let Some(permit) = &self.exchange.permit {
            permit.given_up(self.exchange.worker.index);
        }
    }

    /// Waits for the first thing that happens on either side. `finished`: that the client says
    /// no more is known.
    async fn next_event(
        &mut self,
        uploading: bool,
        finished: bool,
        upstream: &mut Upstream,
        upstream_in: &mut Buffer,
    ) -> Event {
        let exchange = &mut *self.exchange;
        let connection = &mut *exchange.connection;
        let upload = &mut *self.upload;
        let (mut was_asked, mut is_marked) = (false, false);
        let event = poll_fn(|context| {
            // Whoever gives clients up takes the mark away.
            let is_given_up = is_marked && !connection.timer.is_idle();
            if uploading {
                let client_in = &mut exchange.client_in;
                let client = &mut connection.stream;
                if let Poll::Ready(done) =
                    upload.poll(context, client, client_in, &mut upstream.stream)
                {
                    return Poll::Ready(Event::Uploaded(done));
                }
            }
            // Storage is taken only when there is something to read: hardly before the first
            // look, and mostly at those that follow, unless it was the client who woke the task.
            let comes = !uploading && mem::replace(&mut was_asked, true)
                || upstream.stream.poll_readable(context).is_ready();
            if comes
                && let Poll::Ready(result) = upstream_in.poll_fill(&mut upstream.stream, context)
            {
                return Poll::Ready(Event::Received(result));
            }
            let progressed = uploading && mem::take(&mut upload.progressed);
            if progressed {
                let idle_for = match upload.waiting {
                    Waiting::Reader => self.listener.body_idle_timeout,
                    Waiting::Writer => self.pool.request_timeout,
                };
                let at = now();
                upload.moved = Some(at);
                exchange.worker.wheel.arm(&connection.timer, at, idle_for);
            }
            if uploading && upload.waiting == Waiting::Reader {
                // Once is enough, until something comes.
                if !mem::replace(&mut is_marked, true) || progressed {
                    let since = upload.moved.unwrap_or(self.began);
                    exchange.worker.wheel.mark_idle_after(&connection.timer, since, STALLED_FOR);
                }
            } else if mem::take(&mut is_marked) {
                // It waits for its backend now.
                connection.timer.mark_busy();
            }
            if !uploading {
                match presence::look(&mut connection.stream, &mut exchange.client_in, context) {
                    Presence::Finished if !finished => return Poll::Ready(Event::ClientFinished),
                    Presence::Reset => return Poll::Ready(Event::ClientReset),
                    Presence::There | Presence::Talking | Presence::Finished => {}
                }
            }
            if self.backend.is_cutting() {
                return Poll::Ready(Event::DrainDeadline);
            }
            let longest = self.pool.request_timeout;
            if exchange.permit.as_ref().is_some_and(|permit| permit.is_overdue(longest)) {
                return Poll::Ready(Event::SlotLost);
            }
            let end = if is_given_up { Event::GivenUp } else { Event::TimedOut };
            connection.timer.poll(context).map(|()| end)
        })
        .await;
        if is_marked {
            connection.timer.mark_busy();
        }
        event
    }
}
