//! Buffers of one worker, taken for an exchange and given back when it ends: idle
//! connections hold none.

use std::{
    cell::RefCell,
    io,
    ops::{Deref, DerefMut},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// Fits nearly every head, and a small body with it.
const SMALL: usize = 16 * 1024;
/// For large bodies: fewer system calls.
const LARGE: usize = 128 * 1024;
/// Buffers of each size that are kept for the next exchange.
const KEPT_MAX: usize = 64;

/// Bytes that were read and not yet used.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new(size: usize) -> Self {
        Self { bytes: vec![0; size].into_boxed_slice(), start: 0, end: 0 }
    }

    /// What is there.
    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops bytes from the front.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "no more can be used than there is");
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Makes room for at least `size` bytes in all.
    pub(crate) fn grow(&mut self, size: usize) {
        let mut larger = Self::new(size.max(self.bytes.len()));
        let used = self.end - self.start;
        larger.bytes[..used].copy_from_slice(self.data());
        larger.end = used;
        *self = larger;
    }

    /// Adds bytes, growing if it must.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if self.bytes.len() - self.end < bytes.len() {
            self.grow(self.end - self.start + bytes.len());
        }
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.end - self.start == self.bytes.len()
    }

    /// Reads once; answers the number of bytes, 0 at the end of the stream. The
    /// buffer must not be full.
    pub(crate) fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        debug_assert!(self.end < self.bytes.len(), "a full buffer cannot be filled");
        let mut room = ReadBuf::new(&mut self.bytes[self.end..]);
        ready!(Pin::new(reader).poll_read(context, &mut room))?;
        let count = room.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }
}

/// The free buffers of a worker.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    small: RefCell<Vec<Buffer>>,
    large: RefCell<Vec<Buffer>>,
    output: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    pub(crate) fn small(self: &Rc<Self>) -> Lent {
        self.lend(&self.small, SMALL)
    }

    pub(crate) fn large(self: &Rc<Self>) -> Lent {
        self.lend(&self.large, LARGE)
    }

    /// An empty vector to write heads into.
    pub(crate) fn output(&self) -> Vec<u8> {
        self.output.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(4096))
    }

    /// Gives such a vector back.
    pub(crate) fn return_output(&self, mut output: Vec<u8>) {
        let mut kept = self.output.borrow_mut();
        if kept.len() < KEPT_MAX && output.capacity() <= 2 * SMALL {
            output.clear();
            kept.push(output);
        }
    }

    fn lend(self: &Rc<Self>, kept: &RefCell<Vec<Buffer>>, size: usize) -> Lent {
        let buffer = kept.borrow_mut().pop().unwrap_or_else(|| Buffer::new(size));
        Lent { buffer: Some(buffer), home: Rc::clone(self) }
    }
}

/// A buffer that goes back to its worker when dropped.
#[derive(Debug)]
pub(crate) struct Lent {
    buffer: Option<Buffer>,
    home: Rc<Buffers>,
}

impl Deref for Lent {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        self.buffer.as_ref().expect("taken only by drop")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Buffer {
        self.buffer.as_mut().expect("taken only by drop")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut buffer) = self.buffer.take() else { return };
        buffer.clear();
        let kept = match buffer.capacity() {
            SMALL => &self.home.small,
            LARGE => &self.home.large,
            // Grown for an unusual head.
            _ => return,
        };
        let mut kept = kept.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    }
}
