//! How an attempt at a backend can end, and what clients are told of it.

use std::io;

use super::{
    connection::Next,
    converse::Conversation,
    exchange::body_fault,
    relay::{RelayError, Waiting},
    respond::OwnAnswer,
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
    /// The client broke the protocol, or was too slow, before it was answered.
    ClientFault(OwnAnswer),
    /// The backend did not answer; another may.
    Failed(Failure),
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
    /// No byte of a response has come, and time is not what was missing.
    pub(super) resendable: bool,
}

impl Failure {
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

impl<S> Conversation<'_, '_, S> {
    pub(super) fn connect_failure(&self, error: &ConnectError) -> Failure {
        let backend = &self.backend.identity;
        let detail = match error {
            ConnectError::Failed(error) => error.to_string(),
            ConnectError::TimedOut => {
                format!("no connection within {:?}", self.pool.connect_timeout)
            }
            ConnectError::NoAddress => "its name has no address".to_owned(),
        };
        Failure {
            kind: (!error.is_exhaustion()).then_some(FailureKind::Connect),
            reason: error.reason(),
            message: format!("backend {} ({}): {detail}", backend.id, backend.address),
            written: false,
            resendable: true,
        }
    }

    pub(super) fn protocol_failure(&self, message: &str) -> Ended {
        self.failed(FailureKind::Protocol, Reason::BackendProtocolError, message, false)
    }

    /// `silent` tells whether not a byte of a response has come.
    pub(super) fn reset(&self, silent: bool, error: Option<&io::Error>) -> Ended {
        let message = match error {
            Some(error) => {
                format!("the connection failed before the response was complete: {error}")
            }
            None => "the connection ended before the response was complete".to_owned(),
        };
        self.failed(FailureKind::Reset, Reason::BackendReset, &message, silent)
    }

    pub(super) fn timed_out(&self, uploading: bool) -> Ended {
        if uploading && self.upload.waiting == Waiting::Reader {
            return Ended::ClientFault(OwnAnswer::new(
                408,
                Reason::ClientBodyTimeout,
                "the request's body did not come in time",
            ));
        }
        let message = format!("no response within {:?}", self.pool.request_timeout);
        self.failed(FailureKind::Timeout, Reason::BackendTimeout, &message, false)
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
        })
    }

    fn failed(&self, kind: FailureKind, reason: Reason, message: &str, resendable: bool) -> Ended {
        let backend = &self.backend.identity;
        Ended::Failed(Failure {
            kind: Some(kind),
            reason,
            message: format!("backend {} ({}): {message}", backend.id, backend.address),
            written: self.upload.written > 0,
            resendable,
        })
    }

    pub(super) fn client_fault(&mut self, error: &RelayError) -> Ended {
        match error {
            RelayError::Chunks(_) => Ended::ClientFault(body_fault(error)),
            RelayError::Read | RelayError::Truncated | RelayError::Write(_) => self.client_left(),
        }
    }

    pub(super) fn client_left(&mut self) -> Ended {
        if self.exchange.is_traffic {
            self.exchange.worker.shard.count_client_abort();
        }
        if let Some(record) = &mut self.exchange.record {
            record.attempt_failed(self.backend, Reason::ClientAbort, now());
            record.reason(Reason::ClientAbort);
        }
        Ended::Answered { next: Next::Close, failed: false }
    }
}
