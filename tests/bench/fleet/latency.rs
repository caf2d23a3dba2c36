//! What clients notice of changes to a large pool.

use std::{net::SocketAddr, time::Duration};

use lb_proto::v1::{self as pb, object::Object as Any};
use lb_tests::api::Api;
use tokio::time::{MissedTickBehavior, interval};

use super::row;
use crate::{measure::run_load, report::median};

/// How often each pace is measured. They take turns, since a shared machine is not the same from
/// one second to the next.
const ROUNDS: u32 = 7;
/// Of one measurement, in milliseconds.
const LOAD_MS: u32 = 3000;
/// Who asks for what.
const CLIENTS: &[&str] = &["--connections=8", "--path=/kept"];
/// Who wait for their turns. There are more, so that each waits for milliseconds: what a timer is
/// late is little to that.
const PACED_CLIENTS: &[&str] = &["--connections=64", "--path=/kept"];
/// Backends that are added in a second.
const PACES: [u32; 3] = [0, 1, 10];

/// Measures latency through the proxy at `address` while nothing changes and while backends with
/// this port are added to the pool: by clients who ask as fast as they are answered, which leaves
/// nothing of the machine to anybody, and by clients who ask half as often. A row for each
/// percentile.
pub(super) async fn run(api: &Api, address: SocketAddr, port: u16) -> Result<(), String> {
    let most = run_load(address, CLIENTS, LOAD_MS).await?;
    let most = most["requests"].as_f64().unwrap_or_default() * 1e3 / f64::from(LOAD_MS);
    let rate = format!("--rate={:.0}", (most / 2.0).max(1.0));
    let paced = [PACED_CLIENTS, &[&rate]].concat();
    let loads = [("under full load", CLIENTS.to_vec()), ("at half of it", paced)];
    let mut outcomes = loads.each_ref().map(|_| PACES.map(|_| Vec::new()));
    let mut added = 0;
    for _ in 0..ROUNDS {
        for ((_, args), outcomes) in loads.iter().zip(&mut outcomes) {
            for (pace, outcomes) in PACES.iter().zip(outcomes) {
                let outcome = tokio::select! {
                    outcome = run_load(address, args, LOAD_MS) => outcome?,
                    never = add(api, port, *pace, &mut added) => never,
                };
                outcomes.push(outcome);
            }
        }
    }
    for ((name, _), outcomes) in loads.iter().zip(&outcomes) {
        for figure in ["p50_us", "p99_us"] {
            let middle = outcomes.each_ref().map(|outcomes| {
                median(outcomes.iter().filter_map(|outcome| outcome[figure].as_f64()).collect())
            });
            let texts =
                middle.map(|value| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.0}")));
            let percentile = figure.trim_end_matches("_us");
            row(
                &format!("latency {name}, {percentile}: quiet, one more a second, ten more"),
                format!("{} µs", texts.join(", ")),
                "the same",
            );
        }
    }
    Ok(())
}

/// Adds backends at this pace, for ever.
async fn add<T>(api: &Api, port: u16, pace: u32, added: &mut u32) -> T {
    if pace == 0 {
        return std::future::pending().await;
    }
    let mut turns = interval(Duration::from_secs(1) / pace);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let [.., high, low] = added.to_be_bytes();
        let address = format!("127.201.{high}.{low}:{port}");
        // It may be stored although nobody waits for that any more.
        *added += 1;
        api.put_applied(Any::Backend(pb::Backend { address, ..pb::Backend::default() })).await;
    }
}
