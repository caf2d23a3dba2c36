//! What a proxy gives up, and in which order, when it runs out of connections or memory.
//!
//! ```text
//!             gets worse: one stage with each reading
//!   Normal -> CloseIdle -> RefuseConnections -> RefuseRequests
//!   Normal <- CloseIdle <- RefuseConnections <- RefuseRequests
//!             gets better: one stage a reading, each after a quiet dwell, the last at once
//! ```
//!
//! Each stage does what those before it do, and more. First goes what nobody waits for,
//! then what has not begun, then what could be sent again; what is in flight is never given
//! up. No stage is skipped, so that a cheaper remedy is always tried before a dearer one:
//! with readings 250 ms apart the last is reached in three quarters of a second.
//!
//! A stage is left only when everything has been below its lower threshold for a whole
//! dwell; the last one at the first such reading, since while it lasts hardly anything is
//! served. The dwells of all stages run at the same time: when everything is over at once, they
//! are left a reading apart. So a load that stays the same never goes back and forth: it cannot be both above
//! the threshold at which a stage is entered and below the one at which it is left. And a
//! proxy that is worse off is never at a milder stage than one that was better off all
//! along.
//!
//! # What the caller supplies
//!
//! Connections of clients, open now, and how many there may be. Memory in use and how much
//! there may be, read once per reading, not per request:
//!
//! - *In use* is the resident set, the second number of `/proc/self/statm` times the page
//!   size: one small read, and what the kernel's out-of-memory killer counts. It contains
//!   what the allocator keeps for later; mimalloc gives that back within moments, so that
//!   the figure falls when traffic does. It does not contain the socket buffers of the
//!   kernel. In a container of its own the proxy takes `memory.current` less `inactive_file`
//!   of `memory.stat`, which counts both.
//! - *The limit* is what the operator says, else `memory.max` of the container, else none.
//!   It must be well above what an idle proxy needs: refusing traffic cannot give back what
//!   traffic did not take.
//!
//! # What the caller does in a stage
//!
//! How many idle connections are to be closed is [`Shedder::surplus`], those that have been
//! idle for longest first. How many connections there may be is what [`Places`] says: where
//! these are what runs out, as many as ever, because that bound holds at each single one and
//! lets the next in when one ends; where memory is, no more than there are.

mod places;

use std::{
    fmt,
    time::{Duration, Instant},
};

pub use self::places::Places;
use crate::model::Invalid;

/// How much a proxy gives up.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// Nothing.
    #[default]
    Normal,
    /// Connections of clients that are idle between two requests: they are closed, and
    /// answers say `Connection: close`.
    CloseIdle,
    /// New connections: they are not accepted, and wait in the system's queue until another
    /// one ends.
    RefuseConnections,
    /// New requests, on connections beyond those that there is memory for ([`Places`]): they
    /// are answered 503, reason `overloaded`, with the `Retry-After` of
    /// [`Policy::retry_after`], and closed.
    RefuseRequests,
}

impl Stage {
    /// All of them, the mildest first.
    pub const ALL: [Self; 4] =
        [Self::Normal, Self::CloseIdle, Self::RefuseConnections, Self::RefuseRequests];

    /// As metrics, the log and JSON spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::CloseIdle => "close_idle",
            Self::RefuseConnections => "refuse_connections",
            Self::RefuseRequests => "refuse_requests",
        }
    }

    /// Whether idle connections are to be closed.
    #[must_use]
    pub fn closes_idle(self) -> bool {
        self >= Self::CloseIdle
    }

    /// Whether new connections are to be refused.
    #[must_use]
    pub fn refuses_connections(self) -> bool {
        self >= Self::RefuseConnections
    }

    /// Whether new requests are to be refused.
    #[must_use]
    pub fn refuses_requests(self) -> bool {
        self >= Self::RefuseRequests
    }

    fn next(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).copied()
    }

    fn previous(self) -> Option<Self> {
        Self::ALL.get((self as usize).checked_sub(1)?).copied()
    }
}

/// What a proxy can run out of.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Resource {
    /// Connections of clients.
    Connections,
    /// Bytes of memory.
    Memory,
}

impl Resource {
    /// As metrics, the log and JSON spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Memory => "memory",
        }
    }
}

/// How much of a resource is in use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// In use.
    pub used: u64,
    /// How much there is; 0 for any amount, of which one never runs out.
    pub limit: u64,
}

impl Usage {
    /// Whether this share of the limit is in use.
    fn reaches(self, percent: u8) -> bool {
        self.limit > 0
            && u128::from(self.used) * 100 >= u128::from(self.limit) * u128::from(percent)
    }

