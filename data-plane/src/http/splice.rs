//! Moves a body from socket to socket through a pipe: its bytes are never copied into
//! this process.

use std::{
    io,
    os::fd::AsFd,
    task::{Context, Poll, ready},
};

use rustix::pipe::{SpliceFlags, splice};
use tokio::{io::Interest, net::TcpStream};

use crate::worker::Pipe;

/// What one call of [`poll_move`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Moved {
    /// So many bytes went into the pipe; 0 at the end of the stream.
    In(usize),
    /// So many came out of it.
    Out(usize),
}

/// Fills the pipe with up to `left` bytes if it is empty, and empties it otherwise.
///
/// It is never filled further while something is in it: when it says that it would
/// block, that must mean the socket, or readiness would be waited for in vain.
pub(super) fn poll_move(
    pipe: &mut Pipe,
    left: u64,
    reader: &TcpStream,
    writer: &TcpStream,
    context: &mut Context<'_>,
) -> Poll<io::Result<Moved>> {
    if pipe.held > 0 {
        let count = ready!(poll_io(writer, Interest::WRITABLE, context, || {
            transfer(pipe.output(), writer, pipe.held)
        }))?;
        pipe.held -= count;
        return Poll::Ready(Ok(Moved::Out(count)));
    }
    let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(pipe.capacity());
    let count = ready!(poll_io(reader, Interest::READABLE, context, || {
        transfer(reader, pipe.input(), wanted)
    }))?;
    pipe.held = count;
    Poll::Ready(Ok(Moved::In(count)))
}

fn poll_io(
    stream: &TcpStream,
    interest: Interest,
    context: &mut Context<'_>,
    mut transfer: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        if interest.is_readable() {
            ready!(stream.poll_read_ready(context))?;
        } else {
            ready!(stream.poll_write_ready(context))?;
        }
        match stream.try_io(interest, &mut transfer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return Poll::Ready(result),
        }
    }
}

/// Whether the system does not move bytes between these descriptors at all.
pub(super) fn is_impossible(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

fn transfer(from: impl AsFd, to: impl AsFd, count: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, count, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?)
}
