//! The command line of `lb-bench`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, ValueEnum};
use lb_core::number::whole_number;

/// Measures what a proxied request costs.
#[derive(Debug, Parser)]
#[command(name = "lb-bench")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Subcommand {
    /// Measures this proxy beside others, in turn, and prints tables in Markdown
    Compare(CompareArgs),
    /// Counts instructions and system calls of a request; fails when a count has grown by
    /// more than 5 % over the saved one
    Gates(GatesArgs),
    /// Measures many proxies and many backends on one control plane, and prints tables in
    /// Markdown
    Fleet(FleetArgs),
    /// Sends a million distinct keys through one limit, and prints what the proxy's memory
    /// comes to and how many keys it has forgotten, as a table in Markdown
    Keys(KeysArgs),
    /// Three HTTP backends in one process
    #[command(hide = true)]
    Backend(BackendArgs),
    /// Forwards bytes without looking at them
    #[command(hide = true)]
    BytePump(BytePumpArgs),
    /// A loop of clients, closed or at a rate
    #[command(hide = true)]
    Load(LoadArgs),
    /// Runs a program that ends when its parent does
    #[command(hide = true)]
    Bound {
        /// What to run
        program: String,
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// How often everything is measured; the tables show medians
    #[arg(long, default_value_t = 5, value_parser = whole_number(1..=100u32, 1))]
    pub(crate) rounds: u32,
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Workload::ALL)]
    pub(crate) workloads: Vec<Workload>,
    /// Whom to measure; those that are not installed are rows without figures
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Contender::ALL)]
    pub(crate) proxies: Vec<Contender>,
    /// How long each measurement takes
    #[arg(long, default_value_t = 4, value_parser = whole_number(1..=20u32, 1))]
    pub(crate) seconds: u32,
    /// Also write every single measurement here, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Where Envoy is, if not in PATH
    #[arg(long, value_name = "FILE", default_value = "envoy")]
    pub(crate) envoy: PathBuf,
    /// The lbctl to measure, if not the one beside this program
    #[arg(long, value_name = "FILE")]
    pub(crate) proxy_binary: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GatesArgs {
    /// Save what is measured as the new baseline
    #[arg(long)]
    pub(crate) save: bool,
    /// The baseline
    #[arg(long, value_name = "FILE",
          default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/baseline.json"))]
    pub(crate) baseline: PathBuf,
    /// Also count instructions with this many backends in the pool
    #[arg(long, value_name = "COUNT", value_parser = whole_number(4..=15_000u32, 4))]
    pub(crate) backends: Option<u32>,
    /// The lbctl to measure, if not the one beside this program
    #[arg(long, value_name = "FILE")]
    pub(crate) proxy_binary: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FleetArgs {
    /// Proxies that are simulated in this process
    #[arg(long, default_value_t = 200, value_parser = whole_number(1..=5000u32, 200))]
    pub(crate) proxies: u32,
    /// Changes that are measured one by one with them
    #[arg(long, default_value_t = 200, value_parser = whole_number(1..=100_000u32, 200))]
    pub(crate) changes: u32,
    /// Backends of the pool that three real proxies serve
    #[arg(long, default_value_t = 10_000, value_parser = whole_number(4..=15_000u32, 4))]
    pub(crate) backends: u32,
    /// The lbctl to measure, if not the one beside this program
    #[arg(long, value_name = "FILE")]
    pub(crate) proxy_binary: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct KeysArgs {
    /// Distinct keys
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
    pub(crate) keys: u64,
    /// What the proxy is told to have room for; one run for each
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 100_000])]
    pub(crate) limit_keys: Vec<u32>,
    /// The lbctl to measure, if not the one beside this program
    #[arg(long, value_name = "FILE")]
    pub(crate) proxy_binary: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BackendArgs {
    /// How many ports to listen on
    #[arg(long, default_value_t = 3, value_parser = whole_number(1..=1000u32, 3))]
    pub(crate) ports: u32,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BytePumpArgs {
    /// Whereto, in turn
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) backends: Vec<SocketAddr>,
    /// Threads
    #[arg(long, default_value_t = 2, value_parser = whole_number(1..=1024u32, 2))]
    pub(crate) workers: u32,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Whom to ask
    pub(crate) address: SocketAddr,
    /// What to ask for
    #[arg(long, default_value = "/")]
    pub(crate) path: String,
    /// How many clients, each with one request in flight
    #[arg(long, default_value_t = 64, value_parser = whole_number(1..=100_000u32, 64))]
    pub(crate) connections: u32,
    /// A new connection for each request
    #[arg(long)]
    pub(crate) close: bool,
    /// Requests per second of all clients together, if they wait between them
    #[arg(long, value_parser = whole_number(1..=1_000_000u32, 1000))]
    pub(crate) rate: Option<u32>,
    /// End after this many requests
    #[arg(long, default_value_t = u64::MAX, value_parser = whole_number(1..=u64::MAX, 1000))]
    pub(crate) requests: u64,
    /// End after this many milliseconds
    #[arg(long, default_value_t = 20_000, value_parser = whole_number(1..=u64::MAX, 20_000))]
    pub(crate) milliseconds: u64,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub(crate) enum Workload {
    /// Resident memory, and what an idle connection adds
    Memory,
    /// 64 connections that are kept, 128 bytes of JSON
    KeepAlive,
    /// The same with a new connection for each request
    Close,
    /// 16 connections that are kept, 1 MiB each time
    #[value(name = "1mib")]
    Large,
    /// As keep-alive with 2 connections
    #[value(name = "few-2")]
    Few2,
    /// As keep-alive with 4 connections
    #[value(name = "few-4")]
    Few4,
    /// As keep-alive with 8 connections
    #[value(name = "few-8")]
    Few8,
    /// As keep-alive with 16 connections
    #[value(name = "few-16")]
    Few16,
}

impl Workload {
    /// In the order of measuring: memory first, while the processes are fresh.
    pub(crate) const ALL: [Self; 8] = [
        Self::Memory,
        Self::KeepAlive,
        Self::Close,
        Self::Large,
        Self::Few2,
        Self::Few4,
        Self::Few8,
        Self::Few16,
    ];
}

/// Who is measured.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub(crate) enum Contender {
    /// The backend without a proxy, for what a proxy adds
    Direct,
    /// A program that forwards bytes: what the kernel alone costs
    BytePump,
    /// This proxy
    Ours,
    /// This proxy, writing its access log to a file
    OursLogging,
    /// NGINX
    Nginx,
    /// HAProxy
    Haproxy,
    /// Envoy
    Envoy,
}

impl Contender {
    pub(crate) const ALL: [Self; 7] = [
        Self::Direct,
        Self::BytePump,
        Self::Ours,
        Self::OursLogging,
        Self::Nginx,
        Self::Haproxy,
        Self::Envoy,
    ];
}
