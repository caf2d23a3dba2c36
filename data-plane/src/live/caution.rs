//! What picks of a pool must heed while not all of its backends are as they should be.
//!
//! Most pools need none of it most of the time, and then a request reads one pointer.

use std::time::Instant;

use lb_core::{
    balance::HashKey,
    health::candidates::{Candidates, Place},
    resilience::{
        probe::Fitness,
        slow_start::{self, Ramp},
    },
};

use super::{PoolConfig, trial::Trial};

/// How often a pick is passed over at most before it stands.
const PASSES_MAX: usize = 8;

/// The backends of a pool that are not simply picked, nor simply not, by slot.
#[derive(Debug)]
pub(crate) struct Caution {
    /// Those that requests are kept from, and that one may try at times.
    trials: Box<[u32]>,
    /// Those that are led up to their share.
    ramps: Box<[(u32, Ramp)]>,
    /// Those that are picked only for want of others.
    helping: Box<[u32]>,
    /// Every backend that may be picked has a ramp.
    all_ramped: bool,
}

impl Caution {
    /// What there is to heed, if anything is. `out` tells by slot which backends requests are
    /// kept from for what they showed.
    pub(super) fn of(
        candidates: &Candidates,
        out: &[bool],
        ramps: Box<[(u32, Ramp)]>,
    ) -> Option<Box<Self>> {
        let places = || (0u32..).zip(&candidates.places);
        let tried =
            places().zip(out).filter(|((_, place), out)| **out && **place != Place::Nowhere);
        let trials: Box<[u32]> = tried.map(|((slot, _), _)| slot).collect();
        let helping = places().filter(|(_, place)| **place == Place::Helping);
        let helping: Box<[u32]> = helping.map(|(slot, _)| slot).collect();
        let is_needed = !(trials.is_empty() && ramps.is_empty() && helping.is_empty());
        let candidates = places().filter(|(_, place)| place.is_candidate()).count();
        let all_ramped = ramps.len() == candidates;
        is_needed.then(|| Box::new(Self { trials, ramps, all_ramped, helping }))
    }

    /// Whether a backend gets requests only for want of others.
    pub(crate) fn is_helping(&self, slot: u32) -> bool {
        self.helping.contains(&slot)
    }

    /// Whether a backend is one that requests are sent to, and not merely to be tried.
    pub(crate) fn is_picked(&self, slot: u32) -> bool {
        !self.trials.contains(&slot) || self.is_helping(slot)
    }

    /// A backend that is to be tried, for a request that has been nowhere yet.
    fn trial(&self, pool: &PoolConfig, request: Fitness, now: Instant) -> Option<(u32, Trial)> {
        self.trials.iter().find_map(|&slot| {
            let backend = &pool.backends[slot as usize];
            Some((slot, backend.try_it(&pool.breaker, request, now)?))
        })
    }

    /// Whether there is no warm backend that requests could go to instead.
    fn is_all_cold(&self, now: Instant) -> bool {
        let ramps = self.ramps.iter().map(|(_, ramp)| Some(ramp));
        self.all_ramped && slow_start::is_skipped(ramps, now)
    }

    /// Whether a pick stands.
    fn accepts(&self, slot: u32, now: Instant, rng: &mut fastrand::Rng) -> bool {
        let ramp = self.ramps.iter().find(|(ramped, _)| *ramped == slot);
        ramp.is_none_or(|(_, ramp)| ramp.accepts(now, rng))
    }
}

impl PoolConfig {
    /// Picks a backend with care: one that is to be tried goes first, and one that is new is
    /// passed over as often as its share is not yet whole.
    #[cold]
    pub(crate) fn pick_with(
        &self,
        caution: &Caution,
        asked: Asked<'_>,
        rng: &mut fastrand::Rng,
    ) -> Option<(u32, Option<Trial>)> {
        let Asked { key, tried, fitness, now } = asked;
        // One that has just failed elsewhere has risked enough.
        if tried.is_empty()
            && let Some((slot, trial)) = caution.trial(self, fitness, now)
        {
            return Some((slot, Some(trial)));
        }
        let first = self.pick(key, tried, rng)?;
        if caution.accepts(first, now, rng) || caution.is_all_cold(now) {
            return Some((first, None));
        }
        let mut passed = tried.to_vec();
        passed.push(first);
        for _ in 1..PASSES_MAX {
            match self.pick(key, &passed, rng) {
                Some(slot) if caution.accepts(slot, now, rng) => return Some((slot, None)),
                Some(slot) => passed.push(slot),
                None => break,
            }
        }
        Some((first, None))
    }
}

/// A request for which a backend is picked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) key: HashKey<'a>,
    /// Where it has failed already.
    pub(crate) tried: &'a [u32],
    /// What it risks if it tries a backend.
    pub(crate) fitness: Fitness,
    pub(crate) now: Instant,
}
