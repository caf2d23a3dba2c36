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
/// Backends that are added in a second.
const PACES: [u32; 3] = [0, 1, 10];

/// Measures latency through the proxy at `address` while nothing changes and while backends with
/// this port are added to the pool; a row for each percentile.
pub(super) async fn run(api: &Api, address: SocketAddr, port: u16) -> Result<(), String> {
    let mut outcomes = PACES.map(|_| Vec::new());
    let mut added = 0;
    for _ in 0..ROUNDS {
        for (pace, outcomes) in PACES.iter().zip(&mut outcomes) {
            let load = run_load(address, &["--connections=8", "--path=/kept"], LOAD_MS);
            let outcome = tokio::select! {
                outcome = load => outcome?,
                never = add(api, port, *pace, &mut added) => never,
            };
            outcomes.push(outcome);
        }
    }
    for figure in ["p50_us", "p99_us"] {
        let middle = outcomes.each_ref().map(|outcomes| {
            median(outcomes.iter().filter_map(|outcome| outcome[figure].as_f64()).collect())
        });
        let texts = middle.map(|value| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.0}")));
        let name = figure.trim_end_matches("_us");
        row(
            &format!("latency {name}: quiet, one more a second, ten more a second"),
            format!("{} µs", texts.join(", ")),
            "the same",
        );
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
