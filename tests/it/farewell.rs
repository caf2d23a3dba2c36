//! A proxy that is stopped in order says so: then it is no alarm, and nobody waits for it. One
//! that is lost without a word can be forgotten.

use lb_proto::v1 as pb;
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, get},
    cluster::Cluster,
    eventually::eventually,
};
use rustix::process::Signal;
use serde_json::json;

use crate::{program, seed_rest::ask};

/// Waits until a proxy is in this state.
async fn state_is(cluster: &Cluster, id: &str, wanted: &str) {
    eventually(wanted, async || {
        let (proxies, _) = cluster.api.try_proxies().await.expect("the control plane answers");
        match proxies.iter().find(|proxy| proxy.id == id) {
            Some(proxy) if proxy.state == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// The types of all events so far about a proxy.
async fn events_of(cluster: &Cluster, id: &str, last: &str) -> Vec<String> {
    let mut events = cluster.api.watch(1000).await;
    let mut types = Vec::new();
    while types.last().is_none_or(|newest| newest != last) {
        let event = events.message().await.unwrap().expect("the stream goes on");
        if event.kind == "proxy" && event.name == id {
            types.push(event.r#type);
        }
    }
    types
}

#[tokio::test]
async fn a_proxy_that_is_stopped_in_order_is_no_alarm() {
    let backend = Backend::saying("a");
    let mut cluster = Cluster::start_with(program(), 2, &["--accept-grace=0s"]).await;
    let ids = cluster.add_backends(&[backend.address()]).await;
    cluster.api.verdict(&ids[0], pb::Health::Up).await;
    let mut second = cluster.take_proxy(1);
    second.signal(Signal::TERM);
    assert_eq!(second.exited().await, 0);
    // It had the control plane's word before it ended.
    assert_eq!(cluster.api.proxy("proxy-2").await.state, "stopped");
    let events = events_of(&cluster, "proxy-2", "proxy_stopped").await;
    assert!(!events.contains(&"proxy_lost".to_owned()), "{events:?}");

    let status = cluster.lbctl(&["status"]).await.expect(0).stdout;
    println!("{status}");
    assert!(status.starts_with("FLEET    1/1 proxies in sync, 1 stopped"), "{status}");
    assert!(!status.contains("\n!"), "{status}");
    let checked = cluster.lbctl(&["check"]).await.expect(0).stdout;
    assert!(checked.contains("1 proxy in sync"), "{checked}");
    let described = cluster.lbctl(&["describe", "proxy", "proxy-2"]).await.expect(0).stdout;
    assert!(described.contains("stopped in order"), "{described}");
    drop(cluster.lbctl(&["wait", "proxy/proxy-2", "--for", "stopped"]).await.expect(0));
    drop(cluster.lbctl(&["wait", "proxy/proxy-2", "--for", "lost"]).await.expect(0));
    drop(cluster.lbctl(&["wait", "proxies"]).await.expect(0));
    let counted = ask(cluster.http(), "GET", "/v1/status", "", "").await.json();
    assert_eq!(
        counted["proxies"],
        json!({"synced": 1, "behind": 0, "rejected": 0, "lost": 0, "stopped": 1})
    );
    let metrics = get(cluster.http(), "/metrics").await.text();
    assert!(metrics.contains("lb_proxies{state=\"stopped\"} 1"), "{metrics}");
    assert!(!metrics.contains("lb_proxy_config_revision{proxy=\"proxy-2\""), "{metrics}");
    let config = ask(cluster.http(), "GET", "/lb/config", "", "").await.json();
    assert!(!config.to_string().contains(&cluster.addresses()[1].to_string()), "{config}");

    cluster.start_proxy(1).await;
    state_is(&cluster, "proxy-2", "synced").await;
}

#[tokio::test]
async fn a_proxy_that_is_lost_is_an_alarm_until_it_is_forgotten() {
    let mut cluster = Cluster::start(program(), 2).await;
    let refused = cluster.lbctl(&["forget-proxy", "proxy-2"]).await.expect(4).stderr;
    assert!(refused.contains("proxy-2 is connected") && refused.contains("SIGTERM"), "{refused}");
    let refused = ask(cluster.http(), "DELETE", "/v1/proxies/proxy-2", "", "").await;
    assert_eq!(
        (refused.status, &refused.json()["type"]),
        (409, &json!("urn:problem-type:lb:conflict"))
    );
    cluster.kill_proxy(1).await;
    state_is(&cluster, "proxy-2", "lost").await;
    let status = cluster.lbctl(&["status"]).await.expect(0).stdout;
    assert!(
        status.contains("! proxy-2 lost") && status.contains("lbctl forget-proxy proxy-2"),
        "{status}"
    );
    assert!(cluster.lbctl(&["check"]).await.expect(1).stdout.contains("proxy-2 lost at revision"));

    let tried = cluster.lbctl(&["forget-proxy", "proxy-2", "--dry-run"]).await.expect(0).stdout;
    assert!(tried.starts_with("would forget proxy proxy-2: it was lost"), "{tried}");
    state_is(&cluster, "proxy-2", "lost").await;
    let done = cluster.lbctl(&["forget-proxy", "proxy-2"]).await.expect(0).stdout;
    println!("{done}");
    assert!(done.starts_with("- proxy proxy-2 is forgotten: it was lost"), "{done}");
    assert!(!cluster.lbctl(&["status"]).await.expect(0).stdout.contains("proxy-2"));
    let again = cluster.lbctl(&["forget-proxy", "proxy-2"]).await.expect(7).stderr;
    assert!(again.contains("proxy proxy-2 does not exist; known are proxy-1"), "{again}");
    assert_eq!(events_of(&cluster, "proxy-2", "proxy_forgotten").await.len(), 4);

    // One that comes back after all is welcome.
    cluster.start_proxy(1).await;
    state_is(&cluster, "proxy-2", "synced").await;
    cluster.kill_proxy(1).await;
    state_is(&cluster, "proxy-2", "lost").await;
    let key = "Idempotency-Key: forget-1\r\n";
    for _ in 0..2 {
        let gone = ask(cluster.http(), "DELETE", "/v1/proxies/proxy-2", key, "").await;
        assert_eq!((gone.status, &gone.json()["removed"]), (200, &json!(true)));
    }
    let gone = ask(cluster.http(), "DELETE", "/v1/proxies/proxy-2", "", "").await;
    assert_eq!(gone.status, 404, "{}", gone.text());
}

#[tokio::test]
async fn neither_drains_nor_keys_wait_for_a_proxy_that_said_goodbye() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |request| match request.path() {
        "/slow" => vec![Action::Await(held.clone()), Action::Send(ok("slow"))],
        _ => vec![Action::Send(ok("quick"))],
    });
    let args = ["--accept-grace=0s", "--drain-timeout=0s"];
    let mut cluster = Cluster::start_with(program(), 2, &args).await;
    let ids = cluster.add_backends(&[backend.address()]).await;
    let mut slow = Client::connect(cluster.addresses()[1]).await;
    slow.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").await;
    backend.reached(1).await;
    let drain = ["drain-backend", &ids[0], "--timeout", "10m", "--no-wait", "--force"];
    drop(cluster.lbctl(&drain).await.expect(0));
    let mut second = cluster.take_proxy(1);
    second.signal(Signal::TERM);
    assert_eq!(second.exited().await, 3, "it cut what was in flight");
    let backend_id = format!("backend/{}", ids[0]);
    let drained = cluster.lbctl(&["wait", &backend_id, "--for", "drained"]).await.expect(0).stdout;
    assert!(drained.contains("is drained") && !drained.contains("unknown"), "{drained}");
    // A change, and a key, that it never heard of.
    let done = cluster.lbctl(&["set-pool", "default", "--sticky", "cookie"]).await.expect(0).stdout;
    assert!(done.contains("applied 1/1 proxies"), "{done}");
    drop(cluster.lbctl(&["rotate-session-keys"]).await.expect(0));
    gate.open();
}

#[tokio::test]
async fn a_process_that_was_taken_over_says_no_goodbye() {
    let args = ["--takeover", "--accept-grace=0s"];
    let mut cluster = Cluster::start_with(program(), 1, &args).await;
    let mut old = cluster.take_proxy(0);
    cluster.start_proxy(0).await;
    assert_eq!(old.exited().await, 0);
    cluster.settled().await;
    assert_eq!(cluster.api.proxy("proxy-1").await.state, "synced");
    let mut new = cluster.take_proxy(0);
    new.signal(Signal::TERM);
    assert_eq!(new.exited().await, 0);
    let events = events_of(&cluster, "proxy-1", "proxy_stopped").await;
    let stopped = events.iter().filter(|event| *event == "proxy_stopped");
    assert_eq!(stopped.count(), 1, "{events:?}");
}

#[tokio::test]
async fn after_a_restart_a_stopped_proxy_is_not_awaited() {
    let backend = Backend::saying("a");
    let mut cluster = Cluster::start_with(program(), 2, &["--accept-grace=0s"]).await;
    let ids = cluster.add_backends(&[backend.address()]).await;
    let mut second = cluster.take_proxy(1);
    second.signal(Signal::TERM);
    assert_eq!(second.exited().await, 0);
    let mut former = cluster.take_control_plane();
    former.signal(Signal::TERM);
    assert_eq!(former.exited().await, 0);
    cluster.start_control_plane().await;
    eventually("the first is back", async || {
        let (proxies, _) = cluster.api.try_proxies().await.map_err(|error| error.to_string())?;
        if proxies.iter().any(|proxy| proxy.state == "synced") {
            Ok(())
        } else {
            Err(format!("{proxies:?}"))
        }
    })
    .await;
    let drain = ["drain-backend", &ids[0], "--no-wait", "--force"];
    drop(cluster.lbctl(&drain).await.expect(0));
    let view = cluster.api.backend(&ids[0]).await;
    assert!(!view.drain.expect("it drains").awaits_proxies, "nobody is on its way back");
}
