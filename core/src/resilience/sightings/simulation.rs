//! A breaker, and proxies whose reports come whenever they like.
//!
//! What happens is known here, and the breaker is told of it as real proxies tell: each makes a
//! report when the one before it was answered and its period is over, or soon after a failure;
//! and each report and each answer is on its way for as long as it takes.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    epoch,
    model::{BreakerPolicy, InstanceId},
    resilience::{
        breaker::{Breaker, Event, Report, Reporter},
        hearing::{Hearing, Jury},
    },
};

const LEASE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(10);
const PERIOD: Duration = Duration::from_millis(250);
const SECOND: Duration = Duration::from_secs(1);
/// Failures in a row after which a proxy avoids the backend by itself.
const AVOIDS_AFTER: u32 = 5;
const AVOIDS_AT_MOST: Duration = Duration::from_mins(5);

/// One process of a proxy, as it is.
struct Proxy {
    reporter: Reporter,
    reaches: bool,
    /// The backend breaks off all that it begins with it, so long after it has.
    breaks_after: Option<Duration>,
    /// When those break off that it has begun with.
    broken_at: VecDeque<Instant>,
    /// No answer that it gets is complete before the simulation ends.
    streams: bool,
    /// Time between two requests, while there are any.
    pace: Option<Duration>,
    asks_at: Instant,
    seen: Traffic,
    row: u32,
    avoids: Option<(Instant, Duration)>,
    stage: Stage,
    /// When it started, by which it tells the time.
    began: Instant,
}

enum Stage {
    /// Until the next report is due.
    Waits(Instant),
    /// One is on its way, or its answer: when either arrives.
    Told { at: Instant, report: Option<(Duration, Traffic)> },
}

struct Fleet {
    now: Instant,
    proxies: Vec<Proxy>,
    breaker: Breaker,
    hearing: Hearing,
    policy: BreakerPolicy,
    rng: fastrand::Rng,
    /// Reports and answers are on their way for at most so long.
    delays: (Duration, Duration),
    /// Whether proxies avoid a backend by themselves.
    avoid: bool,
    instances: u32,
    /// Whether all answers are long.
    streams: bool,
}

impl Fleet {
    fn new(seed: u64, proxies: usize) -> Self {
        let mut fleet = Self {
            now: epoch(),
            proxies: Vec::new(),
            breaker: Breaker::new(1, LEASE),
            hearing: Hearing::new(),
            policy: BreakerPolicy::default(),
            rng: fastrand::Rng::with_seed(seed),
            delays: (3 * SECOND, SECOND),
            avoid: seed.is_multiple_of(2),
            instances: 0,
            streams: seed.is_multiple_of(5),
        };
        for number in 0..proxies {
            let proxy = fleet.start(ProxyId::new(&format!("p{number}")).unwrap());
            fleet.proxies.push(proxy);
        }
        fleet
    }

