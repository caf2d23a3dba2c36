//! Many proxies, simulated in this process, on one control plane.

use std::time::Duration;

use lb_proto::v1 as pb;
use lb_tests::{
    api::Api,
    cluster::{self, Cluster},
    process::Program,
};
use tokio::time::{Instant, sleep};

use super::{
    BURST, burst,
    followers::{Arrival, Followers},
    header, milliseconds, percentile, row, stored, write,
};
use crate::{
    args::FleetArgs,
    ours::{self, Binary},
    peer, procfs,
};

/// Backends of the pool.
const BACKENDS: u32 = 100;
/// Between looks at the proxies that come back.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long the fleet is watched while nothing changes.
const IDLE: Duration = Duration::from_secs(5);

/// Measures, and prints a table.
pub(super) async fn run(args: &FleetArgs, binary: &Binary) -> Result<(), String> {
    let (_process, targets) = peer::backends().await?;
    let mut cluster = Cluster::start(Program::at(binary.path()?), 0).await;
    let api = cluster.api.clone();
    api.change_pool(cluster::no_checks).await;
    ours::add_further(&api, targets[0].port(), BACKENDS).await?;
    let control = |cluster: &Cluster| [cluster.control_plane().id()];
    let alone = cpu_of_changes(&cluster, args.changes, None).await?;

    let without = procfs::memory(&control(&cluster))?;
    let began = Instant::now();
    let mut followers = Followers::connect(cluster.grpc(), args.proxies as usize).await?;
    followers.reach(api.revision().await).await?;
    let joined = began.elapsed();
    let before = cpu_us(&cluster)?;
    sleep(IDLE).await;
    let idle_us = (cpu_us(&cluster)? - before) / IDLE.as_secs_f64();
    let with = procfs::memory(&control(&cluster))?;

    let (arrivals, changes_us) = {
        let began = Instant::now();
        let (arrivals, spent) =
            cpu_of_changes(&cluster, args.changes, Some(&mut followers)).await?;
        (arrivals, spent - idle_us * began.elapsed().as_secs_f64() - alone.1)
    };
    let count = followers.count();
    let mut after_commit: Vec<Duration> = arrivals.iter().map(|a| a.after_commit).collect();
    let bytes = arrivals.iter().map(|a| a.taken.bytes).max().unwrap_or_default();
    header(&format!("{count} proxies, {BACKENDS} backends"));
    row("commit to applied, p50", milliseconds(percentile(&mut after_commit, 50)), "");
    row(
        "commit to applied, p99",
        milliseconds(percentile(&mut after_commit, 99)),
        "25 ms at 100 proxies",
    );
    let each = changes_us / (count as f64 * f64::from(args.changes));
    row("control plane's CPU per stream and change", format!("{each:.1} µs"), "20 µs");
    row("bytes of a change, to each proxy", format!("{bytes} B"), "400 B");
    row(
        "memory per stream",
        format!("{:.1} KiB", (with - without) / 1024.0 / count as f64),
        "64 KiB",
    );
    row(
        "control plane's CPU per idle stream and second",
        format!("{:.0} µs", idle_us / count as f64),
        "100 µs",
    );
    row("all connected and in sync", milliseconds(joined), "");

    let backends = stored(&api).await;
    let (last, wrote) = burst(&api, &backends).await?;
    let written = Instant::now();
    let arrivals = followers.reach(last).await?;
    let last_arrival = arrivals.iter().map(|a| a.at).max().unwrap_or(written);
    row(&format!("{BURST} changes in a burst: written"), milliseconds(wrote), "");
    row(
        "burst: applied everywhere after the last commit",
        milliseconds(last_arrival.saturating_duration_since(written)),
        "",
    );
    row("burst: messages to each proxy", arrivals.len() / count, "fewer than changes");

    cluster.kill_control_plane().await;
    let held = followers.orphaned().await;
    let began = Instant::now();
    cluster.start_control_plane().await;
    row("control plane killed and started: serving", milliseconds(began.elapsed()), "1 s");
    let began = Instant::now();
    followers.return_with(held).await?;
    let sent = in_sync(&api, count).await?;
    row(
        "all reconnected at once and in sync",
        milliseconds(began.elapsed()),
        "5 s at 1000 proxies",
    );
    row("sent to them again", format!("{sent} transmissions"), "0");
    Ok(())
}

/// Waits until this many proxies are in sync; what was sent to them all.
async fn in_sync(api: &Api, count: usize) -> Result<u64, String> {
    loop {
        let request = pb::ListProxiesRequest {};
        let listed =
            api.fleet().list_proxies(request).await.map_err(|status| status.to_string())?;
        let proxies = listed.into_inner().proxies;
        if proxies.iter().filter(|proxy| proxy.state == "synced").count() == count {
            return Ok(proxies.iter().map(|p| p.snapshots_sent + p.deltas_sent).sum());
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Writes one change after the other, each when the former has reached all; what arrived
/// and the control plane's CPU time in microseconds.
async fn cpu_of_changes(
    cluster: &Cluster,
    changes: u32,
    mut followers: Option<&mut Followers>,
) -> Result<(Vec<Arrival>, f64), String> {
    let backends = stored(&cluster.api).await;
    let mut arrivals = Vec::new();
    let before = cpu_us(cluster)?;
    for turn in 0..changes {
        let mut backend = backends[turn as usize % backends.len()].clone();
        // Another weight than it has, whether or not this ran before.
        backend.weight = Some(backend.weight.unwrap_or(1) % 200 + 1 + turn / BACKENDS);
        let revision = write(&cluster.api, backend).await?;
        if let Some(followers) = followers.as_deref_mut() {
            arrivals.extend(followers.reach(revision).await?);
        }
    }
    Ok((arrivals, cpu_us(cluster)? - before))
}

/// Of the control plane until now.
fn cpu_us(cluster: &Cluster) -> Result<f64, String> {
    let spent = procfs::cpu_off_workers(&[cluster.control_plane().id()])?;
    Ok(spent.as_secs_f64() * 1e6)
}
