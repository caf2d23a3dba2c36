//! What must hold between objects: references resolve, and no two objects claim the same.

use std::collections::HashMap;

use lb_core::model::{
    Address, BackendId, Fallback, Invalid, Key, Kind, Limit, LimitTarget, ListenerName, Pool,
    PoolName, Resource, Route, RouteName, check_fallbacks,
};
use lb_proto::document::{instead, some_of};

use super::{Draft, WriteError};

impl Draft<'_> {
    pub(super) fn check_references(&self) -> Result<(), WriteError> {
        for resource in self.puts.values() {
            match resource {
                Resource::Backend(backend) if !self.pool_exists(&backend.pool) => {
                    return Err(self.missing("backend.pool", Kind::Pool, backend.pool.as_str()));
                }
                Resource::Route(route) => self.check_references_of(route)?,
                Resource::Limit(limit) => self.check_target_of(limit)?,
                Resource::Pool(pool) => self.check_fallback(pool)?,
                _ => {}
            }
        }
        for key in &self.deletes {
            let users = self.users_of(key);
            if !users.is_empty() {
                return Err(WriteError::Precondition(format!(
                    "{key} is still used by {}; remove or move what uses it first",
                    some_of(&users)
                )));
            }
        }
        Ok(())
    }

    fn check_references_of(&self, route: &Route) -> Result<(), WriteError> {
        if let Some(pool) = route.pools.names().find(|pool| !self.pool_exists(pool)) {
            return Err(self.missing("route.pool", Kind::Pool, pool.as_str()));
        }
        if !self.listener_exists(&route.listener) {
            let listener = route.listener.as_str();
            return Err(self.missing("route.listener", Kind::Listener, listener));
        }
        Ok(())
    }

    fn check_target_of(&self, limit: &Limit) -> Result<(), WriteError> {
        match &limit.target {
            LimitTarget::Pool(pool) if !self.pool_exists(pool) => {
                Err(self.missing("limit.pool", Kind::Pool, pool.as_str()))
            }
            LimitTarget::Route(route) if !self.route_exists(route) => {
                Err(self.missing("limit.route", Kind::Route, route.as_str()))
            }
            LimitTarget::All | LimitTarget::Pool(_) | LimitTarget::Route(_) => Ok(()),
        }
    }

    /// A fallback is another pool, and is there. Two pools may be each other's: the way is one
    /// step long.
    fn check_fallback(&self, pool: &Pool) -> Result<(), WriteError> {
        let Some(other) = &pool.fallback.pool else { return Ok(()) };
        let both = [(&pool.name, &pool.fallback), (other, &Fallback::default())];
        let known = if self.pool_exists(other) { &both[..] } else { &both[..1] };
        match check_fallbacks(known.iter().copied()) {
            Err(invalid) if invalid.code == "missing_reference" => {
                Err(self.missing("pool.fallback_pool", Kind::Pool, other.as_str()))
            }
            checked => checked.map_err(WriteError::Invalid),
        }
    }

    fn missing(&self, field: &'static str, kind: Kind, name: &str) -> WriteError {
        let known = instead(kind.name(), name, &self.base.names(kind));
        WriteError::Invalid(Invalid::unknown(
            field,
            "missing_reference",
            format!(
                "{field} names {kind} {name:?}, which does not exist; create it first, or name \
                 another: {known}"
            ),
        ))
    }

    /// No two routes match the same requests: one of them would never be taken.
    pub(super) fn check_matches(&self) -> Result<(), WriteError> {
        if !self.puts.values().any(|resource| matches!(resource, Resource::Route(_))) {
            return Ok(());
        }
        // The new ones come last, so that each finds the one that it collides with.
        let mut seen = HashMap::new();
        for route in self.routes() {
            let twin = seen.insert(route.matched(), &route.name);
            let is_new = self.puts.contains_key(&Key::new("route", route.name.as_str()));
            if let Some(twin) = twin
                && is_new
            {
                return Err(WriteError::AlreadyExists(format!(
                    "route {twin} matches the same requests already: {}, {}, listener {}; change \
                     that one with set-route {twin}, or remove it first",
                    route.host, route.path, route.listener
                )));
            }
        }
        Ok(())
    }

    /// What would still refer to a removed object.
    fn users_of(&self, key: &Key) -> Vec<String> {
        let name = &*key.name;
        let mut users: Vec<String> = match key.known_kind() {
            Some(Kind::Pool) => self
                .routes()
                .filter(|route| route.pools.names().any(|pool| pool.as_str() == name))
                .map(|route| format!("route {}", route.name))
                .collect(),
            Some(Kind::Listener) => self
                .routes()
                .filter(|route| route.listener.as_str() == name)
                .map(|route| format!("route {}", route.name))
                .collect(),
            _ => Vec::new(),
        };
        let counting = self.limits().filter(|limit| match &limit.target {
            LimitTarget::All => false,
            LimitTarget::Pool(pool) => *key == Key::new("pool", pool.as_str()),
            LimitTarget::Route(route) => *key == Key::new("route", route.as_str()),
        });
        users.extend(counting.map(|limit| format!("limit {}", limit.name)));
        if key.known_kind() == Some(Kind::Pool)
            && let Ok(pool) = PoolName::new(name)
        {
            let fallbacks =
                self.pools().filter(|other| other.fallback.pool.as_ref() == Some(&pool));
            users.extend(fallbacks.map(|other| format!("pool {}, as its fallback", other.name)));
            let stored = self.base.backends_of(Some(&pool));
            let staying = stored.iter().map(|s| &s.value.id).filter(|id| self.stays(id, &pool));
            users.extend(staying.map(|id| format!("backend {id}")));
        }
        users
    }

    /// No two backends of a pool have the same address: one would get a double share,
    /// and nobody would know of which the verdict is.
    pub(super) fn check_addresses(&self) -> Result<(), WriteError> {
        let mut seen: HashMap<(&PoolName, &Address), &BackendId> = HashMap::new();
        for resource in self.puts.values() {
            let Resource::Backend(backend) = resource else { continue };
            let stored = self.base.members(&backend.pool).and_then(|m| m.get(&backend.address));
            let untouched = stored.filter(|id| {
                let key = Key::new("backend", id.as_str());
                !self.puts.contains_key(&key) && !self.deletes.contains(&key)
            });
            let put_too = seen.insert((&backend.pool, &backend.address), &backend.id);
            let twin = untouched.or(put_too);
            if let Some(twin) = twin {
                return Err(WriteError::AlreadyExists(format!(
                    "pool {} already has {} as backend {twin}; change that one with 'lbctl \
                     set-backend {twin}', or remove it first",
                    backend.pool, backend.address
                )));
            }
        }
        Ok(())
    }

    fn pool_exists(&self, name: &PoolName) -> bool {
        let key = Key::new("pool", name.as_str());
        self.puts.contains_key(&key)
            || (self.base.pools().contains_key(name) && !self.deletes.contains(&key))
    }

    fn route_exists(&self, name: &RouteName) -> bool {
        let key = Key::new("route", name.as_str());
        self.puts.contains_key(&key)
            || (self.base.routes().contains_key(name) && !self.deletes.contains(&key))
    }

    fn listener_exists(&self, name: &ListenerName) -> bool {
        let key = Key::new("listener", name.as_str());
        self.puts.contains_key(&key)
            || (self.base.listeners().contains_key(name) && !self.deletes.contains(&key))
    }
}
