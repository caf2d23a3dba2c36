//! What the proxies of the fleet see of one backend.
//!
//! A proxy may be the only one that cannot reach a backend: a broken path, a firewall. Its
//! failures then say something about itself. So the word of a proxy that has got nothing
//! but transport failures since its last success is left out while others are served,
//! unless most of them fail too; it avoids the backend by itself ([`super::local`]), and
//! the fleet shows a disagreement: [`Sightings::disagreement`]. A status is never left out: whoever got one has
//! reached the backend.
//!
//! Nor is a response that has begun, however long its body takes: whoever gets one is served for
//! now, and contradicts those that are not. Only its end tells whether it was a success. If it
//! breaks off, that is a failure of its own proxy, which has been served no more since then, and
//! whose next responses say nothing before one is complete, or a window has passed. What its proxy
//! had failed with before is judged by what the others see, as if nothing had begun.
//! A body that merely goes on says nothing: a backend that shuts down completes what it has, and
//! takes nothing new.
//!
//! Who fails tells so at once, who is served at the end of a period, and both may be late. So a
//! failure that may be one proxy's own affair waits until the others have told what they saw
//! since: see `doubt.rs`.

mod doubt;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    ops::AddAssign,
    time::{Duration, Instant},
};

use self::doubt::{Doubt, Doubts};
use super::{hearing::Jury, window::Window};
use crate::model::ProxyId;

/// How requests to one backend ended. Those that clients broke off, or got wrong, are
/// not in it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Outcomes {
    /// Answered with a status below 500.
    pub successes: u32,
    /// No connection, a reset, no answer in time, no valid HTTP.
    pub transport: u32,
    /// Answered with 502, 503 or 504.
    pub gateway: u32,
    /// Answered with any other status from 500 on.
    pub other: u32,
}

impl Outcomes {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        u64::from(self.successes) + self.failures()
    }

    /// Those that were no success.
    #[must_use]
    pub fn failures(&self) -> u64 {
        u64::from(self.transport) + u64::from(self.gateway) + u64::from(self.other)
    }
}

impl AddAssign for Outcomes {
    fn add_assign(&mut self, other: Self) {
        self.successes = self.successes.saturating_add(other.successes);
        self.transport = self.transport.saturating_add(other.transport);
        self.gateway = self.gateway.saturating_add(other.gateway);
        self.other = self.other.saturating_add(other.other);
    }
}

/// What one proxy saw of one backend since its last report.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    /// How requests ended.
    pub outcomes: Outcomes,
    /// A response that is no failure began, and was not complete at once: the backend was
    /// reached. How that request ends, `outcomes` of this report or a later one tell; so what
    /// has only begun changes no sum: it adds nothing, it ends no row of failures, and it decides
    /// nothing about those that its proxy had before.
    pub answered: bool,
    /// Responses that had begun may be among the failures of transport: not all of them are
    /// failures to connect.
    pub broke_off: bool,
    /// Failures of transport and gateway since the last success of the period; all of
    /// them, if it had none.
    pub trailing_failures: u32,
    /// All of it has happened after this; nothing if that is not known. See
    /// [`super::hearing::Hearing::tells_since`].
    pub since: Option<Instant>,
}

/// What all proxies see of one backend.
#[derive(Clone, Debug, Default)]
pub struct Sightings {
    proxies: BTreeMap<ProxyId, Sight>,
    /// The last success of those that are forgotten. It goes on to speak for the backend: a
    /// proxy that is restarted takes nothing of that with it.
    former_success: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Sight {
    window: Window<Outcomes, { STEPS as usize }>,
    /// Failures since the fleet's last success.
    run: u64,
    /// Those that may be its own affair.
    doubts: Doubts,
    /// Since when it has got nothing but transport failures.
    failing_since: Option<Instant>,
    /// When its last success was heard of, or a response that had begun and was believed.
    last_success: Option<Instant>,
    /// When that happened, at the earliest.
    last_success_after: Option<Instant>,
    /// When it was heard that a response may have broken off, if none was complete since.
    broke_off: Option<Instant>,
    last: Instant,
}

/// Who sees what.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Views {
    /// Those that get nothing but transport failures.
    pub failing: Vec<ProxyId>,
    /// Those that have been served recently and still are.
    pub serving: Vec<ProxyId>,
}

/// Steps of a window.
const STEPS: u32 = 10;

