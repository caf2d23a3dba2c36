//! Commands that change pools and listeners.

use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};

use super::{WriteArgs, value};

/// The settings of a pool; what is not named keeps its value, or gets its default.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PoolSettings {
    /// How a backend is picked for each request
    #[arg(long, value_parser = value::algorithm())]
    pub(crate) algorithm: Option<String>,
    /// For one connection attempt to a backend [default: 3s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) connect_timeout: Option<Duration>,
    /// Until the response's head, not counting the time in which the client is still
    /// sending [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) request_timeout: Option<Duration>,
    /// What a check is: GET a path, connect, or nothing at all [default: http]
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) health: Option<HealthProtocol>,
    /// The path to GET; 200 to 399 passes [default: /health]
    #[arg(long, value_name = "PATH")]
    pub(crate) health_path: Option<String>,
    /// Between checks [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) health_interval: Option<Duration>,
    /// Of one check; cut to the interval [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) health_timeout: Option<Duration>,
    /// Passes in a row that bring a backend up again [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rise: Option<u32>,
    /// Failures in a row that take a backend out [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) fall: Option<u32>,
    /// least_connections: random candidates in pools of more than 64 backends [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=32))]
    pub(crate) choices: Option<u32>,
    /// least_connections: how long an errored request counts as in flight [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting_or_zero)]
    pub(crate) error_hold: Option<Duration>,
}

/// What a check is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum HealthProtocol {
    /// GET a path
    Http,
    /// Connecting passes
    Tcp,
    /// No checks: every backend counts as up
    None,
}

impl HealthProtocol {
    /// As it is spelled on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::None => "none",
        }
    }
}

/// `add-pool`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl add-pool web --algorithm least_connections
  lbctl add-pool legacy --health tcp --request-timeout 2m")]
pub(crate) struct AddPool {
    /// Its name
    #[arg(value_parser = value::pool)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) settings: PoolSettings,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `set-pool`
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("settings").required(true).multiple(true).args([
        "algorithm", "connect_timeout", "request_timeout", "health", "health_path",
        "health_interval", "health_timeout", "rise", "fall", "choices", "error_hold",
    ]),
    after_help = "\
Examples:
  lbctl set-pool default --health-path /
  lbctl set-pool default --health tcp
  lbctl set-pool default --health-interval 30s --request-timeout 10s

Settings that are not named stay as they are.")]
pub(crate) struct SetPool {
    /// Its name
    #[arg(value_parser = value::pool)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) settings: PoolSettings,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `remove-pool`
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  lbctl remove-pool web

A pool that a route or a backend still names is not removed.")]
pub(crate) struct RemovePool {
    /// Its name
    #[arg(value_parser = value::pool)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `set-algorithm`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl set-algorithm default weighted_round_robin
  lbctl set-algorithm default least_connections")]
pub(crate) struct SetAlgorithm {
    /// The pool's name
    #[arg(value_parser = value::pool)]
    pub(crate) pool: String,
    /// How a backend is picked for each request
    #[arg(value_parser = value::algorithm())]
    pub(crate) algorithm: String,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `set-listener`
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("settings").required(true).multiple(true).args([
        "trust_xff", "trusted_proxies", "header_timeout", "body_idle_timeout",
        "write_idle_timeout", "keep_alive_timeout", "max_requests",
    ]),
    after_help = "\
Examples:
  lbctl set-listener default --trusted-proxy 10.0.0.0/8 --trusted-proxy fd00::/8
  lbctl set-listener default --trust-xff always      believe anyone, for demonstrations

Settings that are not named stay as they are; --trusted-proxy replaces the whole list,
and believes nobody else.")]
pub(crate) struct SetListener {
    /// Its name
    #[arg(value_parser = value::listener)]
    pub(crate) name: String,
    /// Whose X-Forwarded-For is believed
    #[arg(long, value_name = "WHOSE")]
    pub(crate) trust_xff: Option<TrustXff>,
    /// A network whose X-Forwarded-For is believed; may be repeated; `none` empties the list
    #[arg(long = "trusted-proxy", value_name = "CIDR", value_parser = trusted_proxy)]
    pub(crate) trusted_proxies: Vec<String>,
    /// Until a request's head is complete [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) header_timeout: Option<Duration>,
    /// Between two reads of a request's body [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) body_idle_timeout: Option<Duration>,
    /// Between two writes of a response [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) write_idle_timeout: Option<Duration>,
    /// Between two requests of a connection [default: 75s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) keep_alive_timeout: Option<Duration>,
    /// Requests per client connection [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_requests: Option<u32>,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// Whose `X-Forwarded-For` is believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum TrustXff {
    /// Only that of trusted proxies
    Trusted,
    /// Anyone's
    Always,
}

impl TrustXff {
    /// As it is spelled on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Always => "always",
        }
    }
}

fn trusted_proxy(text: &str) -> Result<String, String> {
    if text == "none" { Ok(String::new()) } else { value::network(text) }
}
