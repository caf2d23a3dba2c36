//! A value that the control thread changes at times, and that workers read all the time.
//!
//! Each worker keeps a copy and looks at one number to see whether it is still the newest.

use std::sync::{
    Mutex, PoisonError,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
};

use crate::live::Padded;

/// The newest value.
#[derive(Debug)]
pub(crate) struct Published<T> {
    version: Padded<AtomicU64>,
    value: Mutex<T>,
}

/// A worker's copy.
#[derive(Debug)]
pub(crate) struct Copy<T> {
    version: u64,
    value: Option<T>,
}

impl<T: Clone> Published<T> {
    pub(super) fn new(value: T) -> Self {
        Self { version: Padded(AtomicU64::new(1)), value: Mutex::new(value) }
    }

    /// For the control thread.
    pub(super) fn set(&self, value: T) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = value;
        self.version.0.fetch_add(1, Release);
    }

    /// The newest value, by way of a worker's own copy: locks only when there is a newer one.
    #[inline]
    pub(crate) fn read<'c>(&self, copy: &'c mut Copy<T>) -> &'c T {
        let version = self.version.0.load(Acquire);
        if copy.version != version {
            self.renew(copy, version);
        }
        copy.value.get_or_insert_with(|| self.load())
    }

    #[cold]
    fn renew(&self, copy: &mut Copy<T>, version: u64) {
        (copy.version, copy.value) = (version, Some(self.load()));
    }

    /// What a worker's copy holds, if that is the newest value.
    #[inline(always)]
    pub(crate) fn current<'c>(&self, copy: &'c Copy<T>) -> Option<&'c T> {
        copy.value.as_ref().filter(|_| copy.version == self.version.0.load(Acquire))
    }

    /// What a worker read last by way of its copy, whatever is newer.
    pub(crate) fn last<'c>(&self, copy: &'c mut Copy<T>) -> &'c T {
        copy.value.get_or_insert_with(|| self.load())
    }

    /// The newest value, for the control thread.
    pub(crate) fn newest(&self) -> T {
        self.load()
    }

    #[cold]
    fn load(&self) -> T {
        self.value.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<T> Default for Copy<T> {
    fn default() -> Self {
        Self { version: 0, value: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_follows() {
        let published = Published::new(1);
        let (mut early, mut late) = (Copy::default(), Copy::default());
        assert_eq!(published.read(&mut early), &1);
        assert_eq!((published.current(&early), published.current(&late)), (Some(&1), None));
        published.set(2);
        assert_eq!(published.current(&early), None);
        assert_eq!(published.last(&mut early), &1, "until it looks again");
        assert_eq!((published.read(&mut early), published.read(&mut late)), (&2, &2));
    }
}
