//! What one worker keeps of limits from request to request: the paces that are lent, and what
//! clients were told last.

use std::{
    cell::{Cell, RefCell},
    num::NonZero,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use lb_core::limit::{Alike, Pace};

use super::{LimitConfig, LimitIndex, Limits};
use crate::{
    h1::body::write_decimal,
    leases::{Copy, KeyPaces},
};

/// What one worker knows of the paces that are lent, by limit. They are looked up at every
/// request and change a few times a second.
#[derive(Debug)]
pub(crate) struct LimitCopies {
    pub(super) origin: Instant,
    pub(super) all: RefCell<Vec<LimitCopy>>,
}

#[derive(Debug, Default)]
pub(super) struct LimitCopy {
    /// Of which limit it is.
    pub(super) which: Option<Which>,
    pub(super) pace: Copy<Pace>,
    pub(super) paces: Copy<Arc<KeyPaces>>,
    /// When the pace began, of keys that of all of them, in nanoseconds after the origin.
    pub(super) began: i64,
    pub(super) told: LastTold,
}

/// What a client is told of the limit that it is nearest to, in two words: they are compared with
/// what was told last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Told {
    /// Which limit.
    which: Which,
    /// What is left, above in how many seconds the bucket is full.
    figures: u64,
}

/// A limit of one configuration: its version, which no other has (among four billion), above
/// where it stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Which(NonZero<u64>);

/// What the last client was told of a limit.
#[derive(Debug, Default)]
pub(super) struct LastTold {
    pub(super) told: Option<Told>,
    /// Of those that are let pass, at the pace of the copy, these are told the same.
    pub(super) alike: Cell<Alike>,
    /// The fields that say it, and the end of a head.
    pub(super) fields: Rc<Vec<u8>>,
}

/// How a client is told of a limit.
#[derive(Debug)]
pub(crate) enum Telling {
    /// As the last one was: in these fields, and the end of a head.
    Again(Rc<Vec<u8>>),
    Anew(Told),
}

impl Which {
    pub(super) fn new(version: NonZero<u32>, index: LimitIndex) -> Self {
        // There are never so many limits.
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        Self(NonZero::<u64>::from(version).saturating_mul(Self::VERSION) | u64::from(index))
    }

    /// Of the version; below is the index.
    const VERSION: NonZero<u64> = NonZero::new(1 << 32).expect("it is not zero");

    pub(super) fn version(self) -> NonZero<u32> {
        high(self.0.get()).try_into().unwrap_or(NonZero::<u32>::MIN)
    }

    #[inline(always)]
    pub(super) fn index(self) -> LimitIndex {
        low(self.0.get()) as LimitIndex
    }
}

impl Told {
    #[inline(always)]
    pub(super) fn new(which: Which, remaining: u32, reset_seconds: u32) -> Self {
        Self { which, figures: u64::from(remaining) << 32 | u64::from(reset_seconds) }
    }

    /// Where the limit stands.
    #[inline(always)]
    pub(crate) fn limit(self) -> LimitIndex {
        self.which.index()
    }

    /// Adds its fields to a head that has no end yet.
    pub(crate) fn write(self, limit: &LimitConfig, out: &mut Vec<u8>) {
        out.extend_from_slice(limit.fields.as_bytes());
        write_decimal(self.remaining().into(), out);
        out.extend_from_slice(b";t=");
        write_decimal(self.reset_seconds().into(), out);
        out.extend_from_slice(b"\r\n");
    }

    /// How many requests are left.
    pub(crate) fn remaining(self) -> u32 {
        high(self.figures)
    }

    /// In how many seconds the bucket is full.
    fn reset_seconds(self) -> u32 {
        low(self.figures)
    }
}

fn high(word: u64) -> u32 {
    low(word >> 32)
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
#[inline(always)]
fn low(word: u64) -> u32 {
    word as u32
}

impl LimitCopies {
    /// Of a worker whose clock's numbers begin then.
    pub(crate) fn new(origin: Instant) -> Self {
        Self { origin, all: RefCell::default() }
    }

    /// Puts the fields that say this at the end of a head, in place of its empty line. They are
    /// made once for all who are told the same, one after the other; unless what was told before
    /// is still to be said to others.
    #[inline(never)]
    pub(crate) fn tell(&self, told: &Told, limits: &Limits, head: &mut Vec<u8>) {
        let copies = &mut *self.all.borrow_mut();
        let last = &mut at(copies, told.limit()).told;
        let end = head.len().saturating_sub(2);
        head.truncate(end);
        if last.told == Some(*told) {
            head.extend_from_slice(&last.fields);
            return;
        }
        told.write(&limits.all()[told.limit()], head);
        head.extend_from_slice(b"\r\n");
        if let Some(fields) = Rc::get_mut(&mut last.fields) {
            fields.clear();
            fields.extend_from_slice(&head[end..]);
            last.told = Some(*told);
            last.alike.set(Alike::NONE);
        }
    }
}

/// The copy of this limit.
pub(super) fn of(copies: &mut Vec<LimitCopy>, which: Which) -> &mut LimitCopy {
    let copy = at(copies, which.index());
    if copy.which != Some(which) {
        *copy = LimitCopy { which: Some(which), ..LimitCopy::default() };
    }
    copy
}

fn at(copies: &mut Vec<LimitCopy>, index: LimitIndex) -> &mut LimitCopy {
    if copies.len() <= index {
        copies.resize_with(index + 1, LimitCopy::default);
    }
    &mut copies[index]
}
