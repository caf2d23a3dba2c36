//! Objects of the registry, and what differs between two of them.

use std::collections::BTreeMap;

use lb_proto::v1::{self as pb, object::Object as Kind};
use serde::Serialize;

use super::{ListenerView, PoolView, RouteView, max_in_flight};

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
    Pool(Box<PoolView>),
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
    /// 0: no limit.
    pub(crate) max_in_flight: u32,
    pub(crate) admin_state: &'static str,
    pub(crate) labels: BTreeMap<String, String>,
    /// What discovered it; nothing when it was added by hand.
    pub(crate) source: Option<String>,
    pub(crate) incarnation: u64,
}

/// Names of fields with their values, as they are printed.
pub(crate) type Fields = Vec<(&'static str, String)>;

impl ObjectView {
    /// Reads an object; `None` for a kind that this build does not know.
    pub(crate) fn read(wire: pb::Object) -> Option<Self> {
        let (kind, object) = match wire.object? {
            Kind::Pool(pool) => ("pool", AnyObject::Pool(Box::new(pool.into()))),
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

    /// Those of its settings that somebody chose: for pools and listeners, which have many,
    /// what differs from the defaults. `None` when nothing does.
    pub(crate) fn chosen(&self) -> Option<Fields> {
        let defaults = match &self.object {
            AnyObject::Pool(_) => PoolView::of_defaults().fields(),
            AnyObject::Listener(_) => ListenerView::of_defaults().fields(),
            AnyObject::Backend(_) | AnyObject::Route(_) => Vec::new(),
        };
        let mut fields = self.fields();
        fields.retain(|field| field.0 == "algorithm" || !defaults.contains(field));
        Some(fields).filter(|fields| !fields.is_empty())
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

impl BackendObject {
    fn fields(&self) -> Fields {
        let mut fields = vec![
            ("address", self.address.clone()),
            ("weight", self.weight.to_string()),
            ("pool", self.pool.clone()),
        ];
        if self.max_in_flight > 0 {
            fields.push(("max-in-flight", max_in_flight(self.max_in_flight)));
        }
        if self.admin_state != "enabled" {
            fields.push(("state", self.admin_state.to_owned()));
        }
        if !self.labels.is_empty() {
            fields.push(("labels", labels(&self.labels)));
        }
        fields
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
            max_in_flight: wire.max_in_flight,
            admin_state,
            labels: wire.labels,
            source: Some(wire.source).filter(|source| !source.is_empty()),
            incarnation: wire.incarnation,
        }
    }
}

/// The operator's wish, as it is spelled.
pub(super) fn admin_state(backend: &pb::Backend) -> &'static str {
    state_name(backend.admin_state())
}

/// One of them, as it is spelled.
pub(crate) fn state_name(state: pb::AdminState) -> &'static str {
    match state {
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

/// A text that is not there must not look like a mistake.
pub(super) fn or_none(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { text.to_owned() }
}
