//! Limits in the whole: each counts something that is there.

use std::sync::Arc;

use super::{Rejected, Snapshot, missing};
use crate::model::{Invalid, Key, Limit, LimitName, LimitTarget};

impl Snapshot {
    /// Puts a limit in, unless what it counts is not there.
    pub(super) fn put_limit(&mut self, limit: Limit, rejected: &mut Vec<Rejected>) {
        match self.missing_target(&limit) {
            None => {
                Arc::make_mut(&mut self.limits).insert(limit.name.clone(), Arc::new(limit));
            }
            Some(invalid) => {
                rejected.push(Rejected { key: Key::new("limit", limit.name.as_str()), invalid });
            }
        }
    }

    /// Takes out limits of which what they count is gone.
    pub(super) fn drop_dangling_limits(&mut self, rejected: &mut Vec<Rejected>) {
        let dangling: Vec<(LimitName, Invalid)> = self
            .limits
            .values()
            .filter_map(|limit| Some((limit.name.clone(), self.missing_target(limit)?)))
            .collect();
        for (name, invalid) in dangling {
            Arc::make_mut(&mut self.limits).remove(&name);
            rejected.push(Rejected { key: Key::new("limit", name.as_str()), invalid });
        }
    }

    fn missing_target(&self, limit: &Limit) -> Option<Invalid> {
        match &limit.target {
            LimitTarget::Pool(pool) if !self.pools.contains_key(pool) => {
                Some(missing("limit.pool", "pool", pool.as_str()))
            }
            LimitTarget::Route(route) if !self.routes.contains_key(route) => {
                Some(missing("limit.route", "route", route.as_str()))
            }
            LimitTarget::All | LimitTarget::Pool(_) | LimitTarget::Route(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        HostMatch, Listener, ListenerName, PathMatch, Pool, PoolName, Resource, Route, RouteName,
        RoutePools,
    };

    fn whole() -> Snapshot {
        let route = Route {
            name: RouteName::default_route(),
            listener: ListenerName::default_listener(),
            host: HostMatch::Any,
            path: PathMatch::Prefix("/".into()),
            pools: RoutePools::one(PoolName::default_pool()),
        };
        let objects = vec![
            Resource::Pool(Pool::new(PoolName::default_pool())),
            Resource::Listener(Listener::new(ListenerName::default_listener())),
            Resource::Route(route),
        ];
        Snapshot::default().changed(objects, &[]).0
    }

    #[test]
    fn a_limit_goes_with_what_it_counts() {
        let limit = |name: &str, target: &str| {
            let mut limit = Limit::new(LimitName::new(name).unwrap(), "1/s".parse().unwrap());
            limit.target = target.parse().unwrap();
            Resource::Limit(limit)
        };
        let limits =
            vec![limit("a", "all"), limit("p", "pool:default"), limit("r", "route:default")];
        let (snapshot, rejected) = whole().changed(limits, &[]);
        assert_eq!((snapshot.limits().len(), rejected), (3, vec![]));
        let (_, rejected) = snapshot.changed(vec![limit("p", "pool:nowhere")], &[]);
        assert_eq!(rejected[0].invalid.field, "limit.pool");
        let (snapshot, _) = snapshot.changed(vec![], &[Key::new("pool", "default")]);
        let left: Vec<String> = snapshot.limits().keys().map(ToString::to_string).collect();
        assert_eq!(left, ["a"], "the route went with its pool, and its limit with the route");
        assert!(snapshot.changed(vec![], &[Key::new("limit", "a")]).0.limits().is_empty());
    }
}
