//! What the HTTP path needs of a client's connection, whatever it runs over.

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest},
    net::TcpStream,
};

/// A connection that can be waited for without a buffer, and aborted.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Ready when a read would not wait.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when the system has room for a good part of what it would ever hold of what is
    /// written, or will fail a write. Asks the system: a write that went well says nothing
    /// about the next one.
    fn poll_room(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether the peer has reset the connection; else the task is woken when it does,
    /// or sends something. Once it has sent something that nobody reads, a reset is
    /// noticed by the next read or write only. A peer that merely says no more (half-close) still listens.
    fn is_reset(&self, context: &mut Context<'_>) -> bool;

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

    fn is_reset(&self, context: &mut Context<'_>) -> bool {
        // The system is asked only when something has happened.
        self.poll_read_ready(context).is_ready() && matches!(self.take_error(), Ok(Some(_)))
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
