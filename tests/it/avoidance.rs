//! Backends that fail: what proxies do by the word of the fleet, and by themselves.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use lb_proto::v1::{self as pb, ProbeOutcome};
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
    exposition::Scrape,
    load::Load,
    scene::{self, Scene},
    scripted::{ControlPlane, Draft},
};

use tokio::net::TcpStream;

use crate::program;

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi";
const AVOIDED: &str = "lb_backend_avoided{pool=\"default\",backend=\"b\"}";

/// A backend that resets all connections while it fails, and keeps none open otherwise: what
/// is sent once reaches it once.
fn fickle(body: &'static str) -> (Backend, Arc<AtomicBool>) {
    let failing = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&failing);
    let answer = move |_: &_| match fails.load(SeqCst) {
        true => vec![Action::Reset],
        false => {
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n");
            let answer = format!("{head}Connection: close\r\n\r\n{body}").into_bytes();
            vec![Action::ReadBody, Action::Send(answer), Action::Close]
        }
    };
    (Backend::scripted(answer), failing)
}

/// `a` is up; of `b` something else is known.
fn two(a: &Backend, b: &Backend, status: pb::BackendStatus) -> Vec<Draft> {
    [scene::backend(a, scene::up("a", a)), scene::backend(b, status)].concat()
}

/// A pool whose breakers open for so long.
fn pool(open_ms: u32) -> pb::Pool {
    let breaker = pb::Breaker { open_ms, ..pb::Breaker::default() };
    pb::Pool { breaker: Some(breaker), ..scene::pool("round_robin") }
}

fn token(number: u64, life_ms: u32) -> pb::ProbeToken {
    pb::ProbeToken { backend: "b".to_owned(), incarnation: 1, term: 1, number, life_ms }
}

/// Gives a token to the first proxy, which has it when this returns.
async fn grant(scene: &mut Scene, token: pb::ProbeToken) {
    let statistics = &mut scene.control_plane().statistics;
    statistics.grant("proxy-1", token);
    while !statistics.is_granted("proxy-1") {
        statistics.report().await;
    }
    // The answer to one report is heard before the next is made; one may be on its way.
    statistics.report().await;
    statistics.report().await;
}

async fn avoided(scene: &Scene, wanted: f64) {
    eventually("a proxy avoids a backend, or no more", async || {
        let found = Scrape::of(scene.admin()).await.value(AVOIDED);
        if found == wanted { Ok(()) } else { Err(found) }
    })
    .await;
}

#[tokio::test]
async fn what_the_fleet_has_ejected_gets_nothing_until_it_is_restored() {
    let [a, b] = ["a", "b"].map(Backend::saying);
    let backends = two(&a, &b, scene::open("b", &b, 60_000));
    let mut scene = Scene::start(program(), pool(5000), backends).await;
    for status in [scene::open("b", &b, 1), scene::half_open("b", &b)] {
        for _ in 0..6 {
            assert_eq!(get(scene.address(), "/").await.text(), "a");
        }
        scene.tell(vec![status.into()]).await;
    }
    assert_eq!(b.requests(), 0, "its time is for the control plane to tell");
    scene.tell(vec![scene::up("b", &b).into()]).await;
    let both = [get(scene.address(), "/").await.text(), get(scene.address(), "/").await.text()];
    assert!(both.contains(&"b".to_owned()), "{both:?}");
}

#[tokio::test]
async fn each_token_lets_one_request_through_whichever_worker_has_it() {
    let (a, (b, failing)) = (Backend::saying("a"), fickle("b"));
    let backends = two(&a, &b, scene::half_open("b", &b));
    let control_plane = ControlPlane::start().await;
    let args = ["--workers=4"];
    let mut scene = Scene::start_as(program(), control_plane, 1, &args, pool(5000), backends).await;
    let load = Load::start(&scene.addresses(), 8);
    for number in 1..=4 {
        failing.store(number == 3, SeqCst);
        let statistics = &mut scene.control_plane().statistics;
        statistics.grant("proxy-1", token(number, 60_000));
        let probe = statistics
            .find(|report| {
                let ended = |probe: &&pb::ProbeReport| {
                    probe.number == number && probe.outcome != i32::from(ProbeOutcome::Running)
                };
                report.probes.iter().find(ended).cloned()
            })
            .await;
        let wanted = if number == 3 { ProbeOutcome::Failed } else { ProbeOutcome::Succeeded };
        assert_eq!(probe.outcome, i32::from(wanted), "{probe:?}");
        assert_eq!((probe.term, &*probe.backend), (1, "b"));
        load.answered(100).await;
        assert_eq!(b.requests() as u64, number);
    }
    // What was heard is not told again.
    scene.control_plane().statistics.find(|report| report.probes.is_empty().then_some(())).await;
    // The one that failed was sent to another backend.
    let tally = load.stop().await;
    tally.assert_flawless();
    assert_eq!(tally.bodies["b"], 3);
}

