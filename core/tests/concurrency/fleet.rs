//! Eight proxies that share one adaptive limit, over the leases that carry it: requests wait
//! in lines at the proxies, reports and grants take their time, and the backend, which
//! serves in the order of arrival, becomes ten times slower and recovers.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    ops::Range,
    time::{Duration, Instant},
};

use lb_core::{
    lease::{Former, Granter, Holder, OnLoss, Slots, Term, Terms},
    resilience::concurrency::{FleetConcurrency, Policy, Sums, Told},
};

use crate::{Micros, SECOND, epoch};

const PROXIES: usize = 8;
const POLICY: Policy = Policy { limit_min: 1, limit_max: 1000 };
/// From one process to the other.
const WAY: Micros = 1_000;
/// Between two regular reports, and two regular grants.
const PERIOD: Micros = 100_000;
/// Between two looks at the slots in use, as the proxy's control thread takes them.
const LOOK: Micros = 20_000;
const URGENT: Micros = 10_000;
const LINE_MAX: usize = 100;
const LINE_TIME: Micros = 3 * SECOND;

/// What is the case, and what is done about it.
#[derive(Clone, Copy)]
struct Scene {
    seed: u64,
    /// Places at the backend.
    places: usize,
    /// Mean service time while it is fast.
    fast: Micros,
    /// Requests a second, in parts of what the backend can serve while it is fast.
    load: f64,
    /// Parts of the requests that come to each proxy.
    parts: [f64; 8],
    slow: Range2,
    seconds: u64,
    /// The control plane is away, in seconds.
    away: Range2,
    /// Every third message is lost, and every fourth report comes twice.
    loses: bool,
    /// The fixed number of slots; adaptive without.
    fixed: Option<u64>,
}

type Range2 = (u64, u64);

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    Arrival,
    /// At this proxy, of a request that was sent then.
    Answer(usize, Micros),
    Look(usize),
    Tick,
    Grant,
    Up(usize),
    Down(usize),
}

struct Proxy {
    slots: Slots,
    line: VecDeque<Micros>,
    sums: Sums,
    is_urgent: bool,
    reported: Micros,
    up: VecDeque<(lb_core::lease::Report, Told)>,
    down: VecDeque<lb_core::lease::Grant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    answered: u64,
    sent: u64,
    queued: Micros,
    limit: u64,
}

struct World {
    scene: Scene,
    epoch: Instant,
    now: Micros,
    rng: fastrand::Rng,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    numbers: u64,
    proxies: Vec<Proxy>,
    granter: Granter<usize>,
    limit: Option<FleetConcurrency<usize>>,
    grant_is_due: bool,
    free_at: BinaryHeap<Reverse<Micros>>,
    history: Vec<Second>,
}

impl World {
    fn new(scene: Scene) -> Self {
        let epoch = epoch();
        let terms = Terms::slots(Duration::from_secs(30));
        let quantity = scene.fixed.unwrap_or_else(|| POLICY.limit_max.into());
        let on_loss = if scene.fixed.is_some() { OnLoss::SafeShare } else { OnLoss::Keep };
        let proxy = |_| Proxy {
            slots: Slots::new(Holder::new(terms, on_loss, 0, 1, epoch), epoch),
            line: VecDeque::new(),
            sums: Sums::default(),
            is_urgent: false,
            reported: 0,
            up: VecDeque::new(),
            down: VecDeque::new(),
        };
        let mut world = Self {
            scene,
            epoch,
            now: 0,
            rng: fastrand::Rng::with_seed(scene.seed),
            events: BinaryHeap::new(),
            numbers: 0,
            proxies: (0..PROXIES).map(proxy).collect(),
            granter: Granter::new(Term(1), quantity, terms, Former::None, epoch),
            limit: scene.fixed.is_none().then(|| FleetConcurrency::new(POLICY, epoch)),
            grant_is_due: false,
            free_at: (0..scene.places).map(|_| Reverse(0)).collect(),
            history: vec![Second::default(); usize::try_from(scene.seconds).expect("minutes")],
        };
        world.at(0, Event::Arrival);
        world.at(0, Event::Tick);
        for proxy in 0..PROXIES {
            world.at(proxy as u64 * PERIOD / PROXIES as u64, Event::Look(proxy));
        }
        world
    }

