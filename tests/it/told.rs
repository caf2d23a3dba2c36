//! What an operator is told of a pool that is not well, of changes that matter, and of what
//! happens.

use std::{net::SocketAddr, process::Stdio, sync::Arc};

use lb_proto::v1::{self as pb, Health};
use lb_tests::{
    backend::{Action, Backend, ok},
    client::get,
    cluster::{Cluster, no_checks},
    eventually::eventually,
    exposition::Scrape,
    load::Load,
    port::Port,
    process::Process,
};
use rustix::process::Signal;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tonic::Streaming;

use crate::program;

async fn event(events: &mut Streaming<pb::Event>, wanted: &str, name: &str) -> pb::Event {
    loop {
        let event = events.message().await.unwrap().expect("events go on");
        if event.r#type == wanted && event.name == name {
            return event;
        }
    }
}

async fn run(cluster: &Cluster, line: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    cluster.lbctl(&args).await.expect(0).stdout
}

/// Whatever was stored is served.
async fn applied(cluster: &Cluster) {
    let revision = cluster.api.revision().await;
    run(cluster, &format!("wait revision/{revision}")).await;
}

/// What is wrong, as the exit code says too.
async fn wrong(cluster: &Cluster) -> String {
    cluster.lbctl(&["check"]).await.expect(1).stdout
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

/// Whoever names a spare pool wants it used when the backends are down, in whichever way.
#[tokio::test]
async fn a_failing_pool_gives_way_to_its_spare_pool_and_panics_only_without() {
    let [a, b, spare] = ["a", "b", "spare"].map(Backend::saying);
    let cluster = Cluster::start(program(), 1).await;
    let ids = cluster.add_backends(&[a.address(), b.address()]).await;
    for id in &ids {
        cluster.api.verdict(id, Health::Up).await;
    }
    run(&cluster, "add-pool spare --health none").await;
    run(&cluster, &format!("add-backend {} --pool spare --id s1", spare.address())).await;
    run(&cluster, "set-pool default --fallback-pool spare").await;
    let mut events = cluster.api.watch(0).await;
    for backend in [&a, &b] {
        backend.set_healthy(false);
    }
    for id in &ids {
        cluster.api.verdict(id, Health::Down).await;
    }
    applied(&cluster).await;
    for _ in 0..4 {
        assert_eq!(get(cluster.address(), "/").await.text(), "spare");
    }
    has(
        &wrong(&cluster).await,
        &["none of its 2 backends is up", "its fallback pool spare answers"],
    );
    has(
        &run(&cluster, "explain-route GET /").await,
        &["0 of 2", "its fallback pool spare answers"],
    );

    // Without it, what accepts connections is used all the same, and everything says so.
    run(&cluster, "disable-backend s1").await;
    let panic = event(&mut events, "pool_panic", "default").await.reason.unwrap();
    assert_eq!(
        panic.message,
        "0 of 2 backends are up, so 2 that accept connections are used all the same"
    );
    applied(&cluster).await;
    let body = get(cluster.address(), "/").await.text();
    assert!(body == "a" || body == "b", "{body}");
    let why = "pool default: panic mode: 0 of 2 backends are up, so 2 that accept connections are \
               used all the same (--panic-threshold 50)";
    has(&wrong(&cluster).await, &[why]);
    has(&run(&cluster, "status").await, &[why]);
    has(
        &run(&cluster, "describe pool default").await,
        &["panic mode: 2 of 2 used although down", "--panic-threshold 50"],
    );
    has(
        &run(&cluster, "explain-route GET /").await,
        &["2 of 2 backends, panic mode", "is in panic mode"],
    );
    has(&run(&cluster, "get backends").await, &["down, used"]);
    let pool = lb_tests::client::exchange(
        cluster.http(),
        "GET",
        "GET /v1/pools/default HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    has(
        &pool.await.unwrap().text(),
        &["\"serving\":2", "\"panic\":{\"cause\":\"few_left\",\"helping\":2}"],
    );

    run(&cluster, "enable-backend s1").await;
    let ended = event(&mut events, "pool_panic_ended", "default").await.reason.unwrap();
    assert_eq!(ended.code, "pool_fallback", "{}", ended.message);
    applied(&cluster).await;
    assert_eq!(get(cluster.address(), "/").await.text(), "spare");
}

#[tokio::test]
async fn a_backend_that_fails_and_stays_is_shown_until_it_is_mended() {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    };
    const UNWELL: &[u8] = b"HTTP/1.1 503 Unwell\r\nContent-Length: 0\r\n\r\n";
    let failing = Arc::new(AtomicBool::new(true));
    let sinkhole = || {
        let fails = Arc::clone(&failing);
        Backend::scripted(move |_| {
            let answer = if fails.load(SeqCst) { UNWELL.to_vec() } else { ok("mended") };
            vec![Action::ReadBody, Action::Send(answer)]
        })
    };
    let (well, bad, worse) = (Backend::saying("well"), sinkhole(), sinkhole());
    let cluster = Cluster::start(program(), 2).await;
    let set = |pool: &mut pb::Pool| {
        pool.breaker = Some(pb::Breaker { open_ms: 60_000, ..pb::Breaker::default() });
    };
    cluster.api.change_pool(set).await;
    cluster.add_backends(&[well.address(), bad.address(), worse.address()]).await;
    let mut events = cluster.api.watch(0).await;
    let load = Load::start(&cluster.addresses(), 2);
    let kept = loop {
        let event = events.message().await.unwrap().expect("events go on");
        if event.r#type == "ejection_refused" {
            break event;
        }
    };
    let told = "1 backend of the pool is out, and at most 1 may be (ejection_refused)";
    has(&kept.reason.unwrap().message, &["but it stays", "1 backend of the pool is out"]);
    let id = kept.name;
    has(&wrong(&cluster).await, &[&format!("{id} "), "up, failing for", told]);
    has(
        &run(&cluster, "status").await,
        &[told, &format!("'lbctl disable-backend {id}' takes it out")],
    );
    has(&run(&cluster, &format!("describe backend {id}")).await, &["up, failing", told]);
    has(&run(&cluster, "describe pool default").await, &["next: 'lbctl describe backend"]);
    has(&run(&cluster, "get backends").await, &["up, failing"]);
    let kept =
        Scrape::of(cluster.http()).await.value("lb_backends{pool=\"default\",state=\"kept\"}");
    assert_eq!(kept, 1.0);
    failing.store(false, SeqCst);
    eventually("it is told no longer", async || {
        let page = run(&cluster, &format!("describe backend {id}")).await;
        if page.contains("failing") { Err(page) } else { Ok(()) }
    })
    .await;
    drop(load.stop().await);
}

