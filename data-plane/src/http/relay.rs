//! Moves one body from one connection to another, in bounded memory.
//!
//! A state machine instead of two tasks: the upload and the download of an exchange
//! are polled in turn on the same task, each with both connections at hand.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    h1::{
        body::{BodyLength, BodyReader, Framing, write_end},
        chunked::ChunkError,
    },
    worker::Buffer,
};

/// A body on its way, behind the head that is still to be written.
#[derive(Debug)]
pub(crate) struct Relay {
    reader: BodyReader,
    framing: Framing,
    /// Written before anything else: a head, or a body in another framing.
    out: Vec<u8>,
    out_written: usize,
    /// All of the body has been read, and is in `out` or written.
    read_done: bool,
    /// Everything that was taken from the sender is still in `out`.
    kept: bool,
    /// Bytes written so far, the head included.
    pub(crate) written: u64,
    /// Something was read or written since this was last reset.
    pub(crate) progressed: bool,
    /// What it waits for.
    pub(crate) waiting: Waiting,
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
    /// The reading side's framing is broken.
    Malformed,
    /// The writing side failed.
    Write(io::Error),
}

impl From<ChunkError> for RelayError {
    fn from(_: ChunkError) -> Self {
        Self::Malformed
    }
}

impl Relay {
    /// Sends `head`, then a body of this length in this framing.
    pub(crate) fn new(head: Vec<u8>, length: BodyLength, framing: Framing) -> Self {
        let reader = BodyReader::new(length);
        Self {
            read_done: reader.is_done(),
            kept: true,
            reader,
            framing,
            out: head,
            out_written: 0,
            written: 0,
            progressed: false,
            waiting: Waiting::Writer,
        }
    }

    /// Whether all of the body has been read from its sender.
    pub(crate) fn is_read(&self) -> bool {
        self.read_done
    }

    /// Whether everything has been written.
    pub(crate) fn is_done(&self) -> bool {
        self.read_done && self.out_written == self.out.len()
    }

    /// Prepares to send everything once more, to somebody else. Possible as long as
    /// nothing of the body was moved that is not kept.
    pub(crate) fn rewind(&mut self) {
        self.out_written = 0;
        self.written = 0;
    }

    /// Whether [`Self::rewind`] is possible after something was written.
    pub(crate) fn is_replayable(&self) -> bool {
        self.read_done && self.kept
    }

    /// The vector of the head, to be reused.
    pub(crate) fn into_out(self) -> Vec<u8> {
        self.out
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
    pub(crate) fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        input: &mut Buffer,
        writer: &mut W,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            self.waiting = Waiting::Writer;
            ready!(self.poll_write(context, input, writer)).map_err(RelayError::Write)?;
            if self.read_done {
                return Poll::Ready(Ok(()));
            }
            if self.is_passing(input) {
                continue;
            }
            if !input.is_empty() {
                self.transfer(input)?;
                // Framing only gives nothing to write: more must be read.
                if self.read_done || !self.out.is_empty() {
                    continue;
                }
            }
            self.waiting = Waiting::Reader;
            let count = ready!(input.poll_fill(reader, context)).map_err(|_| RelayError::Read)?;
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

    /// Whether the input is written as it is.
    fn is_passing(&self, input: &Buffer) -> bool {
        self.framing == Framing::Identity
            && !self.read_done
            && self.reader.passable(input.data().len()).is_some_and(|count| count > 0)
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
            let passable = if self.is_passing(input) {
                self.reader.passable(input.data().len()).unwrap_or_default()
            } else {
                0
            };
            let passing = &input.data()[..passable];
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
        if !self.read_done {
            self.kept = false;
            self.out.clear();
            self.out_written = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn transfer(&mut self, input: &mut Buffer) -> Result<(), RelayError> {
        let moved = self.reader.transfer(input.data(), self.framing, &mut self.out)?;
        input.consume(moved.consumed);
        self.read_done = moved.done;
        Ok(())
    }
}
