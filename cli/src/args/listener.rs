//! Commands that change listeners.

use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use lb_core::model::HttpLimits;

use super::{WriteArgs, value};

/// The settings of a listener; what is not named keeps its value, or gets its default.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ListenerSettings {
    /// Whose X-Forwarded-For is believed [default: trusted]
    #[arg(long, value_name = "WHOSE")]
    pub(crate) trust_xff: Option<TrustXff>,
    /// A network whose X-Forwarded-For is believed; may be repeated; `none` empties the list
    #[arg(long = "trusted-proxy", value_name = "CIDR", value_parser = trusted_proxy)]
    pub(crate) trusted_proxies: Vec<String>,
    #[command(flatten)]
    pub(crate) connections: ClientConnections,
    #[command(flatten)]
    pub(crate) limits: RequestLimits,
}

/// How long clients are waited for, and how many may come.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connections of clients")]
pub(crate) struct ClientConnections {
    /// Until a request's head is complete; beyond: 408 [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) header_timeout: Option<Duration>,
    /// Between two reads of a request's body; beyond: 408 [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) body_idle_timeout: Option<Duration>,
    /// Between two writes of a response; beyond: the connection is closed [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) write_idle_timeout: Option<Duration>,
    /// Between two requests of a connection; beyond: it is closed [default: 75s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) keep_alive_timeout: Option<Duration>,
    /// Requests per connection; the last answer says `Connection: close` [default: 1000]
    #[arg(long, value_name = "N", value_parser = value::number(1..=u32::MAX))]
    pub(crate) max_requests: Option<u32>,
    /// Connections to one proxy; beyond: accepting pauses, nobody is refused. 0 or
    /// 'unlimited': as many as the process can have [default: unlimited]
    #[arg(long, value_name = "N", value_parser = value::number_or_unlimited)]
    pub(crate) max_connections: Option<u32>,
    /// Of these, connections of one client address (IPv6: of one /64); beyond: 429. 0 or
    /// 'unlimited': any number [default: unlimited]
    #[arg(long, value_name = "N", value_parser = value::number_or_unlimited)]
    pub(crate) max_connections_per_client: Option<u32>,
}

/// Bounds on what one request may bring.
#[derive(Args, Clone, Debug, Default)]
#[command(
    next_help_heading = "Limits of requests (sizes: 4096, 8k, 64KiB; 10MB is 10 000 000, 10M and 10MiB are 10 485 760)"
)]
pub(crate) struct RequestLimits {
    /// Of the request line, 64 to 1MiB; beyond: 414 [default: 8KiB]
    #[arg(long, value_name = "SIZE", value_parser = value::size(HttpLimits::REQUEST_LINE_BYTES))]
    pub(crate) max_request_line_bytes: Option<u32>,
    /// Of the request line and all fields, 256 to 1MiB; beyond: 431 [default: 64KiB]
    #[arg(long, value_name = "SIZE", value_parser = value::size(HttpLimits::HEAD_BYTES))]
    pub(crate) max_head_bytes: Option<u32>,
    /// Fields of a head, 1 to 256; beyond: 431 [default: 100]
    #[arg(long, value_name = "N", value_parser = value::number(HttpLimits::FIELDS))]
    pub(crate) max_fields: Option<u32>,
    /// Of all trailers, 1 to 1MiB; beyond: 431, or the end of the connection once the
    /// response has begun [default: 8KiB]
    #[arg(long, value_name = "SIZE", value_parser = value::size(HttpLimits::TRAILER_BYTES))]
    pub(crate) max_trailer_bytes: Option<u32>,
    /// Of one chunk's extensions, 1 to 16KiB; beyond: 400 [default: 256]
    #[arg(long, value_name = "SIZE",
          value_parser = value::size(HttpLimits::CHUNK_EXTENSION_BYTES))]
    pub(crate) max_chunk_extension_bytes: Option<u32>,
    /// Of the body; beyond: 413. 0 or 'unlimited': any number [default: unlimited]
    #[arg(long, value_name = "SIZE", value_parser = value::size_or_unlimited)]
    pub(crate) max_body_bytes: Option<u64>,
    /// Requests of a connection that are served in a row before others get their turn, 1 to
    /// 10000; none is refused [default: 16]
    #[arg(long, value_name = "N", value_parser = value::number(HttpLimits::PIPELINED))]
    pub(crate) max_pipelined: Option<u32>,
    /// Of an unread body that are read and dropped after an answer, 1 to 1MiB; beyond: the
    /// connection is closed [default: 64KiB]
    #[arg(long, value_name = "SIZE", value_parser = value::size(HttpLimits::DRAIN_BYTES))]
    pub(crate) max_drain_bytes: Option<u32>,
    /// For how long they are read; beyond: the connection is closed [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) drain_timeout: Option<Duration>,
}

/// `add-listener`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl add-listener internal --trusted-proxy 10.0.0.0/8
  lbctl add-listener uploads --max-body-bytes 100M --body-idle-timeout 5m

A proxy accepts for it at the address of its own flag: lbctl data-plane --listen NAME=ADDR:PORT.
Requests are answered 404 until a route names the listener.")]
pub(crate) struct AddListener {
    /// Its name
    #[arg(value_parser = value::listener)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) settings: ListenerSettings,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `set-listener`
#[derive(Args, Debug)]
#[command(
    override_usage = "lbctl set-listener [OPTIONS] <NAME> <SETTING>...",
    group = ArgGroup::new("settings").required(true).multiple(true).args([
        "trust_xff", "trusted_proxies", "header_timeout", "body_idle_timeout",
        "write_idle_timeout", "keep_alive_timeout", "max_requests", "max_connections",
        "max_connections_per_client", "max_request_line_bytes", "max_head_bytes", "max_fields",
        "max_trailer_bytes", "max_chunk_extension_bytes", "max_body_bytes", "max_pipelined",
        "max_drain_bytes", "drain_timeout",
    ]),
    after_help = "\
Examples:
  lbctl set-listener default --trusted-proxy 10.0.0.0/8 --trusted-proxy fd00::/8
  lbctl set-listener default --max-body-bytes 10M --max-head-bytes 32k
  lbctl set-listener default --max-connections-per-client 100
  lbctl set-listener default --trust-xff always      believe anyone, for demonstrations

Settings that are not named stay as they are; --trusted-proxy replaces the whole list,
and believes nobody else.")]
pub(crate) struct SetListener {
    /// Its name
    #[arg(value_parser = value::listener)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) settings: ListenerSettings,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `remove-listener`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl remove-listener internal

A listener that a route still names is not removed. A proxy that has an address for it goes
on accepting there, and answers 503.")]
pub(crate) struct RemoveListener {
    /// Its name
    #[arg(value_parser = value::listener)]
    pub(crate) name: String,
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
