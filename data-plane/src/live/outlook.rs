//! What a proxy makes of what the fleet says about failing backends, and of what it sees
//! by itself.
//!
//! While a control plane is heard, its word on a backend stands: ejected is out, and what this
//! proxy had against a backend before is forgotten. When it is heard no more, what
//! was out stays out for as long as it would have, and is then tried by this proxy alone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lb_core::{
    health::{candidates::Candidates, panic::Panic},
    model::{Algorithm, BackendEntry, PoolEntry, PoolName, ResiliencePolicy},
    resilience::{
        local::{self, Seen},
        slow_start::Ramp,
    },
};
use tracing::{info, warn};

use super::{BackendState, facts::Facts};
use crate::{clock::unix_ms, worker::now};

/// Whether a control plane is heard, and how its clock differs.
#[derive(Debug)]
pub(crate) struct Outlook {
    is_heard: bool,
    /// What the fleet had taken out is to be taken over.
    takes_over: bool,
    /// When the time was told by the clock that the fleet's times are of, and what it was. From
    /// there on the monotonic clock counts: a wall clock that jumps here changes nothing.
    told: (Instant, u64),
    rng: fastrand::Rng,
}

/// A pool that is looked at. Backends are by slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members<'a> {
    pub(super) pool: &'a PoolEntry,
    pub(super) facts: &'a [Facts],
    /// Whether each was ejected when the pool was compiled last.
    pub(super) were_ejected: &'a [bool],
    pub(super) backends: &'a [Arc<BackendState>],
    /// No backend fails or is avoided, and all know when they are to be: none is looked into.
    pub(super) are_quiet: bool,
}

impl Default for Outlook {
    /// Nobody has been heard yet; what is kept on disk may speak of ejections.
    fn default() -> Self {
        let told = (now(), unix_ms());
        Self { is_heard: false, takes_over: true, told, rng: fastrand::Rng::new() }
    }
}

impl Outlook {
    /// A control plane is heard, whose clock tells `now_unix_ms`; 0 when it does not say.
    pub(super) fn hear(&mut self, now_unix_ms: u64) {
        self.is_heard = true;
        self.takes_over = false;
        let unix_ms = if now_unix_ms == 0 { unix_ms() } else { now_unix_ms };
        self.told = (now(), unix_ms);
    }

    /// No control plane is heard any more.
    pub(super) fn lose(&mut self) {
        self.takes_over |= std::mem::take(&mut self.is_heard);
    }

    /// Whether what the fleet had taken out is avoided from now on.
    pub(super) fn takes_over(&self) -> bool {
        self.takes_over && !self.is_heard
    }

    /// Everything that was compiled before has been looked at.
    pub(super) fn settle(&mut self) {
        self.takes_over = false;
    }

    /// Which backends of a pool requests are kept from for what they showed. `has_spare`:
    /// another pool stands in where this proxy avoids them all.
    pub(super) fn out(
        &mut self,
        members: &Members<'_>,
        has_spare: bool,
        now: Instant,
    ) -> Vec<bool> {
        let Members { pool, facts, were_ejected, backends, .. } = *members;
        let policy = pool.pool.resilience.breaker;
        // Those in use, by slot.
        let (mut used, mut seen) = (Vec::new(), Vec::new());
        let each = facts.iter().zip(were_ejected).zip(backends);
        for (slot, ((Facts { pick, .. }, was_ejected), state)) in each.enumerate() {
            if !members.are_quiet {
                state.set_avoid_after(policy.consecutive_failures);
            }
            if self.is_heard {
                if *was_ejected || pick.is_ejected || policy.is_off() {
                    state.forgive();
                }
            } else if self.takes_over
                && pick.is_ejected
                && let Some(entry) = pool.backends.get(&state.identity.id)
                && let Some(remaining) = self.remaining(entry, now)
            {
                state.take_over(remaining, now);
            }
            if pick.is_in_use {
                let is_ejected = self.is_heard && pick.is_ejected;
                used.push(slot);
                seen.push(Seen {
                    serves: pick.is_up && !is_ejected,
                    is_ejected,
                    is_avoided: !members.are_quiet && state.is_avoided(),
                    is_failing: !members.are_quiet && state.is_failing(),
                });
            }
        }
        let mut out = vec![false; backends.len()];
        let chosen = local::chosen(&seen, has_spare);
        for ((slot, seen), is_chosen) in used.into_iter().zip(&seen).zip(chosen) {
            let state = &backends[slot];
            out[slot] = is_chosen || seen.is_ejected;
            match (seen.is_avoided, is_chosen) {
                (false, true) => {
                    warn!(
                        backend = %state.identity.id,
                        pool = %pool.pool.name,
                        failures_in_a_row = state.failures_in_a_row(),
                        "backend {} fails for this proxy, which avoids it until a request succeeds \
                         there; see whether this machine reaches it",
                        state.identity.id
                    );
                    state.avoid(&policy, now, &mut self.rng);
                    if has_spare {
                        // Pools that this one stands in for may have been looked at before.
                        state.ask_for_a_look();
                    }
                }
                // The pool can spare it no more, or it is down anyway.
                (true, false) => state.forgive(),
                (true, true) | (false, false) => {}
            }
        }
        out
    }

