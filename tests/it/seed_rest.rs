//! The management routes of the old balancer, on the control plane and through a proxy.

use std::net::SocketAddr;

use lb_tests::{
    backend::Backend,
    client::{Client, Response},
    cluster::Cluster,
    eventually::eventually,
    port::Port,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::program;

/// Sends one request on a connection of its own.
pub(super) async fn ask(
    at: SocketAddr,
    method: &str,
    path: &str,
    fields: &str,
    body: &str,
) -> Response {
    let length =
        if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let host = if fields.contains("Host:") { String::new() } else { format!("Host: {at}\r\n") };
    let mut client = Client::connect(at).await;
    client.send(format!("{method} {path} HTTP/1.1\r\n{host}{fields}{length}\r\n{body}")).await;
    client.try_response(method).await.unwrap_or_else(|why| panic!("{method} {path}: {why}"))
}

async fn get(at: SocketAddr, path: &str) -> Response {
    ask(at, "GET", path, "", "").await
}

const JSON: &str = "Content-Type: application/json\r\n";

async fn post(at: SocketAddr, path: &str, body: &Value) -> Response {
    ask(at, "POST", path, JSON, &body.to_string()).await
}

/// A refusal: its status, and that it is a word and a sentence.
fn expect_refusal(response: &Response, status: u16, part: &str) {
    assert_eq!(response.status, status, "{response:?}");
    let body = response.json();
    assert!(body["error"].is_string(), "{body}");
    let message = body["message"].as_str().unwrap_or_else(|| panic!("no sentence: {body}"));
    assert!(message.contains(part), "{message:?} without {part:?}");
}

async fn exposed(proxies: usize) -> Cluster {
    Cluster::start_with(program(), proxies, &["--expose-lb-api"]).await
}

#[tokio::test]
async fn both_ports_answer_alike_and_every_call_of_the_guide_works() {
    let backends = [Backend::saying("a"), Backend::saying("b")];
    let cluster = exposed(2).await;
    for (at, backend) in [cluster.http(), cluster.address()].into_iter().zip(&backends) {
        let port = backend.address().port();
        let new = json!({"host": "127.0.0.1", "port": port, "weight": 1});
        let added = post(at, "/lb/backends/add", &new).await;
        assert_eq!(added.status, 201, "{added:?}");
        let added = added.json();
        assert_eq!(
            (&added["host"], &added["port"], &added["weight"], &added["enabled"]),
            (&json!("127.0.0.1"), &json!(port), &json!(1), &json!(true)),
        );
        assert_eq!((&added["proxies"], &added["applied_proxies"]), (&json!(2), &json!(2)));
        let twin = post(at, "/lb/backends/add", &new).await;
        expect_refusal(&twin, 409, "already has 127.0.0.1:");
    }
    cluster.settled().await;
    for at in [cluster.http(), cluster.address()] {
        let health = get(at, "/lb/health").await;
        assert_eq!((health.status, &health.json()["status"]), (200, &json!("healthy")));
        let listed = get(at, "/lb/backends").await.json();
        let ids: Vec<&str> =
            listed.as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["backend1", "backend2"]);
        for backend in listed.as_array().unwrap() {
            for key in ["active_connections", "total_requests", "failed_requests"] {
                assert!(backend[key].is_u64(), "{key}: {backend}");
            }
            assert!(backend["average_response_time"].is_f64(), "{backend}");
            assert_eq!((&backend["healthy"], &backend["enabled"]), (&json!(true), &json!(true)));
        }
    }
    let [control, proxy] =
        [get(cluster.http(), "/lb/config").await, get(cluster.address(), "/lb/config").await];
    assert_eq!(control.json(), proxy.json());
    for (key, value) in [
        ("LOAD_BALANCER_ALGORITHM", json!("round_robin")),
        ("HEALTH_CHECK_INTERVAL", json!(0.5)),
        ("REQUEST_TIMEOUT", json!(30)),
        ("ENABLE_ACCESS_LOG", json!(false)),
        ("SESSION_TIMEOUT", Value::Null),
    ] {
        assert_eq!(control.json()[key], value, "{key}");
    }
}