    fn percent(self) -> u128 {
        u128::from(self.used) * 100 / u128::from(self.limit.max(1))
    }
}

/// Everything that a proxy can run out of, at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reading {
    /// Connections of clients.
    pub connections: Usage,
    /// Bytes of memory.
    pub memory: Usage,
}

/// The thresholds of one stage for one resource, in percent of its limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Band {
    /// From here on the stage is entered.
    pub enter_percent: u8,
    /// Below this it may be left.
    pub leave_percent: u8,
}

/// When stages are entered and left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Of closing idle connections, refusing connections and refusing requests, by memory;
    /// default 80, 90 and 95 %, left 5 points below.
    pub memory: [Band; 3],
    /// Of closing idle connections and refusing connections, by connections; default 90 and
    /// 100 %, left 10 points below. Requests are not refused for want of connections: those
    /// that are there may use theirs.
    pub connections: [Band; 2],
    /// How long everything must have been below a stage's lower thresholds before it is
    /// left, but for the last; default 500 ms: three readings in a row, so that all stages
    /// are over with the fourth, within two seconds.
    pub dwell: Duration,
}

impl Policy {
    /// The longest [`Self::dwell`].
    pub const DWELL_MAX: Duration = Duration::from_secs(300);

    /// Checks that each stage is left below where it is entered, that no threshold of a
    /// stage is below that of the stage before it, that none is above 100, and that the
    /// dwell is 1 ms to 5 min.
    pub fn checked(self) -> Result<Self, Invalid> {
        check_bands("proxy.overload_memory", &self.memory)?;
        check_bands("proxy.overload_connections", &self.connections)?;
        if self.dwell < Duration::from_millis(1) || self.dwell > Self::DWELL_MAX {
            return Err(Invalid::value(
                "proxy.overload_dwell",
                format!("proxy.overload_dwell {:?} is outside 1ms to 5min", self.dwell),
            ));
        }
        Ok(self)
    }

    /// What `Retry-After` says: one to two dwells in whole seconds, and a spread of 1 to 5 s
    /// at least. Sooner the stage cannot be over, and clients that were refused together must
    /// not come back together.
    #[must_use]
    pub fn retry_after(&self, rng: &mut fastrand::Rng) -> Duration {
        let least = self.dwell.as_secs().max(1);
        Duration::from_secs(rng.u64(least..=(2 * least).max(RETRY_AFTER_SPREAD)))
    }

    /// The bands of a stage; a resource that does not lead to it has none.
    fn bands(&self, stage: Stage) -> [(Resource, Option<Band>); 2] {
        let of = |bands: &[Band]| bands.get((stage as usize).checked_sub(1)?).copied();
        [(Resource::Memory, of(&self.memory)), (Resource::Connections, of(&self.connections))]
    }
}

impl Default for Policy {
    fn default() -> Self {
        let band =
            |enter_percent, width| Band { enter_percent, leave_percent: enter_percent - width };
        Self {
            memory: [band(80, 5), band(90, 5), band(95, 5)],
            connections: [band(90, 10), band(100, 10)],
            dwell: Duration::from_millis(500),
        }
    }
}

fn check_bands(field: &'static str, bands: &[Band]) -> Result<(), Invalid> {
    for (at, band) in bands.iter().enumerate() {
        let Band { enter_percent, leave_percent } = *band;
        if enter_percent > 100 || leave_percent >= enter_percent {
            return Err(Invalid::value(
                field,
                format!(
                    "{field}: a stage that is entered at {enter_percent} % and left below \
                     {leave_percent} % must be left below where it is entered, at 100 % at most"
                ),
            ));
        }
        let is_ordered = at.checked_sub(1).map(|before| bands[before]).is_none_or(|before| {
            before.enter_percent <= enter_percent && before.leave_percent <= leave_percent
        });
        if !is_ordered {
            return Err(Invalid::value(
                field,
                format!(
                    "{field}: the stage at {enter_percent} % (left below {leave_percent} %) comes \
                     after one with a higher threshold; give the stages rising thresholds"
                ),
            ));
        }
    }
    Ok(())
}

/// The latest that `Retry-After` names where dwells are short, in seconds.
const RETRY_AFTER_SPREAD: u64 = 5;

/// What led to a stage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cause {
    /// What was running out.
    pub resource: Resource,
    /// How much of it was in use.
    pub usage: Usage,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.resource {
            Resource::Connections => "connections",
            Resource::Memory => "bytes of memory",
        };
        let Usage { used, limit } = self.usage;
        write!(f, "{used} of {limit} {unit} are in use ({} %)", self.usage.percent())
    }
}

