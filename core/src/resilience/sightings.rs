//! What the proxies of the fleet see of one backend.
//!
//! A proxy may be the only one that cannot reach a backend: a broken path, a firewall. Its
//! failures then say something about itself. So the word of a proxy that has got nothing
//! but transport failures since its last success is left out while others are served,
//! unless most of them fail too; it avoids the backend by itself ([`super::local`]), and
//! the fleet shows a disagreement: [`Sightings::disagreement`]. A status is never left out: whoever got one has
//! reached the backend.

use std::{
    collections::BTreeMap,
    ops::AddAssign,
    time::{Duration, Instant},
};

use super::window::Window;
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
    /// Failures of transport and gateway since the last success of the period; all of
    /// them, if it had none.
    pub trailing_failures: u32,
}

/// What all proxies see of one backend.
#[derive(Clone, Debug, Default)]
pub struct Sightings {
    proxies: BTreeMap<ProxyId, Sight>,
}

#[derive(Clone, Debug)]
struct Sight {
    window: Window<Outcomes, { STEPS as usize }>,
    /// Failures since the fleet's last success.
    run: u64,
    /// Since when it has got nothing but transport failures.
    failing_since: Option<Instant>,
    last_success: Option<Instant>,
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

/// A success is news about a failure only if it was reported this much later: a report
/// is about a period, which may have begun before the failure.
const OVERLAP: Duration = Duration::from_millis(300);

impl Sightings {
    /// Nothing was seen.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts what a proxy reported at `now`; sums are over `window`.
    pub fn record(&mut self, proxy: &ProxyId, traffic: Traffic, window: Duration, now: Instant) {
        let Traffic { outcomes, trailing_failures } = traffic;
        if outcomes.total() == 0 {
            return;
        }
        if outcomes.successes > 0 {
            self.proxies.values_mut().for_each(|sight| sight.run = 0);
        }
        let fresh = || Sight {
            window: Window::new(window / STEPS, now),
            run: 0,
            failing_since: None,
            last_success: None,
            last: now,
        };
        let sight = self.proxies.entry(proxy.clone()).or_insert_with(fresh);
        if sight.window.step() != window / STEPS {
            // The policy has changed.
            sight.window = Window::new(window / STEPS, now);
        }
        sight.window.add(now, outcomes);
        sight.run += u64::from(trailing_failures);
        sight.last = now;
        let only_transport = outcomes.gateway == 0
            && outcomes.other == 0
            && trailing_failures > 0
            && outcomes.transport >= trailing_failures;
        if outcomes.successes > 0 {
            sight.last_success = Some(now);
            sight.failing_since = None;
        }
        sight.failing_since = only_transport.then(|| sight.failing_since.unwrap_or(now));
    }

    /// Forgets a proxy that is lost or has restarted.
    pub fn forget(&mut self, proxy: &ProxyId) {
        self.proxies.remove(proxy);
    }