/// Whoever asks through another proxy on the machine is not on the machine, whether that proxy
/// is believed or not; and nobody hides from the control plane what it decides by.
#[tokio::test]
async fn a_proxy_on_the_machine_changes_nothing_for_others() {
    let cluster = exposed(1).await;
    let backend = Backend::saying("a");
    cluster.add_backends(&[backend.address()]).await;
    let disable = async |fields: &str| {
        ask(cluster.address(), "POST", "/lb/backends/backend1/disable", fields, "").await
    };
    let trusts: [&[&str]; 3] = [
        &["--trust-xff", "trusted"],
        &["--trusted-proxy", "127.0.0.0/8"],
        &["--trust-xff", "always"],
    ];
    for trust in trusts {
        let changed = cluster.lbctl(&[&["set-listener", "default"], trust].concat()).await;
        assert_eq!(changed.code, 0, "{changed:?}");
        for foreign in [
            "X-Forwarded-For: 203.0.113.9\r\n",
            "X-Forwarded-For: 127.0.0.1, 203.0.113.9\r\n",
            "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 127.0.0.1\r\n",
            "X-Forwarded-For: unknown\r\n",
            "X-Real-IP: 203.0.113.9\r\n",
            "Forwarded: for=203.0.113.9\r\n",
        ] {
            let refused = disable(foreign).await;
            assert_eq!(refused.status, 403, "{trust:?} {foreign:?}: {refused:?}");
            let reads = ask(cluster.address(), "GET", "/lb/backends", foreign, "").await;
            assert_eq!(reads.status, 200, "{trust:?} {foreign:?}");
        }
        for own in ["", "X-Forwarded-For: 127.0.0.1, [::1]:80\r\nX-Real-IP: 127.0.0.1\r\n"] {
            assert_eq!(disable(own).await.status, 200, "{trust:?} {own:?}");
        }
    }
    let hidden = "Connection: Origin, Sec-Fetch-Site\r\nOrigin: http://evil.example\r\n";
    assert_eq!(disable(hidden).await.status, 403);
}

#[tokio::test]
async fn after_disable_not_one_request_goes_there() {
    let backends = [Backend::saying("a"), Backend::saying("b")];
    let cluster = exposed(2).await;
    cluster.add_backends(&backends.each_ref().map(Backend::address)).await;
    for at in [cluster.http(), cluster.address()] {
        let disabled = ask(at, "POST", "/lb/backends/backend1/disable", "", "").await;
        assert_eq!(disabled.status, 200, "{disabled:?}");
        let body = disabled.json();
        assert_eq!((&body["id"], &body["enabled"]), (&json!("backend1"), &json!(false)));
        assert!(body.get("warning").is_none(), "{body}");
        for proxy in cluster.addresses() {
            for _ in 0..4 {
                assert_eq!(get(proxy, "/").await.text(), "b");
            }
        }
        let enabled = ask(at, "POST", "/lb/backends/backend1/enable", "", "").await;
        assert_eq!((enabled.status, &enabled.json()["enabled"]), (200, &json!(true)));
        cluster.settled().await;
        let mut seen = Vec::new();
        for _ in 0..2 {
            seen.push(get(cluster.address(), "/").await.text());
        }
        seen.sort();
        assert_eq!(seen, ["a", "b"]);
    }
    let removed = ask(cluster.address(), "DELETE", "/lb/backends/backend1/remove", "", "").await;
    assert_eq!((removed.status, &removed.json()["id"]), (200, &json!("backend1")));
    for _ in 0..4 {
        assert_eq!(get(cluster.address(), "/").await.text(), "b");
    }
    let again = ask(cluster.http(), "DELETE", "/lb/backends/backend1/remove", "", "").await;
    expect_refusal(&again, 404, "known are backend2");
    let unknown = ask(cluster.address(), "POST", "/lb/backends/nobody/enable", "", "").await;
    expect_refusal(&unknown, 404, "backend nobody does not exist");
}

#[tokio::test]
async fn statistics_are_the_sum_over_all_proxies_and_true() {
    let good = Backend::saying("a");
    let cluster = exposed(2).await;
    let nothing = get(cluster.http(), "/lb/health").await;
    assert_eq!((nothing.status, &nothing.json()["status"]), (503, &json!("unhealthy")));
    // Answered by the proxy: no backend.
    assert_eq!(get(cluster.proxy(0).address(), "/").await.status, 503);
    cluster.add_backends(&[good.address()]).await;
    for _ in 0..5 {
        for proxy in cluster.addresses() {
            assert_eq!(get(proxy, "/").await.status, 200);
            // Management is no traffic.
            assert_eq!(get(proxy, "/lb/health").await.status, 200);
        }
    }
    eventually("all is counted", async || {
        let stats = get(cluster.address(), "/lb/stats").await.json();
        if stats["total_requests"] == 11 { Ok(()) } else { Err(stats.to_string()) }
    })
    .await;
    let stats = get(cluster.http(), "/lb/stats").await.json();
    assert_eq!(
        (&stats["load_balancer"], &stats["successful_requests"], &stats["failed_requests"]),
        (&json!("RoundRobinBalancer"), &json!(10), &json!(1))
    );
    assert_eq!(stats["success_rate"], json!(0.9091));
    let mean = stats["average_response_time"].as_f64().unwrap();
    assert!(mean > 0.0 && mean < 5000.0, "{mean} ms");
    assert_eq!(
        stats["circuit_breaker"],
        json!({"state": "closed", "failure_count": 0, "success_count": 10})
    );
    assert_eq!(
        stats["rate_limiter"],
        json!({"type": "token_bucket", "total_requests": 11, "allowed_requests": 11,
               "rejected_requests": 0})
    );
    assert_eq!(
        stats["backends"],
        json!({"algorithm": "RoundRobinBalancer", "total_backends": 1, "healthy_backends": 1,
               "unhealthy_backends": 0})
    );
    let backend = &get(cluster.http(), "/lb/backends").await.json()[0];
    assert_eq!(
        (&backend["total_requests"], &backend["active_connections"]),
        (&json!(10), &json!(0))
    );
}