#[tokio::test]
async fn whoever_changes_a_check_or_an_address_hears_what_the_next_check_says() {
    let paths = || {
        // Checks of `/health` pass by themselves.
        Backend::scripted(|_| {
            let gone = b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n".to_vec();
            vec![Action::ReadBody, Action::Send(gone)]
        })
    };
    let (a, b) = (paths(), paths());
    let cluster = Cluster::start(program(), 1).await;
    let ids = cluster.add_backends(&[a.address(), b.address()]).await;
    for id in &ids {
        cluster.api.verdict(id, Health::Up).await;
    }
    let told = run(&cluster, "set-pool default --health-path /wrong").await;
    has(&told, &["checks: 0 of 2 backends pass now", "GET /wrong answered 404"]);
    cluster.api.verdict(&ids[0], Health::Down).await;
    // That another check passed before is no reason to suspect the server.
    has(&run(&cluster, "status").await, &["next: set another path with"]);
    let told = run(&cluster, "set-pool default --health-path /health").await;
    has(&told, &["checks: 2 of 2 backends pass now"]);
    let nobody = Port::reserve();
    let line = format!("set-backend {} --address {}", ids[0], nobody.address());
    has(&run(&cluster, &line).await, &[&format!("{} is down:", ids[0]), "nothing listens at"]);
}

#[tokio::test]
async fn what_is_without_effect_is_said() {
    let cluster = Cluster::start(program(), 1).await;
    cluster.api.change_pool(no_checks).await;
    let said = async |line: &str| {
        let args: Vec<&str> = line.split(' ').collect();
        cluster.lbctl(&args).await.expect(0).stderr
    };
    assert_eq!(said("add-backend 127.0.0.1:9 --id a").await, "");
    let idle = "pool default picks by round_robin, which knows no weights but 0";
    has(&said("add-backend 127.0.0.1:10 --id b --weight 3").await, &["warning: ", idle]);
    let check = cluster.lbctl(&["check"]).await.stdout;
    has(&check, &["differ in weight", "weighted_round_robin"]);
    assert_eq!(said("set-algorithm default weighted_round_robin").await, "");
    assert_eq!(said("set-backend b --weight 5").await, "");
    has(&said("set-algorithm default round_robin").await, &[idle]);
    assert_eq!(said("set-pool default --sticky ip_hash").await, "");
    has(&said("set-pool default --sticky none").await, &["stay by its algorithm, ip_hash"]);
}

fn watching(cluster: &Cluster, line: &str) -> Process {
    let line = format!("--server http://{} watch{line}", cluster.grpc());
    let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
    cluster.program().start("watch", &args)
}

