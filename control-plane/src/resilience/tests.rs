//! The judge with a real registry, simulated proxies and a clock of its own.

mod caps;
mod doubts;
mod forgiven;
mod kept;
mod large_pools;
mod processes;
mod reach;

use std::{sync::Arc, time::Duration};

use lb_core::{
    model::{
        AdminState, Backend as Declared, BackendId, BackendStatus, Health, Incarnation, InstanceId,
        Kind, PoolName, ProxyId, Reason, Resource, Standing,
    },
    resilience::probe::{ProbeState, ProbeWord},
    stats::{BackendCounters, Failures},
};

use super::*;
use crate::{
    registry::{Item, PutMode, View, WriteRequest},
    stats::{BackendPart, Process, Report},
    store::MemoryStore,
};

const LEASE: Duration = Duration::from_secs(5);

struct World {
    registry: Registry,
    resilience: Resilience,
    now: Instant,
    began: Instant,
    /// By how much the wall clock was set back.
    set_back: Duration,
    sequence: u64,
    /// What the next reports are taken for.
    role: Role,
    /// What fails next is a connection, and no status.
    cut_off: bool,
    told: Vec<settle::Told>,
}

impl World {
    /// A pool of this many backends, all up.
    async fn new(backends: u64) -> Self {
        let registry =
            Registry::start(Box::new(MemoryStore::new()), Arc::new(EventLog::new())).unwrap();
        let began = now();
        let resilience = Resilience::new(1, LEASE, Some(Vec::new()));
        let mut world = Self {
            registry,
            resilience,
            now: began,
            began,
            set_back: Duration::ZERO,
            sequence: 0,
            role: Role::Present { took_over: false },
            cut_off: false,
            told: Vec::new(),
        };
        let items = (1..=backends).map(|number| {
            let backend = Declared::new(
                BackendId::new(&format!("b{number}")).unwrap(),
                PoolName::default_pool(),
                format!("127.0.0.1:{number}").parse().unwrap(),
            );
            let resource = Box::new(Resource::Backend(backend));
            Item::Put { resource, mode: PutMode::Upsert, assign_id: false }
        });
        let request = WriteRequest { items: items.collect(), ..WriteRequest::default() };
        world.registry.write(request).await.unwrap();
        let words = (1..=backends).map(|n| world.word(n, Health::Up, "check_passed")).collect();
        world.settle(words).await;
        world
    }

    async fn set_state(&mut self, number: u64, admin_state: AdminState) {
        let stored = self.declared(number);
        self.put(Resource::Backend(Declared { admin_state, ..stored })).await;
    }

    fn incarnation(&self, number: u64) -> Incarnation {
        let id = BackendId::new(&format!("b{number}")).unwrap();
        self.registry.read(|view| view.catalog.backends()[&id].value.incarnation)
    }

    fn word(&self, number: u64, health: Health, code: &str) -> Checked {
        Checked {
            status: BackendStatus {
                backend: BackendId::new(&format!("b{number}")).unwrap(),
                incarnation: self.incarnation(number),
                health,
                addresses: vec![([127, 0, 0, 1], 1).into()],
                reason: Reason::new(code, code),
                since_unix_ms: 0,
                was_up: health == Health::Up,
                standing: Standing::default(),
            },
            failing_since: (health == Health::Down).then_some(self.now),
        }
    }

    /// Moves on to the present.
    async fn settle(&mut self, words: Vec<Checked>) {
        let (statuses, told) = self.with(|state, view, at| state.settle(view, words, at));
        self.told.extend(told);
        self.registry.record(statuses).await.unwrap();
    }

