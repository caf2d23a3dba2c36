//! A route as it is declared.

use lb_core::model::{HostMatch, Invalid, ListenerName, PathMatch, PoolName, Route, RouteName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which requests go to which pool. The most specific route wins.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Route)]
pub struct DeclaredRoute {
    /// Its name, unique among routes.
    #[schema(required = true)]
    pub name: String,
    /// The listener whose requests it sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// Which host: a name, `*.NAME` for every name below, or `*` for every host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Which paths: this one and everything below it, by whole segments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// Which path: this one only. Excludes `path_prefix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where its requests go.
    #[schema(required = true)]
    pub pool: String,
}

impl TryFrom<DeclaredRoute> for Route {
    type Error = Invalid;

    fn try_from(declared: DeclaredRoute) -> Result<Self, Invalid> {
        let listener = match &declared.listener {
            Some(name) => {
                ListenerName::new(name).map_err(|bad| Invalid { field: "route.listener", ..bad })?
            }
            None => ListenerName::default_listener(),
        };
        Ok(Self {
            name: RouteName::new(&declared.name)?,
            listener,
            host: HostMatch::parse(declared.host.as_deref().unwrap_or_default())?,
            path: PathMatch::parse(
                declared.path_prefix.as_deref().unwrap_or_default(),
                declared.path.as_deref().unwrap_or_default(),
            )?,
            pool: PoolName::new(&declared.pool)
                .map_err(|bad| Invalid { field: "route.pool", ..bad })?,
        })
    }
}

impl From<&Route> for DeclaredRoute {
    fn from(route: &Route) -> Self {
        let (path_prefix, path) = match &route.path {
            PathMatch::Prefix(prefix) => (Some(prefix.to_string()), None),
            PathMatch::Exact(path) => (None, Some(path.to_string())),
        };
        Self {
            name: route.name.to_string(),
            listener: Some(route.listener.to_string()),
            host: Some(match &route.host {
                HostMatch::Any => "*".to_owned(),
                HostMatch::Exact(host) => host.to_string(),
                HostMatch::Suffix(suffix) => format!("*{suffix}"),
            }),
            path_prefix,
            path,
            pool: route.pool.to_string(),
        }
    }
}
