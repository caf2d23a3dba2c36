//! Routes.

use lb_core::model::{
    HostMatch, Invalid, ListenerName, PathMatch, PoolName, Route, RouteName, RoutePools, Weight,
};

use crate::v1 as pb;

impl TryFrom<pb::Route> for Route {
    type Error = Invalid;

    fn try_from(wire: pb::Route) -> Result<Self, Invalid> {
        let host = HostMatch::parse(&wire.host)?;
        let path = PathMatch::parse(&wire.path_prefix, &wire.path)?;
        Ok(Self { host, path, ..stored_route(wire)? })
    }
}

/// Reads a route as it is stored and sent, which former builds checked less strictly.
pub fn stored_route(wire: pb::Route) -> Result<Route, Invalid> {
    Ok(Route {
        name: RouteName::new(&wire.name)?,
        listener: if wire.listener.is_empty() {
            ListenerName::default_listener()
        } else {
            ListenerName::new(&wire.listener)?
        },
        host: HostMatch::parse_stored(&wire.host)?,
        path: PathMatch::parse_stored(&wire.path_prefix, &wire.path)?,
        pools: pools(&wire.pool, wire.pools)?,
    })
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
            pool: route.pools.single().map(ToString::to_string).unwrap_or_default(),
            pools: match route.pools.single() {
                Some(_) => Vec::new(),
                None => route.pools.iter().map(weighted).collect(),
            },
        }
    }
}

fn pools(single: &str, weighted: Vec<pb::WeightedPool>) -> Result<RoutePools, Invalid> {
    if weighted.is_empty() {
        return PoolName::new(single).map(RoutePools::one);
    }
    if !single.is_empty() {
        return Err(Invalid::value(
            "route.pools",
            "give one pool, or pools with weights, not both",
        ));
    }
    let read = |wire: pb::WeightedPool| {
        let weight = wire.weight.map_or_else(|| Ok(Weight::default()), Weight::new)?;
        Ok((PoolName::new(&wire.pool)?, weight))
    };
    RoutePools::weighted(weighted.into_iter().map(read).collect::<Result<_, Invalid>>()?)
}

fn weighted((pool, weight): (&PoolName, u16)) -> pb::WeightedPool {
    pb::WeightedPool { pool: pool.to_string(), weight: Some(weight.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(pool: &str, pools: &[(&str, Option<u32>)]) -> pb::Route {
        let pools = pools.iter();
        pb::Route {
            name: "r".to_owned(),
            pool: pool.to_owned(),
            pools: pools
                .map(|(pool, weight)| pb::WeightedPool {
                    pool: (*pool).to_owned(),
                    weight: *weight,
                })
                .collect(),
            ..pb::Route::default()
        }
    }

    #[test]
    fn one_pool_is_written_as_builds_without_weights_read_it() {
        let route = Route::try_from(wire("", &[("web", Some(90))])).unwrap();
        let wire = pb::Route::from(&route);
        assert_eq!((wire.pool.as_str(), wire.pools.len()), ("web", 0));
    }

    #[test]
    fn several_pools_leave_nothing_that_such_builds_would_mistake() {
        let route = Route::try_from(wire("", &[("web", Some(90)), ("canary", None)])).unwrap();
        let wire = pb::Route::from(&route);
        assert_eq!(wire.pool, "");
        assert_eq!(Route::try_from(wire), Ok(route));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (pool, pools, hint) in [
            ("", &[][..], "empty"),
            ("web", &[("web", None)], "not both"),
            ("", &[("a", Some(257)), ("b", None)], "0 to 256"),
            ("", &[("a b", None)], "' '"),
        ] {
            let error = Route::try_from(wire(pool, pools)).unwrap_err();
            assert!(error.message.contains(hint), "{error}");
        }
    }
}
