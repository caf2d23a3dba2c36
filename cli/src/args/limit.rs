//! Commands that change limits.

use clap::Args;
use lb_core::model::{Limit, LimitKey, LimitScope, Rate};

use super::{WriteArgs, value};

/// The settings of a limit; what is not named keeps its value, or gets its default.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LimitSettings {
    /// How many may pass in the long run, for each key: 100/s, 600/m, 10/h, 1000/d
    #[arg(long, value_name = "COUNT/UNIT", value_parser = rate)]
    pub(crate) rate: Option<String>,
    /// How many may come at once [default: a second's worth of the rate]
    #[arg(long, value_name = "N", value_parser = value::number(Limit::BURST))]
    pub(crate) burst: Option<u32>,
    /// What tells requests apart: client_address, header:NAME, cookie:NAME, path, all [default: all]
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub(crate) key: Option<String>,
    /// Count requests to this pool [default: all requests]
    #[arg(long, value_name = "POOL", value_parser = value::pool, conflicts_with_all = ["route", "all_requests"])]
    pub(crate) pool: Option<String>,
    /// Count requests that match this route
    #[arg(long, value_name = "ROUTE", value_parser = value::route, conflicts_with = "all_requests")]
    pub(crate) route: Option<String>,
    /// Count all requests, whatever their pool and route
    #[arg(long)]
    pub(crate) all_requests: bool,
    /// Over what to count: fleet (all proxies together), proxy (each by itself), backend (each
    /// backend, for what all proxies send it) [default: fleet]
    #[arg(long, value_name = "SCOPE", value_parser = scope)]
    pub(crate) scope: Option<String>,
    /// Only count what would be refused, to try the limit out; --shadow=false ends that
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          require_equals = true)]
    pub(crate) shadow: Option<bool>,
}

/// `add-limit`
#[derive(Args, Debug)]
#[command(
    mut_arg("rate", |arg| arg.required(true)),
    after_help = "\
Examples:
  lbctl add-limit api --rate 100/s --burst 20 --route api
  lbctl add-limit per-client --rate 10/s --key client_address --shadow
  lbctl add-limit per-token --rate 600/m --key header:X-Api-Key --pool web
  lbctl add-limit gentle --rate 50/s --scope backend --pool legacy

A request passes if every limit that counts it lets it; else it is answered 429 with Retry-After,
and takes nothing from any. Requests without the header or the cookie are not limited.
'lbctl get limits -o wide' shows what each proxy has of a limit, and what it refused."
)]
pub(crate) struct AddLimit {
    /// Its name
    #[arg(value_parser = value::limit)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) settings: LimitSettings,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `set-limit`
#[derive(Args, Debug)]
#[command(
    override_usage = "lbctl set-limit [OPTIONS] <NAME> <SETTING>...",
    mut_group("LimitSettings", |group| group.required(true)),
    after_help = "\
Examples:
  lbctl set-limit per-client --shadow=false      from now on it refuses
  lbctl set-limit api --rate 200/s --burst 50
  lbctl set-limit api --route api-v2

Settings that are not named stay as they are; a burst that was not chosen goes with the rate.
Buckets go on where they are, unless the limit counts something else from now on."
)]
pub(crate) struct SetLimit {
    /// Its name
    #[arg(value_parser = value::limit)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) settings: LimitSettings,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `remove-limit`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl remove-limit api")]
pub(crate) struct RemoveLimit {
    /// Its name
    #[arg(value_parser = value::limit)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

fn rate(text: &str) -> Result<String, String> {
    text.parse().map(|rate: Rate| rate.to_string()).map_err(|invalid| invalid.message)
}

fn key(text: &str) -> Result<String, String> {
    text.parse().map(|key: LimitKey| key.to_string()).map_err(|invalid| invalid.message)
}

fn scope(text: &str) -> Result<String, String> {
    text.parse().map(|scope: LimitScope| scope.to_string()).map_err(|invalid| invalid.message)
}
