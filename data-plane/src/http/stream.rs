//! What the HTTP path needs of a client's connection, whatever it runs over.

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// What a peer's side of a connection tells of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Presence {
    /// It may say more.
    There,
    /// It has said more, which nobody has read. What comes behind that cannot be seen.
    Talking,
    /// It says no more: it has closed the connection, or only its own half, and listens.
    /// Nobody can tell which until something is sent to it.
    Finished,
    /// Nobody is there.
    Reset,
}

/// A connection that can be waited for without a buffer, and aborted.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Ready when a read would not wait.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when the system has room for a good part of what it would ever hold of what is
    /// written, or will fail a write. Asks the system: a write that went well says nothing
    /// about the next one.
    fn poll_room(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether the peer is still there; if it is, the task is woken when it leaves, or sends
    /// something.
    fn presence(&self, context: &mut Context<'_>) -> Presence;

    /// Whether something has come that was not read: no question to the system, so that what
    /// comes in this moment is not seen.
    fn has_unread(&self, context: &mut Context<'_>) -> bool {
        self.poll_readable(context).is_ready()
    }

    /// Lets the peer see a reset instead of an end when the stream is dropped: what
    /// it has received is not complete.
    fn abort(&self);

    /// The socket itself, where its bytes are those of the stream: they can then be
    /// moved without being looked at.
    fn tcp(&self) -> Option<&TcpStream>;

    /// This end's address.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

impl Stream for TcpStream {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }

    fn poll_room(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_write_ready(context))?;
            let asked = self.try_io(Interest::WRITABLE, || {
                let mut sockets = [PollFd::new(self, PollFlags::OUT)];
                match poll(&mut sockets, Some(&Timespec::default()))? {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    _ => Ok(()),
                }
            });
            match asked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                asked => return Poll::Ready(asked),
            }
        }
    }

    fn presence(&self, context: &mut Context<'_>) -> Presence {
        // The system is asked only when something has happened.
        if self.poll_read_ready(context).is_pending() {
            return Presence::There;
        }
        if let Ok(Some(_)) = self.take_error() {
            return Presence::Reset;
        }
        let mut byte = [0];
        match self.poll_peek(context, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0)) => Presence::Finished,
            Poll::Ready(Ok(_)) => Presence::Talking,
            Poll::Pending => Presence::There,
            Poll::Ready(Err(_)) => Presence::Reset,
        }
    }

    fn abort(&self) {
        // If it fails, the connection is gone already.
        drop(socket2::SockRef::from(self).set_linger(Some(Duration::ZERO)));
    }

    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}