    /// A process whose first report is on its way.
    fn start(&mut self, proxy: ProxyId) -> Proxy {
        self.instances += 1;
        let instance = InstanceId::new(&self.instances.to_string()).unwrap();
        Proxy {
            reporter: Reporter { proxy, instance },
            reaches: true,
            breaks_after: None,
            broken_at: VecDeque::new(),
            streams: self.streams,
            pace: None,
            asks_at: self.now,
            seen: Traffic::default(),
            row: 0,
            avoids: None,
            stage: Stage::Waits(self.now + self.up_to(PERIOD)),
            began: self.now,
        }
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.rng.f64())
    }

    /// Short mostly, and long at times.
    fn delay(&mut self, most: Duration) -> Duration {
        let most = if self.rng.u8(..4) > 0 { most / 50 } else { most };
        self.up_to(most)
    }

    /// A process ends with all that it had not told, and another one takes its place.
    fn restart(&mut self, number: usize) {
        let fresh = self.start(self.proxies[number].reporter.proxy.clone());
        let former = &self.proxies[number];
        let (reaches, pace) = (former.reaches, former.pace);
        self.proxies[number] = Proxy { reaches, pace, ..fresh };
    }

    /// Everything that happens in one tick; whether the breaker has opened.
    fn tick(&mut self) -> bool {
        self.now += TICK;
        for number in 0..self.proxies.len() {
            self.ask(number);
            self.break_off(number);
            self.tell(number);
        }
        // Who is connected is known before any report comes.
        let is_unheard = |proxy: &Proxy| !self.hearing.knows(&proxy.reporter.proxy);
        let jury = if self.breaker.sightings().is_in_doubt() {
            let awaits_others = self.proxies.iter().any(is_unheard);
            self.hearing.jury(awaits_others, LEASE, self.now)
        } else {
            Jury::default()
        };
        let (admit, Self { breaker, policy, now, rng, .. }) = (|| Ok(()), self);
        matches!(breaker.advance(policy, true, &jury, admit, *now, rng), Some(Event::Opened { .. }))
    }

    /// Sends a request if one is due.
    fn ask(&mut self, number: usize) {
        let now = self.now;
        let proxy = &mut self.proxies[number];
        let Some(pace) = proxy.pace else { return };
        if now < proxy.asks_at {
            return;
        }
        proxy.asks_at = now + pace;
        if proxy.avoids.is_some_and(|(until, _)| now < until) {
            return;
        }
        let Traffic { outcomes, trailing_failures, answered, .. } = &mut proxy.seen;
        if !proxy.reaches {
            self.fail(number);
        } else if let Some(after) = proxy.breaks_after {
            *answered = true;
            proxy.broken_at.push_back(now + after);
        } else if proxy.streams {
            *answered = true;
            proxy.avoids = None;
        } else {
            outcomes.successes += 1;
            (*trailing_failures, proxy.row, proxy.avoids) = (0, 0, None);
        }
    }

    /// What has begun breaks off, if it is time to.
    fn break_off(&mut self, number: usize) {
        let now = self.now;
        while self.proxies[number].broken_at.pop_front_if(|at| *at <= now).is_some() {
            self.proxies[number].seen.broke_off = true;
            self.fail(number);
        }
    }

    fn fail(&mut self, number: usize) {
        let (now, avoid) = (self.now, self.avoid);
        let proxy = &mut self.proxies[number];
        proxy.seen.outcomes.transport += 1;
        proxy.seen.trailing_failures += 1;
        proxy.row += 1;
        if avoid && proxy.row >= AVOIDS_AFTER {
            let lasts = proxy.avoids.map_or(5 * SECOND, |(_, lasts)| AVOIDS_AT_MOST.min(2 * lasts));
            proxy.avoids = Some((now + lasts, lasts));
        }
        if let Stage::Waits(due) = &mut proxy.stage {
            *due = (*due).min(now + Duration::from_millis(20));
        }
    }

    /// Reports, is heard, or hears an answer, if it is time to.
    fn tell(&mut self, number: usize) {
        let (now, (there, back)) = (self.now, self.delays);
        let (there, back) = (self.delay(there), self.delay(back));
        let proxy = &mut self.proxies[number];
        match &mut proxy.stage {
            Stage::Waits(due) if now >= *due => {
                let seen = std::mem::take(&mut proxy.seen);
                let report = Some((now - proxy.began, seen));
                proxy.stage = Stage::Told { at: now + there, report };
            }
            Stage::Told { at, report } if now >= *at => match report.take() {
                Some((sent, seen)) => {
                    *at = now + back;
                    self.hear(number, sent, seen);
                }
                None => {
                    let pause = if proxy.seen.outcomes.transport > 0 { 50 } else { 250 };
                    proxy.stage = Stage::Waits(now + Duration::from_millis(pause));
                }
            },
            Stage::Waits(_) | Stage::Told { .. } => {}
        }
    }

    /// As the control plane does.
    fn hear(&mut self, number: usize, sent: Duration, seen: Traffic) {
        let reporter = self.proxies[number].reporter.clone();
        for former in self.hearing.others(&reporter) {
            self.hearing.forget(&former);
            self.breaker.lost(&self.policy, &former, self.now, &mut self.rng);
        }
        self.hearing.heard(&reporter, self.now);
        if seen.outcomes.total() > 0 || seen.answered {
            let traffic = Traffic { since: self.hearing.tells_since(&reporter), ..seen };
            let report = Report { reporter, sent, traffic, probe: None };
            self.breaker.report(&self.policy, &report, self.now, &mut self.rng);
        }
    }

    /// Lets so many fail, from this one on, and all others be served, for as long; whether the
    /// breaker has opened.
    fn serve(&mut self, first: usize, failing: usize, lasts: Duration) -> bool {
        let proxies = self.proxies.len();
        for number in 0..proxies {
            let reaches = (number + proxies - first) % proxies >= failing;
            let pace = if reaches { self.up_to(PERIOD * 4 / 5) } else { self.up_to(SECOND) };
            let first = self.up_to(Duration::from_millis(200));
            let proxy = &mut self.proxies[number];
            (proxy.pace, proxy.asks_at) = (Some(pace), self.now + first);
            proxy.reaches = reaches;
        }
        self.pass(lasts)
    }

    /// Lets all be served until everybody has told that, however late; whether the breaker has
    /// opened.
    fn recover(&mut self) -> bool {
        let (there, back) = self.delays;
        // What they had seen before is told by their next report, at the latest.
        self.serve(0, 0, 2 * (PERIOD + there + back))
    }

    fn pass(&mut self, lasts: Duration) -> bool {
        let until = self.now + lasts;
        while self.now < until {
            if self.tick() {
                return true;
            }
        }
        false
    }

    fn rest(&mut self, lasts: Duration) -> bool {
        self.proxies.iter_mut().for_each(|proxy| proxy.pace = None);
        self.pass(lasts)
    }
}

