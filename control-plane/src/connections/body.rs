//! Requests in progress: noted from their head to the end of their answer, and bodies that must
//! come in in time.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{
    Response,
    body::{Frame, SizeHint},
};
use tokio::time::{Instant, Sleep, sleep};

use super::Seat;

/// A request in progress.
#[derive(Clone, Debug)]
pub(super) struct Held(Arc<Request>);

#[derive(Debug)]
struct Request {
    seat: Arc<Seat>,
    is_received: AtomicBool,
}

/// The body did not come in in time.
#[derive(Debug, thiserror::Error)]
#[error("it was not complete in time")]
pub(crate) struct TooSlow;

/// The body of a request. It is an error if it is not complete in time, where there is a bound.
#[derive(Debug)]
pub(crate) struct Timed<B> {
    body: B,
    deadline: Option<Pin<Box<Sleep>>>,
    request: Held,
}

impl Held {
    pub(super) fn new(seat: Arc<Seat>) -> Self {
        Self(Arc::new(Request { seat, is_received: AtomicBool::new(false) }))
    }

    /// It has come in whole, or is answered without.
    pub(super) fn received(&self) {
        self.0.received();
    }

    /// Watches its body come in.
    pub(super) fn receive<B: HttpBody>(&self, body: B, limit: Option<Duration>) -> Timed<B> {
        if body.is_end_stream() {
            self.received();
        }
        Timed { body, deadline: limit.map(|limit| Box::pin(sleep(limit))), request: self.clone() }
    }

    /// The answer's head is there. It is in progress to the end of its body.
    pub(super) fn answer<B>(self, response: Response<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
    {
        self.received();
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                // Held as long as the body is.
                let _ = &self;
                frame
            }))
        })
    }
}

impl Request {
    fn received(&self) {
        if !self.is_received.swap(true, Relaxed) {
            self.seat.standing().received();
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.received();
        self.seat.standing().answered(Instant::now());
    }
}

impl<B> HttpBody for Timed<B>
where
    B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if frame.is_none() || self.body.is_end_stream() {
                self.request.received();
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(deadline) = &mut self.deadline else { return Poll::Pending };
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{Empty, Full};
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;
    use crate::connections::standing::{Idle, Standing};

    fn seat() -> Arc<Seat> {
        let standing = Standing::new(Instant::now()).into();
        Arc::new(Seat { standing, is_given_up: false.into(), given_up: Default::default() })
    }

    fn gives_way(seat: &Seat) -> bool {
        let later = Instant::now() + Duration::from_secs(60);
        matches!(seat.standing().gives_way(later), Some(Idle::Waiting(_)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stays_away_is_an_error_and_holds_no_place() {
        let seat = seat();
        let request = seat.begin();
        let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(1);
        let body = Body::from_stream(ReceiverStream::new(receiver));
        let mut body = request.receive(body, Some(Duration::from_secs(10)));
        sender.send(Ok(Bytes::from_static(b"{"))).await.unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        let start = Instant::now();
        assert!(gives_way(&seat));
        assert!(body.frame().await.unwrap().unwrap_err().is::<TooSlow>());
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test]
    async fn a_request_holds_its_place_to_the_end_of_its_answer() {
        let seat = seat();
        let request = seat.begin();
        let mut body = request.receive(Full::new(Bytes::from_static(b"{}")), None);
        assert!(gives_way(&seat));
        assert!(body.frame().await.unwrap().is_ok());
        assert!(!gives_way(&seat), "it has come in");
        drop(body);
        let answer = request.answer(Response::new(Full::new(Bytes::from_static(b"events"))));
        assert!(!gives_way(&seat));
        drop(answer);
        assert!(gives_way(&seat));
        let request = seat.begin();
        drop(request.receive(Empty::<Bytes>::new(), None));
        assert!(!gives_way(&seat), "there was nothing to come in");
    }
}
