//! `lb-bench fleet`: what many proxies, or many backends, cost the control plane and each
//! proxy, and how soon a change arrives.

mod backends;
mod followers;
mod latency;
mod proxies;

use std::{process::ExitCode, time::Duration};

use lb_proto::v1::{self as pb, object::Object as Any};
use lb_tests::api::Api;
use tokio::{task::JoinSet, time::Instant};

use crate::{args::FleetArgs, ours::Binary, procfs};

/// Writes of a burst that are under way at once.
const BURST_WRITERS: u32 = 64;
/// Writes of a burst.
const BURST: u32 = 1000;

/// Measures both, and prints two tables.
pub(crate) async fn run(args: FleetArgs) -> Result<ExitCode, String> {
    let binary = Binary::find(args.proxy_binary.clone())?;
    println!("{}, {}.\n", binary.version, procfs::machine());
    proxies::run(&args, &binary).await?;
    println!();
    backends::run(&args, &binary).await?;
    Ok(ExitCode::SUCCESS)
}

/// One row of a table.
fn row(what: &str, figure: impl std::fmt::Display, target: &str) {
    println!("| {what} | {figure} | {target} |");
}

fn header(title: &str) {
    println!("| {title} | now | target |\n| --- | --- | --- |");
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// The value that this many of a hundred of them do not exceed.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let index = (times.len() * percent).div_ceil(100);
    times.get(index.saturating_sub(1)).copied().unwrap_or_default()
}

/// Sets the weights of these backends, one write each, as fast as they are taken; the
/// last revision, and how long it took.
async fn burst(api: &Api, backends: &[pb::Backend]) -> Result<(u64, Duration), String> {
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..BURST_WRITERS {
        let api = api.clone();
        let mine: Vec<pb::Backend> = (writer..BURST)
            .step_by(BURST_WRITERS as usize)
            .map(|turn| {
                let mut backend = backends[turn as usize % backends.len()].clone();
                backend.weight = Some(2 + turn % 199);
                backend
            })
            .collect();
        writers.spawn(async move {
            let mut revision = 0;
            for backend in mine {
                revision = revision.max(write(&api, backend).await?);
            }
            Ok::<_, String>(revision)
        });
    }
    let mut last = 0;
    while let Some(done) = writers.join_next().await {
        last = last.max(done.map_err(|error| error.to_string())??);
    }
    Ok((last, began.elapsed()))
}

/// Puts a backend without waiting; the revision of the store.
async fn write(api: &Api, backend: pb::Backend) -> Result<u64, String> {
    let written = api.put(Any::Backend(backend), pb::WriteOptions::default()).await;
    written.map(|written| written.revision).map_err(|status| status.to_string())
}

/// All backends, as they are stored.
async fn stored(api: &Api) -> Vec<pb::Backend> {
    let objects = api.list("backend").await.0.into_iter();
    objects.filter_map(|object| if let Any::Backend(b) = object { Some(b) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let mut times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut times, 50), Duration::from_millis(50));
        assert_eq!(percentile(&mut times, 99), Duration::from_millis(99));
        assert_eq!(percentile(&mut [], 50), Duration::ZERO);
    }
}
