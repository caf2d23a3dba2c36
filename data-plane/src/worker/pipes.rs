//! Pipes of one worker, through which large bodies pass without being copied.

use std::{
    cell::{Cell, RefCell},
    os::fd::OwnedFd,
    rc::Rc,
};

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

/// Pipes kept for the next body; each takes two descriptors.
const KEPT_MAX: usize = 32;
/// What a pipe should hold: more at once is fewer system calls. Where the user's pages for
/// pipes are used up (`/proc/sys/fs/pipe-user-pages-soft`), it stays at what it has.
const PIPE_BYTES: usize = 256 * 1024;
/// What a pipe must hold: with less at once, copying is cheaper.
const PIPE_BYTES_MIN: usize = 64 * 1024;

/// The pipes of a worker.
#[derive(Debug)]
pub(crate) struct Pipes {
    kept: RefCell<Vec<Ends>>,
    open: Cell<usize>,
    open_max: usize,
}

#[derive(Debug)]
struct Ends {
    input: OwnedFd,
    output: OwnedFd,
    capacity: usize,
}

/// A pipe, and how much is in it.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// Taken only by drop.
    ends: Option<Ends>,
    home: Rc<Pipes>,
    pub(crate) held: usize,
}

impl Pipes {
    /// At most so many pipes are open at once; beyond them, bodies are copied.
    pub(crate) fn new(open_max: usize) -> Self {
        Self { kept: RefCell::default(), open: Cell::new(0), open_max }
    }

    /// An empty pipe; `None` where the system gives none.
    pub(crate) fn take(self: &Rc<Self>) -> Option<Pipe> {
        let kept = self.kept.borrow_mut().pop();
        let ends = match kept {
            Some(ends) => ends,
            None if self.open.get() < self.open_max => {
                let ends = Ends::open()?;
                self.open.set(self.open.get() + 1);
                ends
            }
            None => return None,
        };
        Some(Pipe { ends: Some(ends), home: Rc::clone(self), held: 0 })
    }

    /// Closes those that are not in use: descriptors have run out. Whether there were any.
    pub(crate) fn clear(&self) -> bool {
        let closed = std::mem::take(&mut *self.kept.borrow_mut());
        self.open.set(self.open.get() - closed.len());
        !closed.is_empty()
    }
}

impl Ends {
    fn open() -> Option<Self> {
        let (output, input) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let capacity =
            fcntl_setpipe_size(&input, PIPE_BYTES).or_else(|_| fcntl_getpipe_size(&input)).ok()?;
        (capacity >= PIPE_BYTES_MIN).then_some(Self { input, output, capacity })
    }
}

impl Pipe {
    /// Where bytes go in.
    pub(crate) fn input(&self) -> &OwnedFd {
        &self.ends().input
    }

    /// Where they come out.
    pub(crate) fn output(&self) -> &OwnedFd {
        &self.ends().output
    }

    pub(crate) fn capacity(&self) -> usize {
        self.ends().capacity
    }

    fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("taken only by drop")
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        let mut kept = self.home.kept.borrow_mut();
        // One with bytes in it is of no use to anybody else.
        if self.held == 0 && kept.len() < KEPT_MAX {
            kept.push(ends);
        } else {
            self.home.open.set(self.home.open.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_bounded_and_used_again_when_they_are_empty() {
        let pipes = Rc::new(Pipes::new(2));
        let (first, mut second) = (pipes.take().unwrap(), pipes.take().unwrap());
        assert!(first.capacity() >= PIPE_BYTES_MIN);
        assert!(pipes.take().is_none());
        second.held = 1;
        drop((first, second));
        assert_eq!((pipes.kept.borrow().len(), pipes.open.get()), (1, 1));
        pipes.clear();
        assert_eq!(pipes.open.get(), 0);
    }
}
