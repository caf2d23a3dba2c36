//! Whether a request is within a rate, or waits for a slot.
//!
//! | part | is |
//! |---|---|
//! | [`Pace`] | how fast tokens come in, now and when no grant follows |
//! | [`Bucket`] | one bucket, for a limit without a key; one atomic word |
//! | [`Table`] | a bucket for every key in bounded memory; one atomic word each |
//! | [`KeyHasher`] | the part of a request that a limit counts by, as a number |
//! | [`HotKeys`] | which keys of a limit need more than an even share of it |
//! | [`Decision`] | the answer, with the figures that header fields tell |
//! | [`Queue`] | requests that wait for a slot, in order, for a bounded time |
//! | [`Refusals`] | when an operator is told that a limit refuses, and that it has stopped |
//!
//! **Buckets are shared by the workers of a proxy**, not kept by each. A limit of ten
//! requests over eight workers would be one each, and a client's connections are on
//! whichever workers the kernel chose. Workers that take from one bucket at the same time
//! retry one compare-and-swap; different keys are on different cache lines but for a few,
//! and there is no lock.
//!
//! **The bound of a limit over the fleet.** With leases whose sum is at most the rate `R`
//! at every moment, what all proxies admit in any time `W` is at most `R * W` plus the
//! sum of the proxies' bursts. Each has the burst [`burst_share`], the larger of `B / N`
//! and 8, and never more than `B`: a burst that is divided further refuses what no limit
//! is meant to refuse, since even a trickle is uneven. So a burst over all proxies is at
//! most `max(B, min(8, B) * N)`, rounded up.
//!
//! **A limit by key over the fleet** would need a lease for every key. Instead every proxy
//! has the even share `R / N` of *every* key, without being asked, and that sums up to
//! `R`. Keys that are refused somewhere, the hot ones, get leases: see [`HotKeys`]. So a
//! key never gets more than `R * W` plus the bursts; and a key whose requests all come to
//! one proxy gets `R / N` and a burst at once, and the whole of `R` within about a second,
//! as long as no more keys are hot than are kept track of. Beyond those it keeps `R / N`.

mod bucket;
mod decision;
mod hot;
mod key;
mod pace;
mod queue;
mod refusals;
mod table;

pub use self::{
    bucket::{Alike, Bucket, Taken},
    decision::{Decision, Quota},
    hot::HotKeys,
    key::KeyHasher,
    pace::{MICROS, Pace, REACHED_AFTER, burst_share, nanos_between},
    queue::{Queue, QueueFull, Ticket},
    refusals::{RefusalNews, Refusals, Tally},
    table::Table,
};