#[tokio::test]
async fn bad_requests_change_nothing_and_say_why() {
    let cluster = exposed(1).await;
    let before = cluster.api.revision().await;
    for at in [cluster.http(), cluster.address()] {
        let add = "/lb/backends/add";
        let form = ask(at, "POST", add, "", r#"{"host":"a","port":1}"#).await;
        expect_refusal(&form, 415, "Content-Type: application/json");
        let cut = ask(at, "POST", add, JSON, r#"{"host":"a","port":1"#).await;
        expect_refusal(&cut, 400, "in line 1 at column 20");
        let typo = ask(at, "POST", add, JSON, r#"{"host":"a","port":1,"wieght":2}"#).await;
        expect_refusal(&typo, 400, "wieght");
        let heavy = ask(at, "POST", add, JSON, r#"{"host":"a","port":1,"weight":257}"#).await;
        expect_refusal(&heavy, 400, "0 to 256");
        let port = ask(at, "POST", add, JSON, r#"{"host":"a","port":0}"#).await;
        expect_refusal(&port, 400, "port 0");
        let empty = ask(at, "POST", add, JSON, "").await;
        expect_refusal(&empty, 400, "column 0");
        let long = format!("{{\"host\":\"{}\"}}", "a".repeat(1 << 20));
        expect_refusal(&ask(at, "POST", add, JSON, &long).await, 413, "1048576");
        let method = ask(at, "GET", add, "", "").await;
        expect_refusal(&method, 405, "does not take GET");
        assert_eq!(method.field("Allow"), Some("POST"));
        let method = ask(at, "DELETE", "/lb/stats", "", "").await;
        expect_refusal(&method, 405, "does not take DELETE");
        assert_eq!(method.field("Allow"), Some("GET,HEAD"));
        expect_refusal(&ask(at, "GET", "/lb/nothing", "", "").await, 404, "/lb/nothing");
        let wait = ask(at, "POST", "/lb/backends/x/enable?wait=5", "", "").await;
        expect_refusal(&wait, 400, "wait=5s");
        let odd = ask(at, "POST", "/lb/backends/%ff/enable", "", "").await;
        expect_refusal(&odd, 400, "no text");
    }
    assert_eq!(cluster.api.revision().await, before);
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let cluster = exposed(1).await;
    for at in [cluster.http(), cluster.address()] {
        for (fields, status) in [
            (format!("Host: localhost:{}\r\n", at.port()), 200),
            (format!("Host: {at}\r\nOrigin: http://{at}\r\n"), 200),
            ("Host: evil.example\r\n".to_owned(), 403),
            (format!("Host: evil.example:{}\r\n", at.port()), 403),
            (format!("Host: {at}\r\nOrigin: http://evil.example\r\n"), 403),
            (format!("Host: {at}\r\nOrigin: null\r\n"), 403),
        ] {
            let response = ask(at, "GET", "/lb/backends", &fields, "").await;
            assert_eq!(response.status, status, "{fields} {response:?}");
            if status == 403 {
                let word = response.json()["error"].clone();
                assert_eq!(word, json!("forbidden"), "{fields}");
            }
        }
    }
}

#[tokio::test]
async fn without_the_flag_the_path_is_ordinary_traffic() {
    let backend = Backend::saying("a");
    let cluster = Cluster::start(program(), 1).await;
    cluster.add_backends(&[backend.address()]).await;
    assert_eq!(get(cluster.address(), "/lb/stats").await.text(), "a");
}

#[tokio::test]
async fn a_proxy_says_when_the_control_plane_is_away_and_finds_it_again() {
    let backend = Backend::saying("a");
    let mut cluster = exposed(1).await;
    cluster.add_backends(&[backend.address()]).await;
    let mut client = Client::connect(cluster.address()).await;
    cluster.kill_control_plane().await;
    // One connection for all: an answer of the proxy's own does not end it.
    for path in ["/lb/stats", "/"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        let response = client.response().await;
        if path == "/" {
            assert_eq!(response.text(), "a");
        } else {
            expect_refusal(&response, 503, "the control plane does not answer");
            assert_eq!(response.json()["reason"], "control_plane_away");
        }
    }
    cluster.start_control_plane().await;
    assert_eq!(get(cluster.address(), "/lb/health").await.status, 200);
}

#[tokio::test]
async fn a_change_that_breaks_off_does_not_count_as_traffic() {
    let cluster = exposed(1).await;
    let mut client = Client::connect(cluster.address()).await;
    let head = "POST /lb/backends/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n";
    client.send(head).await;
    client.finish().await;
    client.end().await.ok();
    let metrics = get(cluster.proxy(0).admin(), "/metrics").await.text();
    assert!(metrics.contains("\nlb_client_aborts_total 0\n"), "{metrics}");
}

#[tokio::test]
async fn nobody_is_told_to_repeat_a_change_that_may_have_been_made() {
    let mut cluster = exposed(1).await;
    cluster.kill_control_plane().await;
    // In its place stands one that dies when it has read a change.
    let dying = TcpListener::bind(cluster.http()).await.unwrap();
    let read = tokio::spawn(async move {
        let (stream, _) = dying.accept().await.unwrap();
        Client::over(stream).head().await
    });
    let response = ask(cluster.address(), "POST", "/lb/backends/b1/disable", "", "").await;
    let head = read.await.unwrap().unwrap();
    assert!(head.starts_with("POST /lb/backends/b1/disable HTTP/1.1"), "{head}");
    expect_refusal(&response, 502, "may have been carried out");
    assert_eq!(response.field("retry-after"), None, "{response:?}");
    assert_eq!(response.json()["reason"], "control_plane_away");
    // Nothing listens there any more: now nothing can have been done.
    let response = ask(cluster.address(), "POST", "/lb/backends/b1/disable", "", "").await;
    expect_refusal(&response, 503, "then repeat the request");
}

#[tokio::test]
async fn a_lagging_proxy_is_named_and_the_answer_is_still_200() {
    let backend = Backend::saying("a");
    let cluster = exposed(1).await;
    cluster.add_backends(&[backend.address()]).await;
    cluster.proxy(0).signal(rustix::process::Signal::STOP);
    let path = "/lb/backends/backend1/disable?wait=100ms";
    let response = ask(cluster.http(), "POST", path, "", "").await;
    cluster.proxy(0).signal(rustix::process::Signal::CONT);
    assert_eq!(response.status, 200, "{response:?}");
    let warning = response.json()["warning"].as_str().unwrap_or_default().to_owned();
    assert!(warning.contains("proxy-1 (behind)"), "{response:?}");
}

#[tokio::test]
async fn a_proxy_that_only_others_reach_takes_no_changes_from_them() {
    // This machine's own address, as another machine would use it; none without a network.
    let Some(own) = own_address() else {
        println!("skipped: this machine has no address but loopback");
        return;
    };
    let port = Port::reserve();
    let cluster = Cluster::start(program(), 0).await;
    let args = [
        "data-plane".to_owned(),
        format!("--control-plane=http://{}", cluster.grpc()),
        format!("--host={own}"),
        format!("--port={}", port.address().port()),
        "--admin=127.0.0.1:0".to_owned(),
        format!("--data-dir={}", cluster.path("exposed").display()),
        "--expose-lb-api".to_owned(),
        "--exit-with-parent".to_owned(),
    ];
    let proxy = program().start("exposed", &args);
    proxy.listening().await;
    cluster.api.settled(1).await;
    let at = SocketAddr::new(own, port.address().port());
    let read = get(at, "/lb/backends").await;
    assert_eq!(read.status, 200, "{read:?}");
    let forged = "X-Forwarded-For: 127.0.0.1\r\n";
    let refused = ask(at, "POST", "/lb/backends/add", &format!("{JSON}{forged}"), "{}").await;
    expect_refusal(&refused, 403, "from its own machine only");
}

fn own_address() -> Option<std::net::IpAddr> {
    // Nothing is sent: connecting a datagram socket only chooses a route.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[tokio::test]
async fn a_unix_socket_serves_the_same_routes() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("http.sock");
    let args = [
        "control-plane".to_owned(),
        "--grpc=127.0.0.1:0".to_owned(),
        format!("--http=unix:{}", path.display()),
        format!("--data-dir={}", directory.path().join("state").display()),
        "--exit-with-parent".to_owned(),
    ];
    let process = program().start("control-plane", &args);
    process.listening().await;
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(b"GET /lb/backends HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("[]"), "{answer}");
}
