//! A limit by key over several proxies: even shares of every key, and leases of those
//! that need more.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use lb_core::{
    lease::{Former, Grant, KeyGranter, Report, Term},
    limit::{HotKeys, MICROS, Table},
};

const PROXIES: usize = 4;
const RATE: u64 = 100;
const BURST: u32 = 20;
/// Each proxy's, by the rule for bursts.
const BURST_SHARE: u64 = 8;
const CLIENT: u64 = 0xc11e_0000_0000_0001;
const STEP: Duration = Duration::from_millis(10);

struct Fleet {
    now: Instant,
    steps: u64,
    granter: Option<KeyGranter<usize>>,
    proxies: Vec<(HotKeys, Table)>,
    up: VecDeque<(u64, usize, u64, Report)>,
    down: VecDeque<(u64, usize, u64, Option<Grant>)>,
    admitted: [u64; PROXIES],
}

impl Fleet {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one epoch of a simulated clock")]
        let now = Instant::now();
        let mut granter = KeyGranter::new(Term(1), RATE * MICROS, 10, Former::None, now);
        let proxy = || {
            let hot = HotKeys::new(RATE * MICROS, BURST, 4, 10, now);
            (hot, Table::new(1000, RATE * MICROS, BURST))
        };
        (0..PROXIES).for_each(|member| granter.join(&member));
        Self {
            now,
            steps: 0,
            granter: Some(granter),
            proxies: (0..PROXIES).map(|_| proxy()).collect(),
            up: VecDeque::new(),
            down: VecDeque::new(),
            admitted: [0; PROXIES],
        }
    }

    /// Lets `demand` requests per second of one client come to each proxy. What was
    /// admitted at each.
    fn run(&mut self, seconds: u64, demand: [u64; PROXIES]) -> [u64; PROXIES] {
        let before = self.admitted;
        for _ in 0..seconds * 100 {
            self.step(demand);
        }
        std::array::from_fn(|proxy| self.admitted[proxy] - before[proxy])
    }

    fn step(&mut self, demand: [u64; PROXIES]) {
        self.now += STEP;
        self.steps += 1;
        let (now, steps) = (self.now, self.steps);
        for (index, (hot, table)) in self.proxies.iter_mut().enumerate() {
            for _ in 0..demand[index] * steps / 100 - demand[index] * (steps - 1) / 100 {
                let pace = hot.paces().find(|(key, _)| *key == CLIENT);
                let pace = pace.map_or_else(|| hot.cold(), |(_, pace)| pace);
                hot.count(CLIENT, 1);
                if table.take(CLIENT, &pace, now).is_admitted() {
                    self.admitted[index] += 1;
                } else {
                    hot.open(CLIENT, now);
                }
            }
            if steps % 10 == index as u64 {
                for key in hot.close(now) {
                    table.forget(key);
                }
                let reports = hot.reports(now).into_iter();
                self.up.extend(reports.map(|(key, report)| (steps + 1, index, key, report)));
            }
        }
        while self.up.front().is_some_and(|(due, ..)| *due <= steps) {
            let Some((_, from, key, report)) = self.up.pop_front() else { break };
            if let Some(granter) = &mut self.granter {
                granter.hear(&from, key, &report, now);
            }
        }
        if steps.is_multiple_of(10)
            && let Some(granter) = &mut self.granter
        {
            let asks: Vec<_> = granter.unheard().map(|(&to, key)| (to, key)).collect();
            self.down.extend(asks.into_iter().map(|(to, key)| (steps + 1, to, key, None)));
            for (to, key, grant) in granter.grant(now) {
                self.down.push_back((steps + 1, to, key, Some(grant)));
            }
        }
        while self.down.front().is_some_and(|(due, ..)| *due <= steps) {
            let Some((_, to, key, grant)) = self.down.pop_front() else { break };
            let hot = &mut self.proxies[to].0;
            match grant {
                None => assert!(hot.open(key, now)),
                Some(grant) => {
                    hot.apply(key, &grant, now).expect("it comes in order, and in time");
                }
            }
        }
    }
}

fn sum(admitted: [u64; PROXIES]) -> u64 {
    admitted.iter().sum()
}

#[test]
fn a_change_of_the_limit_counts_for_hot_keys_too() {
    let now = Fleet::new().now;
    let mut keys = HotKeys::new(RATE * MICROS, BURST, 1, 4, now);
    assert!(keys.open(CLIENT, now));
    keys.set_limit(RATE * MICROS, 2 * BURST, now);
    let bursts: Vec<u32> = keys.paces().map(|(_, pace)| pace.burst()).collect();
    assert_eq!((keys.cold().burst(), &*bursts), (2 * BURST, &[2 * BURST][..]));
}

#[test]
fn a_client_of_one_proxy_gets_the_whole_rate_and_no_more() {
    let mut fleet = Fleet::new();
    let first = sum(fleet.run(2, [300, 0, 0, 0]));
    assert!((120..=2 * RATE + BURST_SHARE).contains(&first), "{first} in the first two seconds");
    let later = sum(fleet.run(5, [300, 0, 0, 0]));
    assert!((5 * RATE * 95 / 100..=5 * RATE + 1).contains(&later), "{later}");
    // When it moves, it has half until the first proxy's need is forgotten.
    let moved = fleet.run(5, [0, 0, 300, 0]);
    assert!((370..=5 * RATE + BURST_SHARE).contains(&moved[2]), "{moved:?}");
}