#[tokio::test]
async fn what_cannot_be_sent_again_leaves_the_token_to_others() {
    let [a, b] = ["a", "b"].map(Backend::saying);
    let backends = two(&a, &b, scene::half_open("b", &b));
    let mut scene = Scene::start(program(), pool(5000), backends).await;
    grant(&mut scene, token(1, 600_000)).await;
    let mut client = Client::connect(scene.address()).await;
    for _ in 0..5 {
        client.send(POST).await;
        assert_eq!(client.response().await.text(), "a");
    }
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "b");
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "a");
}

#[tokio::test]
async fn a_probe_is_told_while_it_runs_and_not_any_more_when_its_client_has_left() {
    let gate = Gate::default();
    let held = gate.clone();
    let b = Backend::scripted(move |_| vec![Action::Await(held.clone()), Action::Send(ok("b"))]);
    let a = Backend::saying("a");
    let backends = two(&a, &b, scene::half_open("b", &b));
    let mut scene = Scene::start(program(), pool(5000), backends).await;
    grant(&mut scene, token(1, 600_000)).await;
    let stream = TcpStream::connect(scene.address()).await.unwrap();
    // A client that merely says no more may still want its answer.
    stream.set_zero_linger().unwrap();
    let mut client = Client::over(stream);
    client.send(GET).await;
    b.reached(1).await;
    let statistics = &mut scene.control_plane().statistics;
    let running = i32::from(ProbeOutcome::Running);
    let told = statistics.find(|report| report.probes.first().cloned()).await;
    assert_eq!((told.outcome, told.number), (running, 1));
    drop(client);
    let not_running =
        |report: &pb::StatsReport| match report.probes.first().map(|probe| probe.outcome) {
            Some(outcome) if outcome == running => None,
            other => Some(other),
        };
    assert_eq!(statistics.find(not_running).await, None);
    // The next token is another one.
    gate.open();
    grant(&mut scene, token(2, 600_000)).await;
    assert_eq!(get(scene.address(), "/").await.text(), "b");
    let probe = scene.control_plane().statistics.probe().await;
    assert_eq!((probe.number, probe.outcome), (2, i32::from(ProbeOutcome::Succeeded)));
}

#[tokio::test]
async fn a_proxy_alone_avoids_what_fails_and_takes_it_back_when_it_answers() {
    let (a, (b, failing)) = (Backend::saying("a"), fickle("b"));
    let backends = two(&a, &b, scene::up("b", &b));
    let mut scene = Scene::start(program(), pool(400), backends).await;
    scene.lose_control_plane();
    let load = Load::start(&scene.addresses(), 2);
    load.answered_by("b").await;
    failing.store(true, SeqCst);
    avoided(&scene, 1.0).await;
    let before = b.requests();
    load.answered(100).await;
    // One at a time tries it, later each time.
    assert!(b.requests() - before <= 5, "{} requests", b.requests() - before);
    failing.store(false, SeqCst);
    avoided(&scene, 0.0).await;
    load.answered_by("b").await;
    load.answered_by("b").await;
    load.stop().await.assert_flawless();
}

#[tokio::test]
async fn the_control_plane_hears_of_it_and_its_word_ends_it() {
    let (a, (b, failing)) = (Backend::saying("a"), fickle("b"));
    let backends = two(&a, &b, scene::up("b", &b));
    let mut scene = Scene::start(program(), pool(300_000), backends).await;
    failing.store(true, SeqCst);
    let load = Load::start(&scene.addresses(), 1);
    let is_told = |report: &pb::StatsReport| {
        let told = report.backends.iter().find(|told| told.backend == "b" && told.avoided);
        told.map(|_| ())
    };
    scene.control_plane().statistics.find(is_told).await;
    avoided(&scene, 1.0).await;
    failing.store(false, SeqCst);
    scene.tell(vec![scene::open("b", &b, 300_000).into()]).await;
    avoided(&scene, 0.0).await;
    scene.tell(vec![scene::up("b", &b).into()]).await;
    load.answered_by("b").await;
    load.stop().await.assert_flawless();
}

