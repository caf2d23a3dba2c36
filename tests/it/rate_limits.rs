//! Limits of rates, over fleets of real processes, counted at the backend by its own clock.

use std::{net::SocketAddr, time::Duration};

use lb_tests::{
    backend::Backend,
    client::{Client, exchange, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
    meter::Meter,
    paced::{Arrivals, Paced, Window},
};

use crate::{program, seed_rest::ask};

const RATE: f64 = 100.0;
/// Eight proxies with a burst of the larger of an eighth of 20 and 8.
const BURSTS: f64 = 64.0;
/// Requests that were admitted a moment before a second are counted in it: what comes at the
/// rate in a tenth of a second, on a machine that may be busy with other things.
const SLACK: f64 = RATE / 10.0;

async fn fleet(proxies: usize, backend: SocketAddr, limit: &[&str]) -> Cluster {
    let cluster = Cluster::start(program(), proxies).await;
    cluster.api.change_pool(no_checks).await;
    cluster.add_backends(&[backend]).await;
    let added = cluster.lbctl(&[&["add-limit"], limit].concat()).await.expect(0);
    assert!(added.stdout.contains("applied"), "{added:?}");
    cluster
}

/// All of `rate`, of which the first of these proxies gets nine tenths.
fn skewed(cluster: &Cluster, proxies: std::ops::Range<usize>, rate: f64) -> Vec<(SocketAddr, f64)> {
    let others = proxies.len() - 1;
    let first = proxies.start;
    let share = |index| match index {
        index if index == first => rate * 0.9,
        _ => rate * 0.1 / others as f64,
    };
    proxies.map(|index| (cluster.proxy(index).address(), share(index))).collect()
}

/// Says what came, never more in a second than may; the mean.
fn tell(what: &str, window: &Window, rate: f64, most: f64) -> f64 {
    let (mean, worst) = (window.mean(), window.worst_second());
    println!("{what}: {mean:.1} per second of {rate}, {worst} in the worst second");
    assert!(worst as f64 <= most, "{what}: {worst} in one second");
    mean
}

/// Waits until the rate is used and not exceeded, within a twentieth. Where processes wait
/// for a processor for longer than a lease lasts, less is used for a while.
async fn used(what: &str, backend: &Arrivals, rate: f64, most: f64) {
    let mut means = Vec::new();
    for _ in 0..12 {
        let mean = tell(what, &backend.within(Duration::from_secs(4)).await, rate, most);
        if (0.95 * rate..=1.05 * rate).contains(&mean) {
            return;
        }
        // Buckets that were full at its beginning are what a window may have beyond the rate.
        let bound = 1.05 * rate + (most - rate) / 4.0;
        assert!(mean <= bound, "{what}: {mean} per second of {rate}");
        means.push(mean);
    }
    panic!("{what}: {means:?} per second of {rate}");
}

#[tokio::test]
async fn one_rate_holds_over_eight_proxies_whatever_happens_to_them() {
    let backend = Arrivals::open();
    let limit = ["all", "--rate", "100/s", "--burst", "20"];
    let mut cluster = fleet(8, backend.address(), &limit).await;
    let most = RATE + BURSTS + SLACK;
    let bounded = async |what: &str, seconds: u64| {
        let window = backend.within(Duration::from_secs(seconds)).await;
        tell(what, &window, RATE, most)
    };

    let load = Paced::start(&skewed(&cluster, 0..8, 3.0 * RATE));
    bounded("beginning", 3).await;
    used("three times the rate, nine tenths at one proxy", &backend, RATE, most).await;
    let shown = cluster.lbctl(&["get", "limits", "-o", "wide"]).await.expect(0).stdout;
    println!("{shown}");
    assert_eq!(shown.matches("leased").count(), 8, "{shown}");
    load.stop().await;

    cluster.kill_proxy(0).await;
    let load = Paced::start(&skewed(&cluster, 1..8, 3.0 * RATE));
    bounded("its busiest proxy killed", 3).await;
    used("its share with the others", &backend, RATE, most).await;

    cluster.kill_control_plane().await;
    bounded("the control plane killed", 3).await;
    let alone = bounded("at the safe shares", 5).await;
    assert!(alone <= 1.05 * RATE, "{alone}");
    cluster.start_control_plane().await;
    cluster.api.settled(7).await;
    for seconds in 1..=10 {
        let mean = bounded("the control plane is back", 1).await;
        if mean >= 0.95 * RATE {
            println!("all of the rate is used in second {seconds} after all proxies are back");
            break;
        }
    }
    used("the control plane back", &backend, RATE, most).await;
    load.stop().await;
}

#[tokio::test]
async fn what_is_within_a_limit_passes_wherever_it_comes() {
    let backend = Arrivals::open();
    let cluster = fleet(8, backend.address(), &["all", "--rate", "100/s"]).await;
    let load = Paced::at_most(&skewed(&cluster, 0..8, 0.8 * RATE));
    backend.within(Duration::from_secs(3)).await;
    let refused = async || {
        let limits = cluster.lbctl(&["get", "limits", "-o", "json"]).await.expect(0).json();
        let count = |name: &str| limits[0][name].as_u64().unwrap();
        (count("admitted_total"), count("refused_total"))
    };
    let mut parts = Vec::new();
    for _ in 0..8 {
        let before = refused().await;
        backend.within(Duration::from_secs(5)).await;
        let after = refused().await;
        let [passed, refused] = [after.0 - before.0, after.1 - before.1];
        println!(
            "80 % of the limit, nine tenths at one proxy: {refused} of {} refused",
            passed + refused
        );
        if refused * 50 <= passed + refused {
            load.stop().await;
            return;
        }
        parts.push((refused, passed));
    }
    panic!("refused and passed: {parts:?}");
}

#[tokio::test]
async fn each_proxy_keeps_its_own_limit_and_tells_of_it() {
    let backend = Backend::saying("here");
    let log = tempfile::NamedTempFile::new().unwrap();
    let access_log = format!("--access-log={}", log.path().display());
    let cluster =
        Cluster::start_with(program(), 2, &["--expose-lb-api", &access_log, "--workers=2"]).await;
    cluster.api.change_pool(no_checks).await;
    cluster.add_backends(&[backend.address()]).await;
    let add = ["add-limit", "tight", "--rate", "1/m", "--burst", "5", "--scope", "proxy"];
    drop(cluster.lbctl(&add).await.expect(0));
    drop(cluster.lbctl(&["add-limit", "loose", "--rate", "100/s", "--shadow"]).await.expect(0));
    for proxy in cluster.addresses() {
        for left in (0..5).rev() {
            let answer = get(proxy, "/").await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.field("RateLimit-Policy"), Some("\"tight\";q=5;w=301"));
            let told = answer.field("RateLimit").unwrap();
            assert!(told.starts_with(&format!("\"tight\";r={left};t=")), "{told}");
        }
        let refused = get(proxy, "/").await;
        refused.expect(429, "rate_limited");
        let wait: u64 = refused.field("Retry-After").unwrap().parse().unwrap();
        assert!((50..=61).contains(&wait), "{wait}");
        assert!(refused.field("RateLimit").unwrap().starts_with("\"tight\";r=0;t="));
        assert!(refused.text().contains("limit tight lets 1/m pass"), "{}", refused.text());
        // On the same connection it goes on.
        let mut client = Client::connect(proxy).await;
        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.response().await.expect(429, "rate_limited");
        }
    }
    assert_eq!(backend.requests(), 10);
    eventually("all is told", async || {
        let limits = cluster.lbctl(&["get", "limits", "-o", "json"]).await.expect(0).json();
        let of = |index: usize, name: &str| limits[index][name].as_u64().unwrap_or_default();
        let told = [of(1, "admitted_total"), of(1, "refused_total"), of(0, "refused_total")];
        if told == [10, 6, 0] { Ok(()) } else { Err(limits.to_string()) }
    })
    .await;
    let stats = ask(cluster.http(), "GET", "/lb/stats", "", "").await.json();
    let limiter = &stats["rate_limiter"];
    assert_eq!(limiter["type"], "token_bucket");
    assert_eq!(
        (limiter["total_requests"].as_u64(), limiter["rejected_requests"].as_u64()),
        (Some(16), Some(6))
    );
    assert_eq!(limiter["allowed_requests"], 10);
    let metrics = get(cluster.proxy(0).admin(), "/metrics").await.text();
    for series in [
        "lb_ratelimit_decisions_total{limit=\"tight\",decision=\"admitted\"} 5",
        "lb_ratelimit_decisions_total{limit=\"tight\",decision=\"refused\"} 3",
        "lb_ratelimit_decisions_total{limit=\"loose\",decision=\"shadow_refused\"} 0",
        "lb_own_answers_total{reason=\"rate_limited\"} 3",
    ] {
        assert!(metrics.contains(series), "{series}");
    }
    eventually("the access log names the limit", async || {
        let text = std::fs::read_to_string(log.path()).unwrap();
        let wanted = "\"status\":429,\"reason\":\"rate_limited\",\"limit\":\"tight\"";
        if text.matches(wanted).count() == 6 { Ok(()) } else { Err(text) }
    })
    .await;
    let mut events = cluster.api.watch(1000).await;
    let told = loop {
        let event = events.message().await.unwrap().expect("events go on");
        if event.r#type == "limit_reached" {
            break event;
        }
    };
    assert_eq!((told.kind.as_str(), told.name.as_str()), ("limit", "tight"));
    let message = told.reason.unwrap().message;
    assert!(message.starts_with("refuses requests: "), "{message}");
    assert!(message.contains("it lets 1/m pass in each proxy"), "{message}");
    let page = cluster.lbctl(&["describe", "limit", "tight"]).await.expect(0).stdout;
    assert!(page.contains("own") && page.contains("passed"), "{page}");
}

