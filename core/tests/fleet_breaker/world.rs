//! The control plane, the proxies, and what is between them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lb_core::{
    model::{BreakerPolicy, InstanceId, ProxyId},
    resilience::{
        breaker::{Breaker, ClosedBy, Event, Phase, Report, Reporter},
        hearing::Jury,
        probe::{Fitness, HeldProbe, ProbeState, ProbeToken, ProbeWord, TokenId, USE_MAX},
        sightings::Traffic,
    },
};

const STEP: u64 = 10;
const PERIOD: u64 = 250;
const LEASE: u64 = 5_000;
/// The weather is bad for two minutes, then good until the breaker must have closed.
const BAD: u64 = 120_000;
const GOOD: u64 = 1_000_000;

/// What happened in a run.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) opened: u64,
    pub(crate) probes: u64,
    pub(crate) closed_by_probes: u64,
    pub(crate) lost_in_use: u64,
    /// Half-open steps in which a request of another term was waited for.
    pub(crate) waited_for: u64,
    pub(crate) restarts: u64,
    pub(crate) late_tokens: u64,
    pub(crate) tokens: u64,
    pub(crate) abandoned: u64,
    /// Requests that took so long that their tokens lapsed.
    pub(crate) lapsed: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.probes += other.probes;
        self.closed_by_probes += other.closed_by_probes;
        self.lost_in_use += other.lost_in_use;
        self.waited_for += other.waited_for;
        self.restarts += other.restarts;
        self.late_tokens += other.late_tokens;
        self.tokens += other.tokens;
        self.abandoned += other.abandoned;
        self.lapsed += other.lapsed;
    }
}

/// What is on its way.
#[derive(Clone)]
enum Message {
    Report { proxy: usize, instance: u64, number: u64, report: Report, wants_token: bool },
    Answer { proxy: usize, instance: u64, number: u64, token: Option<ProbeToken> },
}

/// A request sent by a token.
struct Probing {
    id: TokenId,
    since: u64,
    until: u64,
    /// The control plane has given its proxy up, or the proxy its token.
    orphan: bool,
}

struct Proxy {
    id: ProxyId,
    instance: u64,
    /// Down until then.
    dead_until: u64,
    born: u64,
    cut_until: u64,
    held: HeldProbe,
    probing: Option<Probing>,
    number: u64,
    /// When reports were sent.
    asked: BTreeMap<u64, u64>,
    traffic: bool,
    served: Traffic,
    next_report: u64,
}

pub(crate) struct World {
    rng: fastrand::Rng,
    seed: u64,
    start: Instant,
    at: u64,
    policy: BreakerPolicy,
    breaker: Breaker,
    /// Which instance of each proxy was heard when, and when it had sent that.
    heard: BTreeMap<usize, (u64, u64, Duration)>,
    resumed: bool,
    proxies: Vec<Proxy>,
    network: Vec<(u64, Message)>,
    backend_works: bool,
    /// Probes that succeeded in the running half-open time.
    succeeded: u32,
    seen: Seen,
}

#[expect(clippy::disallowed_methods, reason = "the one epoch of a simulated clock")]
fn epoch() -> Instant {
    Instant::now()
}

fn lease() -> Duration {
    Duration::from_millis(LEASE)
}

impl Proxy {
    fn process(&self, instance: u64) -> Reporter {
        let instance = InstanceId::new(&instance.to_string()).expect("a valid name");
        Reporter { proxy: self.id.clone(), instance }
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let proxies = (0..rng.usize(1..=5))
            .map(|number| Proxy {
                id: ProxyId::new(&format!("proxy-{number}")).expect("a valid name"),
                instance: 1,
                dead_until: 0,
                born: 0,
                cut_until: 0,
                held: HeldProbe::new(),
                probing: None,
                number: 0,
                asked: BTreeMap::new(),
                traffic: true,
                served: Traffic::default(),
                next_report: rng.u64(0..PERIOD),
            })
            .collect();
        Self {
            rng,
            seed,
            start: epoch(),
            at: 0,
            policy: BreakerPolicy::default(),
            breaker: Breaker::new(0, lease()),
            heard: BTreeMap::new(),
            resumed: false,
            proxies,
            network: Vec::new(),
            backend_works: true,
            succeeded: 0,
            seen: Seen::default(),
        }
    }

