//! Commands that change backends.

use std::time::Duration;

use clap::{ArgGroup, Args};
use lb_core::model::{Address, MaxInFlight};

use super::{WriteArgs, value};

/// `add-backend`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl add-backend localhost:8004 --weight 1
  lbctl add-backend 10.0.0.7:80 --pool web --id web-7 --label zone=a
  lbctl add-backend [::1]:8004 --disabled

It gets traffic after its first passing check. A backend that does not answer
GET /health needs another check: see 'lbctl set-pool --help'.")]
pub(crate) struct AddBackend {
    /// HOST:PORT; the host is a name, an IPv4 address, or an IPv6 address in brackets
    #[arg(value_parser = value::address)]
    pub(crate) address: Address,
    /// Its id [default: backendN, the next number]
    #[arg(long, value_parser = value::backend, allow_hyphen_values = true)]
    pub(crate) id: Option<String>,
    /// Its share, 0 to 256; 0 takes no new requests [default: 1]
    #[arg(long, value_name = "N", value_parser = value::weight)]
    pub(crate) weight: Option<u32>,
    /// The pool that it joins
    #[arg(long, default_value = "default", value_parser = value::pool)]
    pub(crate) pool: String,
    /// Requests in progress at it, over all proxies; 0: no limit [default: 0]
    #[arg(long, value_name = "N", value_parser = value::number_or_off(*MaxInFlight::RANGE.end()))]
    pub(crate) max_in_flight: Option<u32>,
    /// A label, for people and automation; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = value::label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Add it, but send it nothing until 'lbctl enable-backend'
    #[arg(long)]
    pub(crate) disabled: bool,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `set-backend`
#[derive(Args, Debug, Default)]
#[command(
    group = ArgGroup::new("settings").required(true).multiple(true)
        .args(["weight", "max_in_flight", "address", "labels", "unlabels"]),
    after_help = "\
Examples:
  lbctl set-backend backend2 --weight 3
  lbctl set-backend backend2 --weight 0          no new requests
  lbctl set-backend backend2 --max-in-flight 20  a backend with 20 threads
  lbctl set-backend backend2 --label zone=b --unlabel rack

Settings that are not named stay as they are.")]
pub(crate) struct SetBackend {
    /// Its id
    #[arg(value_parser = value::backend)]
    pub(crate) id: String,
    /// Its share, 0 to 256; 0 takes no new requests
    #[arg(long, value_name = "N", value_parser = value::weight)]
    pub(crate) weight: Option<u32>,
    /// Requests in progress at it, over all proxies; 0: no limit
    #[arg(long, value_name = "N", value_parser = value::number_or_off(*MaxInFlight::RANGE.end()))]
    pub(crate) max_in_flight: Option<u32>,
    /// Where it listens now
    #[arg(long, value_name = "HOST:PORT", value_parser = value::address)]
    pub(crate) address: Option<Address>,
    /// Set a label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = value::label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Remove a label; may be repeated
    #[arg(long = "unlabel", value_name = "KEY")]
    pub(crate) unlabels: Vec<String>,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `enable-backend`, `disable-backend`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl disable-backend backend2
  lbctl enable-backend backend2")]
pub(crate) struct BackendName {
    /// Its id
    #[arg(value_parser = value::backend)]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `drain-backend`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl drain-backend backend2
  lbctl drain-backend backend2 --wait --remove
  lbctl drain-backend backend2 --timeout 20s
  lbctl drain-backend backend2 --dry-run

It ends when nothing is left on any proxy, requests and upgraded connections (WebSocket)
alike, or after --timeout [default: 300s], when what is left is cut. The control plane
carries it out, whether lbctl waits or not. 'lbctl enable-backend ID' ends it early; given
again, the command changes --timeout and adds --remove.")]
pub(crate) struct DrainBackend {
    /// Its id
    #[arg(value_parser = value::backend)]
    pub(crate) id: String,
    /// Show what is left on each proxy until nothing is; Ctrl-C leaves the drain running
    #[arg(long)]
    pub(crate) wait: bool,
    /// Remove the backend when nothing is left of it
    #[arg(long)]
    pub(crate) remove: bool,
    /// The drain's deadline: what the backend still has after this time is cut. It does not say
    /// how long the command waits [default: 300s]
    // Of this command it takes the place of the global option.
    #[arg(long, value_name = "DURATION", value_parser = value::timeout)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `remove-backend`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl remove-backend backend4
  lbctl remove-backend backend4 --dry-run

Requests in flight are finished. The id is not given to another backend.")]
pub(crate) struct RemoveBackend {
    /// Its id
    #[arg(value_parser = value::backend)]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}