#[tokio::test]
async fn keys_are_told_apart_and_what_has_none_passes() {
    let backend = Backend::saying("here");
    let limit = ["--rate", "1/m", "--burst", "2", "--scope", "proxy"];
    let cluster = fleet(
        1,
        backend.address(),
        &[&["by-header", "--key", "header:X-Key"][..], &limit].concat(),
    )
    .await;
    let proxy = cluster.address();
    let mut client = Client::connect(proxy).await;
    let mut send = async |fields: &str| {
        client.send(format!("GET /a?b HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
        client.response().await.status
    };
    let long = "x".repeat(60_000);
    for key in ["a", "b", "", long.as_str()] {
        let field = format!("X-Key: {key}\r\n");
        let statuses = [send(&field).await, send(&field).await, send(&field).await];
        assert_eq!(statuses, [200, 200, 429], "{} bytes", key.len());
    }
    for _ in 0..5 {
        assert_eq!(send("").await, 200, "without the field it is not limited");
    }
    // A longer one is refused as it would be without limits.
    let mut other = Client::connect(proxy).await;
    let field = format!("X-Key: {}\r\n", "x".repeat(70_000));
    other.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n")).await;
    other.response().await.expect(431, "header_too_large");

    let set = async |args: &[&str]| {
        let done = cluster.lbctl(&[&["set-limit", "by-header"], args].concat()).await.expect(0);
        assert!(done.stdout.contains("applied"), "{done:?}");
    };
    set(&["--key", "cookie:session"]).await;
    let cookies = ["a=b; session=1", "session=2", "session=1", "session=1", "other=1"];
    let mut statuses = Vec::new();
    for cookie in cookies {
        statuses.push(send(&format!("Cookie: {cookie}\r\n")).await);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 200]);
    set(&["--key", "path"]).await;
    assert_eq!([send("").await, send("").await, send("").await], [200, 200, 429]);
    set(&["--key", "client"]).await;
    assert_eq!([send("").await, send("").await, send("").await], [200, 200, 429]);
    // More may pass from now on: what was used up stays used up.
    set(&["--burst", "3"]).await;
    assert_eq!([send("").await, send("").await], [200, 429]);
    set(&["--shadow"]).await;
    assert_eq!([send("").await, send("").await], [200, 200]);
    drop(cluster.lbctl(&["remove-limit", "by-header"]).await.expect(0));
    assert_eq!(send("").await, 200);
}

/// Whoever sends new keys all the time gets no more memory, and takes no place from a key that
/// has just asked.
#[tokio::test]
async fn more_keys_than_there_is_room_for_are_forgotten_and_that_is_counted() {
    const PLACES: usize = 128;
    const KEYS: usize = 400;
    let backend = Backend::saying("here");
    let cluster = Cluster::start_with(program(), 1, &["--limit-keys=64"]).await;
    cluster.add_backends(&[backend.address()]).await;
    let limit = ["by-key", "--key=header:X-Key", "--scope=proxy", "--rate=1/h", "--burst=1"];
    drop(cluster.lbctl(&[&["add-limit"], &limit[..]].concat()).await.expect(0));
    let mut client = Client::connect(cluster.address()).await;
    let mut send = async |key: usize| {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n")).await;
        client.response().await.status
    };
    for key in 0..KEYS {
        assert_eq!(send(key).await, 200, "key {key} has not asked before");
        assert_eq!(send(key).await, 429, "key {key} has just asked");
    }
    let text = get(cluster.proxy(0).admin(), "/metrics").await.text();
    let series = "lb_ratelimit_forgiven_keys_total{limit=\"by-key\"} ";
    let forgiven = text.lines().find_map(|line| line.strip_prefix(series)).unwrap();
    let kept = KEYS - forgiven.parse::<usize>().unwrap();
    assert!((PLACES / 2..=PLACES).contains(&kept), "{kept} keys of {KEYS} have a place");
}

#[tokio::test]
async fn when_one_limit_refuses_nothing_is_taken_from_another() {
    let backend = Backend::saying("here");
    let wide = ["wide", "--rate", "1/h", "--burst", "4", "--scope", "proxy"];
    let cluster = fleet(1, backend.address(), &wide).await;
    let narrow =
        ["add-limit", "z-narrow", "--rate", "1/h", "--burst", "1", "--key", "header:X-Key"];
    drop(
        cluster
            .lbctl(&[&narrow[..], &["--scope", "proxy", "--route", "default"]].concat())
            .await
            .expect(0),
    );
    let mut client = Client::connect(cluster.address()).await;
    let mut statuses = Vec::new();
    for key in ["a", "a", "a", "a", "a", "b", "c", "d", "e"] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n")).await;
        statuses.push(client.response().await.status);
    }
    assert_eq!(statuses, [200, 429, 429, 429, 429, 200, 200, 200, 429]);
    let refused = cluster.lbctl(&["remove-route", "default"]).await.expect(4);
    assert!(refused.stderr.contains("still used by limit z-narrow"), "{}", refused.stderr);
}

