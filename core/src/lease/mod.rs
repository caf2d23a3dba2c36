//! Shares of a quantity that holds over the whole fleet, without a call per request.
//!
//! The control plane keeps a [`Granter`] for each quantity (a rate of requests, a number
//! of slots) and lends every proxy a share of it for a second. Each proxy keeps a
//! [`Holder`] (inside a [`RateShare`] or a [`Slots`]), reports what it needs every 100 to
//! 250 ms, and decides about requests by itself.
//!
//! ```text
//!   proxy                                     control plane
//!   Holder::report  ---- Report { seq } --->  Granter::hear
//!   Holder::apply   <--- Grant { answers } --  Granter::grant, each 100 to 250 ms and
//!                                              whenever `hear` says so
//! ```
//!
//! Both messages may be lost, late, doubled or out of order. What holds anyway:
//!
//! * **The sum of all live leases never exceeds the quantity.** The granter counts for a
//!   holder the most that any grant allows which the holder may still apply, and lends
//!   only what no holder is counted for: what is free, was returned, or has expired. A
//!   holder returns a part by reporting that it has applied a smaller grant; from then on
//!   it refuses older ones.
//! * **Clocks need not agree.** No time of day goes over the wire. A lease ends for its
//!   holder `lease` after it *sent* the report that the grant answers; for the granter
//!   `lease + margin` after it *received* that report, which is later. The margin is for
//!   clocks that run at different speeds and for work between a decision and its effect.
//! * **A second granter is fenced.** Each start of a granter has a larger [`Term`], and a
//!   holder that has heard of a term refuses lower ones. A granter that may have had a
//!   predecessor ([`Former::MayHaveLent`]) first lends no more than what holders say that they
//!   have, moved among those that it has fenced, until leases which it has not heard of must
//!   have ended, or until all have reported that may have any ([`Census`]). The predecessor must have stopped granting
//!   before: by the lock on its data directory, or by its lease of leadership.
//!
//! **When the control plane is away** a lease is used to its end. Then follows a *safe
//! share*, which is lent by the same rule beside the lease, so that all safe shares
//! together never exceed the quantity, and is about `quantity / proxies`:
//!
//! | time since the lease's end | may be used |
//! |---|---|
//! | until `hold + lease + margin` | the smaller of lease and safe share |
//! | later | the safe share |
//!
//! The first row is what keeps the bound: others may have had a larger lease that ends up
//! to one lease later, and slots in use for `hold` more. So **while the control plane is
//! away from everybody, the bound holds**. It cannot hold for a proxy that alone is cut
//! off: the granter lends its share to others, as it must for a proxy that was killed.
//! With [`OnLoss::SafeShare`], the default, traffic goes on, and the excess is at most the
//! safe shares of the proxies that are cut off; with [`OnLoss::OneEach`] a proxy has at least
//! one unit from a moment after its lease's end, if there are fewer units than proxies;
//! with [`OnLoss::Nothing`] the bound holds
//! always, and a proxy that is cut off starts nothing; with [`OnLoss::Keep`] a proxy goes on
//! with what it had, for bounds that need not be exact. A process that starts has no lease
//! and no knowledge: it waits for as long as the table's first row before it uses the safe
//! share that it was told to remember.
//!
//! **Slots in use** outlive a lease by at most `hold` (the request timeout). A granter
//! counts them for as long as they are reported, and `lease + hold + margin` longer. What
//! runs on after that, because it streams, is [`Slots::overdue`]: the proxy ends it, or
//! the bound is off by as much.
//!
//! Not covered: a virtual machine that was suspended continues with what its monotonic
//! clock has left of a lease, although the lease has ended everywhere else.
//!
//! # What the shells do
//!
//! *Control plane*: one [`Granter`] for each quantity, named by the limit's name and the
//! revision that created it, so that a limit that is removed and made again is another.
//! `H` is the start of a proxy process (its instance id), which a report that is passed on
//! came from. [`Former::None`] when the quantity is created, [`Former::MayHaveLent`] when
//! the process starts, [`Former::Unknown`] when it starts with an empty store. Before it hears a
//! process for the first time it notes it durably, and at its next start makes a [`Census`] of
//! those that it noted. `grant` every 100 ms, and within a few milliseconds of
//! [`Heard::Urgent`]; several urgent ones may share a call. `remove` when a proxy said
//! that it has drained and exits. Dropping a granter ends everything in time.
//!
//! *Proxy*: one [`RateShare`] or [`Slots`] for each quantity, made when the limit is first
//! applied. A report in every period, even if nothing is needed, and at once when
//! `give_back`, `set_waiting` or [`Applied::report_now`] say so. [`Refused`] grants are
//! counted and otherwise ignored. [`Holder::remembered`] goes to disk with the last good
//! snapshot, and into [`Holder::new`] at the next start of the same proxy.
//!
//! *What does not change* is not spelled out, so that quantities without traffic cost next to
//! nothing: `news` instead of `report`, and one frame for all of them ([`rests_on`]).
//!
//! *Limits by key*: [`KeyGranter`] and [`crate::limit::HotKeys`] instead; their messages
//! carry the key's number beside a report or a grant, and one more goes down: to open a key
//! ([`KeyGranter::unheard`]). All proxies need the same secret for
//! [`crate::limit::KeyHasher`], which comes with the configuration.

