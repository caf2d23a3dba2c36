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
//! When more than 30 % of a pool would go down in one round because they cannot be
//! reached, and proxies contradict most of those that they know about, the prober is not
//! believed about the rest either, of which no proxy has seen anything: it is the prober
//! that is cut off. Without contradiction, nothing is delayed.

use std::time::{Duration, Instant};

use crate::{
    model::{Health, ProxyId, Reason},
    resilience::sightings::Sightings,
};

/// How long what proxies saw speaks for itself.
pub const RECENT: Duration = Duration::from_secs(5);

/// A pool is in trouble, or its prober is, when more than this goes down in one round.
const BLAST_PERCENT: usize = 30;

/// What is known about one backend.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
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

/// Judges all enabled backends of one pool, in their order.
#[must_use]
pub fn judge(pool: &[Evidence<'_>], now: Instant) -> Vec<Verdict> {
    let seen: Vec<Seen> = pool.iter().map(|evidence| Seen::of(evidence, now)).collect();
    let would_fall = |evidence: &Evidence<'_>| evidence.was == Health::Up && evidence.is_cut_off();
    let falling = || pool.iter().zip(&seen).filter(|(evidence, _)| would_fall(evidence));
    let contradicted = falling().filter(|(_, seen)| seen.speaks_for_it).count();
    let confirmed = falling().filter(|(_, seen)| seen.speaks_against_it()).count();
    let is_blast = falling().count() * 100 > pool.len() * BLAST_PERCENT;
    let prober_is_cut_off = is_blast && contradicted > confirmed;
    pool.iter()
        .zip(seen)
        .map(|(evidence, seen)| {
            let spared = prober_is_cut_off && would_fall(evidence);
            verdict(evidence, seen, spared)
        })
        .collect()
}

fn verdict(evidence: &Evidence<'_>, seen: Seen, prober_is_cut_off: bool) -> Verdict {
    let contradicted = evidence.is_cut_off() && evidence.was == Health::Up && seen.speaks_for_it;
    let spared = prober_is_cut_off && seen.is_silent();
    let cause = &evidence.reason.message;
    let (health, reason) = if contradicted {
        let message = format!(
            "the check cannot reach it, but {} can: {cause}",
            named(&seen.disagreement.serving)
        );
        (Health::Up, Reason::new("check_contradicted", message))
    } else if spared {
        let message = format!(
            "the check cannot reach it, nor others that proxies can reach, and is not believed: \
             {cause}"
        );
        (Health::Up, Reason::new("check_contradicted", message))
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
    /// They are served since the check has failed, and most of them are.
    speaks_for_it: bool,
}

impl Seen {
    fn of(evidence: &Evidence<'_>, now: Instant) -> Self {
        let proxies = evidence.sightings.views(RECENT, now);
        let last_success = evidence.sightings.last_success(RECENT, now);
        let is_news = last_success
            .zip(evidence.failing_since)
            .is_some_and(|(success, failing)| success > failing);
        Self {
            speaks_for_it: is_news && proxies.serving.len() >= proxies.failing.len(),
            disagreement: Disagreement {
                check_passes: evidence.failing_since.is_none(),
                failing: proxies.failing,
                serving: proxies.serving,
            },
        }
    }

    fn speaks_against_it(&self) -> bool {
        !self.speaks_for_it && !self.disagreement.failing.is_empty()
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        epoch,
        resilience::sightings::{Outcomes, Traffic},
    };

    const WINDOW: Duration = Duration::from_secs(10);

    /// One backend: its check's verdict and reason, and what proxies saw how many
    /// seconds ago: `+` served, `-` not reached. The check fails for 2 s, if it does.
    struct Case {
        check: Health,
        reason: Reason,
        sightings: Sightings,
        failing_since: Option<Instant>,
    }

    fn case(now: Instant, code: &str, proxies: &[(char, u64)]) -> Case {
        let mut sightings = Sightings::new();
        for (number, (what, ago)) in proxies.iter().enumerate() {
            let count = |is: char| u32::from(*what == is);
            let outcomes =
                Outcomes { successes: count('+'), transport: count('-'), ..Outcomes::default() };
            let traffic = Traffic { outcomes, trailing_failures: count('-'), since: None };
            let proxy = ProxyId::new(&format!("proxy-{number}")).unwrap();
            sightings.record(&proxy, traffic, WINDOW, now - Duration::from_secs(*ago));
        }
        let passed = code == "check_passed";
        Case {
            check: if passed { Health::Up } else { Health::Down },
            reason: Reason::new(code, "what the probe came to"),
            sightings,
            failing_since: (!passed).then(|| now - Duration::from_secs(2)),
        }
    }

    fn verdicts(now: Instant, cases: &[Case]) -> Vec<Verdict> {
        let evidence: Vec<_> = cases
            .iter()
            .map(|case| Evidence {
                check: case.check,
                reason: &case.reason,
                failing_since: case.failing_since,
                was: Health::Up,
                sightings: &case.sightings,
            })
            .collect();
        judge(&evidence, now)
    }

    fn one(code: &str, proxies: &[(char, u64)]) -> Verdict {
        let now = epoch() + Duration::from_secs(60);
        verdicts(now, &[case(now, code, proxies)]).remove(0)
    }

    const REFUSED: &str = "backend_connect_refused";

    #[test]
    fn a_check_that_cannot_reach_it_is_contradicted_by_those_who_can() {
        for code in
            [REFUSED, "backend_connect_timeout", "backend_reset", "backend_timeout", "dns_failure"]
        {
            let verdict = one(code, &[('+', 1)]);
            assert_eq!(verdict.health, Health::Up, "{code}");
            assert_eq!(verdict.reason.code, "check_contradicted");
            assert!(
                verdict.reason.message.contains("proxy proxy-0 can"),
                "{}",
                verdict.reason.message
            );
            let told = verdict.disagreement.unwrap();
            assert_eq!((told.check_passes, told.serving.len()), (false, 1));
        }
    }

    #[test]
    fn what_does_not_contradict_delays_nothing() {
        for (code, proxies) in [
            // The application says so.
            ("check_status", &[('+', 0)][..]),
            ("backend_protocol_error", &[('+', 0)]),
            // Nobody sees anything; or saw it before it died; or it is long ago.
            (REFUSED, &[]),
            (REFUSED, &[('+', 3)]),
            (REFUSED, &[('+', 6)]),
            // Most fail as well.
            (REFUSED, &[('+', 1), ('-', 1), ('-', 1)]),
        ] {
            let verdict = one(code, proxies);
            assert_eq!((verdict.health, verdict.reason.code.as_str()), (Health::Down, code));
        }
        assert_eq!(one(REFUSED, &[('+', 1), ('-', 1)]).health, Health::Up, "half is no majority");
    }

    #[test]
    fn a_backend_that_is_down_is_not_brought_up_by_traffic() {
        let now = epoch() + Duration::from_secs(60);
        let case = case(now, REFUSED, &[('+', 1)]);
        let evidence = Evidence {
            check: case.check,
            reason: &case.reason,
            failing_since: case.failing_since,
            was: Health::Down,
            sightings: &case.sightings,
        };
        assert_eq!(judge(&[evidence], now)[0].health, Health::Down);
    }

    #[test]
    fn who_sees_what_is_told_only_where_not_all_see_the_same() {
        let differ = |code, proxies: &[_]| one(code, proxies).disagreement.is_some();
        assert!(!differ("check_passed", &[]));
        assert!(!differ("check_passed", &[('+', 1)]));
        assert!(!differ(REFUSED, &[('-', 1)]));
        assert!(!differ(REFUSED, &[]));
        assert!(differ("check_passed", &[('+', 1), ('-', 1)]), "unreachable from one proxy");
        let all_fail = one("check_passed", &[('-', 1), ('-', 1)]);
        assert_eq!(all_fail.health, Health::Up, "the breaker's affair");
        assert_eq!(all_fail.disagreement.unwrap().failing.len(), 2);
    }

    /// How many of a pool of ten are up, with so many contradicted, confirmed and unseen
    /// among those whose check cannot reach them.
    fn up_of_ten(contradicted: usize, confirmed: usize, unseen: usize) -> usize {
        let now = epoch() + Duration::from_secs(60);
        let mut cases = Vec::new();
        cases.extend((0..contradicted).map(|_| case(now, REFUSED, &[('+', 1)])));
        cases.extend((0..confirmed).map(|_| case(now, REFUSED, &[('-', 1)])));
        cases.extend((0..unseen).map(|_| case(now, REFUSED, &[])));
        cases.extend((cases.len()..10).map(|_| case(now, "check_passed", &[])));
        verdicts(now, &cases).iter().filter(|verdict| verdict.health == Health::Up).count()
    }

    #[test]
    fn a_prober_that_is_cut_off_is_not_believed_about_what_nobody_sees() {
        assert_eq!(up_of_ten(1, 0, 3), 10);
        assert_eq!(up_of_ten(3, 2, 5), 8, "those that proxies cannot reach go down");
        assert_eq!(up_of_ten(1, 0, 2), 8, "30 % is no blast");
        assert_eq!(up_of_ten(1, 1, 5), 4, "as many confirm it");
        assert_eq!(up_of_ten(0, 0, 10), 0, "nobody contradicts");
    }

    proptest! {
        /// Traffic only ever keeps a backend up; it takes none down, and never overrules a
        /// status. Where proxies are served by all, all stay up.
        #[test]
        fn merging_never_takes_down_more_than_the_check(
            pool in prop::collection::vec(
                (0_usize..4, prop::collection::vec((prop::bool::ANY, 0_u64..12), 0..5)),
                1..12,
            ),
        ) {
            let now = epoch() + Duration::from_secs(60);
            let codes = ["check_passed", REFUSED, "check_status", "backend_reset"];
            let cases: Vec<Case> = pool
                .iter()
                .map(|(code, proxies)| {
                    let proxies: Vec<_> = proxies
                        .iter()
                        .map(|&(served, ago)| (if served { '+' } else { '-' }, ago))
                        .collect();
                    case(now, codes[*code], &proxies)
                })
                .collect();
            for (case, verdict) in cases.iter().zip(verdicts(now, &cases)) {
                prop_assert!(case.check == Health::Down || verdict.health == Health::Up);
                let overruled = case.check != verdict.health;
                prop_assert!(!overruled || case.reason.code != "check_status");
            }
            let served = |code| case(now, code, &[('+', 1)]);
            let all: Vec<Case> = pool.iter().map(|_| served(REFUSED)).collect();
            prop_assert!(verdicts(now, &all).iter().all(|verdict| verdict.health == Health::Up));
        }
    }
}