    /// Forgets everything: the backend begins anew.
    pub fn clear(&mut self) {
        self.proxies.clear();
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

    /// The fleet's failures in a row, and its sums, of all whose word counts.
    pub(super) fn sums(&self, window: Duration, now: Instant) -> (u64, u64, u64) {
        let witnesses = Witnesses::of(self, window, now);
        let (mut run, mut failures, mut total) = (0, 0, 0);
        for sight in self.proxies.values().filter(|sight| !witnesses.outweigh(sight, window, now)) {
            let outcomes = sight.window.sum(now);
            run += sight.run;
            failures += outcomes.failures();
            total += outcomes.total();
        }
        (run, failures, total)
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
}

fn is_recent(at: Instant, window: Duration, now: Instant) -> bool {
    now.saturating_duration_since(at) <= window
}

/// Those that are served, set against those that are not.
struct Witnesses {
    serving: usize,
    failing: usize,
    last_success: Option<Instant>,
}

impl Witnesses {
    fn of(sightings: &Sightings, window: Duration, now: Instant) -> Self {
        let sights = || sightings.proxies.values();
        Self {
            serving: sights().filter(|sight| sight.served(window, now).is_some()).count(),
            failing: sights().filter(|sight| sight.is_failing(window, now)).count(),
            last_success: sightings.last_success(window, now),
        }
    }

    /// Whether this one's failures are its own affair.
    fn outweigh(&self, sight: &Sight, window: Duration, now: Instant) -> bool {
        let (Some(since), Some(last_success)) = (sight.failing_since, self.last_success) else {
            return false;
        };
        sight.is_failing(window, now)
            && (last_success >= since + OVERLAP || self.serving >= self.failing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch;

    const WINDOW: Duration = Duration::from_secs(10);

    fn proxy(name: &str) -> ProxyId {
        ProxyId::new(name).unwrap()
    }

    fn served(successes: u32) -> Traffic {
        let outcomes = Outcomes { successes, ..Outcomes::default() };
        Traffic { outcomes, trailing_failures: 0 }
    }

    fn unreached(transport: u32) -> Traffic {
        let outcomes = Outcomes { transport, ..Outcomes::default() };
        Traffic { outcomes, trailing_failures: transport }
    }

    fn gateway(gateway: u32) -> Traffic {
        let outcomes = Outcomes { gateway, ..Outcomes::default() };
        Traffic { outcomes, trailing_failures: gateway }
    }

    /// Records what came at these moments, in milliseconds, and gives the sums at the
    /// last of them.
    fn sums(reports: &[(u64, &str, Traffic)]) -> (u64, u64, u64) {
        let (start, mut sightings) = (epoch(), Sightings::new());
        let at = |ms| start + Duration::from_millis(ms);
        for (ms, name, traffic) in reports {
            sightings.record(&proxy(name), *traffic, WINDOW, at(*ms));
        }
        sightings.sums(WINDOW, at(reports.last().unwrap().0))
    }

    #[test]
    fn failures_in_a_row_are_counted_over_the_fleet_and_ended_by_any_success() {
        assert_eq!(sums(&[(0, "a", unreached(2)), (1, "b", unreached(3))]).0, 5);
        assert_eq!(sums(&[(0, "a", gateway(4)), (1, "b", served(1))]), (0, 4, 5));
        let mixed = Traffic {
            outcomes: Outcomes { successes: 3, gateway: 4, ..Outcomes::default() },
            trailing_failures: 2,
        };
        assert_eq!(sums(&[(0, "a", unreached(4)), (1, "b", mixed)]), (2, 4, 7), "a is left out");
    }

    #[test]
    fn a_proxy_that_alone_cannot_reach_a_backend_is_left_out() {
        let reports = [(0, "a", served(9)), (1, "b", served(9)), (250, "b", unreached(7))];
        assert_eq!(sums(&reports), (0, 0, 9), "b is left out, with all it saw");
        // Who got a status has reached it.
        assert_eq!(sums(&[(0, "a", served(9)), (250, "b", gateway(7))]), (7, 7, 16));
        // It may have got one last: the order is not told.
        let either = Traffic {
            outcomes: Outcomes { successes: 1, transport: 7, gateway: 7, other: 0 },
            trailing_failures: 7,
        };
        assert_eq!(sums(&[(0, "a", served(9)), (250, "b", either)]), (7, 14, 24));
        // Nobody says otherwise.
        assert_eq!(sums(&[(0, "b", served(9)), (250, "b", unreached(7))]), (7, 7, 16));
    }

    #[test]
    fn the_word_counts_when_most_fail_or_nobody_is_served_any_more() {
        let both = [(0, "a", served(1)), (0, "b", served(1)), (250, "a", unreached(3))];
        assert_eq!(sums(&both).0, 0);
        let both = [&both[..], &[(300, "b", unreached(3))]].concat();
        assert_eq!(sums(&both).0, 6);
        let idle = [(0, "a", served(1)), (9_000, "b", unreached(3)), (10_001, "b", unreached(3))];
        assert_eq!(sums(&idle).0, 6);
        // Two of three fail, and the third was served before.
        let most = [(0, "a", served(1)), (100, "b", unreached(2)), (100, "c", unreached(2))];
        assert_eq!(sums(&most).0, 4);
        // It still is.
        let still = [&most[..], &[(800, "a", served(1)), (900, "b", unreached(5))]].concat();
        assert_eq!(sums(&still).0, 0);
    }

    #[test]
    fn who_sees_what_is_told() {
        let (start, mut sightings) = (epoch(), Sightings::new());
        sightings.record(&proxy("a"), served(1), WINDOW, start);
        assert_eq!(sightings.disagreement(WINDOW, start), None);
        sightings.record(&proxy("b"), unreached(1), WINDOW, start);
        let told = Views { failing: vec![proxy("b")], serving: vec![proxy("a")] };
        assert_eq!(sightings.disagreement(WINDOW, start), Some(told));
        assert_eq!(sightings.disagreement(WINDOW, start + 2 * WINDOW), None);
        sightings.forget(&proxy("b"));
        assert_eq!(sightings.disagreement(WINDOW, start), None);
    }
}
