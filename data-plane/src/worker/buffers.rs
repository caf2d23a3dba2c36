//! Buffers of one worker, borrowed for as long as there is something in them.
//!
//! A connection that waits holds no buffer, or one that is just as long as the bytes
//! that it has: thousands of clients that have sent half a head, or stopped in the
//! middle of a body, cost what they sent and little else.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, ReadBuf};

/// Fits nearly every head, and a small body with it.
const SMALL: usize = 16 * 1024;
/// For large bodies: fewer system calls.
const LARGE: usize = 128 * 1024;
/// Free storages of each size that are kept. They are in use only while bytes pass
/// through, so a few serve many connections.
const SMALL_KEPT_MAX: usize = 16;
const LARGE_KEPT_MAX: usize = 4;
/// Vectors for heads that are kept.
const OUTPUTS_KEPT_MAX: usize = 64;
/// The longest of them: nearly all heads are shorter.
const OUTPUT_KEPT_BYTES_MAX: usize = 4 * 1024;

/// The free storage of a worker.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    small: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Vec<Box<[u8]>>>,
    output: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// A buffer without storage.
    pub(crate) fn buffer(self: &Rc<Self>) -> Buffer {
        let home = Rc::clone(self);
        Buffer { home, bytes: Box::default(), start: 0, end: 0, read_size: SMALL }
    }

    /// An empty vector to write heads into.
    pub(crate) fn output(&self) -> Vec<u8> {
        self.output.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(1024))
    }

    /// Gives such a vector back.
    pub(crate) fn return_output(&self, mut output: Vec<u8>) {
        let mut kept = self.output.borrow_mut();
        if kept.len() < OUTPUTS_KEPT_MAX && output.capacity() <= OUTPUT_KEPT_BYTES_MAX {
            output.clear();
            kept.push(output);
        }
    }

    fn storage(&self, size: usize) -> Box<[u8]> {
        let kept = match size {
            SMALL => self.small.borrow_mut().pop(),
            LARGE => self.large.borrow_mut().pop(),
            _ => None,
        };
        kept.unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    fn give_back(&self, storage: Box<[u8]>) {
        let (kept, max) = match storage.len() {
            SMALL => (&self.small, SMALL_KEPT_MAX),
            LARGE => (&self.large, LARGE_KEPT_MAX),
            // Made for an unusual head.
            _ => return,
        };
        let mut kept = kept.borrow_mut();
        if kept.len() < max {
            kept.push(storage);
        }
    }
}

/// Bytes that were read and not yet used.
#[derive(Debug)]
pub(crate) struct Buffer {
    home: Rc<Buffers>,
    /// Of no length while there is nothing to hold.
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    read_size: usize,
}

impl Buffer {
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
            self.clear();
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Whether further reads ask for much at once.
    pub(crate) fn read_much(&mut self, much: bool) {
        self.read_size = if much { LARGE } else { SMALL };
    }

    /// Whether the last read may have left something behind.
    pub(crate) fn is_full(&self) -> bool {
        self.end == self.bytes.len() && self.start < self.end
    }

    /// Reads once; answers the number of bytes, 0 at the end of the stream. What is
    /// there already stays, and the storage grows if it must.
    pub(crate) fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let mut room = ReadBuf::new(&mut self.bytes[self.end..]);
        let polled = Pin::new(reader).poll_read(context, &mut room);
        let count = room.filled().len();
        self.end += count;
        if count == 0 {
            self.park();
        }
        polled.map_ok(|()| count)
    }

    /// Gives storage back that is not needed while there is nothing to read.
    pub(crate) fn park(&mut self) {
        let used = self.end - self.start;
        if used > self.bytes.len() / 2 {
            return;
        }
        let exact = Box::from(self.data());
        let storage = std::mem::replace(&mut self.bytes, exact);
        self.home.give_back(storage);
        self.start = 0;
        self.end = used;
    }

    fn make_room(&mut self) {
        let used = self.end - self.start;
        if used == 0 && self.bytes.len() != self.read_size {
            let storage = self.home.storage(self.read_size);
            self.home.give_back(std::mem::replace(&mut self.bytes, storage));
            self.clear();
        } else if self.end == self.bytes.len() {
            // A head that came in pieces; whoever reads it bounds its length.
            let size = if used < SMALL { SMALL } else { 2 * used };
            let mut storage = self.home.storage(size);
            storage[..used].copy_from_slice(self.data());
            self.home.give_back(std::mem::replace(&mut self.bytes, storage));
            self.start = 0;
            self.end = used;
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn storage_is_held_only_while_there_is_something_in_it() {
        let buffers = Rc::<Buffers>::default();
        let (mut writer, mut reader) = duplex(64);
        let mut context = Context::from_waker(Waker::noop());
        let mut buffer = buffers.buffer();
        assert!(buffer.poll_fill(&mut reader, &mut context).is_pending());
        assert_eq!((buffer.bytes.len(), buffers.small.borrow().len()), (0, 1));

        writer.write_all(b"GET").await.unwrap();
        assert!(matches!(buffer.poll_fill(&mut reader, &mut context), Poll::Ready(Ok(3))));
        assert_eq!((buffer.data(), buffer.bytes.len()), (&b"GET"[..], SMALL));
        assert!(buffer.poll_fill(&mut reader, &mut context).is_pending());
        assert_eq!((buffer.data(), buffer.bytes.len()), (&b"GET"[..], 3));
        assert_eq!(buffers.small.borrow().len(), 1);

        writer.write_all(b" /").await.unwrap();
        assert!(matches!(buffer.poll_fill(&mut reader, &mut context), Poll::Ready(Ok(2))));
        assert_eq!(buffer.data(), b"GET /");
        buffer.consume(5);
        buffer.read_much(true);
        writer.write_all(b"x").await.unwrap();
        assert!(matches!(buffer.poll_fill(&mut reader, &mut context), Poll::Ready(Ok(1))));
        assert_eq!((buffer.data(), buffer.bytes.len()), (&b"x"[..], LARGE));
        drop(buffer);
        assert_eq!((buffers.small.borrow().len(), buffers.large.borrow().len()), (1, 1));
    }

    #[tokio::test]
    async fn a_long_head_grows_its_storage() {
        let buffers = Rc::<Buffers>::default();
        let (mut writer, mut reader) = duplex(1 << 20);
        writer.write_all(&vec![b'a'; 3 * SMALL]).await.unwrap();
        let mut context = Context::from_waker(Waker::noop());
        let mut buffer = buffers.buffer();
        while buffer.poll_fill(&mut reader, &mut context).is_ready() {}
        assert_eq!(buffer.data().len(), 3 * SMALL);
    }
}