    pub(crate) fn run(mut self) -> Seen {
        while self.at < BAD + GOOD {
            let is_over = self.at > BAD + 20_000 && self.breaker.phase() == Phase::Closed;
            if is_over {
                return self.seen;
            }
            self.weather();
            for number in 0..self.proxies.len() {
                self.live(number);
            }
            self.deliver();
            self.watch();
            self.at += STEP;
        }
        panic!("seed {}: it does not close", self.seed);
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.at)
    }

    fn is_bad(&self) -> bool {
        self.at < BAD
    }

    /// Things that happen to anybody.
    fn weather(&mut self) {
        if !self.is_bad() {
            self.backend_works = true;
            self.proxies.iter_mut().for_each(|proxy| proxy.traffic = true);
            return;
        }
        if self.rng.u32(..600) == 0 {
            self.backend_works = !self.backend_works;
        }
        if self.rng.u32(..3_000) == 0 {
            self.restart();
        }
        let at = self.at;
        for proxy in &mut self.proxies {
            if self.rng.u32(..2_000) == 0 {
                proxy.traffic = !proxy.traffic;
            }
            if self.rng.u32(..2_500) == 0 {
                proxy.cut_until = at + self.rng.u64(0..12_000);
            }
            if self.rng.u32(..4_000) == 0 {
                // It dies with whatever it was doing.
                proxy.instance += 1;
                proxy.dead_until = at + self.rng.u64(0..9_000);
                proxy.born = proxy.dead_until;
                proxy.held = HeldProbe::new();
                proxy.probing = None;
                proxy.asked.clear();
                proxy.served = Traffic::default();
            }
        }
    }

    /// The control plane is another process now.
    fn restart(&mut self) {
        self.seen.restarts += 1;
        let (term, until) = (self.at + 1, self.now() + Duration::from_millis(LEASE));
        self.breaker = match self.breaker.phase() {
            Phase::Closed => Breaker::new(term, lease()),
            Phase::Open { .. } | Phase::HalfOpen { .. } => {
                Breaker::resumed(term, lease(), self.breaker.times(), until)
            }
        };
        self.heard.clear();
        self.resumed = true;
    }

    /// One step of a proxy.
    fn live(&mut self, number: usize) {
        let (at, now) = (self.at, self.now());
        let proxy = &mut self.proxies[number];
        if at < proxy.dead_until {
            return;
        }
        if let Some(probing) = proxy.probing.take_if(|probing| at >= probing.until) {
            if self.rng.u8(..10) == 0 {
                self.seen.abandoned += 1;
                proxy.held.abandon(probing.id);
            } else {
                proxy.held.finish(probing.id, self.backend_works);
            }
        }
        proxy.held.expire(now);
        if let Some(probing) = &mut proxy.probing
            && !probing.orphan
            && Duration::from_millis(at - probing.since) >= USE_MAX
        {
            probing.orphan = true;
            self.seen.lapsed += 1;
        }
        if proxy.traffic && proxy.probing.is_none() && self.rng.u8(..10) == 0 {
            if let Some(id) = proxy.held.take(Fitness::Repeatable, now) {
                let hangs = self.rng.u8(..20) == 0;
                let until = at + self.rng.u64(0..if hangs { 200_000 } else { 8_000 });
                proxy.probing = Some(Probing { id, since: at, until, orphan: false });
                self.seen.probes += 1;
            } else if self.breaker.phase() == Phase::Closed {
                let outcomes = &mut proxy.served.outcomes;
                if self.backend_works {
                    outcomes.successes += 1;
                    proxy.served.trailing_failures = 0;
                } else {
                    outcomes.gateway += 1;
                    proxy.served.trailing_failures += 1;
                }
            }
        }
        if at >= proxy.next_report {
            proxy.next_report = at + PERIOD;
            self.send_report(number);
        }
        let under_way = self.proxies.iter().filter_map(|proxy| proxy.probing.as_ref());
        let count = under_way.filter(|probing| !probing.orphan).count();
        assert!(count <= 1, "seed {}: {count} probes at {at} ms", self.seed);
    }

    fn send_report(&mut self, number: usize) {
        let proxy = &mut self.proxies[number];
        proxy.number += 1;
        proxy.asked.insert(proxy.number, self.at);
        let report = Report {
            reporter: proxy.process(proxy.instance),
            sent: Duration::from_millis(self.at - proxy.born),
            traffic: std::mem::take(&mut proxy.served),
            probe: proxy.held.word(proxy.number),
        };
        let message = Message::Report {
            proxy: number,
            instance: proxy.instance,
            number: proxy.number,
            report,
            wants_token: proxy.traffic,
        };
        self.send(number, message);
    }

    fn send(&mut self, proxy: usize, message: Message) {
        let is_cut = self.at < self.proxies[proxy].cut_until;
        if !self.is_bad() {
            self.network.push((self.at + 20, message));
            return;
        }
        if is_cut || self.rng.u8(..10) == 0 {
            return;
        }
        for _ in 0..if self.rng.u8(..10) == 0 { 2 } else { 1 } {
            let delay = if self.rng.u8(..8) == 0 { 4_000 } else { 100 };
            self.network.push((self.at + self.rng.u64(0..delay), message.clone()));
        }
    }

    fn deliver(&mut self) {
        let (at, now) = (self.at, self.now());
        let (arrived, rest) =
            std::mem::take(&mut self.network).into_iter().partition(|m| m.0 <= at);
        self.network = rest;
        let arrived: Vec<(u64, Message)> = arrived;
        for (_, message) in arrived {
            match message {
                Message::Report { proxy, instance, number, report, wants_token } => {
                    self.hear(proxy, instance, number, &report, wants_token);
                }
                Message::Answer { proxy, instance, number, token } => {
                    let proxy = &mut self.proxies[proxy];
                    if proxy.instance != instance || at < proxy.dead_until {
                        continue;
                    }
                    proxy.held.acknowledge(number);
                    if let Some(token) = token {
                        let asked = proxy.asked[&number];
                        let asked = self.start + Duration::from_millis(asked);
                        self.seen.late_tokens += u64::from(now >= asked + token.life);
                        proxy.held.receive(token, asked);
                    }
                }
            }
        }
    }

    /// What the control plane does with a report.
    fn hear(&mut self, proxy: usize, instance: u64, number: u64, report: &Report, wants: bool) {
        let now = self.now();
        match self.heard.get(&proxy) {
            Some((known, ..)) if *known > instance => return,
            Some((known, ..)) if *known < instance => self.give_up(proxy, *known),
            // It is known to be late, and is no sign of life.
            Some((_, _, sent)) if report.sent <= *sent => return,
            _ => {}
        }
        self.heard.insert(proxy, (instance, self.at, report.sent));
        if let Some(ProbeWord { id, state: ProbeState::Succeeded }) = report.probe
            && self.breaker.term() == id.term
        {
            self.succeeded += 1;
        }
        let event = self.breaker.report(&self.policy, report, now, &mut self.rng);
        self.note(event);
        let others = self.heard.len() > 1;
        let offer = || self.breaker.offer(&report.reporter, report.sent, others, now);
        let token = wants.then(offer).flatten();
        self.seen.tokens += u64::from(token.is_some());
        self.send(proxy, Message::Answer { proxy, instance, number, token });
    }

    /// The lease of a proxy has ended, or its process has.
    fn give_up(&mut self, number: usize, instance: u64) {
        self.heard.remove(&number);
        let proxy = &mut self.proxies[number];
        if let Some(probing) = &mut proxy.probing {
            probing.orphan = true;
        }
        let process = proxy.process(instance);
        let event = self.breaker.lost(&self.policy, &process, self.now(), &mut self.rng);
        self.seen.lost_in_use += u64::from(event.is_some());
        self.note(event);
    }

    /// What the control plane does by itself.
    fn watch(&mut self) {
        let stale = |heard: &(u64, u64, Duration)| self.at - heard.1 > LEASE;
        let lost: Vec<(usize, u64)> = self
            .heard
            .iter()
            .filter(|(_, heard)| stale(heard))
            .map(|(proxy, heard)| (*proxy, heard.0))
            .collect();
        lost.into_iter().for_each(|(proxy, instance)| self.give_up(proxy, instance));
        if !self.at.is_multiple_of(PERIOD) {
            return;
        }
        let now = self.now();
        // All of its failures are statuses, about which nobody is asked.
        let (jury, admit) = (Jury::default(), || Ok(()));
        let event = self.breaker.advance(&self.policy, true, &jury, admit, now, &mut self.rng);
        if event == Some(Event::HalfOpened) && std::mem::take(&mut self.resumed) {
            // Whoever has not reported to this process in a lease's time is lost.
            for (number, proxy) in self.proxies.iter_mut().enumerate() {
                if let Some(probing) = &mut proxy.probing {
                    probing.orphan |= !self.heard.contains_key(&number);
                }
            }
        }
        self.note(event);
        let is_half_open = matches!(self.breaker.phase(), Phase::HalfOpen { .. });
        self.seen.waited_for +=
            u64::from(is_half_open && self.breaker.claimants(now).next().is_some());
    }

    fn note(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Opened { .. }) => self.seen.opened += 1,
            Some(Event::HalfOpened) => self.succeeded = 0,
            Some(Event::Closed { by: ClosedBy::Probes }) => {
                assert!(self.succeeded >= self.policy.successes, "seed {}", self.seed);
                self.seen.closed_by_probes += 1;
            }
            _ => {}
        }
    }
}
