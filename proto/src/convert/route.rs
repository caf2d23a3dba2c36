//! Routes.

use lb_core::model::{HostMatch, Invalid, ListenerName, PathMatch, PoolName, Route, RouteName};

use crate::v1 as pb;

impl TryFrom<pb::Route> for Route {
    type Error = Invalid;

    fn try_from(wire: pb::Route) -> Result<Self, Invalid> {
        Ok(Self {
            name: RouteName::new(&wire.name)?,
            listener: if wire.listener.is_empty() {
                ListenerName::default_listener()
            } else {
                ListenerName::new(&wire.listener)?
            },
            host: HostMatch::parse(&wire.host)?,
            path: PathMatch::parse(&wire.path_prefix, &wire.path)?,
            pool: PoolName::new(&wire.pool)?,
        })
    }
}

impl From<&Route> for pb::Route {
    fn from(route: &Route) -> Self {
        let (path_prefix, path) = match &route.path {
            PathMatch::Prefix(prefix) => (prefix.to_string(), String::new()),
            PathMatch::Exact(path) => (String::new(), path.to_string()),
        };
        Self {
            name: route.name.to_string(),
            listener: route.listener.to_string(),
            host: match &route.host {
                HostMatch::Any => String::new(),
                HostMatch::Exact(host) => host.to_string(),
                HostMatch::Suffix(suffix) => format!("*{suffix}"),
            },
            path_prefix,
            path,
            pool: route.pool.to_string(),
        }
    }
}
