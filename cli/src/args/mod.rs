//! The command line.
//!
//! Verb and noun, as in `lbctl add-backend localhost:8004 --weight 1`. Values of the domain are
//! checked while they are parsed, by the same code as in the control plane; clap
//! suggests the nearest name for a mistyped one.

mod adopt;
mod backend;
mod declared;
#[cfg(test)]
mod docs;
mod idle;
mod limit;
mod listener;
mod local;
mod peers;
mod pool;
mod proxy;
mod read;
mod resilience;
mod route;
mod session;
mod target;
#[cfg(test)]
mod tests;
mod top;
mod value;
mod words;

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use lb_core::number::whole_number;

pub(crate) use self::{
    adopt::AdoptStore,
    backend::{AddBackend, BackendName, DrainBackend, RemoveBackend, SetBackend},
    declared::{Apply, Diff, Export, Files, Validate},
    idle::{hide_idle_options, refuse_idle_options},
    limit::{AddLimit, LimitSettings, RemoveLimit, SetLimit},
    listener::{AddListener, ListenerSettings, RemoveListener, SetListener, TrustXff},
    local::{Completions, DemoBackend, Dev, Manpages, TestAlgorithms},
    pool::{
        AddPool, BackendConnections, Fallback, PoolSettings, RemovePool, SetAlgorithm, SetPool,
    },
    proxy::ForgetProxy,
    read::{Awaited, Check, Describe, Explain, Get, GetKind, PAST_MAX, WaitFor, Watch},
    resilience::{Concurrency, Ejection, Retries},
    route::{AddRoute, ExplainRoute, RemoveRoute, RouteSettings, SetRoute, Share},
    session::{RotateSessionKeys, Sessions},
    target::Target,
    top::Top,
    words::in_words,
};

#[cfg(test)]
pub(crate) use self::{listener::RequestLimits, pool::HealthProtocol};

const EXAMPLES: &str = "\
Examples:
  lbctl dev                                    the whole load balancer, here and now
  lbctl status                                 one screen about the fleet
  lbctl add-backend localhost:8004 --weight 1
  lbctl get backends
  lbctl describe backend backend4
  lbctl export > lb.toml; lbctl diff -f lb.toml; lbctl apply -f lb.toml

Exit codes: 0 done, 1 failed, 2 usage, 3 control plane unreachable, 4 rejected, 5 conflict,
6 not applied in time, 7 not found, 8 not permitted, 9 address in use, 78 bad configuration,
130 interrupted.";

/// Operates the load balancer
#[derive(Debug, Parser)]
#[command(name = "lbctl", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The control plane's gRPC address; with several, the first that answers
    #[arg(long, global = true, env = "LBCTL_SERVER", value_name = "URL[,URL]",
          value_delimiter = ',', default_value = "http://127.0.0.1:9400",
          value_parser = value::server)]
    pub(crate) server: Vec<String>,
    /// How to print answers
    #[arg(short = 'o', long, global = true, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: OutputFormat,
    /// How long the command may take, for example 500ms or 1m [default: 10s; wait: 30s; watch:
    /// until it is interrupted]
    #[arg(long, global = true, value_name = "DURATION", value_parser = value::timeout)]
    pub(crate) timeout: Option<Duration>,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Columns, for people
    Table,
    /// More columns
    Wide,
    /// For programs: stable names, units in the names
    Json,
    /// The same as JSON
    Yaml,
    /// KIND/NAME, one per line
    Name,
    /// Of 'export' alone: a file for 'apply'
    Toml,
}

/// What every change understands.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Options of changes")]
pub(crate) struct WriteArgs {
    /// Do not wait until the proxies have applied the change
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Check and show the change, but do not make it
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Make the change although it looks like an accident
    #[arg(long)]
    pub(crate) force: bool,
    /// Only if the object's last change has this revision
    #[arg(long, value_name = "N", value_parser = whole_number(1..=u64::MAX, 118))]
    pub(crate) if_revision: Option<u64>,
}

/// The commands, in the order of `lbctl help`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the whole load balancer on this machine: control plane, proxies, demo backends
    Dev(Dev),
    /// Show the fleet on one screen
    #[command(after_help = "\
