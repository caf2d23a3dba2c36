//! The breaker of one backend, for the whole fleet.
//!
//! ```text
//!          failures in a row, or their share; if the pool can spare it
//!   Closed ------------------------------------------------------------> Open
//!     ^                                                                  |  ^
//!     | successes, one at a time;              its time has passed       |  | a probe
//!     | passing checks, if nobody sends        v                         |  | fails
//!     +------------------------------------ HalfOpen --------------------+--+
//! ```
//!
//! *Closed* means that traffic flows, as in an electrical circuit. It runs on the control
//! plane, from what proxies report, so that a backend costs the fleet five failures and
//! not five for each proxy. *HalfOpen* admits one request at a time, at one proxy: see
//! [`super::probe`].
//!
//! How long it stays open doubles with each time in a row. What is a row is forgotten
//! after ten times the last open time without opening again, at most five minutes.
//!
//! It knows nothing of the pool: whether a backend may be spared is asked when it is to
//! open. One that may not goes on as closed, and asks again while the reason stands.

mod anew;
mod event;
mod heard;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use self::heard::AllHeard;
pub use self::{
    event::{Cause, ClosedBy, Event, Phase},
    heard::Reporter,
};
use super::{
    ejection::Refused,
    hearing::Jury,
    probe::{ProbeState, ProbeToken, ProbeWord, TOKEN_LIFE, TokenId, USE_MAX},
    sightings::{Sightings, Traffic},
};
use crate::model::{BreakerPolicy, ProxyId};

/// Decides whether a backend gets requests.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// Counts half-open times, so that what belongs to an earlier one is known by it.
    term: u64,
    /// Of tokens; never begins anew within a process.
    sequence: u64,
    /// Times open in a row.
    opens: u32,
    sightings: Sightings,
    /// After how long without a word a process is lost.
    lease: Duration,
    heard: AllHeard,
    /// Whoever had the last token is last to get another.
    last_holder: Option<ProxyId>,
    /// Why it is not open although it should be.
    refused: Option<Refused>,
}

/// Whether traffic flows.
#[derive(Debug)]
enum State {
    Closed {
        /// When times open in a row are forgotten.
        quiet_at: Option<Instant>,
    },
    Open {
        until: Instant,
    },
    HalfOpen(Trial),
}

#[derive(Debug, Default)]
struct Trial {
    successes: u32,
    probe: Option<Probe>,
    /// Tokens in a row that nobody had a request for.
    unused: u32,
    /// Active checks that passed in a row.
    passes: u32,
}

/// The token that is out.
#[derive(Debug)]
struct Probe {
    id: TokenId,
    reporter: Reporter,
    given: Instant,
    /// When the report that it answers was sent, by its proxy's clock.
    asked: Duration,
    in_use: bool,
}

/// One report of one process of a proxy about one backend.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whose.
    pub reporter: Reporter,
    /// When it was sent: time since that process started, by its own monotonic
    /// clock. A report that was not sent after the last one heard is passed over.
    pub sent: Duration,
    /// What requests have come to since the last report.
    pub traffic: Traffic,
    /// What it says about a token.
    pub probe: Option<ProbeWord>,
}

/// Active checks in a row that close a breaker which nobody has a request for.
const PASSES: u32 = 2;
/// Tokens in a row that nobody used: the pool has traffic, and none for this backend.
const UNUSED_MAX: u32 = 3;
/// The most that is added to an open time, as a share of it, so that backends that
/// failed together are not tried together.
const JITTER: f64 = 0.5;
/// Times open are forgotten after so many times the last open time,
const QUIET_FACTOR: u32 = 10;
/// or this, if it is less.
const QUIET_MAX: Duration = Duration::from_secs(300);

impl Breaker {
    /// A closed one. `term` must be higher than any term that an earlier process of the control
    /// plane may have given out tokens for this backend in. `lease` is the time without a word
    /// after which a process of a proxy is lost.
    #[must_use]
    pub fn new(term: u64, lease: Duration) -> Self {
        Self {
            state: State::Closed { quiet_at: None },
            term,
            sequence: 0,
            opens: 0,
            sightings: Sightings::new(),
            lease,
            heard: AllHeard::default(),
            last_holder: None,
            refused: None,
        }
    }

    /// One that was open, or half-open, when an earlier process ended. `until` must leave
    /// the proxies time to report, or to be lost: a lease from now. Only then is it known
    /// that none still has a request under way by a token of that process.
    #[must_use]
    pub fn resumed(term: u64, lease: Duration, times: u32, until: Instant) -> Self {
        Self { state: State::Open { until }, opens: times.max(1), ..Self::new(term, lease) }
    }

