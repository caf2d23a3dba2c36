//! Commands that look, and that wait.

use clap::{Args, ValueEnum};

use super::{Target, value};

/// `get`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl get backends
  lbctl get backends --pool web -o wide
  lbctl get limits -o wide              what each proxy has of them, and refused
  lbctl get proxies -o json
  lbctl get session-keys
  lbctl get pool default")]
pub(crate) struct Get {
    /// What to list
    pub(crate) kind: GetKind,
    /// This one only
    pub(crate) name: Option<String>,
    /// Backends of this pool only
    #[arg(long, value_parser = value::pool)]
    pub(crate) pool: Option<String>,
}

/// `describe`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl describe backend backend2       verdict, reason, checks, traffic, next step
  lbctl describe proxy proxy-1
  lbctl describe pool default
  lbctl describe session 'lb_session=AQAAAAEA...'    where a client belongs, and what it meets")]
pub(crate) struct Describe {
    /// What it is
    pub(crate) kind: GetKind,
    /// Its name; of a session, its cookie
    pub(crate) name: String,
}

/// Kinds of things; singular and plural are understood.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum GetKind {
    /// Sets of backends under one policy
    #[value(alias = "pool")]
    Pools,
    /// Addresses that serve requests
    #[value(alias = "backend")]
    Backends,
    /// Where proxies accept
    #[value(alias = "listener")]
    Listeners,
    /// Which requests go to which pool
    #[value(alias = "route")]
    Routes,
    /// How many requests may pass
    #[value(alias = "limit")]
    Limits,
    /// Processes that carry the traffic
    #[value(alias = "proxy")]
    Proxies,
    /// What signs sessions, without the secrets
    #[value(alias = "session-key")]
    SessionKeys,
    /// What a cookie says; for describe
    #[value(alias = "sessions")]
    Session,
}

impl GetKind {
    /// In the singular, as on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pools => "pool",
            Self::Backends => "backend",
            Self::Listeners => "listener",
            Self::Routes => "route",
            Self::Limits => "limit",
            Self::Proxies => "proxy",
            Self::SessionKeys => "session-key",
            Self::Session => "session",
        }
    }
}

/// Events that a control plane remembers.
pub(crate) const PAST_MAX: u32 = 1000;

/// `watch`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl watch
  lbctl watch --past 20
  lbctl watch --no-follow                    what is remembered, and no more
  lbctl watch --past 20 --no-follow
  lbctl watch --timeout 1m                   for a minute
  lbctl watch -o json | jq .type

It goes on over a restart of the control plane, which forgets what happened before. It ends with
--timeout, with Ctrl-C, or when nobody reads what it prints.")]
pub(crate) struct Watch {
    /// Begin with this many past events, at most 1000 [default: 0; with --no-follow: all]
    #[arg(long, value_name = "N", value_parser = value::number(0..=PAST_MAX))]
    pub(crate) past: Option<u32>,
    /// End after the past events
    #[arg(long)]
    pub(crate) no_follow: bool,
}

/// `wait`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl wait backend/backend4 --for healthy --timeout 30s
  lbctl wait backend backend4                the same, with the default timeout
  lbctl wait backend/backend4 --for drained --timeout 5m
  lbctl wait pool/default --for healthy      all its enabled backends
  lbctl wait revision/118                    applied by every live proxy
  lbctl wait proxies --count 3               in sync
  lbctl wait proxy/proxy-1 --for synced

Healthy: its checks pass, and no breaker or outlier detection keeps it out.
Exits with 6 when the time is up.")]
pub(crate) struct WaitFor {
    #[command(flatten)]
    pub(crate) target: Target,
    /// What to wait for [default: healthy, or synced]
    #[arg(long = "for", value_name = "CONDITION", value_parser = Awaited::parse)]
    pub(crate) condition: Option<Awaited>,
    /// How many proxies must be in sync [default: all that are connected, at least 1]
    #[arg(long, value_name = "N", value_parser = value::number(1..=10_000))]
    pub(crate) count: Option<u32>,
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Awaited {
    /// A backend that is checked and up; a pool whose enabled backends all are.
    Healthy,
    /// A backend that is down.
    Down,
    /// A backend that drains and has nothing left.
    Drained,
    /// A backend that is gone.
    Removed,
    /// A proxy that has applied the newest revision.
    Synced,
    /// A proxy that is no longer connected, however it went.
    Lost,
    /// A proxy that was stopped in order.
    Stopped,
}

impl Awaited {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "healthy" | "up" => Ok(Self::Healthy),
            "down" | "unhealthy" => Ok(Self::Down),
            "drained" => Ok(Self::Drained),
            "removed" | "deleted" => Ok(Self::Removed),
            "synced" => Ok(Self::Synced),
            "lost" => Ok(Self::Lost),
            "stopped" => Ok(Self::Stopped),
            _ => Err("for a backend, write healthy, down, drained or removed; for a pool, healthy; for a \
                      proxy, synced, lost or stopped"
                .to_owned()),
        }
    }

    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Down => "down",
            Self::Drained => "drained",
            Self::Removed => "removed",
            Self::Synced => "synced",
            Self::Lost => "lost",
            Self::Stopped => "stopped",
        }
    }
}

/// `check`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl check
  lbctl check --wait --timeout 1m     until nothing fails, for scripts
  lbctl check -o json | jq '.checks[] | select(.level == \"failed\")'

Exits with 1 when a check failed; warnings do not count.")]
pub(crate) struct Check {
    /// Check again until nothing fails, for 5 minutes unless --timeout tells
    #[arg(long)]
    pub(crate) wait: bool,
}

/// `explain`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl explain pool                      every key of a pool
  lbctl explain pool.request_timeout      meaning, default and range
  lbctl explain listener.max_head_bytes -o json

Needs no control plane. Keys and flags have the same names: request_timeout, --request-timeout.")]
pub(crate) struct Explain {
    /// pool, backend, listener, route or limit, or one of its keys: KIND.KEY
    #[arg(value_name = "KIND[.KEY]")]
    pub(crate) field: String,
}
