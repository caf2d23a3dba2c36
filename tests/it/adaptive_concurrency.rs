//! Limits of requests in progress that are found out, over eight real proxies: in front of a
//! backend with ten places that becomes ten times slower and recovers, beside fixed limits
//! that know the number of places.
//!
//! `LB_TEST_SCALE=full` compares three rounds instead of one, and with twice as many slots as
//! places, too.

use std::time::Duration;

use lb_tests::{
    client::{exchange, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
    load::Load,
    meter::{Meter, Span},
};

use crate::program;

const PLACES: u32 = 10;
const FAST: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_millis(200);

/// How a run is limited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Limit {
    Adaptive,
    Fixed(u32),
}

async fn set(cluster: &Cluster, limit: Limit) {
    cluster
        .api
        .change_pool(|pool| {
            let adaptive = pool.adaptive_concurrency.get_or_insert_default();
            adaptive.enabled = limit == Limit::Adaptive;
            pool.max_in_flight = match limit {
                Limit::Adaptive => 0,
                Limit::Fixed(slots) => slots,
            };
        })
        .await;
}

async fn start(meter: &Meter) -> Cluster {
    let cluster = Cluster::start(program(), 8).await;
    cluster
        .api
        .change_pool(|pool| {
            no_checks(pool);
            pool.request_timeout_ms = 5_000;
            pool.queue_timeout_ms = 10_000;
        })
        .await;
    cluster.add_backends(&[meter.address()]).await;
    cluster
}

/// Fast, ten times slower, and fast again, under more than there are places for.
async fn run(cluster: &Cluster, meter: &Meter, limit: Limit) -> [Span; 3] {
    set(cluster, limit).await;
    meter.set_service(FAST);
    let load = Load::start(&cluster.addresses(), 8);
    load.answered(200).await;
    let fast = meter.span(Duration::from_secs(3)).await;
    meter.set_service(SLOW);
    let slow = meter.span(Duration::from_secs(16)).await;
    meter.set_service(FAST);
    let again = meter.span(Duration::from_secs(4)).await;
    load.stop().await.assert_flawless();
    [fast, slow, again]
}

#[tokio::test]
async fn a_backend_that_becomes_ten_times_slower_is_kept_busy_and_not_swamped() {
    let meter = Meter::with_places("well", FAST, PLACES as usize);
    let cluster = start(&meter).await;
    let is_full = std::env::var("LB_TEST_SCALE").is_ok_and(|scale| scale == "full");
    let limits = [Limit::Fixed(PLACES), Limit::Adaptive, Limit::Fixed(2 * PLACES)];
    let (rounds, limits) = if is_full { (3, &limits[..]) } else { (1, &limits[..2]) };
    let mut sums: Vec<(Limit, [f64; 3])> = Vec::new();
    for _ in 0..rounds {
        for &limit in limits {
            let spans = run(&cluster, &meter, limit).await;
            let shown = spans.map(|span| (span.answered, span.queued, span.busy));
            println!(
                "{limit:?}: answers, their time in the backend's queue, share of its places in use: \
                 {shown:?}"
            );
            if limit == Limit::Adaptive {
                // A mean over all of it: what is sent before the limit falls is in it, too.
                assert!(spans[1].queued < 3 * SLOW, "{:?}", spans[1].queued);
            }
            let known = sums.iter_mut().find(|(known, _)| *known == limit);
            match known {
                Some((_, sum)) => (0..3).for_each(|phase| sum[phase] += spans[phase].busy),
                None => sums.push((limit, spans.map(|span| span.busy))),
            }
        }
    }
    for (phase, name) in ["fast", "slow", "fast again"].into_iter().enumerate() {
        let of = |adaptive: bool| {
            let these = sums.iter().filter(|(limit, _)| (*limit == Limit::Adaptive) == adaptive);
            these.map(|(_, sum)| sum[phase]).fold(0.0, f64::max)
        };
        let in_use = of(true) / of(false);
        println!("{name}: {:.0} % of what the best fixed limit kept in use", in_use * 100.0);
        assert!(in_use >= 0.8, "{name}: {in_use}");
    }
}

