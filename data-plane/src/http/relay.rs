//! Moves one body from one connection to another, in bounded memory.
//!
//! A state machine instead of two tasks: the upload and the download of an exchange
//! are polled in turn on the same task, each with both connections at hand.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use lb_core::model::HttpLimits;
use tokio::io::AsyncWrite;

use super::{
    splice::{Moved, is_impossible, poll_move},
    stream::Stream,
};
use crate::{
    h1::{
        body::{BodyLength, BodyReader, Framing, write_end},
        chunked::ChunkError,
    },
    worker::{Buffer, Pipe, Pipes, REPLAY_MAX, Replays, Room},
};

/// A rest of a body that is at least this long is worth a pipe.
const SPLICE_MIN: u64 = 64 * 1024;

/// From so many bytes on it is asked whether there is room for more before more is read:
/// what a slow reader does not take stays with its sender. Short bodies fit anyway.
const ASK_AFTER: u64 = 64 * 1024;

/// So much of a body passes through a pipe before other connections get their turn.
const TURN_BYTES: usize = 512 * 1024;

/// A body on its way, behind the head that is still to be written.
#[derive(Debug)]
pub(crate) struct Relay {
    reader: BodyReader,
    framing: Framing,
    /// Written before anything else: a head, or a body in another framing.
    out: Vec<u8>,
    out_written: usize,
    /// What the bytes of the body go through, if they need not be looked at.
    pipe: Option<Pipe>,
    pipes: Option<Rc<Pipes>>,
    /// All of the body has been read, and is in `out`, in `pipe` or written.
    read_done: bool,
    /// Everything that was taken from the sender is still in `out`.
    kept: bool,
    /// The length of the head in `out`.
    head: usize,
    /// Room for a body that is kept although it is read in pieces.
    room: Option<Room>,
    /// Bytes written so far, the head included.
    pub(crate) written: u64,
    /// Something was read or written since this was last reset.
    pub(crate) progressed: bool,
    /// When its user saw that last.
    pub(crate) moved: Option<Instant>,
    /// What it waits for.
    pub(crate) waiting: Waiting,
    /// Its sender was told to send it.
    pub(crate) invited: bool,
}

/// What a relay waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waiting {
    Reader,
    Writer,
}

/// Why a body did not arrive whole.
#[derive(Debug)]
pub(crate) enum RelayError {
    /// The reading side failed.
    Read,
    /// The reading side ended in the middle.
    Truncated,
    /// The reading side's framing is broken, or too much.
    Chunks(ChunkError),
    /// The writing side failed.
    Write(io::Error),
}

impl From<ChunkError> for RelayError {
    fn from(error: ChunkError) -> Self {
        Self::Chunks(error)
    }
}

/// How a body is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) length: BodyLength,
    pub(crate) limits: &'a HttpLimits,
    /// Whether trailers are passed on.
    pub(crate) trailers: bool,
    /// Whether white space may follow the sizes of chunks.
    pub(crate) padded: bool,
}

impl Relay {
    /// Sends `head`, then a body in this framing.
    pub(crate) fn new(
        head: Vec<u8>,
        body: Reading<'_>,
        framing: Framing,
        pipes: &Rc<Pipes>,
    ) -> Self {
        let reader = BodyReader::new(body.length, body.limits, body.trailers, body.padded);
        let long = matches!(body.length, BodyLength::Known(length) if length >= SPLICE_MIN);
        Self {
            read_done: reader.is_done(),
            kept: true,
            head: head.len(),
            room: None,
            reader,
            framing,
            out: head,
            out_written: 0,
            pipe: None,
            pipes: long.then(|| Rc::clone(pipes)),
            written: 0,
            progressed: false,
            moved: None,
            waiting: Waiting::Writer,
            invited: false,
        }
    }

    /// Whether all of the body has been read from its sender.
    pub(crate) fn is_read(&self) -> bool {
        self.read_done
    }

    /// What is still to be read of the body.
    pub(crate) fn left(&self) -> BodyLength {
        match self.reader {
            _ if self.read_done => BodyLength::Known(0),
            BodyReader::Known(left) => BodyLength::Known(left),
            BodyReader::Chunked(_) => BodyLength::Chunked,
            BodyReader::UntilClose => BodyLength::UntilClose,
        }
    }

