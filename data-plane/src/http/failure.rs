//! How an attempt at a backend can end, and what clients are told of it.

use std::io;

use lb_core::resilience::retry::Fault;

use super::{
    answer::body_fault,
    attempts::Again,
    connection::Next,
    converse::Conversation,
    relay::{RelayError, Waiting},
    respond::OwnAnswer,
    stream::Stream,
};
use crate::{live::FailureKind, reason::Reason, upstream::ConnectError, worker::now};

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The client got an answer, whole or aborted; nothing more can be done for it.
    Answered {
        next: Next,
        /// It counts as a failure of the backend.
        failed: bool,
    },
    /// The client broke the protocol, was too slow, or lost its slot, before it was answered.
    ClientFault(OwnAnswer),
    /// The backend did not answer; another may.
    Failed(Failure),
    /// The backend could have been left to go on, but another one is asked in its place.
    Left(Failure, Again),
}

/// Why a backend did not answer.
#[derive(Debug)]
pub(super) struct Failure {
    /// What it says against the backend; nothing, when this process is at its limits or
    /// the time of a drain is over.
    pub(super) kind: Option<FailureKind>,
    /// Of the reason vocabulary.
    pub(super) reason: Reason,
    pub(super) message: String,
    /// Something of the request may have reached the backend.
    pub(super) written: bool,
    /// The client has been told nothing of a response, and time is not what was missing.
    pub(super) resendable: bool,
    /// Not even a byte of a response has come.
    pub(super) silent: bool,
    /// It was on a connection that was kept, and that the backend may just have closed.
    pub(super) kept: bool,
    /// The response that the client did not get.
    pub(super) response: Option<Discarded>,
}

/// A response in whose place another backend's is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Discarded {
    pub(super) status: u16,
    pub(super) latency_us: u64,
}

impl Failure {
    /// What it means for sending the request again.
    pub(super) fn fault(&self) -> Fault {
        if self.kept && self.written && self.silent {
            return Fault::KeptEnded;
        }
        match (self.kind, self.written) {
            // No other backend gives this process what it lacks.
            (None, _) if self.reason != Reason::DrainDeadline => Fault::Final,
            (_, false) => Fault::NeverWritten,
            (_, true) if self.silent => Fault::Silent,
            (_, true) if self.resendable => Fault::Broken,
            (_, true) => Fault::Final,
        }
    }

    /// Whether it says something against the backend.
    pub(super) fn counts(&self) -> bool {
        self.kind.is_some() && !self.kept
    }

    /// What a client is told.
    pub(super) fn status(&self) -> u16 {
        match self.kind {
            None => 503,
            Some(FailureKind::Timeout) => 504,
            Some(FailureKind::Connect) if self.reason == Reason::BackendConnectTimeout => 504,
            Some(_) => 502,
        }
    }
}

impl<S: Stream> Conversation<'_, '_, '_, S> {
    pub(super) fn connect_failure(&self, error: &ConnectError) -> Failure {
        let backend = &self.backend.identity;
        let detail = match error {
            ConnectError::Failed(error) => error.to_string(),
            ConnectError::TimedOut => {
                format!("no connection within {:?}", self.connect_timeout())
            }
            ConnectError::NoAddress => "its name has no address".to_owned(),
        };
        Failure {
            kind: (!error.is_exhaustion()).then_some(FailureKind::Connect),
            reason: error.reason(),
            message: format!("backend {} ({}): {detail}", backend.id, backend.address),
            written: false,
            resendable: true,
            silent: true,
            kept: false,
            response: None,
        }
    }

    /// What it says before its response is no HTTP.
    pub(super) fn protocol_failure(&self, message: &str) -> Ended {
        self.broken(message, !self.told)
    }

    /// What it says is no HTTP. `resendable` tells whether another backend may be asked.
    pub(super) fn broken(&self, message: &str, resendable: bool) -> Ended {
        let reason = Reason::BackendProtocolError;
        let failure = self.failure(FailureKind::Protocol, reason, message);
        Ended::Failed(Failure { resendable, ..failure })
    }

    /// `silent` tells whether not a byte of a response has come.
    pub(super) fn reset(&self, silent: bool, error: Option<&io::Error>) -> Ended {
        let message = match error {
            Some(error) => {
                format!("the connection failed before the response was complete: {error}")
            }
            None => "the connection ended before the response was complete".to_owned(),
        };
        let failure = self.failure(FailureKind::Reset, Reason::BackendReset, &message);
        Ended::Failed(Failure { resendable: !self.told, silent, ..failure })
    }

    pub(super) fn timed_out(&self, uploading: bool) -> Ended {
        if uploading && self.upload.waiting == Waiting::Reader {
            return Self::body_is_late();
        }
        let message = format!("no response within {:?}", self.pool.request_timeout);
        Ended::Failed(self.failure(FailureKind::Timeout, Reason::BackendTimeout, &message))
    }

    /// Somebody, this proxy or the backend, has waited for the client for long enough.
    pub(super) fn body_is_late() -> Ended {
        Ended::ClientFault(OwnAnswer::new(
            408,
            Reason::ClientBodyTimeout,
            "the request's body did not come in time",
        ))
    }

    /// Nobody counts its slot any more, and a backend may have no more than it may have.
    pub(super) fn slot_lost() -> Ended {
        Ended::ClientFault(OwnAnswer::new(
            503,
            Reason::SlotLost,
            "it took longer than a request may, while no control plane was there to count it",
        ))
    }

    /// The attempt's own time is up.
    pub(super) fn slow(&self) -> Failure {
        self.failure(
            FailureKind::Timeout,
            Reason::BackendTimeout,
            "no response in the time of one attempt",
        )
    }

    /// It answered, but another backend is asked in its place.
    pub(super) fn unwell(&self, response: Discarded) -> Failure {
        let message = format!("it answered {}", response.status);
        let (kind, reason) = (FailureKind::StatusGateway, Reason::BackendStatus);
        let failure = self.failure(kind, reason, &message);
        Failure { response: Some(response), ..failure }
    }

    /// The time of the backend's drain is over. `silent` tells whether not a byte of a
    /// response has come: then another backend may be asked.
    pub(super) fn cut_off(&self, silent: bool) -> Ended {
        self.backend.count_cut();
        let backend = &self.backend.identity;
        Ended::Failed(Failure {
            kind: None,
            reason: Reason::DrainDeadline,
            message: format!(
                "backend {} ({}) was drained, and its time for that was over",
                backend.id, backend.address
            ),
            written: self.upload.written > 0,
            resendable: silent,
            silent,
            kept: false,
            response: None,
        })
    }

    fn failure(&self, kind: FailureKind, reason: Reason, message: &str) -> Failure {
        let backend = &self.backend.identity;
        Failure {
            kind: Some(kind),
            reason,
            message: format!("backend {} ({}): {message}", backend.id, backend.address),
            written: self.upload.written > 0,
            resendable: false,
            silent: false,
            kept: false,
            response: None,
        }
    }

    pub(super) fn client_fault(&mut self, error: &RelayError) -> Ended {
        match error {
            RelayError::Chunks(_) => Ended::ClientFault(body_fault(error)),
            RelayError::Read | RelayError::Truncated | RelayError::Write(_) => self.client_left(),
        }
    }

    pub(super) fn client_left(&mut self) -> Ended {
        if let Some(record) = &mut self.exchange.record {
            record.attempt_failed(self.backend, Reason::ClientAbort, now());
        }
        self.exchange.client_left();
        Ended::Answered { next: Next::Close, failed: false }
    }
}
