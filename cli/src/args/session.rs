//! Settings of pools that keep clients with their backends, and the keys of sessions.

use std::time::Duration;

use clap::{Args, ValueEnum};
use lb_proto::document::unit::parse_session_ttl;

use super::value;

/// Whether clients stay with their backends.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Sessions")]
pub(crate) struct Sessions {
    /// What keeps a client with its backend: none, cookie (a signed cookie), header:NAME (the
    /// same value of a field), or ip_hash, which is the algorithm of that name [default: none]
    #[arg(long, value_name = "BY", value_parser = value::sticky)]
    pub(crate) sticky: Option<String>,
    /// cookie: its name; pools that share a host need different ones, or different paths
    /// [default: lb_session]
    #[arg(long, value_name = "NAME")]
    pub(crate) session_cookie: Option<String>,
    /// cookie: how long a session lives without a request, 1s to 7d, whole seconds
    /// [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = parse_session_ttl)]
    pub(crate) session_ttl: Option<Duration>,
    /// cookie: the path below which browsers send it [default: /]
    #[arg(long, value_name = "PATH")]
    pub(crate) session_path: Option<String>,
    /// cookie: which sites' pages may cause a browser to send it [default: lax]
    #[arg(long, value_name = "SITES")]
    pub(crate) session_same_site: Option<SameSite>,
    /// cookie: when it is marked Secure: on connections with TLS (auto), always, or never
    /// [default: auto]
    #[arg(long, value_name = "WHEN")]
    pub(crate) session_secure: Option<Secure>,
    /// cookie: whether scripts are kept from it [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(crate) session_http_only: Option<bool>,
    /// cookie: answer 503 rather than give a client another backend when its own cannot serve
    /// it [default: false]
    #[arg(long, value_name = "BOOL")]
    pub(crate) session_strict: Option<bool>,
}

impl Sessions {
    /// Whether there is any setting of a cookie.
    pub(crate) fn has_cookie_settings(&self) -> bool {
        self.session_cookie.is_some()
            || self.session_ttl.is_some()
            || self.session_path.is_some()
            || self.session_same_site.is_some()
            || self.session_secure.is_some()
            || self.session_http_only.is_some()
            || self.session_strict.is_some()
    }
}

/// Which sites' pages may cause a browser to send a cookie.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum SameSite {
    /// Pages of the same site
    Strict,
    /// Also links to it
    Lax,
    /// All pages
    None,
}

impl SameSite {
    /// As it is spelled on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Lax => "lax",
            Self::None => "none",
        }
    }
}

/// When a cookie is marked `Secure`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Secure {
    /// On connections with TLS
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Secure {
    /// As it is spelled on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// `rotate-session-keys`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl rotate-session-keys
  lbctl rotate-session-keys --no-wait
  lbctl get session-keys                 how far it got
  lbctl rotate-session-keys --force      although proxy-2, which is lost, does not know the key

A new key is announced to all proxies, and signs once every one knows it. One that is lost, cut off
from the control plane, may be serving traffic all the same, and would take sessions that the new
key signs for forgeries: so it is waited for until it has been lost for a day. Sessions that the
former key signed are believed until they have ended.")]
pub(crate) struct RotateSessionKeys {
    /// Do not wait until the new key signs
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Let the key sign although lost proxies lack it: they are stopped, or nobody comes to them
    /// any more. Else their clients that come to others too lose their backends
    #[arg(long)]
    pub(crate) force: bool,
}
