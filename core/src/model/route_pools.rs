//! Where a route sends its requests: to one pool, or shared out among several.

use std::sync::Arc;

use super::{Invalid, PoolName, Weight};

/// One pool, or several with weights. At least one of them gets requests, and none is
/// there twice.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RoutePools(Shares);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Shares {
    One(PoolName),
    /// Two or more.
    Several(Arc<[(PoolName, Weight)]>),
}

impl RoutePools {
    /// The most pools of one route.
    pub const MAX: usize = 32;

    /// Everything to one pool.
    #[must_use]
    pub fn one(pool: PoolName) -> Self {
        Self(Shares::One(pool))
    }

    /// Shares requests out by weight, in this order. A pool of weight 0 gets none and
    /// still counts as used, so that its turn can come. The weight of a single pool says
    /// nothing and is not kept.
    pub fn weighted(pools: Vec<(PoolName, Weight)>) -> Result<Self, Invalid> {
        let refuse = |message: String| Err(Invalid::value("route.pools", message));
        if pools.len() > Self::MAX {
            return refuse(format!(
                "{} pools are too many for a route; at most {} share its requests",
                pools.len(),
                Self::MAX
            ));
        }
        for (at, (pool, _)) in pools.iter().enumerate() {
            if pools[..at].iter().any(|(other, _)| other == pool) {
                return refuse(format!(
                    "pool {pool} is named twice; name each pool once, with its whole weight"
                ));
            }
        }
        if pools.iter().all(|(_, weight)| weight.get() == 0) {
            return refuse(
                "no pool of the route would get requests; give it a pool with a weight above 0"
                    .to_owned(),
            );
        }
        Ok(Self(match pools.as_slice() {
            [(pool, _)] => Shares::One(pool.clone()),
            _ => Shares::Several(pools.into()),
        }))
    }

    /// The pool, if all requests go to one.
    #[must_use]
    pub fn single(&self) -> Option<&PoolName> {
        match &self.0 {
            Shares::One(pool) => Some(pool),
            Shares::Several(_) => None,
        }
    }

    /// The pools with their weights; a single pool has weight 1.
    pub fn iter(&self) -> impl Iterator<Item = (&PoolName, u16)> {
        let (one, several) = match &self.0 {
            Shares::One(pool) => (Some((pool, 1)), &[][..]),
            Shares::Several(pools) => (None, &**pools),
        };
        one.into_iter().chain(several.iter().map(|(pool, weight)| (pool, weight.get())))
    }

    /// The pools.
    pub fn names(&self) -> impl Iterator<Item = &PoolName> {
        self.iter().map(|(pool, _)| pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighted(pools: &[(&str, u32)]) -> Result<RoutePools, Invalid> {
        let pools = pools
            .iter()
            .map(|(pool, weight)| (PoolName::new(pool).unwrap(), Weight::new(*weight).unwrap()));
        RoutePools::weighted(pools.collect())
    }

    #[test]
    fn shares_that_mean_nothing_are_refused() {
        let many: Vec<String> = (0..33).map(|i| format!("p{i}")).collect();
        let many: Vec<(&str, u32)> = many.iter().map(|pool| (pool.as_str(), 1)).collect();
        for (pools, hint) in [
            (&[][..], "weight above 0"),
            (&[("a", 0), ("b", 0)], "weight above 0"),
            (&[("a", 0)], "weight above 0"),
            (&[("a", 1), ("b", 1), ("a", 2)], "pool a is named twice"),
            (&many, "33 pools"),
        ] {
            let message = weighted(pools).unwrap_err().message;
            assert!(message.contains(hint), "{message}");
        }
        assert!(weighted(&many[..32]).is_ok());
    }

    #[test]
    fn the_weight_of_a_single_pool_says_nothing() {
        let pools = weighted(&[("a", 90)]).unwrap();
        assert_eq!(pools, RoutePools::one(PoolName::new("a").unwrap()));
        assert_eq!(pools.single().unwrap().as_str(), "a");
    }

    #[test]
    fn a_pool_without_a_share_still_belongs() {
        let pools = weighted(&[("blue", 0), ("green", 1)]).unwrap();
        assert!(pools.names().map(PoolName::as_str).eq(["blue", "green"]));
        assert_eq!(pools.single(), None);
    }
}
