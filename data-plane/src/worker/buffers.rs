//! Buffers of one worker, borrowed for as long as there is something in them.
//!
//! A connection that waits holds no buffer, or one that is just as long as the bytes
//! that it has: thousands of clients that have sent half a head, or stopped in the
//! middle of a body, cost what they sent and little else.

use std::{
    cell::RefCell,
    hint::black_box,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, ReadBuf};

/// Fits nearly every head, and a small body with it.
const USUAL: usize = 16 * 1024;
/// For a body that is not taken as fast as it comes: it is all that waits for the reader.
const LITTLE: usize = 4 * 1024;
/// Reads in a row that were passed on at once, after which a reader counts as fast again.
const SMOOTH: u8 = 8;
/// Free storages of each size that are kept. They are in use only while bytes pass
/// through, so a few serve many connections.
const KEPT_MAX: usize = 16;
/// What a long head is read into, as it grows. One of each is enough where heads come whole,
/// however many: without it every long head would have the allocator find as much again as it
/// takes itself, and give it back late.
const LONG: [usize; 2] = [2 * USUAL, 4 * USUAL];
/// Vectors for heads that are kept.
const OUTPUTS_KEPT_MAX: usize = 64;
/// The longest of them: nearly all heads are shorter.
const OUTPUT_KEPT_BYTES_MAX: usize = 4 * 1024;

/// What is taken and given back so that the allocator looks at what it has: of a size that
/// hardly anything else has, and more than there is room for where it keeps one size together
/// (512 KiB), so that it has to look for more. It gives up what it keeps for a size after four
/// such looks. More, or more sizes, would do it no better, and be in use meanwhile: a proxy that
/// stirs because memory is short must not take any.
const STIRRED: usize = 48 << 10;
const STIRRED_EACH: usize = 12;
const STIRRED_TIMES: usize = 4;

