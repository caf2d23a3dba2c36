//! End-to-end tests: each starts what it needs as real processes, on ports and in
//! directories of its own, and so runs beside all others.

#![expect(clippy::unwrap_used, reason = "clippy does not see that helpers of tests are tests")]

mod access_log;
mod adaptive_concurrency;
mod alerts;
mod answers;
mod architecture;
mod automation;
mod avoidance;
mod bad_backends;
mod bad_input;
mod bad_places;
mod balancing;
mod bulk;
mod caps;

mod changes;
mod client_faults;
mod completions;
mod concurrency_caps;
mod control_plane_loss;
mod deadlines;
mod declared;
mod dev;
mod discovery;
mod drain;
mod drain_processes;
mod durability;
mod failing_backends;
mod fallback;
mod farewell;
mod few_slots;
mod fleet;
mod fleet_breaker;
mod fleet_of_eight;
mod http;
mod lifecycle;
mod long_answers;
mod metrics;
mod mixed_up;
mod not_permitted;
mod overload;
mod panic_mode;
mod port_floods;
mod rate_limits;
mod rest;
mod rest_description;
mod rest_writes;
mod retries;
mod retry_policy;
mod rfc;
mod routes;
mod seed;
mod seed_rest;
mod services;
mod sessions;
mod slow_start;
mod splice;
mod stalled;
mod takeover;
mod takeover_limits;
mod terminal;
mod told;
mod upgrade;
mod wall_clock;
mod writes;

use lb_tests::{backend::Backend, cluster::Cluster, process::Program};

/// The executable under test: one binary is a whole installation.
fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_lbctl-under-test"))
}

/// One proxy before these backends, which are not checked: only traffic reaches them.
async fn one_proxy(backends: &[&Backend]) -> Cluster {
    one_proxy_with(&[], backends).await
}

/// The same with these flags.
async fn one_proxy_with(args: &[&str], backends: &[&Backend]) -> Cluster {
    let cluster = Cluster::start_with(program(), 1, args).await;
    cluster.api.change_pool(lb_tests::cluster::no_checks).await;
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address()).collect();
    cluster.add_backends(&addresses).await;
    cluster
}
