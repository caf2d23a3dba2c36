//! Commands that start something on this machine.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::Args;
use clap_complete::Shell;
use hyper::Uri;
use lb_core::model::Address;
use lb_proto::document::unit::parse_session_ttl;

use super::value;

/// `dev`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  lbctl dev
  lbctl dev --algorithm least_connections --replicas 4
  lbctl dev --replicas 1 --workers 4    one proxy with four threads
  lbctl dev --port 8090 --replicas 1 --backends localhost:8001,localhost:8002
  lbctl dev --session-timeout 1h        clients stay with their backends
  lbctl dev --config lb.toml            what there is, is in the file
  lbctl dev --data-dir ./state          keeps the state for the next time

Without --config it trusts X-Forwarded-For of anyone. It answers /lb/... on the traffic ports
(changes from this machine only): it is meant for trying things out. Ctrl-C stops everything
within 5 seconds, a second one at once.")]
pub(crate) struct Dev {
    /// The address on which the proxies accept
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0", value_parser = value::host)]
    pub(crate) host: IpAddr,
    /// The first proxy's port; the others take the following ones
    #[arg(long, default_value_t = 8080, value_parser = lb_core::number::port)]
    pub(crate) port: u16,
    /// How backends are picked [default: round_robin]
    #[arg(long, value_parser = value::algorithm())]
    pub(crate) algorithm: Option<String>,
    /// How many proxies
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = replicas)]
    pub(crate) replicas: u16,
    /// Threads of each proxy that serve traffic [default: one for each core]
    #[arg(long, value_name = "N", value_parser = lb_core::number::whole_number(1..=1024u16, 4))]
    pub(crate) workers: Option<u16>,
    /// Balance these instead of three demo backends; weights 1, 2, 1, then 1
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',',
          value_parser = value::address)]
    pub(crate) backends: Vec<Address>,
    /// A file of declared state, or a directory of them, instead of demo backends and trust
    /// in X-Forwarded-For
    #[arg(long, value_name = "FILE", conflicts_with_all = ["backends", "algorithm",
          "health_interval", "request_timeout", "session_timeout"])]
    pub(crate) config: Option<PathBuf>,
    /// Between checks of a backend [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) health_interval: Option<Duration>,
    /// How long a backend may take until its response begins [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) request_timeout: Option<Duration>,
    /// Keep each client with its backend by a cookie, until it has asked for nothing for so long
    #[arg(long, value_name = "DURATION", value_parser = parse_session_ttl)]
    pub(crate) session_timeout: Option<Duration>,
    /// Where the state is kept [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the proxies write their access log: a file, - for here, or off
    #[arg(long, value_name = "FILE", default_value = "-",
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) access_log: String,
    /// Verbose logs
    #[arg(long)]
    pub(crate) debug: bool,
}

fn replicas(text: &str) -> Result<u16, String> {
    lb_core::number::whole_number(1..=64u16, 2)(text)
}

/// `demo-backend`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  lbctl demo-backend --port 8001
  lbctl demo-backend --port 8002 --delay 20ms --error-rate 0.1

Every path answers with JSON that tells the server and the request; /health says that it is
healthy, and /bytes/N sends N bytes. The server's id is backend-PORT.")]
pub(crate) struct DemoBackend {
    /// The port; 0 takes a free one and prints it
    #[arg(long, value_parser = lb_core::number::port)]
    pub(crate) port: u16,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Wait this long before each answer
    #[arg(long, value_name = "DURATION", value_parser = value::setting_or_zero)]
    pub(crate) delay: Option<Duration>,
    /// Answer this share of the requests with 500
    #[arg(long, value_name = "0..1", default_value_t = 0.0, value_parser = value::share)]
    pub(crate) error_rate: f64,
    /// Stop when standard input ends, that is, when the parent is gone
    #[arg(long, hide = true)]
    pub(crate) exit_with_parent: bool,
}

/// `test-algorithms`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  lbctl test-algorithms
  lbctl test-algorithms --requests 400
  lbctl test-algorithms --backends localhost:8001,localhost:8002,localhost:8003
  lbctl test-algorithms --url http://localhost:8080/

Starts a control plane, one proxy and three demo backends for as long as it takes, tries every
algorithm and prints who answered beside what was to be expected. Backends of your own get the
weights 1, 2, 1, then 1, and must answer with JSON that has server_info.id, as 'lbctl
demo-backend' does.

With --url it starts and changes nothing: it sends the requests to a balancer that runs, reads
from the control plane (--server) who served them, and compares that with what the algorithm of
the URL's pool promises.

Exit code 1: an algorithm did not do what it promises.")]
pub(crate) struct TestAlgorithms {
    /// Requests for each algorithm, rounded up so that they can be shared out evenly
    #[arg(long, value_name = "N", default_value_t = 40,
          value_parser = value::number(1..=100_000))]
    pub(crate) requests: u32,
    /// Test with these backends instead of three demo backends
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',',
          value_parser = value::address)]
    pub(crate) backends: Vec<Address>,
    /// Test the pool behind this URL of a balancer that runs
    #[arg(long, value_name = "URL", conflicts_with = "backends", value_parser = value::http_url)]
    pub(crate) url: Option<Uri>,
}

/// `completions`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl completions bash > /etc/bash_completion.d/lbctl
  lbctl completions zsh  > ~/.zfunc/_lbctl
  lbctl completions fish > ~/.config/fish/completions/lbctl.fish
  source <(lbctl completions bash)            for this shell only

The script asks lbctl itself, which also tells the names of backends, pools, listeners, routes
and proxies: those of the control plane that the line would talk to.")]
pub(crate) struct Completions {
    /// Which shell
    pub(crate) shell: Shell,
}

/// `manpages`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl manpages ./man1; man ./man1/lbctl-get.1
  lbctl manpages /usr/local/share/man/man1")]
pub(crate) struct Manpages {
    /// Where to write them; it is made when it is missing
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}
