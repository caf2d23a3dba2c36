//! The limit of a pool over all proxies: adds up what each of them tells.
//!
//! Proxies tell sums since they began, so that a report that is lost or comes twice changes
//! nothing: what counts is by how much the sums have grown since the last report of the same
//! holder. The first one of a holder only says where they stand.
//!
//! A request takes part from when its client has sent it until its answer begins: *aside*
//! are those that hold a slot and do not wait for the backend, such as long downloads, upgraded
//! connections and uploads. The slots of a pool are the limit and whatever is aside, so that
//! those do not use the limit up.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Concurrency, Policy, Sample};

/// The limit of one pool, and what the holders of its slots told last.
#[derive(Clone, Debug)]
pub struct FleetConcurrency<H> {
    limit: Concurrency,
    most: u64,
    holders: BTreeMap<H, Known>,
}

/// What one proxy tells of a pool.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Told {
    /// Slots that it may take.
    pub holds: u64,
    /// Slots in use.
    pub in_use: u64,
    /// Of these, those whose requests do not wait for a backend.
    pub aside: u64,
    /// Requests that wait for a slot.
    pub waiting: u64,
    /// Since it began to count.
    pub sums: Sums,
}

/// What has come of requests since a proxy began to count.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sums {
    /// Answers without a fault.
    pub answers: u64,
    /// The times that they took until they began, in microseconds.
    pub time_us: u64,
    /// Requests whose answer was not waited for any longer.
    pub given_up: u64,
    /// The times until then, in microseconds.
    pub given_up_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    told: Told,
    at: Instant,
}

/// For so long a holder counts as having in flight what it told last: four reports, as a lease.
const HEARD_FOR: Duration = Duration::from_secs(1);

impl<H: Clone + Ord> FleetConcurrency<H> {
    /// A limit about which nothing is known yet.
    #[must_use]
    pub fn new(policy: Policy, now: Instant) -> Self {
        let most = policy.limit_max.into();
        Self { limit: Concurrency::new(policy, now), most, holders: BTreeMap::new() }
    }

    /// Changes the bounds.
    pub fn set_policy(&mut self, policy: Policy) {
        self.most = policy.limit_max.into();
        self.limit.set_policy(policy);
    }

    /// Takes in what a holder tells; not to be called for a report that is late or doubled.
    /// `decides` is false while nothing but what holders have may be lent: then it is only
    /// noted.
    pub fn hear(&mut self, from: &H, told: Told, decides: bool, now: Instant) {
        let known = self.holders.insert(from.clone(), Known { told, at: now });
        let heard = self.heard(now);
        let (mut in_flight, mut waiting, mut found) = (0_u64, 0_u64, 0_u64);
        for told in heard {
            in_flight = in_flight.saturating_add(told.in_use.saturating_sub(told.aside));
            waiting = waiting.saturating_add(told.waiting);
            let has = told.holds.max(told.in_use);
            found = found.saturating_add(has.saturating_sub(told.aside));
        }
        self.limit.found(found);
        let grown = known.and_then(|known| told.sums.since(&known.told.sums)).unwrap_or_default();
        if decides {
            let sample = Sample {
                answers: grown.answers,
                time: Duration::from_micros(grown.time_us),
                given_up: grown.given_up,
                given_up_time: Duration::from_micros(grown.given_up_us),
                in_flight,
                waiting,
            };
            self.limit.record(&sample, now);
        }
    }

    /// A holder is no more, or is not heard any more.
    pub fn forget(&mut self, holder: &H) {
        self.holders.remove(holder);
    }

    /// How many slots the pool has now.
    #[must_use]
    pub fn slots(&self, now: Instant) -> u64 {
        let aside = self.heard(now).fold(0, |sum: u64, told| sum.saturating_add(told.aside));
        u64::from(self.limit.limit()).saturating_add(aside).min(self.most)
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> &Concurrency {
        &self.limit
    }

    fn heard(&self, now: Instant) -> impl Iterator<Item = &Told> {
        let is_heard = move |known: &&Known| now.saturating_duration_since(known.at) < HEARD_FOR;
        self.holders.values().filter(is_heard).map(|known| &known.told)
    }
}

impl Sums {
    /// What has come since; nothing if it was counted anew.
    fn since(&self, before: &Self) -> Option<Self> {
        Some(Self {
            answers: self.answers.checked_sub(before.answers)?,
            time_us: self.time_us.checked_sub(before.time_us)?,
            given_up: self.given_up.checked_sub(before.given_up)?,
            given_up_us: self.given_up_us.checked_sub(before.given_up_us)?,
        })
    }
}