    fn run(mut self) -> Vec<Second> {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at >= self.scene.seconds * SECOND {
                break;
            }
            self.now = at;
            self.step(event);
        }
        self.history
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Arrival => self.arrive(),
            Event::Answer(proxy, sent) => self.answer(proxy, sent),
            Event::Look(proxy) => {
                self.look(proxy);
                self.at(self.now + LOOK, event);
            }
            Event::Tick => {
                self.grant();
                self.at(self.now + PERIOD, event);
            }
            Event::Grant => self.grant(),
            Event::Up(proxy) => self.hear(proxy),
            Event::Down(proxy) => {
                let (now, grant) = (self.instant(), self.proxies[proxy].down.pop_front());
                let applied = grant.map(|grant| self.proxies[proxy].slots.apply(&grant, now));
                if let Some(Ok(applied)) = applied {
                    self.proxies[proxy].is_urgent |= applied.report_now;
                }
                self.send(proxy);
            }
        }
    }

    fn arrive(&mut self) {
        let gap = self.scene.fast as f64 / self.scene.places as f64 / self.scene.load;
        let next = self.now + self.exponential(gap);
        self.at(next, Event::Arrival);
        let mut part = self.rng.f64() * self.scene.parts.iter().sum::<f64>();
        let proxy = self.scene.parts.iter().position(|own| {
            part -= own;
            part < 0.0
        });
        let proxy = proxy.unwrap_or(0);
        if self.proxies[proxy].line.len() < LINE_MAX {
            self.proxies[proxy].line.push_back(self.now);
        }
        self.send(proxy);
    }

    fn answer(&mut self, proxy: usize, sent: Micros) {
        let now = self.instant();
        let second = self.second();
        self.history[second].answered += 1;
        let it = &mut self.proxies[proxy];
        it.sums.answers += 1;
        it.sums.time_us += self.now - sent;
        it.is_urgent |= it.slots.give_back(now);
        self.send(proxy);
    }

    /// Sends what there are slots for.
    fn send(&mut self, proxy: usize) {
        let now = self.instant();
        let second = self.second();
        let too_old = self.now.saturating_sub(LINE_TIME);
        while self.proxies[proxy].line.front().is_some_and(|came| *came < too_old) {
            self.proxies[proxy].line.pop_front();
        }
        while !self.proxies[proxy].line.is_empty() && self.proxies[proxy].slots.take(now) {
            self.proxies[proxy].line.pop_front();
            let Reverse(free) = self.free_at.pop().expect("a place");
            let start = free.max(self.now);
            let (begins, ends) = self.scene.slow;
            let is_slow = (begins..ends).contains(&(start / SECOND));
            let mean = self.scene.fast * if is_slow { 10 } else { 1 };
            let end = start + self.exponential(mean as f64);
            self.free_at.push(Reverse(end));
            self.history[second].sent += 1;
            self.history[second].queued += start - self.now;
            self.at(end, Event::Answer(proxy, self.now));
        }
        let it = &mut self.proxies[proxy];
        it.is_urgent |= it.slots.set_waiting(it.line.len() as u64, now);
    }

    fn look(&mut self, proxy: usize) {
        self.send(proxy);
        let (now, at) = (self.instant(), self.now);
        let it = &mut self.proxies[proxy];
        let pause = if it.is_urgent { URGENT } else { PERIOD };
        if at < it.reported + pause {
            return;
        }
        (it.reported, it.is_urgent) = (at, false);
        let report = it.slots.report(now);
        let told = Told {
            holds: report.holds,
            in_use: report.in_use,
            aside: 0,
            waiting: it.line.len() as u64,
            sums: it.sums,
        };
        if !self.is_lost() {
            self.proxies[proxy].up.push_back((report, told));
            self.at(at + WAY, Event::Up(proxy));
            if self.scene.loses && self.rng.u8(..4) == 0 {
                self.proxies[proxy].up.push_back((report, told));
                self.at(at + WAY, Event::Up(proxy));
            }
        }
    }

    fn hear(&mut self, proxy: usize) {
        let now = self.instant();
        let Some((report, told)) = self.proxies[proxy].up.pop_front() else { return };
        let mut heard = self.granter.hear(&proxy, &report, now);
        if let Some(limit) = &mut self.limit
            && heard != lb_core::lease::Heard::Stale
        {
            let before = limit.slots(now);
            limit.hear(&proxy, told, true, now);
            if limit.slots(now) != before {
                heard = lb_core::lease::Heard::Urgent;
            }
        }
        if heard == lb_core::lease::Heard::Urgent && !self.grant_is_due {
            self.grant_is_due = true;
            self.at(self.now + 2_000, Event::Grant);
        }
    }

    fn grant(&mut self) {
        self.grant_is_due = false;
        if self.is_away() {
            return;
        }
        let now = self.instant();
        let second = self.second();
        if let Some(limit) = &self.limit {
            self.granter.set_quantity(limit.slots(now));
            self.history[second].limit = limit.slots(now);
        }
        for (proxy, grant) in self.granter.grant(now) {
            if !self.is_lost() {
                self.proxies[proxy].down.push_back(grant);
                self.at(self.now + WAY, Event::Down(proxy));
            }
        }
    }

    fn is_away(&self) -> bool {
        (self.scene.away.0..self.scene.away.1).contains(&(self.now / SECOND))
    }

    fn is_lost(&mut self) -> bool {
        self.is_away() || self.scene.loses && self.rng.u8(..3) == 0
    }

    fn at(&mut self, at: Micros, event: Event) {
        self.numbers += 1;
        self.events.push(Reverse((at, self.numbers, event)));
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time")]
    fn exponential(&mut self, mean: f64) -> Micros {
        (-(1.0 - self.rng.f64()).ln() * mean) as Micros
    }

    fn instant(&self) -> Instant {
        self.epoch + Duration::from_micros(self.now)
    }

    fn second(&self) -> usize {
        usize::try_from(self.now / SECOND).expect("minutes")
    }
}

