//! Several proxies as one: changes reach all of them, and who lags or refuses is named.

use lb_proto::v1::{self as pb, Health, object::Object as Any, proxy_message::Message as Up};
use lb_tests::{
    backend::Backend,
    client::get,
    cluster::Cluster,
    eventually::eventually,
    scene,
    scripted::{self, Draft},
};
use rustix::process::Signal;

use crate::program;

#[tokio::test]
async fn whoever_waits_may_stop_waiting() {
    let cluster = Cluster::start(program(), 1).await;
    let server = format!("http://{}", cluster.grpc());
    let wait = ["--server", &server, "wait", "proxies", "--count", "2", "--timeout", "60s"];
    let mut waiting = program().start("lbctl", &wait.map(str::to_owned));
    eventually("it catches signals", async || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", waiting.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        let caught = u64::from_str_radix(caught, 16).unwrap();
        // SIGINT is the second signal.
        if caught & 0b10 != 0 { Ok(()) } else { Err(status) }
    })
    .await;
    waiting.signal(Signal::INT);
    assert_eq!(waiting.exited().await, 130);
    assert_eq!(waiting.stdout(), "");
}

#[tokio::test]
async fn a_new_backend_gets_traffic_after_its_first_passing_check() {
    let (old, new) = (Backend::saying("old"), Backend::saying("new"));
    let cluster = Cluster::start(program(), 3).await;
    cluster.add_backends(&[old.address()]).await;
    new.set_healthy(false);
    let address = new.address().to_string();
    let added = cluster.lbctl(&["add-backend", &address, "--weight", "1"]).await.expect(0);
    println!("{}", added.stdout);
    assert!(added.stdout.contains("applied 3/3 proxies in "), "{added:?}");
    assert!(added.stdout.contains("(revision "), "{added:?}");
    assert!(added.stdout.contains("backend2"), "{added:?}");
    // Its first check failed, so it must not have been asked for anything else.
    cluster.api.verdict("backend2", Health::Down).await;
    for proxy in cluster.addresses() {
        for _ in 0..4 {
            assert_eq!(get(proxy, "/").await.text(), "old");
        }
    }
    assert_eq!(new.requests(), 0);
    new.set_healthy(true);
    cluster.api.verdict("backend2", Health::Up).await;
    cluster.settled().await;
    for proxy in cluster.addresses() {
        let both = [get(proxy, "/").await.text(), get(proxy, "/").await.text()];
        assert!(both.contains(&"new".to_owned()), "{proxy}: {both:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_is_named_and_catches_up_by_itself() {
    let backend = Backend::saying("a");
    let cluster = Cluster::start(program(), 3).await;
    cluster.proxy(1).signal(Signal::STOP);
    let address = backend.address().to_string();
    let late = cluster.lbctl(&["--timeout", "1s", "add-backend", &address]).await.expect(6);
    assert!(late.stdout.contains("applied 2/3 proxies"), "{late:?}");
    assert!(late.stderr.contains("proxy-2"), "{late:?}");
    assert!(!late.stderr.contains("proxy-1") && !late.stderr.contains("proxy-3"), "{late:?}");
    // The others serve it meanwhile.
    cluster.api.verdict("backend1", Health::Up).await;
    for index in [0, 2] {
        eventually("the others serve", async || {
            let response = get(cluster.proxy(index).address(), "/").await;
            if response.status == 200 { Ok(()) } else { Err(response.status) }
        })
        .await;
    }
    cluster.proxy(1).signal(Signal::CONT);
    drop(cluster.lbctl(&["wait", "proxies", "--count", "3", "--timeout", "30s"]).await.expect(0));
    cluster.settled().await;
    assert_eq!(get(cluster.proxy(1).address(), "/").await.text(), "a");
}

fn pool(name: &str, algorithm: &str) -> Draft {
    Any::Pool(pb::Pool { name: name.to_owned(), ..scene::pool(algorithm) }).into()
}

/// A backend that is up.
fn backend(id: &str, backend: &Backend) -> [Draft; 2] {
    scene::backend(backend, scene::up(id, backend))
}

/// What every proxy needs in order to serve.
fn basics() -> Vec<Draft> {
    scene::basics(scene::pool("round_robin"))
}

#[tokio::test]
async fn a_proxy_refuses_one_object_and_applies_the_rest() {
    let (a, b) = (Backend::saying("a"), Backend::saying("b"));
    let mut control_plane = scripted::ControlPlane::start().await;
    let directory = tempfile::tempdir().unwrap();
    let args = [
        "data-plane".to_owned(),
        "--id=proxy-1".to_owned(),
        format!("--control-plane={}", control_plane.url()),
        "--host=127.0.0.1".to_owned(),
        "--port=0".to_owned(),
        "--admin=127.0.0.1:0".to_owned(),
        format!("--data-dir={}", directory.path().display()),
        "--exit-with-parent".to_owned(),
    ];
    let proxy = program().start("proxy-1", &args);
    let address = proxy.listening().await.address("default");
    let mut session = control_plane.session().await;
    assert_eq!(session.hello.proxy_id, "proxy-1");
    let answer = session.snapshot([basics(), backend("a", &a).into()].concat()).await;
    assert!(matches!(answer, Up::Ack(_)), "{answer:?}");
    assert_eq!(get(address, "/").await.text(), "a");

    let delta = [vec![pool("default", "quantum")], backend("b", &b).into()].concat();
    let Up::Nack(nack) = session.delta(delta).await else { panic!("a refusal was expected") };
    let [rejection] = &nack.rejections[..] else { panic!("{nack:?}") };
    assert_eq!((&*rejection.kind, &*rejection.name), ("pool", "default"));
    assert_eq!(rejection.code, "unknown_algorithm");
    assert_eq!(rejection.revision, 2);
    assert!(rejection.message.contains("quantum"), "{rejection:?}");
    // The version is that of the whole state: only the object stays behind.
    assert_eq!(nack.version.unwrap().revision, 2);
    assert_eq!(nack.refused, i32::from(pb::Refusal::None));
    // The other objects are in use, by the former algorithm.
    let mut bodies = Vec::new();
    for _ in 0..4 {
        bodies.push(get(address, "/").await.text());
    }
    bodies.sort();
    assert_eq!(bodies, ["a", "a", "b", "b"]);

    // What is corrected is taken.
    let answer = session.delta(vec![pool("default", "weighted_round_robin")]).await;
    assert!(matches!(answer, Up::Ack(_)), "{answer:?}");
    proxy.complaint("unknown_algorithm").await;
}

#[tokio::test]
async fn a_refusal_ends_the_write_and_is_shown() {
    let cluster = Cluster::start(program(), 1).await;
    let _refusing = scripted::Proxy::follow(cluster.api.channel(), "proxy-old", |object| {
        let refused = &*object.key.kind == "pool" && &*object.key.name == "odd";
        refused.then_some(("unknown_algorithm", "unknown algorithm \"quantum\""))
    })
    .await;
    cluster.api.settled(2).await;
    let refused = cluster.lbctl(&["add-pool", "odd"]).await.expect(4);
    for part in ["proxy-old", "pool odd", "unknown algorithm \"quantum\"", "unknown_algorithm"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert!(refused.took.as_secs() < 10, "it does not wait for the time to be up: {refused:?}");
    let status = cluster.lbctl(&["status"]).await.expect(0).stdout;
    assert!(status.contains("proxy-old") && status.contains("pool odd"), "{status}");
    assert!(status.contains("unknown algorithm \"quantum\""), "{status}");
    let described = cluster.lbctl(&["describe", "proxy", "proxy-old"]).await.expect(0).stdout;
    assert!(described.contains("rejected") && described.contains("pool odd"), "{described}");
    // The other proxy has it, and what comes next is not held up.
    assert_eq!(cluster.api.proxy("proxy-1").await.state, "synced");
    let next = cluster.lbctl(&["add-pool", "even"]).await.expect(0);
    assert!(next.stdout.contains("applied 2/2 proxies"), "{next:?}");
}

#[tokio::test]
async fn a_healthy_life_leaves_no_warnings() {
    let backends = ["a", "b"].map(Backend::saying);
    let mut cluster = Cluster::start_with(program(), 2, &["--accept-grace=0s"]).await;
    cluster.add_backends(&backends.each_ref().map(Backend::address)).await;
    for proxy in cluster.addresses() {
        get(proxy, "/").await;
    }
    drop(cluster.lbctl(&["set-algorithm", "default", "least_connections"]).await.expect(0));
    drop(cluster.lbctl(&["remove-backend", "backend1"]).await.expect(0));
    cluster.settled().await;
    for index in 0..2 {
        let mut proxy = cluster.take_proxy(index);
        proxy.signal(Signal::TERM);
        assert_eq!(proxy.exited().await, 0);
        assert_eq!(proxy.complaints(&[]), [""; 0]);
    }
    assert_eq!(cluster.control_plane().complaints(&[]), [""; 0]);
}
