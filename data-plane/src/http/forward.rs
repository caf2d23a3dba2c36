//! One request and its answer.
//!
//! A backend is picked, and another one when that is safe and allowed. What was written
//! and must not be done twice is never sent again.

use std::time::Instant;

use super::{
    admit::Denied,
    answer::body_fault,
    attempts::{Attempts, InFlight},
    connection::Next,
    converse::Conversation,
    exchange::{Exchange, ONE_WRITE_MAX},
    failure::{Ended, Failure},
    management,
    prepare::{Destination, Prepared, Understood},
    relay::{self, Relay},
    respond::OwnAnswer,
    stream::Stream,
};
use crate::{
    h1::body::{BodyLength, Framing},
    live::{BackendState, Management},
    worker::{Loaded, now},
};

impl<S: Stream> Exchange<'_, S> {
    pub(super) async fn forward(
        &mut self,
        prepared: &Prepared,
        head: Vec<u8>,
        config: &Loaded,
        started: Instant,
    ) -> Next {
        let request = &prepared.understood;
        let own = match (prepared.destination, &config.management) {
            (Destination::Pool(_, index), _) => &config.pools[index],
            (Destination::ControlPlane, Some(Management::At(pool))) => pool,
            // Unreachable: it would have been refused.
            (Destination::ControlPlane, _) => return Next::Close,
        };
        let Some(listener) = &config.listeners[self.connection.listener] else {
            return Next::Close; // Unreachable: without a listener there was no pool.
        };
        let framing = match request.body {
            BodyLength::Chunked => Framing::Chunked,
            BodyLength::Known(_) | BodyLength::UntilClose => Framing::Identity,
        };
        let body = relay::Reading {
            length: request.body,
            limits: &listener.listener.limits,
            trailers: prepared.passes_trailers,
            padded: false,
        };
        let mut upload = Relay::new(head, body, framing, &self.worker.pipes);
        if let Err(error) = upload.absorb(&mut self.client_in, ONE_WRITE_MAX) {
            return self.refuse(&body_fault(&error), Some(request)).await;
        }
        let mut attempts = Attempts::new(own, prepared, config.ring(), started);
        let begun = self.begin_in_a_pool(&mut attempts, config, &upload);
        let (mut next, mut of_backends) = match begun {
            Ok(begun) => begun,
            Err(answer) => return self.answer_unsent(&answer, upload, request, config).await,
        };
        let mut pool = attempts.pool();
        if !upload.is_read() && request.method.is_idempotent() && pool.retry.retries > 0 {
            upload.keep(&self.worker.replays);
        }
        let keep_alive = self.keeps_connection(request.keep_alive, config);
        if next.is_some() {
            pool.retries.count_request(self.worker.index);
        }
        while let Some(mut slot) = next {
            if let Some(caps) = &pool.caps {
                let admitted = match self.admit(&attempts, caps, slot) {
                    Some(slot) => Ok(slot),
                    // In a box: few wait, and all requests would have the room for it.
                    None => Box::pin(self.admit_later(&mut attempts, caps)).await,
                };
                match admitted {
                    Ok(admitted) => slot = admitted,
                    Err(Denied::NoRoom(answer)) => {
                        attempts.denied(answer);
                        break;
                    }
                    Err(Denied::ClientLeft) => {
                        self.client_left();
                        return self.end_forwarding(&mut upload, Next::Close);
                    }
                }
            }
            if !of_backends.is_empty()
                && let Some(limiter) = self.limiter(config, started)
            {
                match self.within_limits(&mut attempts, &limiter, of_backends, slot) {
                    Ok(()) => {}
                    Err(another) => {
                        next = another;
                        continue;
                    }
                }
            }
            let began = attempts.begin(slot);
            let backend = &pool.backends[slot as usize];
            let flight = InFlight::enter(backend, pool.counted_by(self.worker.index));
            backend.count_request(self.worker.index);
            let conversation = Conversation {
                exchange: self,
                prepared,
                pool,
                listener: &listener.listener,
                limits: config.limits.as_deref(),
                backend,
                upload: &mut upload,
                attempts: &mut attempts,
                keep_alive,
                began,
                told: false,
            };
            let ended = conversation.run().await;
            self.end_trial(&ended);
            self.permit = None;
            let (failure, again) = match ended {
                Ended::Answered { next, failed } => {
                    flight.end(failed, self.worker, pool);
                    return self.end_forwarding(&mut upload, next);
                }
                Ended::ClientFault(answer) => {
                    drop(flight);
                    if let Some(record) = &mut self.record {
                        record.attempt_failed(backend, answer.reason, now());
                        record.received(upload.written);
                    }
                    return self.refuse(&answer, Some(request)).await;
                }
                Ended::Failed(failure) => (failure, None),
                Ended::Left(failure, again) => (failure, Some(again)),
            };
            flight.end(failure.counts(), self.worker, pool);
            self.note_failure(backend, &failure, upload.written);
            let again = again.or_else(|| self.again(&mut attempts, failure.fault(), &upload));
            let reason = failure.reason;
            attempts.failed(failure);
            let Some(again) = again else { break };
            upload.rewind();
            if !again.wait.is_zero() && !self.wait(again.wait).await {
                self.client_left();
                return self.end_forwarding(&mut upload, Next::Close);
            }
            backend.count_retry(self.worker.index);
            if self.is_traffic {
                self.worker.shard.count_retry(reason);
            }
            if let Some(place) = again.spare {
                of_backends = self.go_on_in(&mut attempts, config, place);
                pool = attempts.pool();
            }
            next = Some(again.slot);
        }
        let answer = match prepared.destination {
            Destination::Pool(..) => attempts.answer(),
            Destination::ControlPlane => {
                let written = attempts.was_written();
                management::unanswered(attempts.answer(), written)
            }
        };
        self.answer_unsent(&answer, upload, request, config).await
    }

    /// Answers a request that no backend has answered.
    async fn answer_unsent(
        &mut self,
        answer: &OwnAnswer,
        upload: Relay,
        request: &Understood,
        config: &Loaded,
    ) -> Next {
        let understood = Understood {
            keep_alive: request.keep_alive && upload.is_read(),
            body: upload.left(),
            ..*request
        };
        self.answer(answer, &understood, config).await
    }

    /// Notes what a request has moved, and gives its buffer back.
    fn end_forwarding(&mut self, upload: &mut Relay, next: Next) -> Next {
        if let Some(record) = &mut self.record {
            record.received(upload.written);
        }
        self.worker.buffers.return_output(upload.take_out());
        next
    }

    /// Notes an attempt that brought the client nothing.
    fn note_failure(&mut self, backend: &BackendState, failure: &Failure, written: u64) {
        if let Some(record) = &mut self.record {
            match failure.response {
                Some(response) => record.attempt_answered(backend, response.status, now()),
                None => record.attempt_failed(backend, failure.reason, now()),
            }
            record.received(written);
        }
        if failure.counts() {
            let latency_us = failure.response.map(|response| response.latency_us);
            backend.count_end(self.worker.index, failure.kind, latency_us);
        }
    }
}