#[tokio::test]
async fn a_backend_gets_from_all_proxies_together_what_it_may() {
    let [one, two] = [Arrivals::open(), Arrivals::open()];
    let cluster = Cluster::start(program(), 4).await;
    cluster.api.change_pool(no_checks).await;
    cluster.add_backends(&[one.address(), two.address()]).await;
    let add = ["add-limit", "gentle", "--rate", "40/s", "--burst", "10", "--scope", "backend"];
    drop(cluster.lbctl(&add).await.expect(0));
    let rates: Vec<_> = cluster.addresses().into_iter().map(|address| (address, 50.0)).collect();
    let load = Paced::start(&rates);
    // Four proxies with bursts of 8.
    let most = 40.0 + 32.0 + 4.0;
    // They have only just joined: each may use for a moment what was an even share of those that
    // were there when it came.
    let joining = most + 40.0 / 2.0 + 40.0 / 3.0 + 40.0 / 4.0;
    for backend in [&one, &two] {
        tell("joining", &backend.within(Duration::from_secs(2)).await, 40.0, joining);
    }
    tokio::join!(used("one of two", &one, 40.0, most), used("the other", &two, 40.0, most));
    let statuses = load.stop().await;
    assert!(statuses.keys().all(|status| [200, 429].contains(status)), "{statuses:?}");
}

