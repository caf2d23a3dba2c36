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
    was: Health,
    address: Address,
}

impl Case {
    fn evidence(&self) -> Evidence<'_> {
        Evidence {
            address: &self.address,
            check: self.check,
            reason: &self.reason,
            failing_since: self.failing_since,
            was: self.was,
            sightings: &self.sightings,
        }
    }
}

fn case(now: Instant, code: &str, proxies: &[(char, u64)]) -> Case {
    let mut sightings = Sightings::new();
    for (number, (what, ago)) in proxies.iter().enumerate() {
        let count = |is: char| u32::from(*what == is);
        let outcomes =
            Outcomes { successes: count('+'), transport: count('-'), ..Outcomes::default() };
        let traffic = Traffic { outcomes, trailing_failures: count('-'), ..Traffic::default() };
        let proxy = ProxyId::new(&format!("proxy-{number}")).unwrap();
        sightings.record(&proxy, traffic, WINDOW, now - Duration::from_secs(*ago));
    }
    let passed = code == "check_passed";
    Case {
        check: if passed { Health::Up } else { Health::Down },
        reason: Reason::new(code, "what the probe came to"),
        sightings,
        failing_since: (!passed).then(|| now - Duration::from_secs(2)),
        was: Health::Up,
        address: address(1),
    }
}

fn address(number: usize) -> Address {
    format!("10.0.0.1:{number}").parse().unwrap()
}

/// Judges one pool, at addresses of its own, beside others.
fn verdicts_beside(now: Instant, cases: &mut [Case], others: &[Case]) -> Vec<Verdict> {
    for (number, case) in (1000..).zip(&mut *cases) {
        if case.address == address(1) {
            case.address = address(number);
        }
    }
    let all: Vec<_> = cases.iter().chain(others).map(Case::evidence).collect();
    judge(&all[..cases.len()], &Reach::of(&all, now), now)
}

fn verdicts(now: Instant, cases: &mut [Case]) -> Vec<Verdict> {
    verdicts_beside(now, cases, &[])
}

fn one(code: &str, proxies: &[(char, u64)]) -> Verdict {
    let now = epoch() + Duration::from_secs(60);
    verdicts(now, &mut [case(now, code, proxies)]).remove(0)
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
        assert!(verdict.reason.message.contains("proxy proxy-0 can"), "{}", verdict.reason.message);
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
    let mut cases = [Case { was: Health::Down, ..case(now, REFUSED, &[('+', 1)]) }];
    assert_eq!(verdicts(now, &mut cases)[0].health, Health::Down);
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
    verdicts(now, &mut cases).iter().filter(|verdict| verdict.health == Health::Up).count()
}

#[test]
fn a_prober_that_is_cut_off_is_not_believed_about_what_nobody_sees() {
    assert_eq!(up_of_ten(1, 0, 3), 10);
    assert_eq!(up_of_ten(3, 2, 5), 8, "those that proxies cannot reach go down");
    assert_eq!(up_of_ten(1, 0, 2), 8, "30 % is no blast");
    assert_eq!(up_of_ten(1, 1, 5), 4, "as many confirm it");
    assert_eq!(up_of_ten(0, 0, 10), 0, "nobody contradicts");
}

/// Other pools, of which so many are contradicted and confirmed.
fn others(now: Instant, contradicted: usize, confirmed: usize) -> Vec<Case> {
    let cases = (0..contradicted + confirmed).map(|number| {
        let seen = if number < contradicted { '+' } else { '-' };
        Case { address: address(2000 + number), ..case(now, REFUSED, &[(seen, 1)]) }
    });
    cases.collect()
}

#[test]
fn what_proxies_see_in_one_pool_speaks_of_the_prober_in_all() {
    let now = epoch() + Duration::from_secs(60);
    let up = |unseen: usize, contradicted, confirmed| {
        let mut cases: Vec<Case> = (0..unseen).map(|_| case(now, REFUSED, &[])).collect();
        cases.extend((unseen..4).map(|_| case(now, "check_passed", &[])));
        let verdicts = verdicts_beside(now, &mut cases, &others(now, contradicted, confirmed));
        verdicts.iter().filter(|verdict| verdict.health == Health::Up).count()
    };
    assert_eq!(up(4, 1, 0), 4, "a pool without traffic is not emptied");
    assert_eq!(up(4, 3, 2), 4);
    assert_eq!(up(4, 2, 2), 0, "as many confirm it");
    assert_eq!(up(4, 0, 0), 0, "nobody contradicts");
    assert_eq!(up(1, 3, 0), 3, "one in four is no blast");
}