    /// The ramps of a pool's candidates, by slot. Where a client belongs to a backend there are
    /// none: it would be sent away and come back.
    pub(super) fn ramps(
        &self,
        pool: &PoolEntry,
        facts: &[Facts],
        candidates: &Candidates,
        now: Instant,
    ) -> Box<[(u32, Ramp)]> {
        if pool.pool.algorithm == Algorithm::IpHash {
            return Box::default();
        }
        let places = (0u32..).zip(&candidates.places).zip(facts.iter().zip(pool.backends.values()));
        places
            .filter(|((_, place), (facts, _))| facts.starts_slowly && place.is_candidate())
            .filter_map(|((slot, _), (_, entry))| Some((slot, self.ramp(entry, now)?)))
            .collect()
    }

    fn ramp(&self, entry: &BackendEntry, now: Instant) -> Option<Ramp> {
        let slow_start = entry.status.as_ref()?.standing.slow_start?;
        let length = slow_start.duration.min(ResiliencePolicy::SLOW_START_MAX);
        let ramp = Ramp::new(self.ramp_age(slow_start.since_unix_ms, length, now), now, length);
        (!ramp.is_over(now)).then_some(ramp)
    }

    /// How long ago a ramp of this length began. One that is yet to begin by more than its length is
    /// of a clock that was set back, and over: else each look at it would begin it anew.
    fn ramp_age(&self, since_unix_ms: u64, length: Duration, now: Instant) -> Duration {
        match Duration::from_millis(since_unix_ms) > self.clock(now) + length {
            true => length,
            false => self.age(since_unix_ms, now),
        }
    }

    /// How long the fleet would go on keeping requests from a backend; nothing, if it does not.
    fn remaining(&self, entry: &BackendEntry, now: Instant) -> Option<Duration> {
        let ejection = entry.status.as_ref()?.standing.ejection.as_ref()?;
        if ejection.is_half_open {
            return Some(Duration::ZERO);
        }
        Some(ejection.open_for.saturating_sub(self.age(ejection.since_unix_ms, now)))
    }

    /// How long ago something was by the control plane's clock. What is yet to come, because
    /// clocks were set, is now.
    pub(super) fn age(&self, since_unix_ms: u64, now: Instant) -> Duration {
        self.clock(now).saturating_sub(Duration::from_millis(since_unix_ms))
    }

    /// The control plane's clock, since the Unix epoch.
    fn clock(&self, now: Instant) -> Duration {
        let (at, unix_ms) = self.told;
        Duration::from_millis(unix_ms) + now.saturating_duration_since(at)
    }
}

/// Says when a pool begins and ceases to use backends that are not well.
pub(super) fn tell_panic(pool: &PoolName, before: Option<Panic>, candidates: &Candidates) {
    match (before, candidates.panic) {
        (None, Some(Panic::FewLeft { well, of })) => warn!(
            %pool,
            well,
            of,
            "few backends of the pool are up, so that those that accept connections are used too; \
             lbctl get backends says why they are down"
        ),
        (None, Some(Panic::AllEjected)) => warn!(
            %pool,
            "all backends of the pool that are up are ejected, and are used all the same; \
             lbctl get backends says why"
        ),
        (Some(_), None) => info!(%pool, "only backends that are up and not ejected are used again"),
        (Some(_), Some(_)) | (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn ages_are_those_of_the_control_planes_clock() {
        let mut outlook = Outlook::default();
        let start = now();
        // Its clock says that 1970 is an hour old.
        outlook.hear(3_600_000);
        let age = |outlook: &Outlook, since, later| outlook.age(since, start + later);
        let near = |age: Duration, seconds: u32| age.abs_diff(seconds * SECOND) < SECOND / 2;
        assert!(near(age(&outlook, 3_590_000, Duration::ZERO), 10));
        assert!(near(age(&outlook, 3_590_000, 20 * SECOND), 30));
        // A moment that is yet to come there is now.
        assert_eq!(age(&outlook, 9_000_000, 20 * SECOND), Duration::ZERO);
        // A ramp that began this much later was begun before the clock was set back.
        let ramp_age = |since| outlook.ramp_age(since, 30 * SECOND, start);
        assert_eq!(ramp_age(3_700_000), 30 * SECOND);
        assert_eq!(ramp_age(3_620_000), Duration::ZERO, "a clock that was set by little");
        assert!(near(ramp_age(3_590_000), 10));
        // One that tells no time is taken to have ours.
        outlook.hear(0);
        assert!(near(age(&outlook, unix_ms() - 5000, Duration::ZERO), 5));
    }

    #[test]
    fn what_was_out_is_taken_over_once() {
        let mut outlook = Outlook::default();
        assert!(outlook.takes_over, "what is on disk may speak of ejections");
        outlook.settle();
        outlook.lose();
        assert!(!outlook.takes_over, "nobody was heard in between");
        outlook.hear(0);
        outlook.lose();
        assert!(outlook.takes_over && !outlook.is_heard);
    }
}