#[tokio::test]
async fn a_key_gets_its_whole_rate_through_one_proxy_of_four() {
    let backend = Arrivals::open();
    let limit = ["by-key", "--rate", "40/s", "--burst", "10", "--key", "header:X-Key"];
    let cluster = fleet(4, backend.address(), &limit).await;
    let load = Paced::with_fields(&[(cluster.address(), 120.0)], "X-Key: busy\r\n");
    used("a hot key at one proxy of four", &backend, 40.0, 40.0 + 32.0 + 4.0).await;
    load.stop().await;
}

/// What comes in while a request waits is there when its turn comes.
#[tokio::test]
async fn a_request_that_has_waited_is_asked_about_when_it_goes() {
    let meter = Meter::open("here", Duration::from_millis(700));
    let cluster = Cluster::start(program(), 1).await;
    cluster.api.change_pool(no_checks).await;
    let ids = cluster.add_backends(&[meter.address()]).await;
    drop(cluster.lbctl(&["set-backend", &ids[0], "--max-in-flight", "1"]).await.expect(0));
    let limit = ["add-limit", "gentle", "--rate", "2/s", "--burst", "1", "--scope", "backend"];
    drop(cluster.lbctl(&limit).await.expect(0));
    let proxy = cluster.address();
    let (first, second) = tokio::join!(get(proxy, "/"), get(proxy, "/"));
    assert_eq!((first.status, second.status), (200, 200), "{} {}", first.text(), second.text());
}