#[test]
fn those_that_have_just_gone_count_among_those_that_go() {
    let now = epoch() + Duration::from_secs(60);
    // The probes of a pool are spread over their interval.
    let mut cases: Vec<Case> = (0..4).map(|_| case(now, REFUSED, &[])).collect();
    cases[0].was = Health::Down;
    cases[1].was = Health::Down;
    let ups = |cases: &mut [Case]| {
        let verdicts = verdicts_beside(now, cases, &others(now, 1, 0));
        verdicts.iter().map(|verdict| verdict.health == Health::Up).collect::<Vec<_>>()
    };
    assert_eq!(ups(&mut cases), [false, false, true, true]);
    // What went down long ago says nothing about now.
    for case in &mut cases[..2] {
        case.failing_since = Some(now - 2 * SAME_TIME);
    }
    cases[3] = case(now, "check_passed", &[]);
    assert_eq!(ups(&mut cases), [false, false, false, true]);
}

#[test]
fn a_server_that_is_reached_in_one_pool_is_reached_in_another() {
    let now = epoch() + Duration::from_secs(60);
    let busy = Case { address: address(7), ..case(now, REFUSED, &[('+', 1)]) };
    let mut quiet: Vec<Case> = (0..8).map(|_| case(now, "check_passed", &[])).collect();
    quiet[0] = Case { address: address(7), ..case(now, REFUSED, &[]) };
    let verdict = verdicts_beside(now, &mut quiet, &[busy]).remove(0);
    assert_eq!((verdict.health, &*verdict.reason.code), (Health::Up, "check_contradicted"));
    assert!(verdict.reason.message.contains("in another pool"), "{verdict:?}");
    // The check of the other pool's need not have failed yet.
    let busy = Case { address: address(7), ..case(now, "check_passed", &[('+', 1)]) };
    assert_eq!(verdicts_beside(now, &mut quiet, &[busy])[0].health, Health::Up);
    // Served before this pool's check began to fail.
    let busy = Case { address: address(7), ..case(now, REFUSED, &[('+', 1)]) };
    quiet[0].failing_since = Some(now);
    assert_eq!(verdicts_beside(now, &mut quiet, &[busy])[0].health, Health::Down);
    // Those who ask here cannot reach it.
    let busy = Case { address: address(7), ..case(now, REFUSED, &[('+', 1)]) };
    quiet[0] = Case { address: address(7), ..case(now, REFUSED, &[('-', 1)]) };
    assert_eq!(verdicts_beside(now, &mut quiet, &[busy])[0].health, Health::Down);
}

#[test]
fn a_lull_in_the_traffic_empties_no_pool() {
    let now = epoch() + Duration::from_secs(1000);
    let silent = |seen: &[(char, u64)]| {
        let ago = seen.first().map_or(0, |(_, ago)| *ago);
        let failing_since = Some(now - Duration::from_secs(ago + 2));
        Case { failing_since, ..case(now, REFUSED, seen) }
    };
    let verdict = verdicts(now, &mut [silent(&[('+', 60)])]).remove(0);
    assert_eq!(verdict.health, Health::Up);
    assert!(verdict.reason.message.contains("no request has failed"), "{verdict:?}");
    assert!(verdict.disagreement.is_none(), "nobody says anything at present");
    // Nor a pool beside it that has no traffic at all.
    let busy = || Case { address: address(7), ..silent(&[('+', 60)]) };
    let mut quiet = [case(now, REFUSED, &[]), case(now, REFUSED, &[])];
    let verdicts_of = verdicts_beside(now, &mut quiet, &[busy()]);
    assert!(verdicts_of.iter().all(|verdict| verdict.health == Health::Up), "{verdicts_of:?}");

    let down = |cases: &mut [Case]| verdicts(now, cases)[0].health == Health::Down;
    assert!(down(&mut [silent(&[('+', 60)]), case(now, "check_passed", &[])]), "others are up");
    assert!(down(&mut [silent(&[('+', PROVED.as_secs() + 1)])]), "long ago");
    assert!(down(&mut [silent(&[('+', 60), ('-', 1)])]), "a request has failed");
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
        let mut cases: Vec<Case> = pool
            .iter()
            .map(|(code, proxies)| {
                let proxies: Vec<_> = proxies
                    .iter()
                    .map(|&(served, ago)| (if served { '+' } else { '-' }, ago))
                    .collect();
                case(now, codes[*code], &proxies)
            })
            .collect();
        let verdicts_of = verdicts(now, &mut cases);
            for (case, verdict) in cases.iter().zip(verdicts_of) {
            prop_assert!(case.check == Health::Down || verdict.health == Health::Up);
            let overruled = case.check != verdict.health;
            prop_assert!(!overruled || case.reason.code != "check_status");
        }
        let served = |code| case(now, code, &[('+', 1)]);
        let mut all: Vec<Case> = pool.iter().map(|_| served(REFUSED)).collect();
        prop_assert!(verdicts(now, &mut all).iter().all(|verdict| verdict.health == Health::Up));
    }
}
