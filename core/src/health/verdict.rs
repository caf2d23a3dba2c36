//! The verdict about each backend of a pool: what the active check says, set against what
//! the proxies see.
//!
//! There is one prober, and its network may be broken while everybody else's is fine. So
//! a check that fails because it cannot *reach* a backend does not take it down while
//! proxies are served by it: the backend stays up, and the verdict says who sees what. A
//! check that fails by a status always counts: the application has spoken.
//!
//! Only successes that were reported after the check began to fail speak against it, so
//! that a backend that dies is taken down as fast as without this.
//!
//! When more than 30 % of a pool would go down at about the same time because they cannot be
//! reached, and proxies contradict most of those that they know about, *in whichever pool those
//! are*, the prober is not believed about the rest either, of which no proxy has seen anything:
//! it is the prober that is cut off. Without contradiction, nothing is delayed.
//!
//! A pool is not emptied by a lull in its traffic: where nothing else in it would be up, whoever
//! was served after the check had begun to fail has proved the check wrong until a request fails,
//! or for a few minutes. Else nothing could ever contradict again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    model::{Address, Health, ProxyId, Reason},
    resilience::sightings::Sightings,
};

/// How long what proxies saw speaks for itself.
pub const RECENT: Duration = Duration::from_secs(5);

/// How long a success proves a check wrong that had begun to fail before it, unless a request
/// fails, where nothing else in the pool is up.
pub const PROVED: Duration = Duration::from_secs(300);

/// A pool is in trouble, or its prober is, when more than this goes down at about the same time.
const BLAST_PERCENT: usize = 30;

/// Checks fail at about the same time if they began to within this: the time between two probes
/// and as many as it takes to be down.
const SAME_TIME: Duration = Duration::from_secs(30);

/// What is known about one backend.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Where it is: the same address in another pool is the same server.
    pub address: &'a Address,
    /// What the active check makes of it by its thresholds.
    pub check: Health,
    /// What the last probe came to.
    pub reason: &'a Reason,
    /// When the first of the failures in a row was, if the last probe failed.
    pub failing_since: Option<Instant>,
    /// The last verdict.
    pub was: Health,
    /// What the proxies see.
    pub sightings: &'a Sightings,
}

/// What the fleet believes of a backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// Whether it gets traffic.
    pub health: Health,
    /// Why.
    pub reason: Reason,
    /// Who sees what, if not all see the same.
    pub disagreement: Option<Disagreement>,
}

/// Those who do not see the same of one backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Disagreement {
    /// Whether the check's last probe passed.
    pub check_passes: bool,
    /// Proxies that get nothing but transport failures.
    pub failing: Vec<ProxyId>,
    /// Proxies that are served.
    pub serving: Vec<ProxyId>,
}

/// What proxies see, in all pools, of the backends that the check cannot reach.
#[derive(Debug, Default)]
pub struct Reach<'a> {
    /// When proxies were served at an address last, whatever the checks of it say.
    served: BTreeMap<&'a Address, Instant>,
    /// Addresses at which they were served although the check had failed, and when last.
    contradicted: BTreeMap<&'a Address, Instant>,
    /// Addresses that they cannot reach either.
    confirmed: BTreeSet<&'a Address>,
}