/// One step from stage to stage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change {
    /// The stage before.
    pub from: Stage,
    /// The stage now.
    pub to: Stage,
    /// What led to the graver one of both: why it was entered, or what has passed.
    pub cause: Cause,
}

/// The stage of one proxy.
#[derive(Clone, Debug)]
pub struct Shedder {
    policy: Policy,
    stage: Stage,
    /// What led to each stage that is in force, the mildest first.
    causes: Vec<Cause>,
    /// Since when everything has been below the lower thresholds of each stage, the mildest
    /// first, whether it is in force or not.
    calm_since: [Option<Instant>; 3],
}

impl Shedder {
    /// A proxy that gives up nothing. The policy must have been [`Policy::checked`].
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, stage: Stage::Normal, causes: Vec::new(), calm_since: [None; 3] }
    }

    /// The stage now.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What led to the stage; none in [`Stage::Normal`].
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.causes.last().copied()
    }

    /// Takes a reading; call it every 250 ms, and whenever a limit changes. Moves by one
    /// stage at most.
    pub fn observe(&mut self, reading: &Reading, now: Instant) -> Option<Change> {
        self.note_calm(reading, now);
        let from = self.stage;
        if let Some((next, cause)) = self.worse(reading) {
            self.stage = next;
            self.causes.push(cause);
            return Some(Change { from, to: next, cause });
        }
        let previous = from.previous()?;
        let calm_since = self.calm_since[previous as usize]?;
        // Requests are refused for no longer than must be: nobody is served meanwhile.
        let dwell = if from.refuses_requests() { Duration::ZERO } else { self.policy.dwell };
        if now.saturating_duration_since(calm_since) < dwell {
            return None;
        }
        self.stage = previous;
        self.causes.pop().map(|cause| Change { from, to: previous, cause })
    }

    fn note_calm(&mut self, reading: &Reading, now: Instant) {
        for (at, stage) in Stage::ALL.into_iter().skip(1).enumerate() {
            if self.presses(reading, stage) {
                self.calm_since[at] = None;
            } else {
                self.calm_since[at].get_or_insert(now);
            }
        }
    }

    /// How many connections are to be closed that are idle between two requests: as many as
    /// keep the stage from being left, and all of them when memory is what runs out, whatever
    /// little each of them holds.
    #[must_use]
    pub fn surplus(&self, reading: &Reading) -> u64 {
        if !self.stage.closes_idle() {
            return 0;
        }
        let [memory, connections] = self.policy.bands(Stage::CloseIdle);
        if self.is_short_of_memory(Stage::CloseIdle, reading, memory.1) {
            return u64::MAX;
        }
        let Usage { used, limit } = reading.connections;
        let leave = u64::from(connections.1.map_or(100, |band| band.leave_percent));
        // The fewest that reach the lower threshold are one too many.
        let reaching = limit / 100 * leave + (limit % 100 * leave).div_ceil(100);
        used.saturating_sub(reaching.saturating_sub(1))
    }

    /// Whether there must be no more connections than there are, since memory runs out.
    fn holds_connections(&self, reading: &Reading) -> bool {
        let stage = Stage::RefuseConnections;
        let [memory, _] = self.policy.bands(stage);
        self.stage >= stage && self.is_short_of_memory(stage, reading, memory.1)
    }

    /// Whether memory led to this stage or a graver one, or would keep it from being left.
    fn is_short_of_memory(&self, stage: Stage, reading: &Reading, band: Option<Band>) -> bool {
        let first = (stage as usize).saturating_sub(1);
        self.causes.iter().skip(first).any(|cause| cause.resource == Resource::Memory)
            || band.is_some_and(|band| reading.memory.reaches(band.leave_percent))
    }

    /// The next stage, if something reaches its upper threshold.
    fn worse(&self, reading: &Reading) -> Option<(Stage, Cause)> {
        let next = self.stage.next()?;
        self.policy
            .bands(next)
            .into_iter()
            .map(|(resource, band)| (Cause { resource, usage: reading.usage(resource) }, band))
            .find(|(cause, band)| band.is_some_and(|band| cause.usage.reaches(band.enter_percent)))
            .map(|(cause, _)| (next, cause))
    }

    /// Whether something reaches the lower threshold of a stage, so that it must not be
    /// left.
    fn presses(&self, reading: &Reading, stage: Stage) -> bool {
        self.policy.bands(stage).into_iter().any(|(resource, band)| {
            band.is_some_and(|band| reading.usage(resource).reaches(band.leave_percent))
        })
    }
}

impl Reading {
    fn usage(&self, resource: Resource) -> Usage {
        match resource {
            Resource::Connections => self.connections,
            Resource::Memory => self.memory,
        }
    }
}

#[cfg(test)]
mod tests;