/// The free storage of a worker.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    usual: RefCell<Vec<Box<[u8]>>>,
    little: RefCell<Vec<Box<[u8]>>>,
    /// Empty where there is none.
    long: RefCell<[Box<[u8]>; LONG.len()]>,
    output: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// A buffer without storage.
    pub(crate) fn buffer(self: &Rc<Self>) -> Buffer {
        let home = Rc::clone(self);
        Buffer { home, bytes: Box::default(), start: 0, end: 0, read_size: USUAL, smooth: 0 }
    }

    /// An empty vector to write heads into.
    pub(crate) fn output(&self) -> Vec<u8> {
        self.output.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(1024))
    }

    /// Gives such a vector back.
    pub(crate) fn return_output(&self, mut output: Vec<u8>) {
        let mut kept = self.output.borrow_mut();
        // One that was let go of while it was waited is of no use to the next.
        let is_usual = (1..=OUTPUT_KEPT_BYTES_MAX).contains(&output.capacity());
        if kept.len() < OUTPUTS_KEPT_MAX && is_usual {
            output.clear();
            kept.push(output);
        }
    }

    /// Lets go of everything that is free, and makes the allocator give back to the system what
    /// is free there: it looks at that only as it is used, so that a worker that has nothing to
    /// do would keep what a crowd has left behind.
    pub(crate) fn release(&self) {
        self.usual.take();
        self.little.take();
        self.long.take();
        self.output.take();
        for _ in 0..STIRRED_TIMES {
            let stirred = || black_box(Vec::<u8>::with_capacity(STIRRED));
            drop(black_box(std::array::from_fn::<_, STIRRED_EACH, _>(|_| stirred())));
        }
    }

    fn storage(&self, size: usize) -> Box<[u8]> {
        let kept = match size {
            USUAL => self.usual.borrow_mut().pop(),
            LITTLE => self.little.borrow_mut().pop(),
            _ => LONG.iter().position(|long| *long == size).and_then(|at| {
                let kept = std::mem::take(&mut self.long.borrow_mut()[at]);
                (!kept.is_empty()).then_some(kept)
            }),
        };
        kept.unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    fn give_back(&self, storage: Box<[u8]>) {
        let kept = match storage.len() {
            USUAL => &self.usual,
            LITTLE => &self.little,
            size => {
                // Others were made for an unusual head.
                if let Some(at) = LONG.iter().position(|long| *long == size) {
                    self.long.borrow_mut()[at] = storage;
                }
                return;
            }
        };
        let mut kept = kept.borrow_mut();
        if kept.len() < KEPT_MAX {
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
    /// Reads since it was held up last.
    smooth: u8,
}

impl Buffer {
    /// What is there.
    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The same, to be changed where it is.
    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
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

    /// Notes that what is there cannot be passed on at present: it is held in as little
    /// memory as possible, and little is read until it goes smoothly again.
    pub(crate) fn hold_up(&mut self) {
        self.read_size = LITTLE;
        self.smooth = 0;
        if self.end - self.start < self.bytes.len() {
            self.shrink();
        }
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
        } else if self.read_size != USUAL {
            self.smooth += 1;
            if self.smooth == SMOOTH {
                self.read_size = USUAL;
            }
        }
        polled.map_ok(|()| count)
    }

    /// Gives storage back that is not needed while there is nothing to read.
    pub(crate) fn park(&mut self) {
        if self.is_empty() {
            self.home.give_back(std::mem::take(&mut self.bytes));
            self.clear();
        } else if self.end - self.start <= self.bytes.len() / 2 {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        let used = self.end - self.start;
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
            let size = if used < USUAL { USUAL } else { 2 * used };
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
        assert_eq!((buffer.bytes.len(), buffers.usual.borrow().len()), (0, 1));

        writer.write_all(b"GET").await.unwrap();
        assert!(matches!(buffer.poll_fill(&mut reader, &mut context), Poll::Ready(Ok(3))));
        assert_eq!((buffer.data(), buffer.bytes.len()), (&b"GET"[..], USUAL));
        assert!(buffer.poll_fill(&mut reader, &mut context).is_pending());
        assert_eq!((buffer.data(), buffer.bytes.len()), (&b"GET"[..], 3));
        assert_eq!(buffers.usual.borrow().len(), 1);

        writer.write_all(b" /").await.unwrap();
        assert!(matches!(buffer.poll_fill(&mut reader, &mut context), Poll::Ready(Ok(2))));
        assert_eq!(buffer.data(), b"GET /");
        drop(buffer);
        assert_eq!(buffers.usual.borrow().len(), 1);
    }

    #[tokio::test]
    async fn little_is_read_for_a_slow_reader_until_it_is_fast_again() {
        let buffers = Rc::<Buffers>::default();
        let (mut writer, mut reader) = duplex(1 << 20);
        writer.write_all(&[b'a'; 1 << 18]).await.unwrap();
        let mut context = Context::from_waker(Waker::noop());
        let mut buffer = buffers.buffer();
        let mut read = |buffer: &mut Buffer| match buffer.poll_fill(&mut reader, &mut context) {
            Poll::Ready(Ok(count)) => count,
            other => panic!("{other:?}"),
        };
        assert_eq!(read(&mut buffer), USUAL);
        buffer.consume(USUAL - 10);
        buffer.hold_up();
        assert_eq!((buffer.data().len(), buffer.bytes.len()), (10, 10));
        buffer.consume(10);
        for _ in 0..SMOOTH {
            assert_eq!(read(&mut buffer), LITTLE);
            buffer.consume(LITTLE);
        }
        assert_eq!(read(&mut buffer), USUAL);
    }

    #[tokio::test]
    async fn a_long_head_grows_its_storage_which_the_next_one_grows_into() {
        let buffers = Rc::<Buffers>::default();
        let (mut writer, mut reader) = duplex(1 << 20);
        writer.write_all(&vec![b'a'; 3 * USUAL]).await.unwrap();
        let mut context = Context::from_waker(Waker::noop());
        let mut buffer = buffers.buffer();
        while buffer.poll_fill(&mut reader, &mut context).is_ready() {}
        assert_eq!(buffer.data().len(), 3 * USUAL);
        drop(buffer);
        let kept = || buffers.long.borrow().each_ref().map(|storage| storage.len());
        assert_eq!(kept(), LONG, "the next one need not ask the allocator");
        let again = buffers.storage(LONG[0]);
        assert_eq!((again.len(), kept()), (LONG[0], [0, LONG[1]]));
        buffers.release();
        assert_eq!(kept(), [0; 2]);
    }
}