#[test]
fn clients_of_many_proxies_share_fairly() {
    let mut fleet = Fleet::new();
    fleet.run(3, [300, 300, 20, 0]);
    let [most, same, less, none] = fleet.run(5, [300, 300, 20, 0]);
    let all = most + same + less;
    assert!((470..=502).contains(&all), "{all}");
    assert!(less >= 95 && none == 0, "{less}");
    assert!(most.abs_diff(same) < 25, "{most} and {same}");
}

#[test]
fn without_the_control_plane_a_key_goes_back_to_even_shares() {
    let mut fleet = Fleet::new();
    fleet.run(3, [300, 0, 0, 0]);
    fleet.granter = None;
    let even = RATE / PROXIES as u64;
    // To the lease's end, and then an even share, after once a burst.
    let admitted = fleet.run(7, [300, 0, 0, 0])[0];
    assert!(admitted <= RATE + 6 * even + BURST_SHARE + 3, "{admitted}");
    let all = fleet.run(10, [300; PROXIES]);
    for admitted in all {
        assert!((10 * even..=10 * even + BURST_SHARE + 1).contains(&admitted), "{all:?}");
    }
}

#[test]
fn what_nobody_needs_any_more_is_left_to_itself() {
    let mut fleet = Fleet::new();
    fleet.run(3, [300, 0, 0, 0]);
    assert_eq!(fleet.granter.as_ref().unwrap().keys(), 1);
    fleet.run(20, [5, 5, 0, 0]);
    assert_eq!(fleet.granter.as_ref().unwrap().keys(), 0);
    assert!(fleet.proxies.iter().all(|(hot, _)| hot.paces().count() == 0));
    // And begins anew.
    fleet.run(2, [0, 300, 0, 0]);
    let again = sum(fleet.run(2, [0, 300, 0, 0]));
    assert!((190..=201).contains(&again), "{again}");
}

#[test]
fn a_key_that_becomes_hot_is_lent_no_more_than_the_others_leave() {
    let mut fleet = Fleet::new();
    let granter = fleet.granter.as_mut().unwrap();
    let (hot, _) = &mut fleet.proxies[0];
    assert!(hot.open(CLIENT, fleet.now));
    hot.count(CLIENT, 1000);
    let now = fleet.now + 10 * STEP;
    for (key, report) in hot.reports(now) {
        granter.hear(&0, key, &report, now);
    }
    let grants = granter.grant(now);
    let [(0, CLIENT, grant)] = grants[..] else { panic!("{grants:?}") };
    assert_eq!(grant.amount, RATE * MICROS / PROXIES as u64, "three quarters are presumed in use");
}

#[test]
fn one_key_too_many_keeps_its_even_share() {
    let mut fleet = Fleet::new();
    let (now, granter) = (fleet.now, fleet.granter.as_mut().unwrap());
    let (hot, _) = &mut fleet.proxies[0];
    for key in 0..11 {
        assert_eq!(hot.open(key, now), key < 10);
        hot.count(key, 1000);
    }
    let later = now + Duration::from_millis(100);
    let reports = hot.reports(later);
    assert_eq!(reports.len(), 10);
    for (key, report) in reports {
        for key in [key, key + 100] {
            granter.hear(&0, key, &report, later);
        }
    }
    assert_eq!(granter.keys(), 10);
    assert_eq!(granter.unheard().count(), 10 * (PROXIES - 1));
    granter.leave(&3);
    assert_eq!(granter.unheard().count(), 10 * (PROXIES - 2));
}

#[test]
fn how_many_share_a_key_is_not_told_before_all_had_time_to_join() {
    #[expect(clippy::disallowed_methods, reason = "the one epoch of a simulated clock")]
    let now = Instant::now();
    for former in [Former::None, Former::Unknown, Former::MayHaveLent] {
        let mut granter = KeyGranter::new(Term(1), RATE * MICROS, 10, former, now);
        granter.join(&1);
        // The others share it by eight, and this one must not begin to use all of it.
        assert_eq!(granter.proxies(now + Duration::from_secs(1)), None);
        granter.join(&2);
        assert_eq!(granter.proxies(now + Duration::from_millis(1200)), Some(2));
    }
}

/// The control plane counts it as long as it hears it; when it is away, the other process alone
/// has their common share.
#[test]
fn a_process_that_was_taken_over_has_even_shares_only_while_it_is_counted() {
    #[expect(clippy::disallowed_methods, reason = "the one epoch of a simulated clock")]
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut hot = HotKeys::new(RATE * MICROS, BURST, 4, 10, start);
    let even = RATE * MICROS / 4;
    assert!(!hot.set_proxies(4, at(100)), "nothing is new");
    assert_eq!(hot.cold().rate(at(5000)), even);
    hot.open(CLIENT, at(5000));
    hot.retire(at(5000));
    let rates = |ms| {
        let [one] = hot.paces().map(|(_, pace)| pace.rate(at(ms))).collect::<Vec<_>>()[..] else {
            panic!("one key is hot");
        };
        (hot.cold().rate(at(ms)), one)
    };
    assert_eq!(rates(5000), (0, 0), "nobody was heard for so long");
    assert!(hot.set_proxies(5, at(6000)));
    assert_eq!(hot.cold().rate(at(8499)), RATE * MICROS / 5);
    assert_eq!(hot.cold().rate(at(8500)), 0);
    assert!(hot.set_proxies(5, at(6500)), "for longer");
    assert_eq!(hot.cold().rate(at(8999)), RATE * MICROS / 5);
    hot.open(CLIENT + 1, at(6500));
    assert!(hot.paces().all(|(_, pace)| pace.rate(at(6500)) == 0), "nothing was lent");
}
