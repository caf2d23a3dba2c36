//! The keys: made once they are needed, told to proxies and to nobody else, replaced step by
//! step.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lb_proto::v1 as pb;
use lb_tests::{client::get, cluster::Cluster, eventually::eventually, scripted::Proxy};
use prost::Message as _;
use rustix::process::Signal;
use serde_json::Value;

use super::{fleet, visit};
use crate::program;

fn files(directory: &Path, all: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, all);
        } else if let Ok(bytes) = fs::read(&path) {
            all.push((path.display().to_string(), bytes));
        }
    }
}

/// All ways in which a secret might be written down.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list: Vec<String> = secret.iter().map(ToString::to_string).collect();
    let base64 = STANDARD.encode(secret);
    let text = |text: &str| text.as_bytes().to_vec();
    // Parts of it are secret as well; of base64 one that does not hang on what stands before.
    vec![
        secret[..8].to_vec(),
        secret[20..28].to_vec(),
        text(&hex[..16]),
        text(&base64[..20]),
        text(&list[..6].join(", ")),
        text(&list[..6].join(",")),
    ]
}

#[tokio::test]
async fn keys_are_told_to_proxies_and_are_found_nowhere_else() {
    let (mut cluster, _backends) = fleet(2, 2).await;
    visit(cluster.address(), None).await.begun();
    let spy = Proxy::follow(cluster.api.channel(), "spy", |_| None).await;
    drop(cluster.lbctl(&["rotate-session-keys"]).await.expect(0));
    let mut said: Vec<(String, Vec<u8>)> = Vec::new();
    for command in [
        &["export"][..],
        &["export", "--all"],
        &["get", "session-keys", "-o", "json"],
        &["get", "pools", "-o", "json"],
        &["get", "proxies", "-o", "json"],
        &["describe", "pool", "default"],
        &["describe", "proxy", "proxy-1", "-o", "json"],
        &["status", "-o", "json"],
    ] {
        let told = cluster.lbctl(command).await.expect(0);
        said.push((command.join(" "), told.stdout.into_bytes()));
    }
    for path in [
        "/v1/pools",
        "/v1/session-keys",
        "/v1/status",
        "/v1/export",
        "/metrics",
        "/lb/config",
        "/lb/stats",
    ] {
        said.push((path.to_owned(), get(cluster.http(), path).await.body));
    }
    said.push(("metrics".to_owned(), get(cluster.proxy(0).admin(), "/metrics").await.body));
    for kind in ["session_keys", "session-keys"] {
        let request = pb::GetRequest { kind: kind.to_owned(), name: "fleet".to_owned() };
        let refused = cluster.api.registry().get(request).await.unwrap_err();
        said.push((kind.to_owned(), refused.message().as_bytes().to_vec()));
        let request = pb::ListRequest { kind: kind.to_owned(), pool: String::new() };
        assert!(cluster.api.registry().list(request).await.is_err());
    }
    let mut events = cluster.api.watch(1000).await;
    let told = eventually("the rotation is told as an event", async || {
        let event = events.message().await.unwrap().unwrap();
        let text = format!("{event:?}").into_bytes();
        let is_last = event.reason.is_some_and(|reason| reason.code == "activated");
        if is_last { Ok(text) } else { Err("not yet") }
    })
    .await;
    said.push(("events".to_owned(), told));
    // It takes a moment until a proxy has kept what it was told.
    eventually("the newest keys are kept", async || {
        for index in 0..2 {
            let kept = fs::read(cluster.proxy(index).data_dir().join("last-good"));
            let sealed =
                |bytes: &Vec<u8>| bytes.windows(20).any(|w| w == b"sealed/session_keys\x12");
            if !kept.as_ref().is_ok_and(sealed) {
                return Err(index);
            }
        }
        Ok(())
    })
    .await;
    for index in 0..2 {
        let directory = cluster.proxy(index).data_dir().clone();
        files(&directory, &mut said);
        let mode = fs::metadata(directory.join("seal-key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let process = cluster.proxy(index).process();
        said.push((format!("log {index}"), [process.stdout(), process.stderr()].concat().into()));
    }
    let mut control = cluster.take_control_plane();
    control.signal(Signal::TERM);
    assert_eq!(control.exited().await, 0);
    said.push(("log".to_owned(), [control.stdout(), control.stderr()].concat().into()));

    let held = spy.ended().await;
    let keys = held.objects().iter().find(|one| &*one.key.kind == "session_keys").unwrap();
    let keys = pb::SessionKeys::decode(keys.payload.clone()).unwrap();
    assert_eq!(keys.keys.len(), 2);
    let mut bytes = 0;
    for key in &keys.keys {
        for spelling in spellings(&key.secret) {
            for (place, text) in &said {
                bytes += text.len();
                let found = text.windows(spelling.len()).any(|window| window == spelling);
                assert!(!found, "a part of a secret stands in {place}");
            }
        }
    }
    println!("no secret in {} places, {bytes} bytes looked through", said.len());
    // The store has them, and is for its user alone.
    let store = cluster.control_plane_dir().join("control-plane.redb");
    let kept = fs::read(&store).unwrap();
    assert!(kept.windows(32).any(|window| window == &*keys.keys[0].secret));
    assert_eq!(fs::metadata(&store).unwrap().permissions().mode() & 0o077, 0);
}

async fn keys(cluster: &Cluster) -> Vec<(String, String)> {
    let told = cluster.lbctl(&["get", "session-keys", "-o", "json"]).await.expect(0).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let keys = told.as_array().unwrap();
    keys.iter().map(|key| (text(&key["role"]), text(&key["id"]))).collect()
}

#[tokio::test]
async fn a_new_key_signs_once_every_live_proxy_knows_it() {
    let cluster = Cluster::start(program(), 3).await;
    let none = cluster.lbctl(&["rotate-session-keys"]).await.expect(4).stderr;
    assert!(none.contains("--sticky cookie"), "{none}");
    assert_eq!(keys(&cluster).await, []);
    cluster.api.change_pool(super::sticky).await;
    let first = keys(&cluster).await;
    assert_eq!(first.len(), 1);

    cluster.proxy(1).signal(Signal::STOP);
    let late = cluster.lbctl(&["--timeout", "1s", "rotate-session-keys"]).await.expect(6);
    assert!(late.stderr.contains("waiting for proxy-2"), "{late:?}");
    let announced = keys(&cluster).await;
    let roles: Vec<&str> = announced.iter().map(|(role, _)| role.as_str()).collect();
    assert_eq!((roles.as_slice(), &announced[0]), (&["active", "next"][..], &first[0]));
    // Asking again announces no further one.
    drop(cluster.lbctl(&["rotate-session-keys", "--no-wait"]).await.expect(0));
    assert_eq!(keys(&cluster).await, announced);

    cluster.proxy(1).signal(Signal::CONT);
    let active = eventually("the new key signs", async || {
        let keys = keys(&cluster).await;
        if keys[0].1 == announced[1].1 { Ok(keys) } else { Err(format!("{keys:?}")) }
    })
    .await;
    let roles: Vec<&str> = active.iter().map(|(role, _)| role.as_str()).collect();
    assert_eq!((roles.as_slice(), &active[1].1), (&["active", "retired"][..], &first[0].1));
}

#[tokio::test]
async fn a_key_is_replaced_when_it_is_old() {
    let args = ["--session-key-age", "1s"];
    let cluster = Cluster::start_as(program(), 1, &[], &args).await;
    cluster
        .api
        .change_pool(|pool| {
            super::sticky(pool);
            pool.affinity.as_mut().unwrap().ttl_ms = 1000;
        })
        .await;
    let first = keys(&cluster).await;
    eventually("it was replaced", async || {
        let now = keys(&cluster).await;
        if now[0].1 == first[0].1 { Err(format!("{now:?}")) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn a_seal_key_of_no_use_keeps_no_proxy_from_serving() {
    let (mut cluster, _backends) = fleet(1, 1).await;
    let cookie = visit(cluster.address(), None).await.begun();
    let seal_key = cluster.proxy(0).data_dir().join("seal-key");
    cluster.kill_proxy(0).await;
    fs::write(&seal_key, "short").unwrap();
    cluster.start_proxy(0).await;
    cluster.settled().await;
    assert_eq!(visit(cluster.address(), Some(&cookie)).await.said, "backend1");
    let told = cluster.proxy(0).process().stderr();
    assert!(told.contains("this file has 5; delete the file"), "{told}");
    assert_eq!(fs::read(&seal_key).unwrap(), b"short");
}

#[tokio::test]
async fn support_is_told_what_a_session_is() {
    let (cluster, _backends) = fleet(1, 1).await;
    let cookie = visit(cluster.address(), None).await.begun();
    let shown = cluster.lbctl(&["describe", "session", &cookie]).await.expect(0).stdout;
    println!("{shown}");
    for part in ["session: kept", "backend1", "default", "goes to backend1", "in 59m"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let field = format!("Set-Cookie: {cookie}; Path=/; HttpOnly");
    let json = cluster.lbctl(&["describe", "session", &field, "-o", "json"]).await.expect(0);
    assert_eq!(json.json()["verdict"], "kept");
    let mut changed = cookie.clone();
    let last = changed.pop().unwrap();
    changed.push(if last == 'A' { 'B' } else { 'A' });
    for (cookie, verdict) in
        [("lb_session=rubbish", "malformed"), (&*cookie[..40].to_owned(), "malformed")]
    {
        let json = cluster.lbctl(&["describe", "session", cookie, "-o", "json"]).await.expect(0);
        assert_eq!(json.json()["verdict"], verdict);
    }
    drop(cluster.lbctl(&["disable-backend", "backend1"]).await.expect(0));
    let shown = cluster.lbctl(&["describe", "session", &cookie]).await.expect(0).stdout;
    assert!(shown.contains("gets another backend: backend1 cannot serve it (disabled)"), "{shown}");
    drop(cluster.lbctl(&["set-pool", "default", "--session-strict", "true"]).await.expect(0));
    let shown = cluster.lbctl(&["describe", "session", &cookie]).await.expect(0).stdout;
    assert!(shown.contains("is answered 503"), "{shown}");
}