Examples:
  lbctl status
  lbctl status -o json | jq .proxies_synced
  lbctl status -o json | jq .traffic.recent          what clients got in the last ten seconds
  lbctl status --server http://10.0.0.2:9400")]
    Status,
    /// Show how many requests the fleet answered, how well and how fast: now, and in all
    #[command(after_help = "\
Examples:
  lbctl stats
  lbctl stats -o json | jq .failures_total")]
    Stats,
    /// Watch the fleet on a screen that keeps itself up to date, and change it by keys
    Top(Top),
    /// Look for everything that is wrong, and say what to do about it
    Check(Check),
    /// List objects of a kind
    Get(Get),
    /// Tell all that is known about one object
    Describe(Describe),
    /// Print events as they happen
    Watch(Watch),
    /// Wait until something is true
    Wait(WaitFor),
    /// Add a backend to a pool
    AddBackend(AddBackend),
    /// Change settings of a backend
    SetBackend(SetBackend),
    /// Let a backend serve when it is healthy
    EnableBackend(BackendName),
    /// Take a backend out at once, whatever its health
    DisableBackend(BackendName),
    /// Send a backend nothing new, and let it finish what it has
    DrainBackend(DrainBackend),
    /// Remove a backend
    RemoveBackend(RemoveBackend),
    /// Add a pool
    AddPool(AddPool),
    /// Change settings of a pool
    SetPool(SetPool),
    /// Remove a pool
    RemovePool(RemovePool),
    /// Choose how a pool picks a backend for each request
    SetAlgorithm(SetAlgorithm),
    /// Have proxies that hold another store's state take this one's, whatever it silences
    AdoptStore(AdoptStore),
    /// Replace the key that signs sessions
    RotateSessionKeys(RotateSessionKeys),
    /// Drop a proxy that will not come back from the list
    ForgetProxy(ForgetProxy),
    /// Add a listener
    AddListener(AddListener),
    /// Change settings of a listener
    SetListener(SetListener),
    /// Remove a listener
    RemoveListener(RemoveListener),
    /// Add a route: which requests go to which pool
    AddRoute(AddRoute),
    /// Change settings of a route
    SetRoute(SetRoute),
    /// Remove a route
    RemoveRoute(RemoveRoute),
    /// Add a limit: how many requests may pass
    AddLimit(AddLimit),
    /// Change settings of a limit
    SetLimit(SetLimit),
    /// Remove a limit
    RemoveLimit(RemoveLimit),
    /// Tell which route a request takes, and why not another
    ExplainRoute(ExplainRoute),
    /// Make true what files declare
    Apply(Apply),
    /// Show what 'apply' would change
    Diff(Diff),
    /// Print all that can be declared, as a file for 'apply'
    Export(Export),
    /// Check files without a control plane
    Validate(Validate),
    /// Explain a setting: its meaning, its default and its range
    Explain(Explain),
    /// Print the JSON Schema of declared state
    #[command(after_help = "\
Examples:
  lbctl schema > lb.schema.json     for editors that check while you type")]
    Schema,
    /// Run a control plane
    #[command(after_help = "\
Examples:
  lbctl control-plane
  lbctl control-plane --data-dir /var/lib/lb
  lbctl control-plane --grpc 10.0.0.2:9400 --http 10.0.0.2:9401 --insecure

SIGTERM and SIGINT stop it; proxies go on with the state that they have.
Exit codes: 0 stopped, 1 failed, 2 usage, 9 address in use, 78 bad configuration.")]
    ControlPlane(lb_control_plane::args::Args),
    /// Run a proxy
    #[command(
        alias = "proxy",
        after_help = "\
Examples:
  lbctl data-plane
  lbctl data-plane --id proxy-2 --port 8081
  lbctl data-plane --control-plane http://10.0.0.2:9400 --data-dir /var/lib/lb-proxy

SIGTERM and SIGINT drain it, a second one stops it at once; SIGHUP opens its access log again.
Exit codes: 0 stopped, 1 failed, 2 usage, 3 stopped with connections still open, 9 address in
use, 78 bad configuration."
    )]
    DataPlane(lb_data_plane::args::Args),
    /// Run a small HTTP server to balance
    DemoBackend(DemoBackend),
    /// Try every algorithm and show how it distributes requests
    TestAlgorithms(TestAlgorithms),
    /// Print completions for a shell
    Completions(Completions),
    /// Write manual pages into a directory, one for each command
    Manpages(Manpages),
}
