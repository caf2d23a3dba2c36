//! A listener as it is declared.

use lb_core::model::{
    ForwardedTrust, HttpLimits, Invalid, Listener, ListenerName, ListenerProtocol,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    pool::time_or,
    unit::{Number, NumberBound, Size, SizeBound, Time},
};
use crate::convert::listener::ipnet_parse::networks;

/// How proxies treat the connections that they accept under this name. The address belongs
/// to the proxy process.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Listener)]
pub struct DeclaredListener {
    /// Its name, unique among listeners.
    #[schema(required = true)]
    pub name: String,
    /// Whose `X-Forwarded-For` is believed: that of `trusted_proxies`, or anyone's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_xff: Option<TrustXff>,
    /// Networks whose `X-Forwarded-For` is believed, such as `10.0.0.0/8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_proxies: Option<Vec<String>>,
    /// Until a request's head is complete; beyond: 408.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_timeout: Option<Time>,
    /// Between two reads of a request's body; beyond: 408.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_idle_timeout: Option<Time>,
    /// Between two writes of a response; beyond: the connection is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_idle_timeout: Option<Time>,
    /// Between two requests of a connection; beyond: it is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive_timeout: Option<Time>,
    /// Requests per connection; the last answer says `Connection: close`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<Number>,
    /// Connections to one proxy; beyond: accepting pauses, nobody is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<NumberBound>,
    /// Of these, connections of one client address (IPv6: of one /64); beyond: 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections_per_client: Option<NumberBound>,
    /// Bytes of the request line; beyond: 414.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_request_line_bytes: Option<Size>,
    /// Bytes of the request line and all fields; beyond: 431.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_head_bytes: Option<Size>,
    /// Fields of a head; beyond: 431.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_fields: Option<Number>,
    /// Bytes of all trailers; beyond: 431, or the end of the connection once the response has
    /// begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_trailer_bytes: Option<Size>,
    /// Bytes of one chunk's extensions; beyond: 400.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_chunk_extension_bytes: Option<Size>,
    /// Bytes of a request's body; beyond: 413.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<SizeBound>,
    /// Requests of a connection that are served in a row before others get their turn; none
    /// is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pipelined: Option<Number>,
    /// Bytes of an unread body that are read and dropped after an answer while others wait for a
    /// place; beyond: the connection is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_drain_bytes: Option<Size>,
    /// For how long nothing may come of an unread body that is read and dropped after an answer,
    /// five times that in all, half of it while others wait; beyond: the connection is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<Time>,
}

/// Whose `X-Forwarded-For` is believed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrustXff {
    /// Only that of trusted proxies.
    Trusted,
    /// Anyone's.
    Always,
}

impl TryFrom<DeclaredListener> for Listener {
    type Error = Invalid;

    fn try_from(declared: DeclaredListener) -> Result<Self, Invalid> {
        let default = Self::new(ListenerName::new(&declared.name)?);
        Self {
            protocol: ListenerProtocol::Http,
            forwarded_trust: trust(&declared)?,
            header_timeout: time_or(declared.header_timeout, default.header_timeout),
            body_idle_timeout: time_or(declared.body_idle_timeout, default.body_idle_timeout),
            write_idle_timeout: time_or(declared.write_idle_timeout, default.write_idle_timeout),
            keep_alive_timeout: time_or(declared.keep_alive_timeout, default.keep_alive_timeout),
            requests_max: declared.max_requests.map_or(default.requests_max, |n| n.0),
            connections_max: declared.max_connections.map_or(default.connections_max, |n| n.0),
            connections_per_client_max: declared
                .max_connections_per_client
                .map_or(default.connections_per_client_max, |n| n.0),
            limits: limits(&declared)?,
            name: default.name,
        }
        .checked()
    }
}

