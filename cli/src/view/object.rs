//! Objects of the registry, and what differs between two of them.

use std::collections::BTreeMap;

use lb_proto::v1::{self as pb, object::Object as Kind};
use serde::Serialize;

use super::PoolView;
use crate::format;

/// One object of the desired state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ObjectView {
    pub(crate) kind: &'static str,
    pub(crate) revision: u64,
    #[serde(flatten)]
    pub(crate) object: AnyObject,
}

/// Its fields.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum AnyObject {
    Pool(PoolView),
    Backend(BackendObject),
    Listener(ListenerView),
    Route(RouteView),
}

/// A backend, as the operator wants it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct BackendObject {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) pool: String,
    pub(crate) weight: u32,
    pub(crate) admin_state: &'static str,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) incarnation: u64,
}

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
}

/// A route.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RouteView {
    pub(crate) name: String,
    pub(crate) listener: String,
    pub(crate) host: String,
    pub(crate) path_prefix: String,
    pub(crate) path: String,
    pub(crate) pool: String,
}

/// Names of fields with their values, as they are printed.
pub(crate) type Fields = Vec<(&'static str, String)>;

impl ObjectView {
    /// Reads an object; `None` for a kind that this build does not know.
    pub(crate) fn read(wire: pb::Object) -> Option<Self> {
        let (kind, object) = match wire.object? {
            Kind::Pool(pool) => ("pool", AnyObject::Pool(pool.into())),
            Kind::Backend(backend) => ("backend", AnyObject::Backend(backend.into())),
            Kind::Listener(listener) => ("listener", AnyObject::Listener(listener.into())),
            Kind::Route(route) => ("route", AnyObject::Route(route.into())),
        };
        Some(Self { kind, revision: wire.revision, object })
    }

    /// Its name or id.
    pub(crate) fn name(&self) -> &str {
        match &self.object {
            AnyObject::Pool(pool) => &pool.name,
            AnyObject::Backend(backend) => &backend.id,
            AnyObject::Listener(listener) => &listener.name,
            AnyObject::Route(route) => &route.name,
        }
    }

    /// Its settings, without its name.
    pub(crate) fn fields(&self) -> Fields {
        match &self.object {
            AnyObject::Pool(pool) => pool.fields(),
            AnyObject::Backend(backend) => backend.fields(),
            AnyObject::Listener(listener) => listener.fields(),
            AnyObject::Route(route) => route.fields(),
        }
    }
}

impl PoolView {
    /// Its settings.
    pub(crate) fn fields(&self) -> Fields {
        let mut fields = vec![("algorithm", self.algorithm.clone())];
        if let Some(choices) = self.choices {
            fields.push(("choices", choices.to_string()));
        }
        if let Some(hold_ms) = self.error_hold_ms {
            fields.push(("error-hold", setting(hold_ms)));
        }
        fields.push(("health", self.health.clone()));
        if let Some(path) = &self.health_path {
            fields.push(("health-path", path.clone()));
        }
        if self.health != "none" {
            fields.extend([
                ("health-interval", setting(self.health_interval_ms)),
                ("health-timeout", setting(self.health_timeout_ms)),
                ("rise", self.rise.to_string()),
                ("fall", self.fall.to_string()),
            ]);
        }
        fields.extend([
            ("connect-timeout", setting(self.connect_timeout_ms)),
            ("request-timeout", setting(self.request_timeout_ms)),
        ]);
        fields
    }
}

impl BackendObject {
    fn fields(&self) -> Fields {
        let mut fields = vec![
            ("address", self.address.clone()),
            ("weight", self.weight.to_string()),
            ("pool", self.pool.clone()),
        ];
        if self.admin_state != "enabled" {
            fields.push(("state", self.admin_state.to_owned()));
        }
        if !self.labels.is_empty() {
            fields.push(("labels", labels(&self.labels)));
        }
        fields
    }
}

impl ListenerView {
    /// Its settings.
    pub(crate) fn fields(&self) -> Fields {
        vec![
            ("protocol", self.protocol.clone()),
            ("trust-xff", self.trust_xff.clone()),
            ("trusted-proxies", or_none(&self.trusted_proxies.join(","))),
            ("header-timeout", setting(self.header_timeout_ms)),
            ("body-idle-timeout", setting(self.body_idle_timeout_ms)),
            ("write-idle-timeout", setting(self.write_idle_timeout_ms)),
            ("keep-alive-timeout", setting(self.keep_alive_timeout_ms)),
            ("max-requests", self.max_requests.to_string()),
        ]
    }
}

impl RouteView {
    /// Its settings.
    pub(crate) fn fields(&self) -> Fields {
        vec![
            ("listener", self.listener.clone()),
            ("host", if self.host.is_empty() { "*".to_owned() } else { self.host.clone() }),
            ("path", self.paths()),
            ("pool", self.pool.clone()),
        ]
    }

    /// Which paths it matches: `/api*` for a prefix.
    pub(crate) fn paths(&self) -> String {
        match (self.path.as_str(), self.path_prefix.as_str()) {
            ("", "" | "/") => "/*".to_owned(),
            ("", prefix) => format!("{prefix}*"),
            (exact, _) => exact.to_owned(),
        }
    }
}

impl From<pb::Backend> for BackendObject {
    fn from(wire: pb::Backend) -> Self {
        let admin_state = admin_state(&wire);
        Self {
            id: wire.id,
            address: wire.address,
            pool: wire.pool,
            weight: wire.weight.unwrap_or(1),
            admin_state,
            labels: wire.labels,
            incarnation: wire.incarnation,
        }
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
        }
    }
}

impl From<pb::Route> for RouteView {
    fn from(wire: pb::Route) -> Self {
        Self {
            name: wire.name,
            listener: wire.listener,
            host: wire.host,
            path_prefix: wire.path_prefix,
            path: wire.path,
            pool: wire.pool,
        }
    }
}

/// The operator's wish, as it is spelled.
pub(super) fn admin_state(backend: &pb::Backend) -> &'static str {
    match backend.admin_state() {
        pb::AdminState::Enabled => "enabled",
        pb::AdminState::Disabled => "disabled",
        pb::AdminState::Draining => "draining",
    }
}

/// Labels on one line.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    or_none(&pairs.join(","))
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { text.to_owned() }
}

fn setting(ms: u32) -> String {
    format::duration(std::time::Duration::from_millis(u64::from(ms)))
}
