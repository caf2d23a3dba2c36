//! A new key while proxies are cut off: they may be serving traffic, and would take what the key
//! signs for forgeries.

use lb_proto::v1 as pb;
use lb_tests::{
    PATIENCE, backend::Backend, client::Response, cluster::Cluster, eventually::eventually,
    scripted::Proxy,
};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::timeout;

use super::sticky;
use crate::{program, seed_rest::ask};

/// A fleet with sessions and a proxy, `stray`, that is cut off from the control plane.
async fn with_a_stray(control_plane_args: &[&str]) -> Cluster {
    let cluster = Cluster::start_as(program(), 2, &[], control_plane_args).await;
    let stray = Proxy::follow(cluster.api.channel(), "stray", |_| None).await;
    state_is(&cluster, "synced").await;
    stray.left().await;
    state_is(&cluster, "lost").await;
    // From here on its clients have sessions, of which it knows nothing.
    cluster.api.change_pool(sticky).await;
    cluster
}

/// Waits until the stray proxy, which may not be listed yet, is in this state.
async fn state_is(cluster: &Cluster, wanted: &str) {
    eventually(wanted, async || {
        let (proxies, _) = cluster.api.try_proxies().await.expect("the control plane answers");
        match proxies.iter().find(|proxy| proxy.id == "stray") {
            Some(stray) if stray.state == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Waits for an event about the keys.
async fn told(cluster: &Cluster, code: &str) -> String {
    let mut events = cluster.api.watch(1000).await;
    let found = async {
        loop {
            let event = events.message().await.unwrap().expect("the stream goes on");
            match event.reason {
                Some(reason) if event.r#type == "session_keys_changed" && reason.code == code => {
                    return reason.message;
                }
                _ => {}
            }
        }
    };
    // After a restart proxies are waited for first, three leases long.
    timeout(2 * PATIENCE, found).await.unwrap_or_else(|_| panic!("no event {code} came"))
}

async fn roles(cluster: &Cluster) -> Vec<String> {
    let keys = cluster.lbctl(&["get", "session-keys", "-o", "json"]).await.expect(0).json();
    let role = |key: &Value| key["role"].as_str().unwrap().to_owned();
    keys.as_array().unwrap().iter().map(role).collect()
}

async fn rest(cluster: &Cluster, method: &str, path: &str) -> Response {
    ask(cluster.http(), method, path, "", "").await
}

#[tokio::test]
async fn a_connected_proxy_that_refuses_the_state_is_named_and_holds_the_key() {
    let backend = Backend::saying("a");
    let mut cluster = Cluster::start(program(), 1).await;
    let ids = cluster.add_backends(&[backend.address()]).await;
    cluster.api.verdict(&ids[0], pb::Health::Up).await;
    cluster.settled().await;
    cluster.kill_control_plane().await;
    std::fs::remove_dir_all(cluster.control_plane_dir()).unwrap();
    cluster.start_control_plane().await;
    eventually("the proxy refuses the empty state", async || {
        let (proxies, _) = cluster.api.try_proxies().await.map_err(|error| error.to_string())?;
        let refuses = proxies.iter().any(|proxy| !proxy.refusal.is_empty());
        if refuses { Ok(()) } else { Err(format!("{proxies:?}")) }
    })
    .await;
    let sticky = ["set-pool", "default", "--sticky", "cookie", "--no-wait"];
    drop(cluster.lbctl(&sticky).await.expect(0));
    drop(cluster.lbctl(&["rotate-session-keys", "--no-wait"]).await.expect(0));
    let waits = told(&cluster, "lacked_by_refusing").await;
    println!("{waits}");
    assert!(waits.contains("proxy-1 is connected and refuses the state that has it"), "{waits}");
    let status = cluster.lbctl(&["status"]).await.expect(0).stdout;
    assert!(status.contains("does not sign before it has it"), "{status}");
    let described = cluster.lbctl(&["describe", "proxy", "proxy-1"]).await.expect(0).stdout;
    assert!(described.contains("does not sign before this proxy has it"), "{described}");
    let shown = rest(&cluster, "GET", "/v1/session-keys").await.json();
    assert_ne!(shown["waits_for"]["behind"][0]["refusal"], "", "{shown}");

    // Stopped, it serves nobody, and is not waited for.
    let mut proxy = cluster.take_proxy(0);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exited().await, 0);
    eventually("the key signs", async || {
        let roles = roles(&cluster).await;
        if roles == ["active", "retired"] { Ok(()) } else { Err(format!("{roles:?}")) }
    })
    .await;
}

#[tokio::test]
async fn no_key_signs_that_a_lost_proxy_lacks_unless_it_is_forced() {
    let cluster = with_a_stray(&[]).await;
    let late = cluster.lbctl(&["--timeout", "1s", "rotate-session-keys"]).await.expect(6).stderr;
    println!("{late}");
    for part in ["stray (lost, last seen", "may be serving traffic", "--force", "a day"] {
        assert!(late.contains(part), "{part}: {late}");
    }
    assert_eq!(roles(&cluster).await, ["active", "next"]);
    let waits = told(&cluster, "lacked_by_lost").await;
    assert!(waits.contains("stray, which is lost, lacks it"), "{waits}");
    let shown = cluster.lbctl(&["get", "session-keys"]).await.expect(0);
    assert!(shown.stderr.contains("the next key does not sign: stray (lost"), "{shown:?}");

    let forced = cluster.lbctl(&["rotate-session-keys", "--force"]).await.expect(0);
    println!("{}{}", forced.stdout, forced.stderr);
    assert!(forced.stdout.contains(" signs; 1 former key is believed"), "{forced:?}");
    assert!(forced.stderr.contains("stray, lost, does not know key"), "{forced:?}");
    assert_eq!(roles(&cluster).await, ["active", "retired"]);
    assert!(told(&cluster, "forced").await.contains("stray, which is lost, lacks"));
}

#[tokio::test]
async fn a_key_that_is_old_waits_for_a_lost_proxy_to_come_back() {
    let cluster = with_a_stray(&["--session-key-age", "1s"]).await;
    let waits = told(&cluster, "lacked_by_lost").await;
    println!("{waits}");
    assert_eq!(roles(&cluster).await, ["active", "next"]);
    let back = Proxy::follow(cluster.api.channel(), "stray", |_| None).await;
    told(&cluster, "activated").await;
    drop(back);
}

#[tokio::test]
async fn a_restarted_control_plane_lets_no_key_sign_unasked() {
    let args = ["--session-key-age", "1s"];
    let mut cluster = Cluster::start_as(program(), 1, &[], &args).await;
    cluster.kill_control_plane().await;
    cluster.start_control_plane().await;
    cluster.settled().await;
    cluster
        .api
        .change_pool(|pool| {
            sticky(pool);
            pool.affinity.as_mut().unwrap().ttl_ms = 3_600_000;
        })
        .await;
    let waits = told(&cluster, "unsure").await;
    assert!(waits.contains("restarted less than a day ago"), "{waits}");
    assert_eq!(roles(&cluster).await, ["active", "next"]);
    let shown = cluster.lbctl(&["get", "session-keys"]).await.expect(0).stderr;
    assert!(shown.contains("does not sign by itself for 23h59m"), "{shown}");
    drop(cluster.lbctl(&["--timeout", "1m", "rotate-session-keys"]).await.expect(0));
    told(&cluster, "activated").await;
}

#[tokio::test]
async fn programs_are_told_of_keys_and_rotate_them() {
    let cluster = Cluster::start(program(), 1).await;
    let none = rest(&cluster, "GET", "/v1/session-keys").await;
    assert_eq!((none.status, none.json()["keys"].as_array().map(Vec::len)), (200, Some(0)));
    let refused = rest(&cluster, "POST", "/v1/session-keys/rotate").await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.text().contains("--sticky cookie"), "{}", refused.text());
    drop(cluster);

    let cluster = with_a_stray(&[]).await;
    let before = rest(&cluster, "GET", "/v1/session-keys").await.json();
    assert_eq!(
        (&before["keys"][0]["role"], &before["waits_for"]),
        (&"active".into(), &Value::Null)
    );
    let waits = rest(&cluster, "POST", "/v1/session-keys/rotate?wait=1s").await;
    let waits = waits.json();
    assert_eq!(waits["waits_for"]["lost"][0]["proxy"], "stray", "{waits}");
    assert_eq!(waits["waits_for"]["behind"], Value::Array(Vec::new()), "{waits}");
    let rotated = rest(&cluster, "POST", "/v1/session-keys/rotate?wait=60s&force=true").await;
    let rotated = rotated.json();
    assert_eq!(rotated["keys"][0]["id"], waits["keys"][1]["id"], "{rotated}");
    assert_eq!(rotated["keys"][1]["id"], before["keys"][0]["id"], "{rotated}");
    assert!(rotated["keys"][1]["honoured_until_unix_ms"].is_u64(), "{rotated}");
    // As everywhere, without the secrets.
    let keys = rotated["keys"].as_array().unwrap();
    for key in keys {
        let known = ["id", "role", "made_unix_ms", "honoured_until_unix_ms"];
        assert!(key.as_object().unwrap().keys().all(|name| known.contains(&name.as_str())));
    }
}

/// What older builds of lbctl ask for is not forced.
#[test]
fn nothing_is_forced_unless_it_is_said() {
    assert!(!pb::RotateKeysRequest::default().force);
}
