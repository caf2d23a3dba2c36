//! Limits.

use lb_core::model::{
    Incarnation, Invalid, Limit, LimitKey, LimitName, LimitScope, LimitTarget, PoolName, RouteName,
};

use crate::v1 as pb;

impl TryFrom<pb::Limit> for Limit {
    type Error = Invalid;

    fn try_from(wire: pb::Limit) -> Result<Self, Invalid> {
        let mut limit = Self::new(LimitName::new(&wire.name)?, wire.rate.parse()?);
        limit.target = target(&wire.pool, &wire.route)?;
        let key = if wire.key.is_empty() { LimitKey::default() } else { wire.key.parse()? };
        let scope =
            if wire.scope.is_empty() { LimitScope::default() } else { wire.scope.parse()? };
        limit = limit.counted(scope, key)?;
        if let Some(burst) = wire.burst {
            limit = limit.with_burst(burst)?;
        }
        limit.shadow = wire.shadow;
        limit.incarnation = Incarnation(wire.incarnation);
        limit.secret = secret(&wire.secret)?;
        Ok(limit)
    }
}

/// As everybody may know it: without the secret, which proxies alone need.
#[must_use]
pub fn told_limit(limit: &Limit) -> pb::Limit {
    pb::Limit { secret: bytes::Bytes::new(), ..limit.into() }
}

/// What a limit counts, by the two names of which at most one is given.
pub(crate) fn target(pool: &str, route: &str) -> Result<LimitTarget, Invalid> {
    match (pool, route) {
        ("", "") => Ok(LimitTarget::All),
        (pool, "") => PoolName::new(pool).map(LimitTarget::Pool),
        ("", route) => RouteName::new(route).map(LimitTarget::Route),
        _ => Err(Invalid::value(
            "limit.route",
            "give a pool or a route, not both; two limits count both",
        )),
    }
}

/// The names of the pool and the route of a target; empty for none.
pub(crate) fn names(target: &LimitTarget) -> (String, String) {
    match target {
        LimitTarget::All => (String::new(), String::new()),
        LimitTarget::Pool(pool) => (pool.to_string(), String::new()),
        LimitTarget::Route(route) => (String::new(), route.to_string()),
    }
}

fn secret(bytes: &[u8]) -> Result<[u64; 2], Invalid> {
    if bytes.is_empty() {
        return Ok([0; 2]);
    }
    let halves = bytes.split_at_checked(8).and_then(|(first, second)| {
        Some([first.try_into().ok()?, second.try_into().ok()?].map(u64::from_le_bytes))
    });
    halves.ok_or_else(|| Invalid::value("limit.secret", "the secret of a limit has 16 bytes"))
}

impl From<&Limit> for pb::Limit {
    fn from(limit: &Limit) -> Self {
        let (pool, route) = names(&limit.target);
        Self {
            name: limit.name.to_string(),
            pool,
            route,
            key: limit.key().to_string(),
            rate: limit.rate.to_string(),
            burst: Some(limit.burst()),
            scope: limit.scope().to_string(),
            shadow: limit.shadow,
            incarnation: limit.incarnation.0,
            secret: limit.secret.map(u64::to_le_bytes).concat().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(change: impl FnOnce(&mut pb::Limit)) -> pb::Limit {
        let mut wire =
            pb::Limit { name: "api".to_owned(), rate: "100/s".to_owned(), ..pb::Limit::default() };
        change(&mut wire);
        wire
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let limit = Limit::try_from(wire(|_| ())).unwrap();
        let told = pb::Limit::from(&limit);
        assert_eq!(
            (told.key.as_str(), told.scope.as_str(), told.burst),
            ("all", "fleet", Some(100))
        );
        assert_eq!(Limit::try_from(told), Ok(limit));
    }

    #[test]
    fn bad_values_are_named() {
        type Change = fn(&mut pb::Limit);
        let changes: [(&str, Change); 9] = [
            ("limit.name", |wire| wire.name.clear()),
            ("limit.rate", |wire| wire.rate.clear()),
            ("limit.rate", |wire| wire.rate = "0/s".to_owned()),
            ("limit.burst", |wire| wire.burst = Some(0)),
            ("limit.key", |wire| wire.key = "query:q".to_owned()),
            ("limit.scope", |wire| wire.scope = "world".to_owned()),
            ("limit.secret", |wire| wire.secret = vec![1; 15].into()),
            ("limit.key", |wire| {
                (wire.scope, wire.key) = ("backend".to_owned(), "path".to_owned());
            }),
            ("limit.route", |wire| (wire.pool, wire.route) = ("a".to_owned(), "b".to_owned())),
        ];
        for (field, change) in changes {
            assert_eq!(Limit::try_from(wire(change)).unwrap_err().field, field);
        }
    }
}