impl<'a> Reach<'a> {
    /// Of all backends in all pools at the addresses that a check cannot reach.
    #[must_use]
    pub fn of(backends: &[Evidence<'a>], now: Instant) -> Self {
        let mut reach = Self::default();
        for evidence in backends {
            let views = evidence.sightings.views(RECENT, now);
            if let Some(success) = evidence.sightings.last_success(PROVED, now)
                && views.serving.len() >= views.failing.len()
            {
                let last = reach.served.entry(evidence.address).or_insert(success);
                *last = success.max(*last);
            }
        }
        for evidence in backends.iter().filter(|evidence| evidence.would_fall()) {
            let seen = Seen::of(evidence, PROVED, now);
            let success = reach.served.get(evidence.address).copied();
            let news = success.zip(evidence.failing_since).filter(|(at, failing)| at > failing);
            if seen.speaks_against_it() {
                reach.confirmed.insert(evidence.address);
            } else if let Some((success, _)) = news {
                reach.contradicted.insert(evidence.address, success);
            }
        }
        reach.confirmed.retain(|address| !reach.contradicted.contains_key(address));
        reach
    }

    /// Whether the prober is believed about nothing that it cannot reach.
    fn prober_is_cut_off(&self, within: Duration, now: Instant) -> bool {
        let successes = self.contradicted.values();
        successes.filter(|at| is_within(**at, within, now)).count() > self.confirmed.len()
    }

    /// Whether proxies were served at this address, in any pool, after the check had begun to
    /// fail.
    fn contradicts(&self, evidence: &Evidence<'_>, within: Duration, now: Instant) -> bool {
        let success = self.served.get(evidence.address);
        let success = success.filter(|at| is_within(**at, within, now));
        success.zip(evidence.failing_since).is_some_and(|(success, failing)| *success > failing)
    }
}

/// Judges enabled backends of one pool, in their order. If the check of any has failed, they
/// must be all of the pool's, and `reach` must be known.
#[must_use]
pub fn judge(pool: &[Evidence<'_>], reach: &Reach<'_>, now: Instant) -> Vec<Verdict> {
    let verdicts = judge_by(pool, reach, RECENT, now);
    let is_empty = verdicts.iter().all(|verdict| verdict.health != Health::Up);
    if is_empty && pool.iter().any(Evidence::would_fall) {
        return judge_by(pool, reach, PROVED, now);
    }
    verdicts
}

/// Judges by what was proved `within` so much time.
fn judge_by(
    pool: &[Evidence<'_>],
    reach: &Reach<'_>,
    within: Duration,
    now: Instant,
) -> Vec<Verdict> {
    let falling = pool.iter().filter(|evidence| evidence.falls(now)).count();
    let is_blast = falling * 100 > pool.len() * BLAST_PERCENT;
    let prober_is_cut_off = is_blast && reach.prober_is_cut_off(within, now);
    let verdict = |evidence: &Evidence<'_>| {
        let seen = Seen::of(evidence, within, now);
        let is_reached = reach.contradicts(evidence, within, now);
        verdict(evidence, seen, is_reached, prober_is_cut_off)
    };
    pool.iter().map(verdict).collect()
}

/// `is_reached` says that proxies were served at its address, `prober_is_cut_off` that it is not
/// the backend's fault if the check cannot reach it.
fn verdict(
    evidence: &Evidence<'_>,
    seen: Seen,
    is_reached: bool,
    prober_is_cut_off: bool,
) -> Verdict {
    let would_fall = evidence.would_fall();
    let served_here = would_fall && seen.speaks_for_it.is_some();
    let served_elsewhere = would_fall && is_reached && !seen.speaks_against_it();
    let spared = would_fall && prober_is_cut_off && seen.is_silent();
    let cause = &evidence.reason.message;
    let serving = &seen.disagreement.serving;
    let contradicted = |message| (Health::Up, Reason::new("check_contradicted", message));
    let (health, reason) = if served_here && !serving.is_empty() {
        contradicted(format!("the check cannot reach it, but {} can: {cause}", named(serving)))
    } else if served_here {
        contradicted(format!(
            "the check cannot reach it, but proxies could since, and no request has failed: {cause}"
        ))
    } else if served_elsewhere {
        contradicted(format!(
            "the check cannot reach it, but proxies can reach its address in another pool: {cause}"
        ))
    } else if spared {
        contradicted(format!(
            "the check cannot reach it, nor others that proxies can reach, and is not believed: \
             {cause}"
        ))
    } else {
        (evidence.check, evidence.reason.clone())
    };
    let Disagreement { check_passes, failing, serving } = &seen.disagreement;
    let not_all_fail = *check_passes || !serving.is_empty();
    let not_all_work = !check_passes || !failing.is_empty();
    let anybody = !failing.is_empty() || !serving.is_empty();
    let differ = anybody && not_all_fail && not_all_work && evidence.check != Health::Unknown;
    Verdict { health, reason, disagreement: differ.then_some(seen.disagreement) }
}

impl Evidence<'_> {
    /// Whether the check has taken it down because it could not be reached.
    fn is_cut_off(&self) -> bool {
        self.check == Health::Down && is_unreachable(self.reason)
    }

    /// Whether it goes down for that.
    #[must_use]
    pub fn would_fall(&self) -> bool {
        self.was == Health::Up && self.is_cut_off()
    }

    /// Whether it does, or has just gone.
    fn falls(&self, now: Instant) -> bool {
        let has_just = || self.failing_since.is_some_and(|since| is_within(since, SAME_TIME, now));
        self.is_cut_off() && (self.was == Health::Up || has_just())
    }
}

fn is_within(at: Instant, window: Duration, now: Instant) -> bool {
    now.saturating_duration_since(at) <= window
}

/// Whether a probe that failed for this reason may have failed because of its path.
fn is_unreachable(reason: &Reason) -> bool {
    matches!(
        reason.code.as_str(),
        "backend_connect_refused"
            | "backend_connect_timeout"
            | "backend_reset"
            | "backend_timeout"
            | "dns_failure"
    )
}

/// What the proxies see of one backend.
struct Seen {
    disagreement: Disagreement,
    /// When they were served last, if that is since the check has failed, and most of them are.
    speaks_for_it: Option<Instant>,
}

impl Seen {
    fn of(evidence: &Evidence<'_>, within: Duration, now: Instant) -> Self {
        let proxies = evidence.sightings.views(RECENT, now);
        let last_success = evidence.sightings.last_success(within, now);
        let news = last_success
            .zip(evidence.failing_since)
            .filter(|(success, failing)| success > failing)
            .map(|(success, _)| success);
        Self {
            speaks_for_it: news.filter(|_| proxies.serving.len() >= proxies.failing.len()),
            disagreement: Disagreement {
                check_passes: evidence.failing_since.is_none(),
                failing: proxies.failing,
                serving: proxies.serving,
            },
        }
    }

    fn speaks_against_it(&self) -> bool {
        self.speaks_for_it.is_none() && !self.disagreement.failing.is_empty()
    }

    fn is_silent(&self) -> bool {
        self.disagreement.failing.is_empty() && self.disagreement.serving.is_empty()
    }
}

/// The first few of some proxies, for people.
fn named(proxies: &[ProxyId]) -> String {
    const SHOWN: usize = 3;
    let names: Vec<&str> = proxies.iter().take(SHOWN).map(ProxyId::as_str).collect();
    let more = proxies.len().saturating_sub(SHOWN);
    let noun = if proxies.len() == 1 { "proxy" } else { "proxies" };
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{noun} {}{rest}", names.join(", "))
}

#[cfg(test)]
mod tests;