    /// Whether traffic flows.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Closed { .. } => Phase::Closed,
            State::Open { until } => Phase::Open { until: *until },
            State::HalfOpen(trial) => Phase::HalfOpen { successes: trial.successes },
        }
    }

    /// Which half-open time it is, or was the last; see [`TokenId::term`].
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Which proxy has the token, if one is out.
    #[must_use]
    pub fn holder(&self) -> Option<&ProxyId> {
        let State::HalfOpen(trial) = &self.state else { return None };
        trial.probe.as_ref().map(|probe| &probe.reporter.proxy)
    }

    /// Proxies that still have a request under way by an earlier token: while there are
    /// any, no other is given out.
    pub fn claimants(&self, now: Instant) -> impl Iterator<Item = &ProxyId> {
        self.heard.claimants(self.lease, now).map(|reporter| &reporter.proxy)
    }

    /// Times open in a row, this one included.
    #[must_use]
    pub fn times(&self) -> u32 {
        self.opens
    }

    /// Failures in a row over all proxies whose word counts, while it is closed.
    #[must_use]
    pub fn failures_in_a_row(&self, now: Instant) -> u64 {
        let (run, _, _) = self.sightings.sums(now);
        run
    }

    /// Why it is not open although it should be.
    #[must_use]
    pub fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// What the proxies see: verdicts rest on it too.
    #[must_use]
    pub fn sightings(&self) -> &Sightings {
        &self.sightings
    }

    /// Takes a report in. What it changes beside a probe's outcome, [`Self::advance`]
    /// tells.
    pub fn report(
        &mut self,
        policy: &BreakerPolicy,
        report: &Report,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Event> {
        let Report { reporter, sent, traffic, probe: word } = report;
        if self.heard.sent(reporter).is_some_and(|last| *sent <= last) {
            return None;
        }
        self.sightings.record(&reporter.proxy, *traffic, policy.window, now);
        let outcome = self.settle(reporter, *sent, *word);
        let is_ours = word.is_some_and(|word| self.is_out(reporter, word.id));
        let in_use = matches!(word, Some(ProbeWord { state: ProbeState::InUse, .. }));
        self.heard.note(reporter, *sent, in_use && !is_ours, self.lease, now);
        match outcome? {
            true => self.succeeded(policy, now),
            false => Some(self.open(policy, Cause::ProbeFailed, now, rng)),
        }
    }

    /// Hears that a process has ended, or was not heard of for a lease.
    pub fn lost(
        &mut self,
        policy: &BreakerPolicy,
        reporter: &Reporter,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Event> {
        if self.heard.forget(reporter) {
            self.sightings.forget(&reporter.proxy);
        }
        let State::HalfOpen(trial) = &mut self.state else { return None };
        let probe = trial.probe.take_if(|probe| probe.reporter == *reporter)?;
        probe.in_use.then(|| self.open(policy, Cause::ProbeLost, now, rng))
    }

    /// Forgets what a proxy said that will not come back: it keeps nothing waiting any more.
    pub fn forget(&mut self, proxy: &ProxyId) {
        self.heard.forget_proxy(proxy);
        self.sightings.forget(proxy);
    }

    /// Hears of an active check of this backend.
    pub fn checked(&mut self, passed: bool) {
        if let State::HalfOpen(trial) = &mut self.state {
            trial.passes = if passed { trial.passes.saturating_add(1) } else { 0 };
        }
    }

    /// Moves with time; to be called after reports and a few times a second.
    ///
    /// `has_traffic` tells whether the pool had requests lately, `jury` who has told what it saw
    /// since when. `admit` is asked once, if the breaker is to open, whether the pool can spare the
    /// backend.
    pub fn advance(
        &mut self,
        policy: &BreakerPolicy,
        has_traffic: bool,
        jury: &Jury,
        admit: impl FnOnce() -> Result<(), Refused>,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Event> {
        self.let_lapse(now);
        self.sightings.weigh(jury, policy.window, now);
        match &self.state {
            State::Closed { quiet_at } => {
                if quiet_at.is_some_and(|at| now >= at) {
                    self.opens = 0;
                    self.state = State::Closed { quiet_at: None };
                }
                let Some(cause) = self.trips(policy, now) else {
                    self.refused = None;
                    return None;
                };
                match admit() {
                    Ok(()) => Some(self.open(policy, cause, now, rng)),
                    Err(refused) => {
                        let is_news = self.refused.replace(refused) != Some(refused);
                        is_news.then_some(Event::Refused { cause, refused })
                    }
                }
            }
            State::Open { .. } | State::HalfOpen(_) if policy.is_off() => self.release(policy, now),
            State::Open { until } if now >= *until => {
                self.term += 1;
                self.state = State::HalfOpen(Trial::default());
                Some(Event::HalfOpened)
            }
            State::Open { .. } => None,
            State::HalfOpen(trial) => {
                let nobody_sends =
                    trial.probe.is_none() && (!has_traffic || trial.unused >= UNUSED_MAX);
                (nobody_sends && trial.passes >= PASSES)
                    .then(|| self.close(policy, ClosedBy::Checks, now))
            }
        }
    }

    /// Asks for a token in the answer to a report of this process, which was sent at `sent`
    /// by its clock and whose pool has traffic there. `others` tells whether the pool has
    /// traffic at another proxy that reports: one that had the last token waits for
    /// them.
    pub fn offer(
        &mut self,
        reporter: &Reporter,
        sent: Duration,
        others: bool,
        now: Instant,
    ) -> Option<ProbeToken> {
        let is_claimed = self.claimants(now).next().is_some();
        let State::HalfOpen(trial) = &mut self.state else { return None };
        let is_due = trial.probe.is_none()
            && !is_claimed
            // An answer to anything but its last report would begin a life that is past.
            && self.heard.sent(reporter) == Some(sent)
            && !(others && self.last_holder.as_ref() == Some(&reporter.proxy));
        if !is_due {
            return None;
        }
        self.sequence += 1;
        let id = TokenId { term: self.term, sequence: self.sequence };
        let reporter = reporter.clone();
        self.last_holder = Some(reporter.proxy.clone());
        trial.probe = Some(Probe { id, reporter, given: now, asked: sent, in_use: false });
        Some(ProbeToken { id, life: TOKEN_LIFE })
    }

    /// Why a closed breaker is to open.
    fn trips(&self, policy: &BreakerPolicy, now: Instant) -> Option<Cause> {
        let (run, failures, requests) = self.sightings.sums(now);
        if policy.consecutive_failures > 0 && run >= policy.consecutive_failures.into() {
            return Some(Cause::Consecutive { failures: run });
        }
        let is_much = failures * 100 >= requests * u64::from(policy.failure_ratio_percent);
        let is_known = requests >= policy.min_requests.into();
        (policy.failure_ratio_percent > 0 && is_known && is_much)
            .then_some(Cause::Ratio { failures, requests })
    }

    /// What a report says about the token that is out: whether its request succeeded, if
    /// it has ended.
    fn settle(
        &mut self,
        reporter: &Reporter,
        sent: Duration,
        word: Option<ProbeWord>,
    ) -> Option<bool> {
        let State::HalfOpen(trial) = &mut self.state else { return None };
        let probe = trial.probe.as_mut().filter(|probe| probe.reporter == *reporter)?;
        match word.filter(|word| word.id == probe.id).map(|word| word.state) {
            Some(ProbeState::InUse) => {
                probe.in_use = true;
                None
            }
            Some(ended) => {
                trial.probe = None;
                trial.unused = 0;
                Some(ended == ProbeState::Succeeded)
            }
            // Its client went away.
            None if probe.in_use => {
                trial.probe = None;
                None
            }
            None if sent >= probe.asked + TOKEN_LIFE => {
                trial.probe = None;
                trial.unused += 1;
                None
            }
            None => None,
        }
    }

    /// Waits no longer for a token whose request must have ended, or decides nothing any more:
    /// its proxy has given it up by then, unless it does not report.
    fn let_lapse(&mut self, now: Instant) {
        let lasts = TOKEN_LIFE + USE_MAX + self.lease;
        if let State::HalfOpen(trial) = &mut self.state {
            trial.probe.take_if(|probe| now.saturating_duration_since(probe.given) >= lasts);
        }
    }

    fn is_out(&self, reporter: &Reporter, id: TokenId) -> bool {
        let State::HalfOpen(Trial { probe: Some(probe), .. }) = &self.state else { return false };
        probe.id == id && probe.reporter == *reporter
    }

    fn succeeded(&mut self, policy: &BreakerPolicy, now: Instant) -> Option<Event> {
        let State::HalfOpen(trial) = &mut self.state else { return None };
        trial.successes += 1;
        (trial.successes >= policy.successes).then(|| self.close(policy, ClosedBy::Probes, now))
    }

    fn open(
        &mut self,
        policy: &BreakerPolicy,
        cause: Cause,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Event {
        let lasts = open_time(policy, self.opens).mul_f64(1.0 + JITTER * rng.f64());
        self.opens = self.opens.saturating_add(1);
        self.refused = None;
        self.state = State::Open { until: now + lasts };
        Event::Opened { cause, lasts, times: self.opens }
    }

    fn close(&mut self, policy: &BreakerPolicy, by: ClosedBy, now: Instant) -> Event {
        // What was seen before says nothing about the backend as it is now.
        self.sightings.clear();
        let last = open_time(policy, self.opens.saturating_sub(1));
        let quiet = last.saturating_mul(QUIET_FACTOR).min(QUIET_MAX);
        self.state = State::Closed { quiet_at: Some(now + quiet) };
        Event::Closed { by }
    }
}

/// How long a breaker, or a proxy by itself, stays away after having done so `before`
/// times in a row, before jitter.
pub(super) fn open_time(policy: &BreakerPolicy, before: u32) -> Duration {
    let doubled = 2_u32.checked_pow(before).unwrap_or(u32::MAX);
    policy.open.saturating_mul(doubled).min(policy.open_max)
}
