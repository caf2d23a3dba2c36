//! A listener: where and how proxies accept. Its address belongs to the proxy
//! process (`--port`, `--listen NAME=ADDR`).

use std::time::Duration;

use ipnet::IpNet;

use super::{HttpLimits, Invalid, ListenerName, pool::bounded};

/// How proxies treat the connections that they accept under this name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// Unique among listeners.
    pub name: ListenerName,
    /// What clients speak.
    pub protocol: ListenerProtocol,
    /// Whose `X-Forwarded-For` is believed.
    pub forwarded_trust: ForwardedTrust,
    /// Until a request's head is complete; default 10 s, against slow-loris clients.
    pub header_timeout: Duration,
    /// Between two reads of a request's body; default 60 s.
    pub body_idle_timeout: Duration,
    /// Between two writes of a response; default 60 s.
    pub write_idle_timeout: Duration,
    /// Between two requests of a connection; default 75 s, as nginx's.
    pub keep_alive_timeout: Duration,
    /// Requests per client connection; default 1000, as nginx's.
    pub requests_max: u32,
    /// Client connections of one proxy on this listener, 0 for as many as the process
    /// can have; default 0. Beyond it accepting pauses: clients wait, none is refused.
    pub connections_max: u32,
    /// Of these, connections of one client address (IPv6: of one /64), 0 for any number;
    /// default 0. One more is answered 429 and closed.
    pub connections_per_client_max: u32,
    /// Bounds on its requests.
    pub limits: HttpLimits,
}

/// What clients speak on a listener.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ListenerProtocol {
    /// HTTP/1.1 and HTTP/1.0.
    #[default]
    Http,
}

/// Whose `X-Forwarded-For` is believed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ForwardedTrust {
    /// Only peers in these networks; none by default. The client is then the
    /// rightmost address that is not in them.
    Networks(Vec<IpNet>),
    /// Everybody: the client is the leftmost address. For demonstrations.
    Always,
}

impl Listener {
    /// A listener with every default.
    #[must_use]
    pub fn new(name: ListenerName) -> Self {
        Self {
            name,
            protocol: ListenerProtocol::Http,
            forwarded_trust: ForwardedTrust::Networks(Vec::new()),
            header_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_secs(60),
            write_idle_timeout: Duration::from_secs(60),
            keep_alive_timeout: Duration::from_secs(75),
            requests_max: 1000,
            connections_max: 0,
            connections_per_client_max: 0,
            limits: HttpLimits::default(),
        }
    }

    /// Checks the limits of all timeouts (1 ms to 24 h) and counts.
    pub fn checked(self) -> Result<Self, Invalid> {
        self.limits.checked()?;
        for (field, value) in [
            ("listener.header_timeout", self.header_timeout),
            ("listener.body_idle_timeout", self.body_idle_timeout),
            ("listener.write_idle_timeout", self.write_idle_timeout),
            ("listener.keep_alive_timeout", self.keep_alive_timeout),
        ] {
            bounded(field, value)?;
        }
        if self.requests_max == 0 {
            return Err(Invalid::value(
                "listener.max_requests",
                "max_requests 0 would close every connection unanswered; use 1 or more",
            ));
        }
        if let ForwardedTrust::Networks(networks) = &self.forwarded_trust
            && networks.len() > 1000
        {
            return Err(Invalid::value(
                "listener.trusted_proxies",
                "at most 1000 networks are allowed",
            ));
        }
        Ok(self)
    }
}