    /// Whether everything has been written.
    pub(crate) fn is_done(&self) -> bool {
        self.read_done
            && self.out_written == self.out.len()
            && self.pipe.as_ref().is_none_or(|pipe| pipe.held == 0)
    }

    /// Prepares to send everything once more, to somebody else. Possible as long as
    /// nothing of the body was moved that is not kept.
    pub(crate) fn rewind(&mut self) {
        let is_whole = self.written == 0 || self.is_replayable();
        assert!(is_whole, "what is left of a request would be taken for a request of its own");
        self.out_written = 0;
        self.written = 0;
    }

    /// Keeps what is read from now on, if it is short enough and there is room for it.
    pub(crate) fn keep(&mut self, replays: &Rc<Replays>) {
        let there = self.out.len() - self.head;
        let size = match self.reader {
            BodyReader::Known(left) => {
                usize::try_from(left).map_or(usize::MAX, |left| there + left)
            }
            BodyReader::Chunked(_) | BodyReader::UntilClose => REPLAY_MAX,
        };
        if !self.read_done && self.kept {
            self.room = replays.room(size);
            if self.room.is_some() {
                self.pipes = None;
                if matches!(self.reader, BodyReader::Known(_)) {
                    // Growing by doubling would take up to twice as much, and leave as much behind.
                    // Pages that nothing has come for are not resident.
                    self.out.reserve_exact(size - there);
                }
            }
        }
    }

    /// Keeps nothing any more: a backend has answered.
    pub(crate) fn let_go(&mut self) {
        self.room = None;
    }

    /// Whether [`Self::rewind`] is possible after something was written.
    pub(crate) fn is_replayable(&self) -> bool {
        self.kept && (self.read_done || self.room.is_some())
    }

    /// Whether something of the body was taken from its sender.
    pub(crate) fn has_begun(&self) -> bool {
        !self.kept || self.out.len() > self.head
    }

    /// Takes the vector of the head, to be used again; nothing is left to be written.
    pub(crate) fn take_out(&mut self) -> Vec<u8> {
        self.out_written = 0;
        std::mem::take(&mut self.out)
    }

    /// Copies what the buffer already has of the body behind the head, so that both
    /// go out in one write, if they are short enough together.
    pub(crate) fn absorb(&mut self, input: &mut Buffer, max: usize) -> Result<(), RelayError> {
        if !self.read_done && !input.is_empty() && self.out.len() + input.data().len() <= max {
            self.transfer(input)?;
        }
        Ok(())
    }

    /// Moves what can be moved.
    pub(crate) fn poll<R: Stream, W: Stream>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        input: &mut Buffer,
        writer: &mut W,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            self.waiting = Waiting::Writer;
            match self.poll_write(context, input, writer) {
                Poll::Ready(result) => result.map_err(RelayError::Write)?,
                Poll::Pending => {
                    input.hold_up();
                    self.drop_written();
                    return Poll::Pending;
                }
            }
            if self.pipe.is_some() || self.may_splice(input) {
                input.park();
                self.drop_written();
                ready!(self.poll_splice(context, reader, writer))?;
                // Unless there was no pipe to be had, that is all.
                if self.read_done {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if self.read_done {
                return Poll::Ready(Ok(()));
            }
            if self.passable(input) > 0 {
                continue;
            }
            if !input.is_empty() {
                self.transfer(input)?;
                // Framing only gives nothing to write: more must be read.
                if self.read_done || self.out_written < self.out.len() {
                    continue;
                }
            }
            if self.written >= ASK_AFTER {
                match writer.poll_room(context) {
                    Poll::Ready(room) => room.map_err(RelayError::Write)?,
                    Poll::Pending => {
                        input.park();
                        self.drop_written();
                        return Poll::Pending;
                    }
                }
            }
            self.waiting = Waiting::Reader;
            let Poll::Ready(count) = input.poll_fill(reader, context) else {
                self.drop_written();
                return Poll::Pending;
            };
            let count = count.map_err(|_| RelayError::Read)?;
            self.progressed = true;
            if count == 0 {
                if !matches!(self.reader, BodyReader::UntilClose) {
                    return Poll::Ready(Err(RelayError::Truncated));
                }
                self.read_done = true;
                write_end(self.framing, &mut self.out);
            }
        }
    }

    /// How much of the input is written as it is.
    fn passable(&self, input: &Buffer) -> usize {
        if self.framing != Framing::Identity || self.read_done || self.room.is_some() {
            return 0;
        }
        self.reader.passable(input.data().len()).unwrap_or_default()
    }

