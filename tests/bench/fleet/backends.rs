//! Thousands of backends in one pool, with real proxies.

use std::time::Duration;

use lb_proto::v1::{self as pb, object::Object as Any};
use lb_tests::{
    cluster::{self, Cluster},
    process::Program,
};
use tokio::time::Instant;

use super::{
    BURST, burst, followers::Followers, header, latency, milliseconds, percentile, row, stored,
};
use crate::{
    args::FleetArgs,
    ours::{self, Binary},
    peer, procfs,
};

/// Real proxies.
const PROXIES: u32 = 3;
/// How often one more backend is added.
const ADDITIONS: u32 = 20;
/// How often the list is asked for.
const LISTS: u32 = 5;

/// Measures, and prints a table.
pub(super) async fn run(args: &FleetArgs, binary: &Binary) -> Result<(), String> {
    let (_process, targets) = peer::backends().await?;
    let port = targets[0].port();
    let program = Program::at(binary.path()?);
    let mut cluster = Cluster::start(program, PROXIES as usize).await;
    let api = cluster.api.clone();
    api.change_pool(cluster::no_checks).await;
    ours::add_further(&api, port, args.backends).await?;
    cluster.settled().await;
    let proxies: Vec<u32> =
        (0..PROXIES as usize).map(|index| cluster.proxy(index).process().id()).collect();
    let mut followers = Followers::connect(cluster.grpc(), 1).await?;
    let snapshot = followers.reach(api.revision().await).await?;

    let mut applied = Vec::new();
    let mut delta_bytes = 0;
    let mut spent = Duration::ZERO;
    for turn in 0..ADDITIONS {
        let before = procfs::cpu_off_workers(&proxies)?;
        let began = Instant::now();
        let backend = pb::Backend {
            address: format!("127.200.0.{}:{port}", turn + 1),
            ..pb::Backend::default()
        };
        let written = api.put_applied(Any::Backend(backend)).await;
        applied.push(began.elapsed());
        spent += procfs::cpu_off_workers(&proxies)?.saturating_sub(before);
        let arrivals = followers.reach(written.revision).await?;
        delta_bytes = delta_bytes.max(arrivals.iter().map(|a| a.taken.bytes).max().unwrap_or(0));
    }
    let each = spent / (ADDITIONS * PROXIES);
    header(&format!("{} backends, {PROXIES} proxies", args.backends));
    row("one more: bytes to each proxy", format!("{delta_bytes} B"), "400 B");
    row(
        "one more: written and applied on all, p50",
        milliseconds(percentile(&mut applied, 50)),
        "50 ms",
    );
    row("one more: a proxy's CPU off its workers", milliseconds(each), "5 ms");
    let whole = snapshot.iter().map(|a| a.taken.bytes).max().unwrap_or_default();
    row("whole state", format!("{:.1} MB", whole as f64 / 1e6), "");

    let mut lists = Vec::new();
    for _ in 0..LISTS {
        lists.push(cluster.lbctl(&["get", "backends"]).await.expect(0).took);
    }
    row("lbctl get backends", milliseconds(percentile(&mut lists, 50)), "300 ms");

    latency::run(&api, cluster.address(), port).await?;

    let backends = stored(&api).await;
    // What came until now is of what was measured before.
    followers.reach(api.revision().await).await?;
    let before = procfs::cpu_off_workers(&proxies)?;
    let (last, wrote) = burst(&api, &backends).await?;
    let written = Instant::now();
    let arrivals = followers.reach(last).await?;
    api.settled(PROXIES as usize + followers.count()).await;
    let settled = written.elapsed();
    let spent = procfs::cpu_off_workers(&proxies)?.saturating_sub(before);
    row(&format!("{BURST} changes in a burst: written"), milliseconds(wrote), "");
    row("burst: applied on all after the last commit", milliseconds(settled), "");
    row("burst: messages to a proxy", arrivals.len(), "fewer than changes");
    row("burst: a proxy's CPU off its workers", milliseconds(spent / PROXIES), "");

    cluster.kill_control_plane().await;
    let began = Instant::now();
    cluster.start_control_plane().await;
    row("control plane killed and started: serving", milliseconds(began.elapsed()), "1 s");
    Ok(())
}
