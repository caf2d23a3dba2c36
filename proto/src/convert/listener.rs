//! Listeners.

use ipnet_parse::networks;
use lb_core::model::{ForwardedTrust, Invalid, Listener, ListenerName, ListenerProtocol};

use super::{duration_or, millis};
use crate::v1 as pb;

impl TryFrom<pb::Listener> for Listener {
    type Error = Invalid;

    fn try_from(wire: pb::Listener) -> Result<Self, Invalid> {
        if !matches!(wire.protocol.as_str(), "" | "http") {
            let shown: String = wire.protocol.chars().take(40).collect();
            return Err(Invalid::unknown(
                "listener.protocol",
                "unknown_protocol",
                format!("unknown protocol {shown:?}; known is http"),
            ));
        }
        let forwarded_trust = match wire.trust_xff.as_str() {
            "" | "trusted" => ForwardedTrust::Networks(networks(&wire.trusted_proxies)?),
            "always" => ForwardedTrust::Always,
            other => {
                let shown: String = other.chars().take(40).collect();
                return Err(Invalid::value(
                    "listener.trust_xff",
                    format!("trust_xff {shown:?} is unknown; use trusted or always"),
                ));
            }
        };
        let default = Self::new(ListenerName::new(&wire.name)?);
        Self {
            protocol: ListenerProtocol::Http,
            forwarded_trust,
            header_timeout: duration_or(wire.header_timeout_ms, default.header_timeout),
            body_idle_timeout: duration_or(wire.body_idle_timeout_ms, default.body_idle_timeout),
            write_idle_timeout: duration_or(wire.write_idle_timeout_ms, default.write_idle_timeout),
            keep_alive_timeout: duration_or(wire.keep_alive_timeout_ms, default.keep_alive_timeout),
            requests_max: if wire.max_requests == 0 {
                default.requests_max
            } else {
                wire.max_requests
            },
            name: default.name,
        }
        .checked()
    }
}

impl From<&Listener> for pb::Listener {
    fn from(listener: &Listener) -> Self {
        let (trust_xff, trusted_proxies) = match &listener.forwarded_trust {
            ForwardedTrust::Always => ("always", Vec::new()),
            ForwardedTrust::Networks(networks) => {
                ("trusted", networks.iter().map(ToString::to_string).collect())
            }
        };
        Self {
            name: listener.name.to_string(),
            protocol: "http".to_owned(),
            trusted_proxies,
            trust_xff: trust_xff.to_owned(),
            header_timeout_ms: millis(listener.header_timeout),
            body_idle_timeout_ms: millis(listener.body_idle_timeout),
            write_idle_timeout_ms: millis(listener.write_idle_timeout),
            keep_alive_timeout_ms: millis(listener.keep_alive_timeout),
            max_requests: listener.requests_max,
        }
    }
}

mod ipnet_parse {
    use std::net::IpAddr;

    use ipnet::IpNet;
    use lb_core::model::Invalid;

    /// Networks in CIDR notation; a plain address means itself alone.
    pub(super) fn networks(texts: &[String]) -> Result<Vec<IpNet>, Invalid> {
        let parse = |text: &String| {
            let network = text.parse::<IpNet>().map(|network| network.trunc());
            network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                let shown: String = text.chars().take(40).collect();
                Invalid::value(
                    "listener.trusted_proxies",
                    format!("{shown:?} is not a network; write for example 10.0.0.0/8 or ::1"),
                )
            })
        };
        texts.iter().map(parse).collect()
    }
}