impl Sightings {
    /// Nothing was seen.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts what a proxy reported at `now`; sums are over `window`.
    pub fn record(&mut self, proxy: &ProxyId, traffic: Traffic, window: Duration, now: Instant) {
        let Traffic { outcomes, answered, broke_off, trailing_failures, since } = traffic;
        if outcomes.total() == 0 && !answered {
            return;
        }
        if outcomes.successes > 0 {
            self.proxies.values_mut().for_each(Sight::end_run);
        }
        let fresh = || Sight {
            window: Window::new(window / STEPS, now),
            run: 0,
            doubts: Doubts::default(),
            failing_since: None,
            last_success: None,
            last_success_after: None,
            broke_off: None,
            last: now,
        };
        let sight = self.proxies.entry(proxy.clone()).or_insert_with(fresh);
        if sight.window.step() != window / STEPS {
            // The policy has changed.
            sight.window = Window::new(window / STEPS, now);
        }
        sight.last = now;
        if outcomes.successes > 0 || answered {
            // What failed in the same report may have failed after it.
            let is_in_vain = outcomes.successes == 0
                && sight.broke_off.is_some_and(|at| is_recent(at, window, now));
            sight.last_success = (!is_in_vain).then_some(now);
            sight.last_success_after = since.filter(|_| !is_in_vain);
            sight.broke_off = sight.broke_off.filter(|_| is_in_vain);
            sight.failing_since = None;
        }
        if broke_off && trailing_failures > 0 {
            sight.broke_off = Some(now);
        }
        let only_transport = outcomes.gateway == 0
            && outcomes.other == 0
            && trailing_failures > 0
            && outcomes.transport >= trailing_failures;
        if only_transport {
            let failing_since = *sight.failing_since.get_or_insert(now);
            let successes = Outcomes { successes: outcomes.successes, ..Outcomes::default() };
            sight.window.add(now, successes);
            let failures = Outcomes { successes: 0, ..outcomes };
            let run = trailing_failures;
            sight.doubts.add(Doubt { at: now, failing_since, failures, run });
        } else {
            sight.failing_since = None;
            if outcomes.failures() > 0 {
                // It got a status: so it did not fail for want of a way there.
                let (failures, run) = sight.doubts.take();
                sight.count(failures, run, now);
            }
            sight.count(outcomes, trailing_failures.into(), now);
        }
    }

    /// Forgets a proxy that is lost or has restarted.
    pub fn forget(&mut self, proxy: &ProxyId) {
        let sight = self.proxies.remove(proxy).filter(|sight| sight.failing_since.is_none());
        self.former_success = self.former_success.max(sight.and_then(|sight| sight.last_success));
    }

    /// Forgets everything: the backend begins anew.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Who failed and who was served within `window` before `now`, if there are both.
    #[must_use]
    pub fn disagreement(&self, window: Duration, now: Instant) -> Option<Views> {
        let views = self.views(window, now);
        let both = !views.failing.is_empty() && !views.serving.is_empty();
        both.then_some(views)
    }

    /// Who gets nothing but transport failures, and who is served, within `window`.
    #[must_use]
    pub fn views(&self, window: Duration, now: Instant) -> Views {
        let names = |rule: &dyn Fn(&Sight) -> bool| {
            let matching = self.proxies.iter().filter(|(_, sight)| rule(sight));
            matching.map(|(proxy, _)| proxy.clone()).collect()
        };
        Views {
            failing: names(&|sight| sight.is_failing(window, now)),
            serving: names(&|sight| sight.served(window, now).is_some()),
        }
    }

    /// The last success of a proxy that is still served, within `window`.
    #[must_use]
    pub fn last_success(&self, window: Duration, now: Instant) -> Option<Instant> {
        self.proxies.values().filter_map(|sight| sight.served(window, now)).max()
    }

    /// The fleet's failures in a row, and its sums, of all whose word counts so far.
    pub(super) fn sums(&self, now: Instant) -> (u64, u64, u64) {
        let (mut run, mut failures, mut total) = (0, 0, 0);
        for sight in self.proxies.values() {
            let outcomes = sight.window.sum(now);
            run += sight.run;
            failures += outcomes.failures();
            total += outcomes.total();
        }
        (run, failures, total)
    }

