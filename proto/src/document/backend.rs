//! A backend as it is declared.

use std::collections::BTreeMap;

use lb_core::model::{
    AdminState, Backend, BackendId, Incarnation, Invalid, Labels, MaxInFlight, PoolName, Weight,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::unit::Number;

/// One address that serves requests.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Backend)]
pub struct DeclaredBackend {
    /// Unique over all pools. Without one, the backend of this pool at this address is meant;
    /// if there is none, it gets a new id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `HOST:PORT`; the host is a name, an IPv4 address, or an IPv6 address in brackets.
    #[schema(required = true)]
    pub address: String,
    /// The pool that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Its share beside the others of the pool; 0 takes no new requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<Number>,
    /// Requests in progress at it, over all proxies; when it has no room, another backend is
    /// picked, or the request waits. 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<Number>,
    /// What is wanted of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<DeclaredState>,
    /// Texts by name, for people and automation; at most 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// What is wanted of a backend.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BackendState)]
pub enum DeclaredState {
    /// Serves when it is healthy.
    Enabled,
    /// Gets nothing, whatever its health.
    Disabled,
    /// Finishes what it has and gets nothing new.
    Draining,
}

/// Stands in for the id of a backend that is to get one.
pub(super) const UNASSIGNED: &str = "unassigned";

impl TryFrom<DeclaredBackend> for Backend {
    type Error = Invalid;

    /// A backend without an id gets a placeholder.
    fn try_from(declared: DeclaredBackend) -> Result<Self, Invalid> {
        let pool = match &declared.pool {
            Some(name) => {
                PoolName::new(name).map_err(|bad| Invalid { field: "backend.pool", ..bad })?
            }
            None => PoolName::default_pool(),
        };
        Ok(Self {
            id: BackendId::new(declared.id.as_deref().unwrap_or(UNASSIGNED))?,
            pool,
            address: declared.address.parse()?,
            weight: declared.weight.map_or_else(|| Ok(Weight::default()), |n| Weight::new(n.0))?,
            admin_state: declared.state.map_or_else(AdminState::default, AdminState::from),
            labels: Labels::new(declared.labels.unwrap_or_default())?,
            source: None,
            drain: None,
            max_in_flight: MaxInFlight::of_backend(declared.max_in_flight.map_or(0, |n| n.0))?,
            incarnation: Incarnation::default(),
        })
    }
}

impl From<&Backend> for DeclaredBackend {
    fn from(backend: &Backend) -> Self {
        let labels = backend.labels.iter();
        Self {
            id: Some(backend.id.to_string()),
            address: backend.address.to_string(),
            pool: Some(backend.pool.to_string()),
            weight: Some(Number(backend.weight.get().into())),
            max_in_flight: Some(Number(backend.max_in_flight.map_or(0, MaxInFlight::get))),
            state: Some(backend.admin_state.into()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
        }
    }
}

impl From<DeclaredState> for AdminState {
    fn from(state: DeclaredState) -> Self {
        match state {
            DeclaredState::Enabled => Self::Enabled,
            DeclaredState::Disabled => Self::Disabled,
            DeclaredState::Draining => Self::Draining,
        }
    }
}

impl From<AdminState> for DeclaredState {
    fn from(state: AdminState) -> Self {
        match state {
            AdminState::Enabled => Self::Enabled,
            AdminState::Disabled => Self::Disabled,
            AdminState::Draining => Self::Draining,
        }
    }
}