mod book;
mod census;
mod fair;
mod frames;
mod granter;
mod holder;
mod keys;
mod quantity;
mod rate;
mod shared_slots;
mod slots;
#[cfg(test)]
mod tests;
mod turns;

use std::{num::NonZeroU32, time::Duration};

pub use self::{
    census::Census,
    frames::rests_on,
    granter::{Former, Granter, Heard},
    holder::{Applied, Holder, OnLoss, Refused, Stages},
    keys::KeyGranter,
    quantity::{Quantity, QuantityKind, Sort, Wanted},
    rate::RateShare,
    shared_slots::SharedSlots,
    slots::Slots,
};

/// Orders the starts of granters of one quantity: a later one has a larger term. The
/// shell keeps it in the store and raises it at every start; a granter that hears of a
/// larger one says so ([`Heard::Outranked`]).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Term(pub u64);

/// What a proxy tells the granter of one quantity.
///
/// All amounts are in the quantity's unit: millionths of a token per second for a rate
/// ([`crate::limit::MICROS`]), slots for slots.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Report {
    /// Counts the reports of this holder, from 1.
    pub seq: u64,
    /// The term of the last grant that was applied; 0 if none was.
    pub term: Term,
    /// The last grant that was applied, within that term. The holder will never apply an
    /// earlier one.
    pub applied: u64,
    /// The most that it may use from now on without a further grant.
    pub holds: u64,
    /// Its safe share.
    pub safe: u64,
    /// In use now: slots; 0 for rates. May be more than `holds`, then only shrinks.
    pub in_use: u64,
    /// What it could use.
    pub demand: u64,
    /// A granter answered it so lately that no process which has begun since may use the safe
    /// share that it remembers.
    pub is_recent: bool,
}

/// What the granter lends one holder; it replaces the grant before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Grant {
    /// Of the granter.
    pub term: Term,
    /// Counts the grants of a granter; a holder applies only larger ones.
    pub id: u64,
    /// The report whose sending starts the lease.
    pub answers: u64,
    /// How long the lease lasts.
    pub lease: Duration,
    /// What may be used during the lease.
    pub amount: u64,
    /// What may be used when no grant follows; see the module's table.
    pub safe: u64,
    /// It only prolongs what the holder still has, up to `amount`: the granter does not
    /// know yet what its predecessor lent to others, or it counts more than there is, because a
    /// holder that it had forgotten says that it has something.
    pub carried: bool,
    /// How many proxies share the quantity; bursts are divided by it. `None` from a granter that
    /// has just begun: it has not heard of all of them, and fewer would mean larger bursts for each.
    pub proxies: Option<NonZeroU32>,
}