#[tokio::test]
async fn a_breaker_that_is_off_is_off_for_proxies_too() {
    let (a, (b, failing)) = (Backend::saying("a"), fickle("b"));
    failing.store(true, SeqCst);
    let off = pb::Breaker {
        consecutive_failures: Some(0),
        failure_ratio_percent: Some(0),
        ..pb::Breaker::default()
    };
    let off = pb::Pool { breaker: Some(off), ..scene::pool("round_robin") };
    let scene = Scene::start(program(), off, two(&a, &b, scene::up("b", &b))).await;
    for _ in 0..40 {
        assert_eq!(get(scene.address(), "/").await.text(), "a");
    }
    assert!(b.requests() >= 20, "{}", b.requests());
}

#[tokio::test]
async fn a_proxy_alone_goes_on_where_the_fleet_was() {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(Backend::saying);
    let backends = [
        two(&a, &b, scene::open("b", &b, 400)),
        scene::backend(&d, scene::open("d", &d, 300_000)).into(),
        // Six of them, so that two may be out.
        ["c", "e", "f"].map(|id| scene::backend(&c, scene::up(id, &c))).as_flattened().to_vec(),
    ];
    let mut scene = Scene::start(program(), pool(400), backends.concat()).await;
    let load = Load::start(&scene.addresses(), 2);
    load.answered(50).await;
    assert_eq!((b.requests(), d.requests()), (0, 0));
    scene.lose_control_plane();
    load.answered_by("b").await;
    load.answered_by("b").await;
    assert_eq!(d.requests(), 0, "its time is not over");
    load.stop().await.assert_flawless();
}

/// One that has lost its store knows nothing of what is served here, and has nothing tried again.
#[tokio::test]
async fn a_control_plane_whose_state_is_refused_has_no_say() {
    let (a, c, (b, failing)) = (Backend::saying("a"), Backend::saying("c"), fickle("b"));
    let mut cluster = Cluster::start(program(), 1).await;
    cluster.api.change_pool(no_checks).await;
    cluster.add_backends(&[a.address(), b.address(), c.address()]).await;
    drop(cluster.lbctl(&["set-pool", "default", "--breaker-open", "5s"]).await.expect(0));
    failing.store(true, SeqCst);
    let load = Load::start(&cluster.addresses(), 2);
    let mut events = cluster.api.watch(1000).await;
    while events.message().await.unwrap().unwrap().r#type != "breaker_opened" {}
    cluster.settled().await;
    cluster.kill_control_plane().await;
    std::fs::remove_dir_all(cluster.control_plane_dir()).unwrap();
    cluster.start_control_plane().await;
    eventually("the proxy refuses the empty state", async || {
        let (proxies, _) = cluster.api.try_proxies().await.map_err(|e| e.to_string())?;
        if proxies.iter().any(|proxy| proxy.awaits_consent) {
            Ok(())
        } else {
            Err(format!("{proxies:?}"))
        }
    })
    .await;
    failing.store(false, SeqCst);
    load.answered_by("b").await;
    load.answered_by("b").await;
    load.stop().await.assert_flawless();
}

#[tokio::test]
async fn failures_are_reported_before_the_next_report_is_due() {
    let (a, (b, failing)) = (Backend::saying("a"), fickle("b"));
    failing.store(true, SeqCst);
    let mut control_plane = ControlPlane::start().await;
    control_plane.stats_period_ms = 600_000;
    let backends = two(&a, &b, scene::up("b", &b));
    let mut scene = Scene::start_as(program(), control_plane, 1, &[], pool(5000), backends).await;
    for _ in 0..2 {
        assert_eq!(get(scene.address(), "/").await.text(), "a");
    }
    let failed = |report: &pb::StatsReport| {
        let b = report.backends.iter().find(|told| told.backend == "b")?;
        Some(b.trailing_failures).filter(|failures| *failures > 0)
    };
    assert_eq!(scene.control_plane().statistics.find(failed).await, 1);
}

/// A report that the control plane will never take must not keep it from hearing the next one.
#[tokio::test]
async fn a_report_that_is_refused_is_not_sent_for_ever() {
    let (a, b) = (Backend::saying("a"), Backend::saying("b"));
    let backends = two(&a, &b, scene::up("b", &b));
    let mut scene = Scene::start(program(), pool(5000), backends).await;
    let statistics = &mut scene.control_plane().statistics;
    statistics.refuse("proxy-1");
    let mut last = 0;
    while last < 8 {
        let sequence = statistics.report().await.sequence;
        assert!(sequence > last, "report {sequence} came again after {last}");
        last = sequence;
    }
    scene.process().complaint("refuses a report of statistics").await;
}
