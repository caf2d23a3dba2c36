//! The command line of the control plane, shared by its own binary and by
//! `lbctl control-plane`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::ValueEnum;
use lb_core::metrics::PerBackend;
use lb_proto::document::unit::{duration_within, parse_session_ttl};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Settings of a control plane. Every flag has an environment variable.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where proxies, lbctl and other gRPC clients connect: IP:PORT (port 0 picks a free
    /// one) or unix:/PATH
    #[arg(long, env = "LB_GRPC", value_name = "ADDR", default_value = "127.0.0.1:9400")]
    pub grpc: String,
    /// Where /lb/, /livez and /readyz answer: IP:PORT (port 0 picks a free one) or
    /// unix:/PATH
    #[arg(long, env = "LB_HTTP", value_name = "ADDR", default_value = "127.0.0.1:9401")]
    pub http: String,
    /// Where the state is kept [default: $STATE_DIRECTORY, else
    /// ~/.local/state/lb/control-plane]
    #[arg(long, env = "LB_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A file of declared state, or a directory of them: applied at every start before
    /// anything is served, and again at SIGHUP. What it names becomes what it says;
    /// everything else stays
    #[arg(long, env = "LB_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Whether /metrics tells of each backend: auto (up to 500 of them), on or off
    #[arg(long, env = "LB_METRICS_PER_BACKEND", value_name = "WHEN", default_value = "auto")]
    pub metrics_per_backend: PerBackend,
    /// Allow addresses that other machines can reach, although nothing there is
    /// authenticated yet
    #[arg(long, env = "LB_INSECURE")]
    pub insecure: bool,
    /// Name servers to ask instead of the system's, IP:PORT; may be repeated
    #[arg(long = "dns-server", env = "LB_DNS_SERVER", value_name = "ADDR", value_delimiter = ',',
          value_parser = parse_server)]
    pub dns_servers: Vec<SocketAddr>,
    /// After how long the key that signs sessions is replaced by a new one; 0s: never by itself
    #[arg(long, env = "LB_SESSION_KEY_AGE", value_name = "DURATION", default_value = "30d",
          value_parser = duration_within(Duration::ZERO..=3650 * DAY))]
    pub session_key_age: Duration,
    /// Keep each client of the pool default with its backend by a cookie, until it has asked for
    /// nothing for so long, 1s to 7d; applied at every start. Without it the pool stays as it is
    #[arg(long, env = "LB_SESSION_TIMEOUT", value_name = "DURATION", conflicts_with = "config",
          value_parser = parse_session_ttl)]
    pub session_timeout: Option<Duration>,
    /// error, warn, info, debug or trace, or a filter such as lb_control_plane=debug
    #[arg(long, env = "LB_LOG_LEVEL", value_name = "LEVEL", default_value = "info",
          value_parser = lb_core::log_filter::parse)]
    pub log_level: String,
    /// How log lines on stderr look
    #[arg(long, env = "LB_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Stop when standard input ends, that is, when the parent is gone
    #[arg(long, env = "LB_EXIT_WITH_PARENT", hide = true)]
    pub exit_with_parent: bool,
    /// How often either side of a sync stream says that it is there
    #[arg(long, env = "LB_HEARTBEAT", value_name = "DURATION", default_value = "1s",
          value_parser = duration_within(Duration::from_millis(1)..=DAY), hide = true)]
    pub heartbeat: Duration,
    /// After how long without a word a proxy counts as lost
    #[arg(long, env = "LB_LEASE", value_name = "DURATION", default_value = "5s",
          value_parser = duration_within(Duration::from_millis(1)..=DAY), hide = true)]
    pub lease: Duration,
}

fn parse_server(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not IP:PORT, for example 10.0.0.53:53"))
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_defaults_listen_on_loopback() {
        let args = Command::try_parse_from(["lb-control-plane"]).unwrap().args;
        assert_eq!((&*args.grpc, &*args.http), ("127.0.0.1:9400", "127.0.0.1:9401"));
        assert!(!args.insecure && args.data_dir.is_none());
        assert_eq!((args.heartbeat, args.lease), (Duration::from_secs(1), Duration::from_secs(5)));
    }
}
