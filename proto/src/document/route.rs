//! A route as it is declared.

use lb_core::model::{
    HostMatch, Invalid, ListenerName, PathMatch, PoolName, Route, RouteName, RoutePools, Weight,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{share::DeclaredShare, unit::Number};

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
    /// Where its requests go. Either this or `pools` is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The pools that share its requests by weight, each as `"web"`, `"web=90"` or
    /// `{ pool = "web", weight = 90 }`. Excludes `pool`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pools: Option<Vec<DeclaredShare>>,
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
            pools: pools(declared.pool, declared.pools)?,
        })
    }
}

fn pools(one: Option<String>, several: Option<Vec<DeclaredShare>>) -> Result<RoutePools, Invalid> {
    let read = |field, name: &str| PoolName::new(name).map_err(|bad| Invalid { field, ..bad });
    match (one, several) {
        (Some(_), Some(_)) => {
            Err(Invalid::value("route.pools", "give pool, or pools with weights, not both"))
        }
        (Some(pool), None) => read("route.pool", &pool).map(RoutePools::one),
        (None, Some(shares)) => {
            let shares = shares.into_iter().map(|share| {
                let weight =
                    share.weight.map_or_else(|| Ok(Weight::default()), |n| Weight::new(n.0));
                let weight = weight.map_err(|bad| Invalid { field: "route.pools", ..bad })?;
                Ok((read("route.pools", &share.pool)?, weight))
            });
            RoutePools::weighted(shares.collect::<Result<_, Invalid>>()?)
        }
        (None, None) => {
            Err(Invalid::value("route.pool", "this route has no pool; add the key pool, or pools"))
        }
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
            pool: route.pools.single().map(ToString::to_string),
            pools: route.pools.single().is_none().then(|| {
                let share = |(pool, weight): (&PoolName, u16)| DeclaredShare {
                    pool: pool.to_string(),
                    weight: Some(Number(weight.into())),
                };
                route.pools.iter().map(share).collect()
            }),
        }
    }
}
