//! The command line of a proxy.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args as ClapArgs, ValueEnum};
use lb_core::{
    metrics::PerBackend,
    number::{port, whole_number},
    size::{UNLIMITED, parse_size},
};
use lb_proto::duration::duration_within;

use crate::access_log::AccessLogTarget;

/// The longest that a stop may take.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Flags of `lb-data-plane` and `lbctl data-plane`. Each is an environment variable
/// too; the flag wins.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Control planes to follow, tried in turn. Traffic does not depend on them
    #[arg(
        long,
        env = "LB_CONTROL_PLANE",
        value_name = "URL,...",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:9400"
    )]
    pub control_plane: Vec<String>,
    /// Address on which the listener `default` accepts; `::` takes IPv4 too
    #[arg(long, env = "LB_HOST", value_name = "ADDR", default_value = "::", value_parser = parse_host)]
    pub host: IpAddr,
    /// Port on which the listener `default` accepts; 0 picks a free one
    #[arg(long, env = "LB_PORT", default_value_t = 8080, value_parser = port)]
    pub port: u16,
    /// A further listener and its address; can be given several times
    #[arg(long, env = "LB_LISTEN", value_name = "NAME=ADDR:PORT", value_delimiter = ',',
          value_parser = parse_listen)]
    pub listen: Vec<Listen>,
    /// Address of /livez and /readyz; when the default is taken, a free port is used
    #[arg(long, env = "LB_ADMIN", value_name = "ADDR:PORT", value_parser = parse_address)]
    pub admin: Option<SocketAddr>,
    /// Answer /lb/... on the traffic listeners with the control plane's management routes;
    /// changes are taken from this machine only
    #[arg(long, env = "LB_EXPOSE_LB_API")]
    pub expose_lb_api: bool,
    /// Where the id and the last good configuration are kept
    #[arg(long, env = "LB_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The file of the key with which secrets are sealed before they are kept on disk; made when
    /// it is missing [default: seal-key in the data directory]
    #[arg(long, env = "LB_SEAL_KEY", value_name = "FILE")]
    pub seal_key: Option<PathBuf>,
    /// Name of this proxy in the fleet; made once and kept in the data directory
    #[arg(long, env = "LB_ID")]
    pub id: Option<String>,
    /// Threads that serve traffic; by default one for each core that this process may use
    #[arg(long, env = "LB_WORKERS", value_name = "N", value_parser = whole_number(1..=1024u16, 4))]
    pub workers: Option<u16>,
    /// Where the access log goes: a file (opened anew on SIGHUP), - for stdout, or off
    #[arg(long, env = "LB_ACCESS_LOG", value_name = "FILE", default_value = "off")]
    pub access_log: AccessLogTarget,
    /// Client connections of this process; by default four fifths of the open files that it
    /// may have. Beyond it, clients wait
    #[arg(long, env = "LB_MAX_CONNECTIONS", value_name = "N",
          value_parser = whole_number(1..=u32::MAX, 10_000))]
    pub max_connections: Option<u32>,
    /// Keys that each limit by key tells apart, at 16 to 32 bytes each; beyond them, the key
    /// whose bucket is nearest to full is forgotten
    #[arg(long, env = "LB_LIMIT_KEYS", value_name = "N", default_value_t = 1_000_000,
          value_parser = whole_number(1..=33_554_432u32, 100_000))]
    pub limit_keys: u32,
    /// Memory of this process, such as 512MiB or 512MB (decimal); by default that of its container, else
    /// unlimited. Close to it, idle clients are closed, then new ones wait, then new requests
    /// are answered 503
    #[arg(long, env = "LB_MAX_MEMORY", value_name = "SIZE", value_parser = parse_memory)]
    pub max_memory: Option<u64>,
    /// Take over the sockets of the process that runs with the same data directory, which
    /// then lets its connections end; without one, start as usual
    #[arg(long, env = "LB_TAKEOVER")]
    pub takeover: bool,
    /// On SIGTERM: how long to go on accepting while /readyz says no
    #[arg(long, env = "LB_ACCEPT_GRACE", value_name = "TIME", default_value = "5s",
          value_parser = duration_within(Duration::ZERO..=LONGEST))]
    pub accept_grace: Duration,
    /// On SIGTERM, after that: how long requests in flight may take
    #[arg(long, env = "LB_DRAIN_TIMEOUT", value_name = "TIME", default_value = "30s",
          value_parser = duration_within(Duration::ZERO..=LONGEST))]
    pub drain_timeout: Duration,
    /// Whether /metrics tells of each backend: auto (up to 500 of them), on or off
    #[arg(long, env = "LB_METRICS_PER_BACKEND", value_name = "WHEN", default_value = "auto")]
    pub metrics_per_backend: PerBackend,
    /// error, warn, info, debug, trace, or a filter such as info,lb_data_plane=debug
    #[arg(long, env = "LB_LOG_LEVEL", value_name = "LEVEL", default_value = "info",
          value_parser = lb_core::log_filter::parse)]
    pub log_level: String,
    /// Form of the log on stderr
    #[arg(long, env = "LB_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Exit when standard input ends: the parent process is gone
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// A listener of this process: the name that routes know, and where it accepts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listen {
    /// The listener's name in the configuration.
    pub name: lb_core::model::ListenerName,
    /// Where this process accepts for it.
    pub address: SocketAddr,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A number of bytes; 0 for any number.