    /// Whether there are failures that wait for the word of others.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.proxies.values().any(|sight| sight.doubts.are_waiting())
    }

    /// Decides about failures that may be one proxy's own affair, as far as the others have told
    /// what they saw since.
    pub fn weigh(&mut self, jury: &Jury, window: Duration, now: Instant) {
        let doubtful = self.proxies.iter().filter(|(_, sight)| sight.doubts.are_waiting());
        let doubtful: Vec<ProxyId> = doubtful.map(|(proxy, _)| proxy.clone()).collect();
        for proxy in doubtful {
            // Those that fail as well have told what they have to tell.
            let is_asked = |other: &ProxyId| {
                let sight = self.proxies.get(other);
                *other != proxy && !sight.is_some_and(|sight| sight.is_failing(window, now))
            };
            let Some(until) = jury.has_told_until(is_asked, now) else { continue };
            while let Some(sight) = self.proxies.get_mut(&proxy)
                && let Some(doubt) = sight.doubts.next(until)
            {
                let witnesses = Witnesses::against(self, &proxy, doubt.at, window, now);
                let Some(sight) = self.proxies.get_mut(&proxy) else { break };
                if witnesses.outweigh(doubt.failing_since) {
                    sight.doubts.set_aside(doubt);
                    continue;
                }
                sight.count(doubt.failures, doubt.run.into(), now);
                // What others had kept to themselves turns out to be no affair of theirs.
                let witnesses = Witnesses::of(self, doubt.at, window, now);
                for sight in self.proxies.values_mut() {
                    let since = sight.failing_since.filter(|_| sight.is_failing(window, now));
                    if since.is_some_and(|since| !witnesses.outweigh(since)) {
                        sight.run += sight.doubts.take_aside();
                    }
                }
            }
        }
    }
}

impl Sight {
    fn is_failing(&self, window: Duration, now: Instant) -> bool {
        self.failing_since.is_some() && is_recent(self.last, window, now)
    }

    /// Its last success, if that is recent and nothing but that.
    fn served(&self, window: Duration, now: Instant) -> Option<Instant> {
        let recent = |at: &Instant| is_recent(*at, window, now);
        self.last_success.filter(recent).filter(|_| self.failing_since.is_none())
    }

    fn count(&mut self, outcomes: Outcomes, run: u64, now: Instant) {
        self.window.add(now, outcomes);
        self.run += run;
    }

    /// Somebody was served: whatever failed before is not in a row with what fails later.
    fn end_run(&mut self) {
        self.run = 0;
        self.doubts.end_run();
    }
}

fn is_recent(at: Instant, window: Duration, now: Instant) -> bool {
    now.saturating_duration_since(at) <= window
}

/// Those that are served, set against those that are not, when something failed.
struct Witnesses {
    serving: usize,
    failing: usize,
    /// The last success happened after this.
    success_after: Option<Instant>,
}

impl Witnesses {
    /// As far as is known `now`, of the time until `failed_at`.
    fn of(sightings: &Sightings, failed_at: Instant, window: Duration, now: Instant) -> Self {
        Self::among(sightings, |_| true, failed_at, window, now)
    }

    /// The same, for this one, which failed then: what it sees since is no word of another.
    fn against(
        sightings: &Sightings,
        proxy: &ProxyId,
        failed_at: Instant,
        window: Duration,
        now: Instant,
    ) -> Self {
        let others = Self::among(sightings, |other| other != proxy, failed_at, window, now);
        Self { failing: others.failing + 1, ..others }
    }

    fn among(
        sightings: &Sightings,
        is_asked: impl Fn(&ProxyId) -> bool,
        failed_at: Instant,
        window: Duration,
        now: Instant,
    ) -> Self {
        let asked = || sightings.proxies.iter().filter(|(proxy, _)| is_asked(proxy));
        let sights = || asked().map(|(_, sight)| sight);
        let serving = || sights().filter(|sight| sight.served(window, failed_at).is_some());
        let former = sightings.former_success.filter(|at| is_recent(*at, window, failed_at));
        Self {
            serving: serving().count() + usize::from(former.is_some()),
            failing: sights().filter(|sight| sight.is_failing(window, now)).count(),
            success_after: serving().filter_map(|sight| sight.last_success_after).max(),
        }
    }

    /// Whether what failed is the affair of its proxy, which has been failing since then.
    fn outweigh(&self, failing_since: Instant) -> bool {
        let is_news = self.success_after.is_some_and(|after| failing_since <= after);
        self.serving > 0 && (self.serving >= self.failing || is_news)
    }
}