const EVEN: [f64; 8] = [1.0; 8];
const SCENE: Scene = Scene {
    seed: 1,
    places: 40,
    fast: 20_000,
    load: 1.5,
    parts: EVEN,
    slow: (15, 35),
    seconds: 55,
    away: (0, 0),
    loses: false,
    fixed: None,
};

/// Answers in these seconds, and the mean time in the queue in front of the backend.
fn figures(history: &[Second], seconds: Range<usize>) -> (f64, f64) {
    let sum = |of: fn(&Second) -> u64| history[seconds.clone()].iter().map(of).sum::<u64>() as f64;
    (sum(|second| second.answered), sum(|second| second.queued) / sum(|second| second.sent))
}

#[test]
fn eight_proxies_follow_a_backend_that_becomes_ten_times_slower() {
    let one = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let uneven = [400.0, 200.0, 200.0, 100.0, 100.0, 50.0, 20.0, 10.0];
    for (what, scene) in [
        ("even", SCENE),
        ("twice as many", Scene { seed: 2, load: 3.0, ..SCENE }),
        ("uneven", Scene { seed: 3, parts: uneven, ..SCENE }),
        ("one proxy alone has traffic", Scene { seed: 4, parts: one, ..SCENE }),
        ("messages are lost and doubled", Scene { seed: 5, loses: true, ..SCENE }),
        ("200 places of 100 ms", Scene { seed: 6, places: 200, fast: 100_000, ..SCENE }),
        ("16 places of 5 ms", Scene { seed: 7, places: 16, fast: 5_000, ..SCENE }),
    ] {
        let history = World::new(scene).run();
        let places = scene.places as u64;
        let oracles = [places, 2 * places]
            .map(|slots| World::new(Scene { fixed: Some(slots), ..scene }).run());
        for (phase, seconds, service, queued_max) in [
            ("fast", 5..15, scene.fast, 2.5),
            ("slow", 15..35, 10 * scene.fast, 2.5),
            ("fast again", 35..43, scene.fast, 5.0),
            ("settled", 43..55, scene.fast, 2.5),
        ] {
            let best = oracles.iter().map(|oracle| figures(oracle, seconds.clone()).0);
            let best = best.fold(0.0, f64::max);
            let (answered, queued) = figures(&history, seconds.clone());
            let queued = queued / service as f64;
            let limits = history[seconds.clone()].iter().map(|second| second.limit);
            let said = format!(
                "{what}, {phase}: {:.0} % of the best fixed limit, {queued:.2} service times in \
                 the queue, limits {} to {}",
                answered / best * 100.0,
                limits.clone().min().unwrap_or_default(),
                limits.max().unwrap_or_default(),
            );
            println!("{said}");
            assert!(answered >= 0.8 * best, "{said}");
            assert!(queued <= queued_max, "{said}");
        }
    }
}

/// Shares stay as they were lent last, even if all of the traffic comes to one proxy.
#[test]
fn without_the_control_plane_the_limit_stays_where_it_was() {
    let one = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    for (seed, parts) in [(1, EVEN), (2, one)] {
        let scene = Scene { seed, parts, slow: (0, 0), away: (15, 30), seconds: 30, ..SCENE };
        let history = World::new(scene).run();
        let (before, _) = figures(&history, 10..15);
        let (after, queued) = figures(&history, 15..30);
        println!("{:.0} % of what it was, {queued:.0} us", after / 3.0 / before * 100.0);
        assert!(after / 3.0 > 0.8 * before, "{after} after {before}");
        assert!(queued < 2.5 * scene.fast as f64, "{queued}");
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let run = || format!("{:?}", World::new(Scene { loses: true, seconds: 20, ..SCENE }).run());
    assert_eq!(run(), run());
}