    fn with<R>(&self, act: impl FnOnce(&mut State, &View, At<'_>) -> R) -> R {
        let wall = Duration::from_secs(1_000_000) + (self.now - self.began) - self.set_back;
        let unix_ms = u64::try_from(wall.as_millis()).unwrap();
        self.registry.read(|view| {
            let at = At { catalog: &view.catalog, now: self.now, unix_ms };
            act(&mut self.resilience.lock(), view, at)
        })
    }

    /// Gives up whoever is silent, unless its stream is open.
    fn lose_silent(&self, lives: &[&str]) {
        let lives = |reporter: &Reporter| lives.iter().any(|name| process(name) == *reporter);
        self.with(|state, _, at| state.lose_silent(lives, at));
    }

    async fn pass(&mut self, time: Duration) {
        self.now += time;
        self.settle(Vec::new()).await;
    }

    /// One proxy reports, by its first process unless `PROXY/INSTANCE` is named: successes and failures (status 503) of one backend.
    fn report(
        &mut self,
        proxy: &str,
        number: u64,
        (successes, failed): (u64, u64),
        probe: Option<ProbeWord>,
    ) -> Vec<Token> {
        self.sequence += 1;
        self.now += Duration::from_millis(1);
        let backend = BackendId::new(&format!("b{number}")).unwrap();
        let incarnation = self.incarnation(number);
        let failures = if self.cut_off {
            Failures { connect: failed, ..Failures::default() }
        } else {
            Failures { status_5xx: failed, status_gateway: failed, ..Failures::default() }
        };
        let requests = successes + failed;
        let counters =
            BackendCounters { requests, successes, failures, ..BackendCounters::default() };
        let part = BackendPart {
            pool: PoolName::default_pool(),
            backend: backend.clone(),
            incarnation,
            counters,
            in_flight: 0,
            unanswered: 0,
            upgraded: 0,
            cut: 0,
            sessions: 0,
            trailing_failures: failed,
            begun: 0,
            avoided: false,
        };
        let Reporter { proxy, instance } = process(proxy);
        let report = Report {
            proxy,
            instance,
            sequence: self.sequence,
            sent: self.now - self.began,
            probes: probe
                .map(|word| ProbeReport { backend, incarnation, word })
                .into_iter()
                .collect(),
            applied_revision: 0,
            applied_epoch: None,
            interval: Duration::from_millis(250),
            backends: vec![part],
            limits: Vec::new(),
            process: Process::default(),
            sessions: Vec::new(),
            answers: None,
        };
        let (_, tokens) = self.with(|state, _, at| state.report(&report, self.role, at));
        tokens
    }

    /// Opens the breaker of the first backend and waits until it is half-open; the process
    /// has a request under way there then.
    async fn trying(&mut self, name: &str) -> ProbeWord {
        self.report(name, 1, (0, 5), None);
        self.settle(Vec::new()).await;
        self.pass(Duration::from_secs(8)).await;
        let tokens = self.report(name, 2, (1, 0), None);
        let [token] = &tokens[..] else { panic!("{tokens:?}") };
        let word = ProbeWord { id: token.token.id, state: ProbeState::InUse };
        self.report(name, 2, (1, 0), None);
        self.report_of(name, word)
    }

    fn report_of(&mut self, name: &str, word: ProbeWord) -> ProbeWord {
        self.report(name, 1, (0, 0), Some(word));
        word
    }

    fn ejection(&self, number: u64) -> Option<(String, bool)> {
        let ejection = self.status(number).standing.ejection?;
        Some((ejection.reason.code, ejection.is_half_open))
    }

    fn status(&self, number: u64) -> BackendStatus {
        let id = BackendId::new(&format!("b{number}")).unwrap();
        self.registry
            .read(|view| view.catalog.status(&view.catalog.backends()[&id].value).cloned())
            .expect("it was checked")
    }

    fn is_out(&self, number: u64) -> bool {
        self.status(number).standing.ejection.is_some()
    }
}

fn process(name: &str) -> Reporter {
    let (name, instance) = name.split_once('/').unwrap_or((name, "1"));
    Reporter { proxy: ProxyId::new(name).unwrap(), instance: InstanceId::new(instance).unwrap() }
}

#[tokio::test]
async fn failures_in_a_row_add_up_over_proxies_and_open_one_breaker() {
    let mut world = World::new(3).await;
    for proxy in ["p1", "p2", "p3", "p4"] {
        world.report(proxy, 1, (0, 1), None);
        world.report(proxy, 2, (5, 0), None);
    }
    world.settle(Vec::new()).await;
    assert!(!world.is_out(1), "four are not enough");
    world.report("p5", 1, (0, 1), None);
    world.settle(Vec::new()).await;
    let status = world.status(1);
    let ejection = status.standing.ejection.unwrap();
    assert_eq!(ejection.reason.code, "breaker_consecutive_failures");
    assert_eq!(status.health, Health::Up, "its checks still pass");
    assert!(!world.is_out(2));
    assert_eq!(world.resilience.breakers().open, 1);
}

#[tokio::test]
async fn a_pool_never_loses_more_than_it_can_spare() {
    let mut world = World::new(4).await;
    for number in 1..=4 {
        world.report("p1", number, (0, 20), None);
        world.settle(Vec::new()).await;
    }
    let out: Vec<u64> = (1..=4).filter(|number| world.is_out(*number)).collect();
    assert_eq!(out, [1], "a third of four is one");
}

/// If each were compared with all others, this would take minutes, in which all streams stand still.
#[tokio::test]
async fn one_token_at_a_time_closes_a_breaker_into_a_slow_start() {
    let mut world = World::new(3).await;
    world.report("p1", 1, (0, 5), None);
    world.settle(Vec::new()).await;
    assert!(world.is_out(1));
    world.pass(Duration::from_secs(8)).await;
    let ejection = world.status(1).standing.ejection.unwrap();
    assert!(ejection.is_half_open);
    let mut probe = None;
    for success in 0..3 {
        let proxy = ["p1", "p2"][success % 2];
        let other = ["p2", "p1"][success % 2];
        // Both have traffic; reports of 100 requests are worth a ramp.
        world.report(other, 2, (100, 0), None);
        let tokens = world.report(proxy, 2, (100, 0), None);
        let late = world.report(other, 2, (100, 0), None);
        let given: Vec<&Token> = tokens.iter().chain(&late).collect();
        if let [token] = given[..] {
            probe = Some(ProbeWord { id: token.token.id, state: ProbeState::Succeeded });
        } else {
            assert!(given.is_empty(), "two tokens at once: {given:?}");
        }
        let holder = if tokens.is_empty() { other } else { proxy };
        world.report(holder, 1, (1, 0), probe);
        world.pass(Duration::from_millis(500)).await;
    }
    for _ in 0..10 {
        if !world.is_out(1) {
            break;
        }
        for proxy in ["p1", "p2"] {
            let tokens = world.report(proxy, 2, (100, 0), None);
            if let [token] = &tokens[..] {
                let word = ProbeWord { id: token.token.id, state: ProbeState::Succeeded };
                world.report(proxy, 1, (1, 0), Some(word));
            }
        }
        world.pass(Duration::from_millis(250)).await;
    }
    let standing = world.status(1).standing;
    assert_eq!(standing.ejection, None);
    assert_eq!(standing.slow_start.unwrap().duration, Duration::from_secs(10));
}

#[tokio::test]
async fn a_pool_that_shrinks_gets_the_last_one_that_is_out_back_and_is_not_asked_again() {
    let mut world = World::new(6).await;
    for number in 1..=2 {
        world.report("p1", number, (0, 20), None);
        world.settle(Vec::new()).await;
    }
    assert!(world.is_out(1) && world.is_out(2), "a third of six");
    world.set_state(6, AdminState::Disabled).await;
    world.pass(Duration::from_millis(10)).await;
    assert!(world.is_out(1) && !world.is_out(2), "a third of five");
}

#[tokio::test]
async fn a_check_that_cannot_reach_what_proxies_reach_takes_nothing_out() {
    let mut world = World::new(3).await;
    let cut_off = world.word(1, Health::Down, "backend_reset");
    world.now += Duration::from_secs(1);
    world.report("p1", 1, (10, 0), None);
    world.settle(vec![cut_off]).await;
    let status = world.status(1);
    assert_eq!((status.health, status.reason.code.as_str()), (Health::Up, "check_contradicted"));
    assert_eq!(status.standing.disagreements[0].proxy, None);
    // Once no proxy has anything to say for it any more, the check is believed.
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(world.status(1).health, Health::Down);
    // What the application says always counts.
    let mut other = World::new(3).await;
    let refused = other.word(1, Health::Down, "check_status");
    other.now += Duration::from_secs(1);
    other.report("p1", 1, (10, 0), None);
    other.settle(vec![refused]).await;
    assert_eq!(other.status(1).health, Health::Down);
}

#[tokio::test]
async fn what_was_open_before_a_restart_stays_open_and_is_tried_again() {
    let mut world = World::new(3).await;
    world.report("p1", 1, (0, 5), None);
    world.settle(Vec::new()).await;
    assert!(world.is_out(1));
    world.resilience = Resilience::new(1, LEASE, Some(Vec::new()));
    world.pass(Duration::from_millis(10)).await;
    assert!(world.is_out(1), "a restart forgets nothing");
    world.pass(LEASE).await;
    world.pass(Duration::from_millis(10)).await;
    assert!(world.status(1).standing.ejection.unwrap().is_half_open);
}

#[tokio::test]
async fn a_backend_that_went_down_and_came_back_is_not_held_to_what_it_failed_before() {
    let mut world = World::new(3).await;
    world.report("p1", 1, (0, 5), None);
    world.settle(Vec::new()).await;
    assert!(world.is_out(1));
    let down = world.word(1, Health::Down, "backend_connect_refused");
    world.settle(vec![down]).await;
    assert!(world.is_out(1), "it is down, and its breaker open");
    let up = world.word(1, Health::Up, "check_passed");
    world.settle(vec![up]).await;
    assert_eq!(world.status(1).health, Health::Up);
    assert!(!world.is_out(1));
}

#[tokio::test]
async fn an_outlier_that_is_disabled_meanwhile_comes_back_when_its_time_is_over() {
    let mut world = World::new(6).await;
    world.pass(Duration::from_millis(100)).await;
    for number in 1..=6 {
        // Every second one fails: no breaker opens for that, but it differs.
        let failed = if number == 1 { 45 } else { 0 };
        for _ in 0..10 {
            world.report("p1", number, (20 - failed / 10, 0), None);
        }
        if failed > 0 {
            for _ in 0..failed {
                world.report("p1", number, (0, 1), None);
                world.report("p1", number, (1, 0), None);
            }
        }
    }
    world.pass(Duration::from_secs(11)).await;
    assert!(world.is_out(1), "{:?}", world.status(1));
    world.set_state(1, AdminState::Disabled).await;
    world.pass(Duration::from_secs(11)).await;
    world.set_state(1, AdminState::Enabled).await;
    world.pass(Duration::from_secs(60)).await;
    assert!(!world.is_out(1));
}

#[tokio::test]
async fn an_outlier_is_told_for_which_time_in_a_row_it_is_one() {
    let mut world = World::new(6).await;
    world.pass(Duration::from_millis(100)).await;
    let mut lasts = Duration::from_secs(11);
    for times in 1..=2 {
        for number in 1..=6 {
            let failing = number == 1;
            for _ in 0..100 {
                world.report("p1", number, (1, 0), None);
                world.report("p1", number, (u64::from(!failing), u64::from(failing)), None);
            }
        }
        // Its time is over, and it is one again.
        world.pass(lasts).await;
        let ejection = world.status(1).standing.ejection.expect("it differs");
        assert_eq!(ejection.times, times);
        lasts = ejection.open_for;
    }
}

#[tokio::test]
async fn a_verdict_that_comes_and_goes_is_held_down() {
    let mut world = World::new(3).await;
    let mut changes = 0;
    for second in 0..120 {
        world.now += Duration::from_secs(1);
        let health = if second / 3 % 2 == 0 { Health::Down } else { Health::Up };
        let before = world.status(1).health;
        let word = world.word(1, health, "check_status");
        world.settle(vec![word]).await;
        changes += u32::from(world.status(1).health != before);
    }
    assert!(changes <= 5, "{changes} changes in two minutes");
    let status = world.status(1);
    assert_eq!((status.health, status.reason.code.as_str()), (Health::Down, "flap_hold"));
}

#[tokio::test]
async fn a_backend_that_joins_a_busy_pool_begins_slowly_and_in_an_idle_one_at_once() {
    for (requests, begins_slowly) in [(1000, true), (1, false)] {
        let mut world = World::new(3).await;
        let down = world.word(3, Health::Down, "check_status");
        world.settle(vec![down]).await;
        for _ in 0..8 {
            world.report("p1", 1, (requests, 0), None);
            world.pass(Duration::from_millis(500)).await;
        }
        let up = world.word(3, Health::Up, "check_passed");
        world.settle(vec![up]).await;
        let ramp = world.status(3).standing.slow_start;
        assert_eq!(ramp.is_some(), begins_slowly, "{requests} requests per half second");
    }
}