#[tokio::test]
async fn watch_ends_when_it_should_and_goes_on_when_it_can() {
    let mut cluster = Cluster::start(program(), 1).await;
    // The past, and no more.
    has(&run(&cluster, "watch --no-follow").await, &["proxy_connected", "pool/default"]);
    assert_eq!(run(&cluster, "watch --past 1 --no-follow").await.lines().count(), 1);
    // A time.
    run(&cluster, "watch --timeout 300ms").await;
    // A reader that has seen enough.
    let line = format!(
        "{} --server http://{} watch --past 3 | head -1",
        env!("CARGO_BIN_EXE_lbctl-under-test"),
        cluster.grpc()
    );
    let shell = tokio::process::Command::new("sh")
        .args(["-c", &line])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let out = shell.await.unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap().lines().count(), 1);
    // A control plane that is killed, and comes back.
    let watch = watching(&cluster, "");
    watch.complaint("watching").await;
    cluster.kill_control_plane().await;
    watch.complaint("the control plane is away").await;
    cluster.start_control_plane().await;
    watch.complaint("restarted: what happened since follows").await;
    run(&cluster, "add-pool late").await;
    watch.printed("the pool", |text| text.contains("pool/late")).await;
}

/// Passes connections on to the control plane's gRPC until it is dropped, and cuts them all then.
struct Way {
    _connections: JoinSet<()>,
}

impl Way {
    fn open(listener: &Arc<TcpListener>, to: SocketAddr) -> Self {
        let (listener, mut all) = (Arc::clone(listener), JoinSet::new());
        all.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(to).await {
                        drop(copy_bidirectional(&mut client, &mut server).await);
                    }
                });
            }
        });
        Self { _connections: all }
    }
}

#[tokio::test]
async fn a_broken_connection_makes_no_news_of_what_was_before_the_watch() {
    let cluster = Cluster::start(program(), 1).await;
    run(&cluster, "add-pool early").await;
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let server = format!("http://{}", listener.local_addr().unwrap());
    let way = Way::open(&listener, cluster.grpc());
    let args = ["--server", &server, "watch"].map(str::to_owned);
    let watch = cluster.program().start("watch", &args);
    watch.complaint("watching").await;
    run(&cluster, "add-pool seen").await;
    watch.printed("a pool", |text| text.contains("pool/seen")).await;
    drop(way);
    watch.complaint("the control plane is away").await;
    run(&cluster, "add-pool meanwhile").await;
    let _way = Way::open(&listener, cluster.grpc());
    watch.complaint("the control plane is back").await;
    run(&cluster, "add-pool late").await;
    let text = watch.printed("the pools", |text| text.contains("pool/late")).await;
    assert!(text.contains("pool/meanwhile"), "{text}");
    assert!(!text.contains("pool/early"), "{text}");
    assert_eq!(text.matches("pool/seen").count(), 1, "{text}");
    assert!(!watch.stderr().contains("restarted"), "{}", watch.stderr());
}

/// Half of what happened is not taken for all of it.
#[tokio::test]
async fn a_past_that_is_not_told_in_time_is_a_failure() {
    let cluster = Cluster::start(program(), 1).await;
    cluster.control_plane().signal(Signal::STOP);
    let args = ["--timeout", "300ms", "watch", "--no-follow"];
    let finished = cluster.lbctl(&args).await;
    cluster.control_plane().signal(Signal::CONT);
    drop(finished.expect(6));
}

/// The page for those who come from elsewhere names nothing that there is not.
#[tokio::test]
async fn what_is_said_of_other_balancers_can_be_declared() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let page = std::fs::read_to_string(docs.join("coming-from-nginx-and-haproxy.md")).unwrap();
    let (_, rest) = page.split_once("```toml\n").expect("the page has a file");
    let (file, _) = rest.split_once("```").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lb.toml");
    std::fs::write(&path, file).unwrap();
    let path = path.to_str().unwrap();
    drop(program().run(&["validate", "-f", path]).await.expect(0));
    let schema = std::fs::read_to_string(docs.join("lb.schema.json")).unwrap();
    let here = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").nth(1));
    for cell in here {
        // Every second piece is between back-ticks: `key`, or `key = value`.
        for said in cell.split('`').skip(1).step_by(2) {
            let key = said.split(" = ").next().unwrap_or(said);
            let is_key = key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let algorithms =
                ["least_connections", "ip_hash", "round_robin", "weighted_round_robin"];
            if is_key && !algorithms.contains(&key) {
                assert!(schema.contains(&format!("\"{key}\":")), "{key:?} of {cell:?} is no key");
            }
        }
    }
}