#[tokio::test]
async fn the_limit_is_told_with_what_it_follows_from_and_stays_without_the_control_plane() {
    let meter = Meter::with_places("well", FAST, PLACES as usize);
    let mut cluster = start(&meter).await;
    let args = ["set-pool", "default", "--adaptive-concurrency", "true", "--concurrency-min", "4"];
    drop(cluster.lbctl(&args).await.expect(0));
    let load = Load::start(&cluster.addresses(), 8);
    load.answered(1_000).await;
    let told = async || {
        let text = cluster.lbctl(&["describe", "pool", "default"]).await.expect(0).stdout;
        let is_told = text.contains(" without a queue: ") && text.contains(" in use");
        if is_told { Ok(text) } else { Err(text) }
    };
    println!("{}", eventually("what the limit follows from is told", told).await);
    let ask = async |path: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        exchange(cluster.http(), "GET", request).await.unwrap().text()
    };
    let scraped = ask("/metrics").await;
    for metric in
        ["lb_pool_concurrency_limit", "lb_pool_unqueued_seconds", "lb_pool_queueing_seconds"]
    {
        assert!(scraped.contains(&format!("{metric}{{pool=\"default\"}} ")), "{scraped}");
    }
    let rest = ask("/v1/pools/default").await;
    let rest: serde_json::Value = serde_json::from_str(&rest).unwrap();
    assert!(rest["status"]["slots"]["adaptive"]["limit"].as_u64() >= Some(4), "{rest}");

    cluster.kill_control_plane().await;
    // A second after the last grant leases have ended, and what was lent is kept.
    load.answered(1_500).await;
    let alone = meter.span(Duration::from_secs(3)).await;
    println!("without the control plane: {alone:?}");
    assert!(alone.queued < 5 * FAST, "{alone:?}");
    cluster.start_control_plane().await;
    cluster.api.settled(8).await;
    load.answered(500).await;
    load.stop().await.assert_flawless();
    drop(
        cluster.lbctl(&["set-pool", "default", "--adaptive-concurrency", "false"]).await.expect(0),
    );
    let text = cluster.lbctl(&["describe", "pool", "default"]).await.expect(0).stdout;
    assert!(!text.contains(" without a queue"), "{text}");
    assert_eq!(get(cluster.address(), "/").await.status, 200);
}

/// What does not wait for the backend does not use the limit up, be it slow clients or uploads.
#[tokio::test]
async fn a_limit_is_not_used_up_by_what_does_not_wait_for_the_backend() {
    use lb_tests::{
        backend::{Action, Backend, Gate},
        client::Client,
    };
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |request| {
        if request.path() == "/long" {
            let begins = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlo";
            vec![
                Action::Send(begins.into()),
                Action::Await(held.clone()),
                Action::Send(b"ng".to_vec()),
            ]
        } else {
            vec![Action::Send(lb_tests::backend::ok("well"))]
        }
    });
    let cluster = Cluster::start(program(), 1).await;
    cluster
        .api
        .change_pool(|pool| {
            no_checks(pool);
            pool.adaptive_concurrency.get_or_insert_default().enabled = true;
        })
        .await;
    cluster.add_backends(&[backend.address()]).await;
    let mut long = Vec::new();
    // It begins with a limit of seven.
    for number in 0..30 {
        let mut client = Client::connect(cluster.address()).await;
        client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{number}: {head}");
        long.push(client);
    }
    let mut uploads = Vec::new();
    for _ in 0..30 {
        let mut client = Client::connect(cluster.address()).await;
        client.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx").await;
        uploads.push(client);
    }
    assert_eq!(get(cluster.address(), "/").await.status, 200);
    let aside = async || {
        let text = cluster.lbctl(&["describe", "pool", "default", "-o", "json"]).await.expect(0);
        if text.stdout.contains("\"aside\": 60") { Ok(()) } else { Err(text.stdout) }
    };
    eventually("they are told apart", aside).await;
    for client in &mut uploads {
        client.send("y").await;
        assert_eq!(client.response().await.status, 200);
    }
    gate.open();
    for client in &mut long {
        assert_eq!(client.take(4).await.unwrap(), b"long");
    }
}