fn trust(declared: &DeclaredListener) -> Result<ForwardedTrust, Invalid> {
    match (declared.trust_xff.unwrap_or(TrustXff::Trusted), &declared.trusted_proxies) {
        (TrustXff::Trusted, None) => Ok(ForwardedTrust::Networks(Vec::new())),
        (TrustXff::Trusted, Some(texts)) => networks(texts).map(ForwardedTrust::Networks),
        (TrustXff::Always, None) => Ok(ForwardedTrust::Always),
        (TrustXff::Always, Some(_)) => Err(Invalid::value(
            "listener.trusted_proxies",
            "trusted_proxies means nothing beside trust_xff = \"always\", which believes \
             everybody; leave one of them out",
        )),
    }
}

fn limits(declared: &DeclaredListener) -> Result<HttpLimits, Invalid> {
    let default = HttpLimits::default();
    let size = |field, size: Option<Size>, default: u32| match size {
        None => Ok(default),
        // No bound of the domain is beyond what 32 bits hold.
        Some(Size(bytes)) => u32::try_from(bytes)
            .map_err(|_| Invalid::value(field, format!("{field} {bytes} is far too large"))),
    };
    Ok(HttpLimits {
        request_line_bytes_max: size(
            "listener.max_request_line_bytes",
            declared.max_request_line_bytes,
            default.request_line_bytes_max,
        )?,
        head_bytes_max: size(
            "listener.max_head_bytes",
            declared.max_head_bytes,
            default.head_bytes_max,
        )?,
        fields_max: declared.max_fields.map_or(default.fields_max, |n| n.0),
        trailer_bytes_max: size(
            "listener.max_trailer_bytes",
            declared.max_trailer_bytes,
            default.trailer_bytes_max,
        )?,
        chunk_extension_bytes_max: size(
            "listener.max_chunk_extension_bytes",
            declared.max_chunk_extension_bytes,
            default.chunk_extension_bytes_max,
        )?,
        body_bytes_max: declared.max_body_bytes.map_or(default.body_bytes_max, |n| n.0),
        pipelined_max: declared.max_pipelined.map_or(default.pipelined_max, |n| n.0),
        drain_bytes_max: size(
            "listener.max_drain_bytes",
            declared.max_drain_bytes,
            default.drain_bytes_max,
        )?,
        drain_timeout: time_or(declared.drain_timeout, default.drain_timeout),
    })
}

impl From<&Listener> for DeclaredListener {
    fn from(listener: &Listener) -> Self {
        let (trust_xff, trusted_proxies) = match &listener.forwarded_trust {
            ForwardedTrust::Always => (TrustXff::Always, None),
            ForwardedTrust::Networks(networks) => {
                (TrustXff::Trusted, Some(networks.iter().map(ToString::to_string).collect()))
            }
        };
        let limits = &listener.limits;
        Self {
            name: listener.name.to_string(),
            trust_xff: Some(trust_xff),
            trusted_proxies,
            header_timeout: Some(Time(listener.header_timeout)),
            body_idle_timeout: Some(Time(listener.body_idle_timeout)),
            write_idle_timeout: Some(Time(listener.write_idle_timeout)),
            keep_alive_timeout: Some(Time(listener.keep_alive_timeout)),
            max_requests: Some(Number(listener.requests_max)),
            max_connections: Some(NumberBound(listener.connections_max)),
            max_connections_per_client: Some(NumberBound(listener.connections_per_client_max)),
            max_request_line_bytes: Some(Size(limits.request_line_bytes_max.into())),
            max_head_bytes: Some(Size(limits.head_bytes_max.into())),
            max_fields: Some(Number(limits.fields_max)),
            max_trailer_bytes: Some(Size(limits.trailer_bytes_max.into())),
            max_chunk_extension_bytes: Some(Size(limits.chunk_extension_bytes_max.into())),
            max_body_bytes: Some(SizeBound(limits.body_bytes_max)),
            max_pipelined: Some(Number(limits.pipelined_max)),
            max_drain_bytes: Some(Size(limits.drain_bytes_max.into())),
            drain_timeout: Some(Time(limits.drain_timeout)),
        }
    }
}