    /// Whether what is left is long enough for a pipe, and nothing is before it.
    fn may_splice(&self, input: &Buffer) -> bool {
        let left = match self.reader {
            BodyReader::Known(left) if self.framing == Framing::Identity => left,
            _ => return false,
        };
        self.pipes.is_some() && left >= SPLICE_MIN && input.is_empty()
    }

    /// Moves what is left through a pipe. Ready when that is done, or not possible.
    fn poll_splice<R: Stream, W: Stream>(
        &mut self,
        context: &mut Context<'_>,
        reader: &R,
        writer: &W,
    ) -> Poll<Result<(), RelayError>> {
        let (Some(from), Some(to)) = (reader.tcp(), writer.tcp()) else {
            self.pipes = None;
            return Poll::Ready(Ok(()));
        };
        if self.pipe.is_none() {
            self.pipe = self.pipes.as_ref().and_then(Pipes::take);
        }
        let (Some(pipe), BodyReader::Known(left)) = (&mut self.pipe, &mut self.reader) else {
            self.pipes = None;
            return Poll::Ready(Ok(()));
        };
        let mut turn = 0;
        while *left > 0 || pipe.held > 0 {
            if turn >= TURN_BYTES {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let filling = pipe.held == 0;
            self.waiting = if filling { Waiting::Reader } else { Waiting::Writer };
            let moved = ready!(poll_move(pipe, *left, from, to, context));
            self.progressed = true;
            match moved {
                Ok(Moved::In(0)) => return Poll::Ready(Err(RelayError::Truncated)),
                Ok(Moved::In(count)) => {
                    self.kept = false;
                    turn += count;
                    *left = left.saturating_sub(count as u64);
                }
                // A system that cannot do it says so before anything has moved.
                Err(error) if filling && is_impossible(&error) => break,
                Ok(Moved::Out(count)) => self.written += count as u64,
                Err(_) if filling => return Poll::Ready(Err(RelayError::Read)),
                Err(error) => return Poll::Ready(Err(RelayError::Write(error))),
            }
        }
        self.pipe = None;
        self.read_done = *left == 0;
        if !self.read_done {
            self.pipes = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what was prepared, and straight behind it the input that needs no
    /// other framing.
    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        input: &mut Buffer,
        writer: &mut W,
    ) -> Poll<io::Result<()>> {
        loop {
            let prepared = &self.out[self.out_written..];
            let passing = match self.passable(input) {
                0 => &[],
                count => &input.data()[..count],
            };
            let mut writer = Pin::new(&mut *writer);
            let count = match (prepared.is_empty(), passing.is_empty()) {
                (true, true) => break,
                (false, true) => ready!(writer.as_mut().poll_write(context, prepared))?,
                (true, false) => ready!(writer.as_mut().poll_write(context, passing))?,
                (false, false) => {
                    let slices = [IoSlice::new(prepared), IoSlice::new(passing)];
                    ready!(writer.as_mut().poll_write_vectored(context, &slices))?
                }
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_prepared = count.min(prepared.len());
            self.progressed = true;
            self.written += count as u64;
            self.out_written += of_prepared;
            let of_passing = count - of_prepared;
            if of_passing > 0 {
                self.kept = false;
                input.consume(of_passing);
                self.reader.passed(of_passing);
                self.read_done = self.reader.is_done();
            }
        }
        // Kept until the body moves: an exchange that failed before may need it again.
        if !self.read_done && self.room.is_none() {
            self.kept = false;
            self.out.clear();
            self.out_written = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Holds no more than what has yet to be taken, and what may be needed again: it may be
    /// long before anything moves.
    fn drop_written(&mut self) {
        let left = self.out.len() - self.out_written;
        if !self.kept && left < self.out.capacity() {
            self.out = self.out[self.out_written..].to_vec();
            self.out_written = 0;
        }
    }

    fn transfer(&mut self, input: &mut Buffer) -> Result<(), RelayError> {
        let moved = self.reader.transfer(input.data(), self.framing, &mut self.out)?;
        input.consume(moved.consumed);
        self.read_done = moved.done;
        // Of a body in chunks it is not known before how long it is.
        if self.room.as_ref().is_some_and(|room| !room.holds(self.out.len() - self.head)) {
            self.room = None;
        }
        Ok(())
    }
}
