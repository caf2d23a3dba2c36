//! A listener: whom it believes, how long it waits, and what it lets through.

use lb_core::model::{Listener, ListenerName};
use lb_proto::v1 as pb;
use serde::Serialize;

use super::object::{Fields, or_none};
use crate::format::{bound, setting, size};

/// A listener.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ListenerView {
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) trust_xff: String,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) header_timeout_ms: u32,
    pub(crate) body_idle_timeout_ms: u32,
    pub(crate) write_idle_timeout_ms: u32,
    pub(crate) keep_alive_timeout_ms: u32,
    pub(crate) max_requests: u32,
    /// 0: as many as the process can have.
    pub(crate) max_connections: u32,
    /// 0: any number.
    pub(crate) max_connections_per_client: u32,
    pub(crate) max_request_line_bytes: u32,
    pub(crate) max_head_bytes: u32,
    pub(crate) max_fields: u32,
    pub(crate) max_trailer_bytes: u32,
    pub(crate) max_chunk_extension_bytes: u32,
    /// 0: any number.
    pub(crate) max_body_bytes: u64,
    pub(crate) max_pipelined: u32,
    pub(crate) max_drain_bytes: u32,
    pub(crate) drain_timeout_ms: u32,
}

impl ListenerView {
    /// One with every default.
    pub(super) fn of_defaults() -> Self {
        pb::Listener::from(&Listener::new(ListenerName::default_listener())).into()
    }

    /// Its settings, named as their flags.
    pub(crate) fn fields(&self) -> Fields {
        let bytes = |bytes: u32| size(bytes.into());
        let connections = |number: u32| bound(number.into(), |number| number.to_string());
        vec![
            ("protocol", self.protocol.clone()),
            ("trust-xff", self.trust_xff.clone()),
            ("trusted-proxies", or_none(&self.trusted_proxies.join(","))),
            ("header-timeout", setting(self.header_timeout_ms)),
            ("body-idle-timeout", setting(self.body_idle_timeout_ms)),
            ("write-idle-timeout", setting(self.write_idle_timeout_ms)),
            ("keep-alive-timeout", setting(self.keep_alive_timeout_ms)),
            ("max-requests", self.max_requests.to_string()),
            ("max-connections", connections(self.max_connections)),
            ("max-connections-per-client", connections(self.max_connections_per_client)),
            ("max-request-line-bytes", bytes(self.max_request_line_bytes)),
            ("max-head-bytes", bytes(self.max_head_bytes)),
            ("max-fields", self.max_fields.to_string()),
            ("max-trailer-bytes", bytes(self.max_trailer_bytes)),
            ("max-chunk-extension-bytes", bytes(self.max_chunk_extension_bytes)),
            ("max-body-bytes", bound(self.max_body_bytes, size)),
            ("max-pipelined", self.max_pipelined.to_string()),
            ("max-drain-bytes", bytes(self.max_drain_bytes)),
            ("drain-timeout", setting(self.drain_timeout_ms)),
        ]
    }
}

impl From<pb::Listener> for ListenerView {
    fn from(wire: pb::Listener) -> Self {
        Self {
            name: wire.name,
            protocol: wire.protocol,
            trust_xff: wire.trust_xff,
            trusted_proxies: wire.trusted_proxies,
            header_timeout_ms: wire.header_timeout_ms,
            body_idle_timeout_ms: wire.body_idle_timeout_ms,
            write_idle_timeout_ms: wire.write_idle_timeout_ms,
            keep_alive_timeout_ms: wire.keep_alive_timeout_ms,
            max_requests: wire.max_requests,
            max_connections: wire.max_connections,
            max_connections_per_client: wire.max_connections_per_client,
            max_request_line_bytes: wire.max_request_line_bytes,
            max_head_bytes: wire.max_head_bytes,
            max_fields: wire.max_fields,
            max_trailer_bytes: wire.max_trailer_bytes,
            max_chunk_extension_bytes: wire.max_chunk_extension_bytes,
            max_body_bytes: wire.max_body_bytes,
            max_pipelined: wire.max_pipelined,
            max_drain_bytes: wire.max_drain_bytes,
            drain_timeout_ms: wire.drain_timeout_ms,
        }
    }
}
