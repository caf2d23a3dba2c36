//! The harness of the end-to-end tests: real processes, real sockets, nothing mocked.
//!
//! | module | gives |
//! |---|---|
//! | [`process`] | child processes with their output, their signals and a certain end |
//! | [`port`] | ports that stay ours while nobody listens on them |
//! | [`cluster`] | a control plane and proxies that can be killed and started again |
//! | [`backend`] | a scriptable HTTP server that records what reaches it |
//! | [`client`] | an HTTP client that shows every byte |
//! | [`stage`] | both ends of a proxy, every byte and every end of a connection |
//! | [`wire`] | HTTP/1 messages read strictly, and as careless servers would |
//! | [`exposition`] | what `/metrics` says, read strictly |
//! | [`load`] | clients in a loop, who count what failed |
//! | [`api`] | the gRPC services, as short calls |
//! | [`name_server`] | a name server that says what a test tells it |
//! | [`scene`] | real proxies before a scripted control plane |
//! | [`statistics`] | what proxies report, and tokens for probes |
//! | [`scripted`] | a control plane and a proxy that say what a test tells them |
//! | [`eventually`] | waiting for what has no event |
//!
//! Every function of the harness panics with the whole story when something is not as it
//! must be; a test that fails prints the ends of its children's logs.

pub mod api;
pub mod backend;
pub mod client;
pub mod cluster;
pub mod eventually;
pub mod exposition;
pub mod load;
pub mod meter;
pub mod name_server;
pub mod port;
pub mod process;
pub mod scene;
pub mod scripted;
pub mod stage;
pub mod statistics;
pub mod wall_clock;
pub mod wire;

use std::time::Duration;

/// How long anything may take that is expected to happen. Far beyond what it takes, so that a
/// slow machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the long forms of the tests are wanted (`LB_TEST_SCALE=full`).
#[must_use]
pub fn full_scale() -> bool {
    std::env::var_os("LB_TEST_SCALE").is_some_and(|scale| scale == "full")
}
