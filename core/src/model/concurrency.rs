//! How many requests may be in progress at once, and what becomes of more.

use std::{num::NonZeroU32, ops::RangeInclusive, time::Duration};

use super::{Invalid, Pool};
use crate::{lease::SharedSlots, limit::Queue, resilience::concurrency::Policy};

/// How many requests may be in progress over all proxies, at a backend or in a pool.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct MaxInFlight(NonZeroU32);

impl MaxInFlight {
    /// What it may be.
    pub const RANGE: RangeInclusive<u32> = 1..=SharedSlots::MAX;

    /// No limit if it is 0; `field` is what an error names.
    fn new(field: &'static str, slots: u32) -> Result<Option<Self>, Invalid> {
        let Some(number) = NonZeroU32::new(slots) else { return Ok(None) };
        if slots > *Self::RANGE.end() {
            let (least, most) = (Self::RANGE.start(), Self::RANGE.end());
            return Err(Invalid::value(
                field,
                format!("{field} {slots} is outside {least} to {most} (0: no limit)"),
            ));
        }
        Ok(Some(Self(number)))
    }

    /// Of a backend, where 0 is no limit.
    pub fn of_backend(slots: u32) -> Result<Option<Self>, Invalid> {
        Self::new("backend.max_in_flight", slots)
    }

    /// Of a pool, where 0 is no limit.
    pub fn of_pool(slots: u32) -> Result<Option<Self>, Invalid> {
        Self::new("pool.max_in_flight", slots)
    }

    /// As a number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// The part of a pool's policy that limits requests in progress. Backends have limits of
/// their own; requests wait for either in the same queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Concurrency {
    /// Of the pool, over all proxies; default none. With [`Self::is_adaptive`], the most
    /// that the limit may be.
    pub max_in_flight: Option<MaxInFlight>,
    /// Whether the limit is found out by how long answers take, over all proxies; default no.
    pub is_adaptive: bool,
    /// The least that such a limit may be; default 1.
    pub adaptive_min: u32,
    /// Requests that may wait for a slot, in each proxy; 0 refuses at once. Default 100.
    pub queue_length: u32,
    /// How long one may wait; the request timeout does not include it. Default 3 s, as for a
    /// connection.
    pub queue_timeout: Duration,
}

impl Concurrency {
    /// The default of [`Self::queue_length`].
    #[expect(clippy::cast_possible_truncation, reason = "a small constant")]
    pub const QUEUE_LENGTH: u32 = Queue::LENGTH_MAX as u32;
    /// What [`Self::queue_length`] may be.
    pub const QUEUE_LENGTHS: RangeInclusive<u32> = 0..=100_000;
    /// The default of [`Self::adaptive_min`].
    pub const ADAPTIVE_MIN: u32 = 1;

    /// Durations must be 1 ms to 24 h, the queue's length at most 100 000, and the least of
    /// an adaptive limit not above the most.
    pub fn checked(self) -> Result<Self, Invalid> {
        let least_max = self.most();
        if !(Self::ADAPTIVE_MIN..=least_max).contains(&self.adaptive_min) {
            let why = match self.max_in_flight {
                Some(_) => ", which is pool.max_in_flight",
                None => "",
            };
            return Err(Invalid::value(
                "pool.concurrency_min",
                format!(
                    "pool.concurrency_min {} is outside {} to {least_max}{why}",
                    self.adaptive_min,
                    Self::ADAPTIVE_MIN,
                ),
            ));
        }
        if !Self::QUEUE_LENGTHS.contains(&self.queue_length) {
            return Err(Invalid::value(
                "pool.queue_length",
                format!(
                    "pool.queue_length {} is outside {} to {}",
                    self.queue_length,
                    Self::QUEUE_LENGTHS.start(),
                    Self::QUEUE_LENGTHS.end()
                ),
            ));
        }
        super::pool::bounded("pool.queue_timeout", self.queue_timeout)?;
        Ok(self)
    }

    /// The bounds of the limit, if it is found out.
    #[must_use]
    pub fn adaptive(&self) -> Option<Policy> {
        let policy = Policy { limit_min: self.adaptive_min, limit_max: self.most() };
        self.is_adaptive.then_some(policy)
    }

    /// The most that may be in progress, whatever else is said.
    fn most(&self) -> u32 {
        self.max_in_flight.map_or(*MaxInFlight::RANGE.end(), MaxInFlight::get)
    }
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            max_in_flight: None,
            is_adaptive: false,
            adaptive_min: Self::ADAPTIVE_MIN,
            queue_length: Self::QUEUE_LENGTH,
            queue_timeout: Pool::QUEUE_TIMEOUT,
        }
    }
}
