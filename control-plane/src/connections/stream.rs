//! A connection that has a place, and ends when it is given up.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Acquire},
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::Response;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Sleep, sleep},
};
use tokio_util::{either::Either, sync::WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::{Place, Seat, body::Held, body::Timed};

/// What a client has to send at first, and in which time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handshake {
    pub(crate) bytes: usize,
    pub(crate) limit: Duration,
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Watched {
    stream: Either<TcpStream, UnixStream>,
    place: Place,
    given_up: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Whom that wakes.
    waker: Option<Waker>,
    /// What was read to see what it is, and is yet to be read by whoever serves it.
    unread: Vec<u8>,
    /// Bytes that the handshake still lacks, and when it must be over.
    lacks: Option<(usize, Pin<Box<Sleep>>)>,
}

/// The client of a request.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    seat: Arc<Seat>,
    /// Nothing over a Unix socket.
    pub(crate) tcp: Option<TcpConnectInfo>,
}

impl Watched {
    pub(super) fn new(
        stream: Either<TcpStream, UnixStream>,
        place: Place,
        handshake: Handshake,
    ) -> Self {
        let given_up = Box::pin(place.seat.given_up.clone().cancelled_owned());
        let lacks = Some((handshake.bytes, Box::pin(sleep(handshake.limit))));
        Self { stream, place, given_up, waker: None, unread: Vec::new(), lacks }
    }

    /// Has what was read of it read once more.
    pub(crate) fn unread(&mut self, read: Vec<u8>) {
        self.unread = read;
    }

    pub(crate) fn peer(&self) -> Peer {
        let tcp = match &self.stream {
            Either::Left(stream) => Some(stream.connect_info()),
            Either::Right(_) => None,
        };
        Peer { seat: Arc::clone(&self.place.seat), tcp }
    }

    /// An error once others have the place.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        // The task is nearly always the one that is woken already.
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
            if self.given_up.as_mut().poll(context).is_ready() {
                return Err(given_up());
            }
        }
        if self.place.seat.is_given_up.load(Acquire) { Err(given_up()) } else { Ok(()) }
    }

    fn note_write<T>(&self, written: Poll<T>) -> Poll<T> {
        self.place.seat.standing().writes(written.is_pending());
        written
    }
}

fn given_up() -> io::Error {
    let why = "it was given up, since others wanted its place";
    io::Error::new(io::ErrorKind::ConnectionAborted, why)
}

impl Peer {
    /// Notes that a request has begun. Gives its body, which must come in in time where there is a
    /// limit, and what to hand its answer to.
    pub(crate) fn begin<B: HttpBody>(&self, body: B, limit: Option<Duration>) -> (Timed<B>, Begun) {
        let request = self.seat.begin();
        (request.receive(body, limit), Begun(request))
    }
}

/// A request that has begun.
#[derive(Debug)]
pub(crate) struct Begun(Held);

impl Begun {
    /// Lets it be in progress until the end of the answer's body.
    pub(crate) fn answer<B>(self, response: Response<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
    {
        self.0.answer(response)
    }
}

impl Connected for Watched {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer()
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        if !self.unread.is_empty() {
            let length = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread[..length]);
            self.unread.drain(..length);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some((lacks, deadline)) = &mut self.lacks {
            *lacks = lacks.saturating_sub(buffer.filled().len() - before);
            if *lacks == 0 {
                self.lacks = None;
            } else if read.is_pending() && deadline.as_mut().poll(context).is_ready() {
                let why = "the client did not begin in time";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.note_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.note_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::TcpListener, time::Instant};

    use super::*;
    use crate::{connections::Connections, listen::Listener};

    async fn accepted(connections: &Arc<Connections>) -> (TcpStream, Watched) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let handshake = Handshake { bytes: 1, limit: Duration::from_secs(5) };
        (client, connections.next(&Listener::Tcp(listener), handshake).await)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_begin_is_given_up() {
        let (_client, mut silent) = accepted(&Connections::new("test", 2)).await;
        let start = Instant::now();
        let error = silent.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test]
    async fn a_connection_ends_when_others_want_its_place() {
        let connections = Connections::new("test", 1);
        let (_first, mut silent) = accepted(&connections).await;
        let (_second, _other) = accepted(&connections).await;
        let error = silent.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
