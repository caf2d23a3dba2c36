//! A wall clock that jumps by a day: nothing is decided by it, and no age that is shown follows.

use lb_proto::v1::{self as pb, object::Object as Any};
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
    exposition::Scrape,
    wall_clock::WallClock,
};
use rustix::process::Signal;

use crate::program;

/// Nothing in a test is older, and nothing is planned further ahead.
const MINUTE_MS: u64 = 60_000;

/// A fleet whose processes share a wall clock; nothing, and a word on why, where there is no
/// libfaketime.
async fn fleet(proxies: usize, proxy_args: &[&str]) -> Option<(Cluster, WallClock)> {
    let Some(clock) = WallClock::new() else {
        eprintln!("there is no libfaketime here, so no wall clock jumps");
        return None;
    };
    let program = program().with_wall_clock(&clock);
    Some((Cluster::start_with(program, proxies, proxy_args).await, clock))
}

async fn status(cluster: &Cluster) -> pb::GetStatusResponse {
    let status = cluster.api.fleet().get_status(pb::GetStatusRequest {}).await;
    status.unwrap().into_inner()
}

/// Waits until leases, heartbeats and checks have gone by the clock as it is now: until the
/// backend was checked so often again, which takes seconds.
async fn time_passes(cluster: &Cluster, backend: &str) {
    let checks = async || cluster.api.backend(backend).await.checks.unwrap().checks_total;
    let before = checks().await;
    eventually("a dozen further checks", async || match checks().await {
        now if now >= before + 12 => Ok(()),
        now => Err(format!("{now} after {before}")),
    })
    .await;
}

/// Every moment that is shown lies within a minute of what the clock shows.
async fn ages_are_right(cluster: &Cluster, clock: &WallClock, days: i8, backend: &str) {
    let status = status(cluster).await;
    let view = cluster.api.backend(backend).await;
    let now = clock.unix_ms(days);
    let checks = view.checks.unwrap();
    let mut moments = vec![
        ("started", status.started_unix_ms),
        ("last change", status.last_change_unix_ms),
        ("verdict", view.status.unwrap().since_unix_ms),
        ("last check", checks.last_check_unix_ms),
        ("last success", checks.last_success_unix_ms),
        ("next check", checks.next_check_unix_ms),
    ];
    for proxy in &status.proxies {
        moments.push(("connected", proxy.connected_unix_ms));
        assert!(proxy.lag_ms < 10_000 && proxy.last_seen_ms < 10_000, "{proxy:?}");
    }
    for (what, at) in moments {
        assert!(at.abs_diff(now) < MINUTE_MS, "{what}: {at}, and it is {now} ({days:+} days)");
    }
    let shown = cluster.lbctl(&["describe", "backend", backend]).await.expect(0).stdout;
    assert!(!shown.contains("d0h") && !shown.contains("h59m"), "{shown}");
}

#[tokio::test]
async fn a_day_forwards_or_backwards_loses_no_proxy_and_no_backend_and_shows_right_ages() {
    let Some((cluster, clock)) = fleet(2, &[]).await else { return };
    let backend = Backend::saying("a");
    let id = cluster.api.add_backend(backend.address(), 1).await;
    cluster.settled().await;
    let mut events = cluster.api.watch(0).await;
    for (weight, days) in [(2, 1), (3, -1), (4, 0)] {
        clock.set(days);
        time_passes(&cluster, &id).await;
        assert_eq!(get(cluster.address(), "/").await.status, 200);
        // Waits for all proxies: writes, leases and acknowledgements work on.
        let changed = pb::Backend {
            id: id.clone(),
            address: backend.address().to_string(),
            weight: Some(weight),
            ..pb::Backend::default()
        };
        let written = cluster.api.put_applied(Any::Backend(changed)).await;
        assert_eq!(written.progress.unwrap().applied, 2);
        ages_are_right(&cluster, &clock, days, &id).await;
        // No proxy was lost and no backend was down meanwhile.
        let event = events.message().await.unwrap().unwrap();
        assert_eq!((event.r#type.as_str(), event.name.as_str()), ("object_changed", id.as_str()));
    }
}

#[tokio::test]
async fn a_control_plane_that_finds_times_of_tomorrow_in_its_store_starts_as_ever() {
    let Some((mut cluster, clock)) = fleet(1, &[]).await else { return };
    let backend = Backend::saying("a");
    clock.set(1);
    let id = cluster.api.add_backend(backend.address(), 1).await;
    cluster.settled().await;
    cluster.kill_control_plane().await;
    clock.set(-1);
    let admin = cluster.proxy(0).admin();
    eventually("a staleness of seconds", async || {
        match Scrape::of(admin).await.value("lb_control_staleness_seconds") {
            stale if stale > 0.0 && stale < 60.0 => Ok(()),
            stale => Err(format!("{stale} s")),
        }
    })
    .await;
    cluster.start_control_plane().await;
    cluster.settled().await;
    time_passes(&cluster, &id).await;
    ages_are_right(&cluster, &clock, -1, &id).await;
    assert_eq!(cluster.api.proxy("proxy-1").await.snapshots_sent, 0, "it resumes");
    assert_eq!(get(cluster.address(), "/").await.status, 200);
}

#[tokio::test]
async fn a_drain_takes_as_long_as_it_takes() {
    let gate = Gate::default();
    let held = gate.clone();
    let args = ["--accept-grace=0s", "--drain-timeout=30s"];
    let Some((mut cluster, clock)) = fleet(1, &args).await else { return };
    let backend =
        Backend::scripted(move |_| vec![Action::Await(held.clone()), Action::Send(ok("late"))]);
    cluster.api.change_pool(no_checks).await;
    cluster.add_backends(&[backend.address()]).await;
    let mut client = Client::connect(cluster.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    backend.reached(1).await;
    let mut proxy = cluster.take_proxy(0);
    proxy.signal(Signal::TERM);
    proxy.complaint("stopping").await;
    for days in [1, -1] {
        clock.set(days);
        // What looks at a clock has looked at it when two heartbeats have gone.
        heartbeats(&cluster).await;
        assert_eq!(proxy.exit_code(), None, "it waits for the request in flight");
    }
    gate.open();
    assert_eq!(client.response().await.text(), "late");
    assert_eq!(proxy.exited().await, 0);
}

/// Waits until the proxy was heard of twice.
async fn heartbeats(cluster: &Cluster) {
    for wanted in [true, false, true] {
        eventually("a heartbeat", async || {
            let seen = cluster.api.proxy("proxy-1").await.last_seen_ms;
            if (seen < 400) == wanted { Ok(()) } else { Err(format!("heard {seen} ms ago")) }
        })
        .await;
    }
}
