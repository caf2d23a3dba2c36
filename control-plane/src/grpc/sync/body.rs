//! What a proxy is sent, as the body of an HTTP response.
//!
//! The gRPC library would copy every message into a buffer of the stream, and keep the buffer as
//! large as the largest: for the life of a proxy, as large as the whole state that it began with.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::Frame as Part;
use tokio_stream::Stream as _;
use tonic::{Status, codegen::http::HeaderMap};

use super::Outgoing;

/// What is ready is sent together, up to this size.
const PART_BYTES: usize = 16 * 1024;

/// The messages to a proxy, then how the call ended.
#[derive(Debug)]
pub(super) struct Messages {
    outgoing: Outgoing,
    /// The rest of a message that has begun to leave.
    rest: Option<Bytes>,
    end: End,
}

#[derive(Debug)]
enum End {
    /// There may be further messages.
    NotYet,
    /// This is left to be said.
    With(Status),
    /// Everything has been said.
    Over,
}

impl Messages {
    pub(super) fn new(outgoing: Outgoing) -> Self {
        Self { outgoing, rest: None, end: End::NotYet }
    }

    /// How the call ended, once.
    fn trailers(&mut self) -> Option<Result<Part<Bytes>, Status>> {
        let End::With(status) = std::mem::replace(&mut self.end, End::Over) else { return None };
        let mut trailers = HeaderMap::new();
        Some(status.add_header(&mut trailers).map(|()| Part::trailers(trailers)))
    }
}

impl HttpBody for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Some(rest) = this.rest.take() {
            return Poll::Ready(Some(Ok(Part::data(rest))));
        }
        if !matches!(this.end, End::NotYet) {
            return Poll::Ready(this.trailers());
        }
        let mut next = match Pin::new(&mut this.outgoing).poll_next(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => Some(frame),
            Poll::Ready(ended) => {
                let refused = ended.and_then(Result::err);
                this.end = End::With(refused.unwrap_or_else(|| Status::ok("")));
                return Poll::Ready(this.trailers());
            }
        };
        let mut part = Vec::new();
        while let Some(frame) = next {
            this.rest = frame.write(&mut part);
            let is_full = this.rest.is_some() || part.len() >= PART_BYTES;
            next = if is_full { None } else { this.outgoing.queued() };
        }
        Poll::Ready(Some(Ok(Part::data(part.into()))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, End::Over)
    }
}
