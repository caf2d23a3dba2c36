//! Listeners.

use ipnet_parse::networks;
use lb_core::model::{
    ForwardedTrust, HttpLimits, Invalid, Listener, ListenerName, ListenerProtocol, shorten,
};

use super::{duration_or, millis, number_or};
use crate::v1 as pb;

impl TryFrom<pb::Listener> for Listener {
    type Error = Invalid;

    fn try_from(wire: pb::Listener) -> Result<Self, Invalid> {
        if !matches!(wire.protocol.as_str(), "" | "http") {
            let shown = shorten(&wire.protocol);
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
                let shown = shorten(other);
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
            requests_max: number_or(wire.max_requests, default.requests_max),
            connections_max: wire.max_connections,
            connections_per_client_max: wire.max_connections_per_client,
            limits: limits(&wire),
            name: default.name,
        }
        .checked()
    }
}

fn limits(wire: &pb::Listener) -> HttpLimits {
    let default = HttpLimits::default();
    HttpLimits {
        request_line_bytes_max: number_or(
            wire.max_request_line_bytes,
            default.request_line_bytes_max,
        ),
        head_bytes_max: number_or(wire.max_head_bytes, default.head_bytes_max),
        fields_max: number_or(wire.max_fields, default.fields_max),
        trailer_bytes_max: number_or(wire.max_trailer_bytes, default.trailer_bytes_max),
        chunk_extension_bytes_max: number_or(
            wire.max_chunk_extension_bytes,
            default.chunk_extension_bytes_max,
        ),
        body_bytes_max: wire.max_body_bytes,
        pipelined_max: number_or(wire.max_pipelined, default.pipelined_max),
        drain_bytes_max: number_or(wire.max_drain_bytes, default.drain_bytes_max),
        drain_timeout: duration_or(wire.drain_timeout_ms, default.drain_timeout),
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
            max_connections: listener.connections_max,
            max_connections_per_client: listener.connections_per_client_max,
            max_request_line_bytes: listener.limits.request_line_bytes_max,
            max_head_bytes: listener.limits.head_bytes_max,
            max_fields: listener.limits.fields_max,
            max_trailer_bytes: listener.limits.trailer_bytes_max,
            max_chunk_extension_bytes: listener.limits.chunk_extension_bytes_max,
            max_body_bytes: listener.limits.body_bytes_max,
            max_pipelined: listener.limits.pipelined_max,
            max_drain_bytes: listener.limits.drain_bytes_max,
            drain_timeout_ms: millis(listener.limits.drain_timeout),
        }
    }
}

pub(crate) mod ipnet_parse {
    use std::net::IpAddr;

    use ipnet::IpNet;
    use lb_core::model::{Invalid, shorten};

    /// Networks in CIDR notation; a plain address means itself alone.
    pub(crate) fn networks(texts: &[String]) -> Result<Vec<IpNet>, Invalid> {
        let parse = |text: &String| {
            let network = text.parse::<IpNet>().map(|network| network.trunc());
            network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                let shown = shorten(text);
                Invalid::value(
                    "listener.trusted_proxies",
                    format!("{shown:?} is not a network; write for example 10.0.0.0/8 or ::1"),
                )
            })
        };
        texts.iter().map(parse).collect()
    }
}
