//! Commands that change routes, and the one that explains them.

use clap::Args;

use super::{WriteArgs, value};

/// The settings of a route; what is not named keeps its value, or gets its default.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RouteSettings {
    /// The listener whose requests it sees [default: default]
    #[arg(long, value_name = "NAME", value_parser = value::listener)]
    pub(crate) listener: Option<String>,
    /// A host, or all below one: *.example.com; '*' is every host [default: *]
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// A path and everything below it, by whole segments [default: /]
    #[arg(long, value_name = "PATH", conflicts_with = "path")]
    pub(crate) path_prefix: Option<String>,
    /// One path exactly
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// The pool that gets the requests; repeated, with weights 0 to 256, pools that share them
    #[arg(long = "pool", value_name = "POOL[=WEIGHT]", value_parser = share)]
    pub(crate) pools: Vec<Share>,
}

/// `POOL` or `POOL=WEIGHT`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Share {
    pub(crate) pool: String,
    pub(crate) weight: u32,
}

/// `add-route`
#[derive(Args, Debug)]
#[command(
    mut_arg("pools", |arg| arg.required(true)),
    after_help = "\
Examples:
  lbctl add-route api --path-prefix /api --pool api
  lbctl add-route shop --host shop.example.com --pool shop
  lbctl add-route tenants --host '*.example.com' --pool tenants
  lbctl add-route canary --host shop.example.com --path-prefix /cart --pool shop=90 --pool next=10
  lbctl add-route admin --listener internal --pool admin

An exact host beats a wildcard, a longer wildcard a shorter one, and any of them every host;
within a host an exact path beats a prefix, and a longer prefix a shorter one.
'lbctl explain-route GET http://shop.example.com/cart' says what a request takes, and why."
)]
pub(crate) struct AddRoute {
    /// Its name
    #[arg(value_parser = value::route)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) settings: RouteSettings,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `set-route`
#[derive(Args, Debug)]
#[command(
    override_usage = "lbctl set-route [OPTIONS] <NAME> <SETTING>...",
    mut_group("RouteSettings", |group| group.required(true)),
    after_help = "\
Examples:
  lbctl set-route canary --pool shop=50 --pool next=50
  lbctl set-route canary --pool next             everything to one pool
  lbctl set-route api --host api.example.com
  lbctl set-route api --host '*'                 every host

Settings that are not named stay as they are; --pool replaces all pools of the route."
)]
pub(crate) struct SetRoute {
    /// Its name
    #[arg(value_parser = value::route)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) settings: RouteSettings,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `remove-route`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl remove-route canary

Its requests take the next route that matches; without one they are answered 404.")]
pub(crate) struct RemoveRoute {
    /// Its name
    #[arg(value_parser = value::route)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `explain-route`
#[derive(Args, Debug)]
#[command(
    allow_missing_positional = true,
    after_help = "\
Examples:
  lbctl explain-route http://shop.example.com/cart
  lbctl explain-route GET http://127.0.0.1:8080/cart -H 'Host: shop.example.com'
  lbctl explain-route POST /cart -H 'Host: shop.example.com' --listener internal -o json

Nothing is sent to a proxy: the control plane's routes are matched by the proxies' own code.
Exits with 7 when no route matches."
)]
pub(crate) struct ExplainRoute {
    /// The request's method, at which routes do not look [default: GET]
    pub(crate) method: Option<String>,
    /// A URL, or a path
    pub(crate) url: String,
    /// A field of the request; of all fields, routes look at Host only
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = field)]
    pub(crate) fields: Vec<(String, String)>,
    /// The listener that the request comes to
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = value::listener)]
    pub(crate) listener: String,
}

fn share(text: &str) -> Result<Share, String> {
    let (pool, weight) = match text.split_once('=') {
        Some((pool, weight)) => (pool, value::weight(weight)?),
        None => (text, 1),
    };
    let pool = value::pool(pool).map_err(|invalid| invalid.message)?;
    Ok(Share { pool, weight })
}

fn field(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("write 'Name: value', for example 'Host: shop.example.com'".to_owned()),
    }
}