fn parse_memory(text: &str) -> Result<u64, String> {
    if text == UNLIMITED {
        return Ok(0);
    }
    match parse_size(text).map_err(|why| format!("{why}, or '{UNLIMITED}'"))? {
        0 => Err(format!("nothing runs without memory; write {UNLIMITED} for no bound")),
        bytes => Ok(bytes),
    }
}

fn parse_listen(text: &str) -> Result<Listen, String> {
    let (name, address) =
        text.split_once('=').ok_or("write NAME=ADDR:PORT, for example internal=127.0.0.1:8081")?;
    Ok(Listen {
        name: lb_core::model::ListenerName::new(name).map_err(|invalid| invalid.to_string())?,
        address: parse_address(address)?,
    })
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if text.starts_with("unix:") {
        return Err("a proxy listens on ADDR:PORT; Unix sockets are not supported there".to_owned());
    }
    let example = "127.0.0.1:9500 or [::1]:9500";
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().map_err(|_| format!("{text:?} is not ADDR:PORT, for example {example}"))
}

fn parse_host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.parse().map_err(|_| {
        format!(
            "{text:?} is no IP address; names other than localhost are not taken here; write for \
             example 127.0.0.1, or :: for all"
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let args = Command::try_parse_from(["lb-data-plane"]).unwrap().args;
        assert_eq!(args.control_plane, ["http://127.0.0.1:9400"]);
        assert_eq!((args.host.to_string().as_str(), args.port), ("::", 8080));
        assert_eq!(args.drain_timeout, Duration::from_secs(30));
    }

    #[test]
    fn localhost_is_an_address_and_other_names_are_none() {
        let line = ["x", "--host", "localhost", "--listen", "a=localhost:81"];
        let args = Command::try_parse_from(line).unwrap().args;
        assert_eq!(args.host.to_string(), "127.0.0.1");
        assert_eq!(args.listen[0].address.to_string(), "127.0.0.1:81");
        let error = Command::try_parse_from(["x", "--host", "web-1"]).unwrap_err().to_string();
        assert!(error.contains("names other than localhost are not taken"), "{error}");
    }

    #[test]
    fn memory_is_a_size_or_unlimited() {
        let memory = |text: &str| {
            let args = ["lb-data-plane", "--max-memory", text];
            Command::try_parse_from(args).map(|command| command.args.max_memory)
        };
        assert_eq!(memory("64MiB").unwrap(), Some(64 << 20));
        assert_eq!(memory("unlimited").unwrap(), Some(0));
        assert!(memory("0").unwrap_err().to_string().contains("write unlimited"));
        assert_eq!(memory("512MB").unwrap(), Some(512_000_000));
        assert!(memory("10XB").is_err());
    }

    #[test]
    fn a_malformed_listener_is_explained() {
        let error = Command::try_parse_from(["x", "--listen", "8080"]).unwrap_err().to_string();
        assert!(error.contains("NAME=ADDR:PORT"), "{error}");
        let error = Command::try_parse_from(["x", "--admin", "unix:/run/lb.sock"]).unwrap_err();
        assert!(error.to_string().contains("sockets are not supported there"), "{error}");
    }
}