#[tokio::test]
async fn the_limit_of_a_backend_that_refuses_is_the_one_that_is_told() {
    let backend = Backend::saying("here");
    let wide = ["a-wide", "--rate", "1000/s", "--scope", "backend"];
    let cluster = fleet(1, backend.address(), &wide).await;
    let narrow = ["add-limit", "z-narrow", "--rate", "1/h", "--burst", "1", "--scope", "backend"];
    drop(cluster.lbctl(&narrow).await.expect(0));
    assert_eq!(get(cluster.address(), "/").await.status, 200);
    let refused = get(cluster.address(), "/").await;
    refused.expect(429, "rate_limited");
    assert!(refused.text().contains("limit z-narrow"), "{}", refused.text());
    assert_eq!(refused.field("RateLimit-Policy"), Some("\"z-narrow\";q=1;w=3611"));
    assert!(refused.field("RateLimit").unwrap().starts_with("\"z-narrow\";r=0;t="));
}

/// A client that gives several values at once, or spells a name in another way, is no new one each
/// time.
#[tokio::test]
async fn nobody_gets_past_a_limit_by_key_with_a_value_beside_it() {
    let backend = Backend::saying("here");
    let cluster = Cluster::start_with(program(), 1, &[]).await;
    cluster.add_backends(&[backend.address()]).await;
    for key in ["header:X-Key", "cookie:sid", "header:Host"] {
        let limit = ["add-limit", "by-key", "--scope=proxy", "--rate=1/h", "--burst=1"];
        let key = format!("--key={key}");
        drop(cluster.lbctl(&[&limit[..], &[&key]].concat()).await.expect(0));
        let ask = async |target: &str, fields: String| {
            let head = format!("GET {target} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
            exchange(cluster.address(), "GET", head).await.unwrap().status
        };
        let passed = async |fields: &dyn Fn(u32) -> String, target: &str| {
            let mut passed = 0;
            for number in 0..5 {
                passed += u32::from(ask(target, fields(number)).await == 200);
            }
            passed
        };
        match &*key {
            "--key=header:X-Key" => {
                let beside = |n| format!("Host: a\r\nX-Key: {n}\r\nX-Key: same\r\n");
                let alias = |_| "Host: a\r\nX_Key: other\r\n".to_owned();
                assert_eq!(passed(&beside, "/").await, 1, "{key}");
                assert_eq!(passed(&alias, "/").await, 1, "{key}");
                assert_eq!(passed(&|n| format!("Host: a\r\nX-Key: {n}\r\n"), "/").await, 5);
            }
            "--key=cookie:sid" => {
                let beside = |n| format!("Host: a\r\nCookie: sid={n}; sid=same\r\n");
                let fields = |n| format!("Host: a\r\nCookie: sid=same\r\nCookie: sid={n}\r\n");
                assert_eq!(passed(&beside, "/").await + passed(&fields, "/").await, 1, "{key}");
            }
            _ => {
                let rotating = |n| format!("Host: {n}\r\n");
                assert_eq!(passed(&rotating, "http://h/").await, 1, "{key}");
                assert_eq!(passed(&|n| format!("Host: A:{}\r\n", n + 1), "/").await, 1, "{key}");
            }
        }
        drop(cluster.lbctl(&["remove-limit", "by-key"]).await.expect(0));
    }
}