impl Report {
    /// With amounts that can be added up, whatever came over the wire.
    fn bounded(mut self) -> Self {
        for amount in [&mut self.holds, &mut self.safe, &mut self.in_use, &mut self.demand] {
            *amount = AMOUNT_MAX.min(*amount);
        }
        self
    }
}

/// More than any quantity is: 28 times the highest rate.
const AMOUNT_MAX: u64 = 1 << 48;

/// How a quantity is lent; the same on both ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Terms {
    /// How long a lease lasts; default 1 s. Four reports must fit into it, so that three
    /// may be lost.
    pub lease: Duration,
    /// How long what was begun under a lease may last beyond it; 0 for rates, the request
    /// timeout for slots.
    pub hold: Duration,
    /// What the granter adds before it counts a lease as ended, beside a thousandth of
    /// `hold`; default 100 ms. Together they cover clocks whose speeds differ by a tenth
    /// over a lease, and by a thousandth over whatever a request takes; real ones differ
    /// by a tenth of that.
    pub margin: Duration,
    /// How it may be divided.
    pub unit: Unit,
}

/// How a quantity may be divided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Into shares of any size.
    Divisible {
        /// Lent to every holder even if it needs nothing, but no more than a
        /// [`Unit::FLOOR_PARTS`]th of an even share: what comes after a pause has a full
        /// bucket, and then needs a little until the next grant. Default one token per second.
        floor: u64,
    },
    /// Into whole units, of which there may be fewer than holders: then they go round, and
    /// each is kept for this long once others wait for it.
    Whole {
        /// Default 200 ms.
        turn: Duration,
    },
}

impl Unit {
    /// So large a part of an even share is lent to those that need nothing: together at most
    /// three percent of the quantity.
    pub const FLOOR_PARTS: u64 = 32;
}

impl Terms {
    /// The default of [`Self::lease`].
    pub const LEASE: Duration = Duration::from_secs(1);
    /// The default of [`Self::margin`].
    pub const MARGIN: Duration = Duration::from_millis(100);
    /// The default of a turn: two slots reach eight proxies in four turns, well within the
    /// 3 s that a request waits in a queue.
    pub const TURN: Duration = Duration::from_millis(200);

    /// Where fewer units than holders go round, each holder that wants one has had its turn after
    /// about so long, if that takes no turn shorter than [`Self::TURN`]: half of the 3 s that a
    /// request waits in a queue.
    pub const ROUND: Duration = Duration::from_millis(1500);

    /// For a rate.
    #[must_use]
    pub const fn rate() -> Self {
        Self {
            lease: Self::LEASE,
            hold: Duration::ZERO,
            margin: Self::MARGIN,
            unit: Unit::Divisible { floor: crate::limit::MICROS },
        }
    }

    /// For slots that a request holds for at most `request_timeout`.
    #[must_use]
    pub const fn slots(request_timeout: Duration) -> Self {
        Self {
            lease: Self::LEASE,
            hold: request_timeout,
            margin: Self::MARGIN,
            unit: Unit::Whole { turn: Self::TURN },
        }
    }

    /// How long a new granter waits before it lends anything of a quantity that is new. What is
    /// in use already is in the first reports, and nobody is to be lent what another uses.
    pub(super) fn gather(&self) -> Duration {
        match self.unit {
            Unit::Divisible { .. } => Duration::ZERO,
            Unit::Whole { .. } => Duration::from_millis(100),
        }
    }

    /// From the receipt of a report until nothing that it covered can be in use.
    #[must_use]
    pub fn counted_for(&self) -> Duration {
        self.lease + self.hold + self.margin + self.hold / 1000
    }
}
