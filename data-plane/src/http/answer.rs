//! Gives the proxy's own answers.

use std::io;

use lb_core::{model::HttpLimits, size::size_text, stats::whole_us};
use tokio::io::AsyncWriteExt as _;

use super::{
    connection::Next, exchange::Exchange, prepare::Understood, relay::RelayError,
    respond::OwnAnswer, stream::Stream,
};
use crate::{
    h1::{Version, body::BodyLength, chunked::ChunkError, request::Method, response::Delivery},
    reason::Reason,
    worker::{Loaded, now, until},
};

impl<S: Stream> Exchange<'_, S> {
    /// Answers a request that was understood, and keeps the connection if the whole
    /// of it has been read.
    pub(super) async fn answer(
        &mut self,
        answer: &OwnAnswer,
        request: &Understood,
        config: &Loaded,
    ) -> Next {
        let keep_alive = request.body == BodyLength::Known(0)
            && self.keeps_connection(request.keep_alive, config);
        let delivery = self.delivery(request.version, keep_alive);
        let written =
            self.write(answer, delivery, request.method != Method::Head, request.is_local).await;
        match (written, keep_alive) {
            (Ok(()), true) => Next::Idle,
            (Ok(()), false) => {
                let left = match request.body {
                    BodyLength::Known(left) => Some(left),
                    BodyLength::Chunked | BodyLength::UntilClose => None,
                };
                self.linger(left).await;
                Next::Close
            }
            (Err(_), _) => Next::Close,
        }
    }

    /// Answers what cannot be relied on, and ends the connection.
    pub(super) async fn refuse(
        &mut self,
        answer: &OwnAnswer,
        request: Option<&Understood>,
    ) -> Next {
        let version = request.map_or(Version::Http11, |request| request.version);
        // Of what was not understood at least the method may be known.
        let is_head = match request {
            Some(request) => request.method == Method::Head,
            None => self.client_in.data().starts_with(b"HEAD "),
        };
        let delivery = self.delivery(version, false);
        let is_local = request.is_some_and(|request| request.is_local);
        if self.write(answer, delivery, !is_head, is_local).await.is_ok() {
            self.linger(None).await;
        }
        Next::Close
    }

    /// An origin with a clock tells its date (RFC 9110, 6.6.1).
    fn delivery(&self, version: Version, keep_alive: bool) -> Delivery {
        let date = Some(self.worker.dates.field());
        Delivery { version, keep_alive, trailers: false, date }
    }

    async fn write(
        &mut self,
        answer: &OwnAnswer,
        delivery: Delivery,
        with_body: bool,
        is_local: bool,
    ) -> io::Result<()> {
        self.connection.busy = now();
        let waited = self.asked_at().map(|asked_at| self.connection.busy - asked_at);
        self.count_answer(answer.status, waited.map(whole_us));
        self.count_own_answer(answer.status, answer.reason);
        let mut out = self.worker.buffers.output();
        let (timeout, with_bound) = {
            let config = self.worker.config();
            let limits = self.limits(&config);
            (limits.drain_timeout, with_bound(answer, limits))
        };
        let answer = with_bound.as_ref().unwrap_or(answer);
        let body = answer.body(is_local);
        answer.encode(delivery, &body, with_body, &mut out);
        self.worker.wheel.arm(&self.connection.timer, self.connection.busy, timeout);
        let written = until(&self.connection.timer, self.connection.stream.write_all(&out)).await;
        if let Some(record) = &mut self.record {
            record.answered(answer.status, out.len() as u64, now());
            record.reason(answer.reason);
            if let Some(over_limit) = &answer.over_limit {
                record.over_limit(&over_limit.limit);
            }
        }
        self.worker.buffers.return_output(out);
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The same answer with the bound that the request exceeds, if it does.
fn with_bound(answer: &OwnAnswer, limits: &HttpLimits) -> Option<OwnAnswer> {
    matches!(answer.reason, Reason::BodyTooLarge | Reason::HeaderTooLarge)
        .then(|| add_bound(answer, limits))
}

#[cold]
fn add_bound(answer: &OwnAnswer, limits: &HttpLimits) -> OwnAnswer {
    let bound = match (answer.reason, answer.status) {
        (Reason::BodyTooLarge, _) => {
            format!("{} (max_body_bytes)", size_text(limits.body_bytes_max))
        }
        (_, 414) => {
            let max = size_text(limits.request_line_bytes_max.into());
            format!("{max} (max_request_line_bytes)")
        }
        _ => format!(
            "{} (max_head_bytes), {} fields (max_fields), {} of trailers (max_trailer_bytes)",
            size_text(limits.head_bytes_max.into()),
            limits.fields_max,
            size_text(limits.trailer_bytes_max.into()),
        ),
    };
    let mut told = answer.clone();
    told.message = format!("{}: {bound}", answer.message);
    told
}

/// A fault of the client's against the protocol.
pub(super) fn protocol_error(message: &str) -> OwnAnswer {
    OwnAnswer::new(400, Reason::ClientProtocolError, message)
}

/// What a client is told whose chunked body cannot be read.
pub(super) fn bad_chunks(error: ChunkError) -> OwnAnswer {
    match error {
        ChunkError::Malformed => protocol_error("the chunked body is malformed"),
        ChunkError::TrailersTooLarge => {
            OwnAnswer::new(431, Reason::HeaderTooLarge, "the trailers are longer than allowed here")
        }
        ChunkError::BodyTooLarge => OwnAnswer::new(
            413,
            Reason::BodyTooLarge,
            "the request's body is longer than allowed here",
        ),
    }
}

/// What a client is told whose body cannot be read.
pub(super) fn body_fault(error: &RelayError) -> OwnAnswer {
    match error {
        RelayError::Chunks(error) => bad_chunks(*error),
        RelayError::Read | RelayError::Truncated | RelayError::Write(_) => {
            protocol_error("the request's body cannot be read")
        }
    }
}
