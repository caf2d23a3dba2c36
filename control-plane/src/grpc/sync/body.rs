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

/// What is ready is sent together, up to this size; what is longer is sent in parts of this size,
/// so that a proxy that reads slowly is seen to read.
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
        if let Some(mut part) = this.rest.take() {
            let rest = part.split_off(part.len().min(PART_BYTES));
            this.rest = Some(rest).filter(|rest| !rest.is_empty());
            this.outgoing.note_part();
            return Poll::Ready(Some(Ok(Part::data(part))));
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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, task::Waker};

    use lb_core::sync::Nonce;
    use lb_proto::{convert::sync as convert, frame::Frame, v1 as pb};
    use tokio::sync::{Semaphore, watch};
    use tonic::Code;

    use super::{super::outgoing::Shared, *};

    fn messages(shared: Shared) -> Messages {
        messages_of(&Arc::new(shared))
    }

    fn messages_of(shared: &Arc<Shared>) -> Messages {
        let (_, revisions) = watch::channel(0);
        Messages::new(Outgoing::new(Arc::clone(shared), revisions, Arc::new(Semaphore::new(1))))
    }

    fn poll(messages: &mut Messages) -> Poll<Option<Part<Bytes>>> {
        let polled = Pin::new(messages).poll_frame(&mut Context::from_waker(Waker::noop()));
        polled.map(|part| part.map(|part| part.expect("a status is a header")))
    }

    /// Everything up to the end: parts with messages, and how it ended.
    fn read(mut messages: Messages) -> (Vec<Bytes>, Code) {
        let mut parts = Vec::new();
        while let Poll::Ready(Some(part)) = poll(&mut messages) {
            assert!(!messages.is_end_stream() || part.is_trailers());
            match part.into_data() {
                Ok(data) => parts.push(data),
                Err(part) => {
                    let trailers = part.into_trailers().expect("nothing else is sent");
                    let status = Status::from_header_map(&trailers).expect("how it ended");
                    assert!(messages.is_end_stream());
                    assert!(matches!(poll(&mut messages), Poll::Ready(None)), "it ends once");
                    return (parts, status.code());
                }
            }
        }
        panic!("it has an end");
    }

    fn delta(nonce: u64, bytes: usize) -> Frame {
        Frame::delta(Nonce(nonce), vec![7; bytes].into())
    }

    fn written(frames: &[Frame]) -> Vec<u8> {
        let mut all = Vec::new();
        for frame in frames {
            let rest = frame.clone().write(&mut all);
            all.extend(rest.unwrap_or_default());
        }
        all
    }

    #[test]
    fn what_is_ready_leaves_together_and_in_order() {
        let tune = || convert::down(pb::control_message::Message::Tune(pb::Tune::default())).into();
        let short = vec![tune(), delta(1, 100), tune()];
        let (parts, code) = read(messages(Shared::ended(short.clone(), None)));
        assert_eq!((parts.len(), code), (1, Code::Ok));
        assert_eq!(parts[0], written(&short));

        let long = vec![tune(), delta(1, 100_000), tune(), delta(2, 50_000), delta(3, 10)];
        let (parts, code) = read(messages(Shared::ended(long.clone(), None)));
        assert_eq!(code, Code::Ok);
        let full = parts.iter().filter(|part| part.len() == PART_BYTES).count();
        assert_eq!(full, 100_000 / PART_BYTES + 50_000 / PART_BYTES, "in whole parts");
        assert!(parts.iter().all(|part| part.len() <= PART_BYTES));
        assert_eq!(parts.concat(), written(&long));
    }

    #[test]
    fn a_part_of_short_messages_is_bounded() {
        let many: Vec<_> = (1..100).map(|nonce| delta(nonce, 3000)).collect();
        let (parts, _) = read(messages(Shared::ended(many.clone(), None)));
        assert!(parts.iter().all(|part| part.len() < PART_BYTES + 4000));
        assert!(parts.len() < 30, "{}", parts.len());
        assert_eq!(parts.concat(), written(&many));
    }

    #[test]
    fn a_refusal_is_told_after_what_was_queued_if_anything() {
        let refusal = || Some(Status::already_exists("a twin"));
        let (parts, code) = read(messages(Shared::ended(Vec::new(), refusal())));
        assert_eq!((parts.len(), code), (0, Code::AlreadyExists));
        let (parts, code) = read(messages(Shared::ended(vec![delta(1, 10)], refusal())));
        assert_eq!((parts.len(), code), (1, Code::AlreadyExists));
    }

    #[test]
    fn a_stream_without_a_hello_waits_for_its_end() {
        let shared = Arc::default();
        let mut messages = messages_of(&shared);
        assert!(poll(&mut messages).is_pending());
        shared.end(None);
        assert_eq!(read(messages), (Vec::new(), Code::Ok));
    }
}