/// Some proxy ends, and another process takes its place.
fn restart_one(fleet: &mut Fleet) {
    if fleet.rng.bool() {
        let number = fleet.rng.usize(..fleet.proxies.len());
        fleet.restart(number);
    }
}

#[test]
fn those_that_alone_fail_open_nothing_for_others_however_late_that_is_told() {
    for seed in 0..84 {
        let proxies = 2 + usize::try_from(seed % 7).unwrap();
        let mut fleet = Fleet::new(seed, proxies);
        let failing = if seed % 3 > 0 { 1 } else { fleet.rng.usize(1..=proxies / 2) };
        for span in 0..4 {
            let lasts = fleet.up_to(12 * SECOND);
            // Mostly others than before.
            assert!(!fleet.recover(), "seed {seed}, before span {span}, {failing} failed");
            let first = fleet.rng.usize(..proxies);
            assert!(
                !fleet.serve(first, failing, lasts),
                "seed {seed}, span {span}, {failing} fail"
            );
            restart_one(&mut fleet);
            let most = if fleet.rng.bool() { SECOND } else { 25 * SECOND };
            let lasts = fleet.up_to(most);
            assert!(!fleet.rest(lasts), "seed {seed}, idle after span {span}, {failing} fail");
        }
    }
}

#[test]
fn one_that_goes_on_being_served_outweighs_all_that_fail() {
    for seed in 0..42 {
        let proxies = 2 + usize::try_from(seed % 7).unwrap();
        let mut fleet = Fleet::new(seed, proxies);
        for span in 0..6 {
            let lasts = fleet.up_to(8 * SECOND);
            assert!(!fleet.serve(1, proxies - 1, lasts), "seed {seed}, span {span}");
            restart_one(&mut fleet);
        }
    }
}

/// How long it takes until the breaker opens once nobody reaches the backend any more. Half of the
/// proxies have had no traffic since so long before, if that is told.
fn opens_after(seed: u64, delays: (Duration, Duration), idle: Option<Duration>) -> Duration {
    let proxies = 2 + usize::try_from(seed % 7).unwrap();
    let mut fleet = Fleet::new(seed, proxies);
    fleet.delays = delays;
    // What is late may end a row of failures; who avoids the backend then has few more to tell of.
    fleet.avoid &= idle.is_none() || delays.0 < SECOND;
    let lasts = 2 * SECOND + fleet.up_to(4 * SECOND);
    assert!(!fleet.serve(0, 0, lasts));
    if let Some(idle) = idle {
        fleet.proxies[..proxies / 2].iter_mut().for_each(|proxy| proxy.pace = None);
        assert!(!fleet.pass(idle));
    }
    let died = fleet.now;
    fleet.proxies.iter_mut().for_each(|proxy| proxy.reaches = false);
    assert!(fleet.pass(120 * SECOND), "seed {seed}: it never opens");
    fleet.now - died
}

#[test]
fn a_backend_that_is_dead_for_all_is_taken_out_within_a_bound() {
    let at_once = (Duration::from_millis(20), Duration::from_millis(20));
    let late = (3 * SECOND, SECOND);
    let window = BreakerPolicy::default().window;
    for (delays, idle, bound) in [
        (at_once, None, SECOND),
        // Those without traffic are asked.
        (at_once, Some(window + SECOND), 3 * SECOND / 2),
        // Those that were served last are believed for the window, and then the next failure
        // counts: where proxies avoid the backend by themselves, that of their second try.
        (at_once, Some(Duration::ZERO), 20 * SECOND),
        (late, None, 20 * SECOND),
        (late, Some(Duration::ZERO), 30 * SECOND),
    ] {
        let took = (0..28).map(|seed| opens_after(seed, delays, idle)).max().unwrap();
        println!("delays {delays:?}, idle {idle:?}: {took:?}");
        assert!(took <= bound, "delays {delays:?}, idle {idle:?}: {took:?}");
    }
}

#[test]
fn a_backend_that_breaks_off_all_that_it_begins_is_taken_out_within_a_bound() {
    let opens_after = |seed: u64| {
        let proxies = 2 + usize::try_from(seed % 7).unwrap();
        let mut fleet = Fleet::new(seed, proxies);
        let served = 2 * SECOND;
        assert!(!fleet.serve(0, 0, served));
        let broken = fleet.now;
        for number in 0..proxies {
            let (pace, after) = (fleet.up_to(SECOND), fleet.up_to(2 * SECOND));
            let proxy = &mut fleet.proxies[number];
            (proxy.pace, proxy.breaks_after) = (Some(pace), Some(after));
        }
        assert!(fleet.pass(120 * SECOND), "seed {seed}: it never opens");
        fleet.now - broken
    };
    let took = (0..56).map(opens_after).max().unwrap();
    println!("{took:?}");
    assert!(took <= 20 * SECOND, "{took:?}");
}
