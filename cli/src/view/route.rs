//! A route, and the pools that it goes to.

use lb_proto::v1 as pb;
use serde::Serialize;

use super::object::Fields;

/// A route.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RouteView {
    pub(crate) name: String,
    pub(crate) listener: String,
    pub(crate) host: String,
    pub(crate) path_prefix: String,
    pub(crate) path: String,
    /// Empty when several pools share the requests.
    pub(crate) pool: String,
    /// All of them, a single one too.
    pub(crate) pools: Vec<ShareView>,
}

/// A pool's share of a route's requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ShareView {
    pub(crate) pool: String,
    pub(crate) weight: u32,
    pub(crate) percent: f64,
}

impl RouteView {
    /// Its settings.
    pub(crate) fn fields(&self) -> Fields {
        vec![
            ("listener", self.listener.clone()),
            ("host", if self.host.is_empty() { "*".to_owned() } else { self.host.clone() }),
            ("path", self.paths()),
            ("pool", self.shares()),
        ]
    }

    /// Which paths it matches: `/api/...` for a prefix, which `/apis` does not match.
    pub(crate) fn paths(&self) -> String {
        match (self.path.as_str(), self.path_prefix.as_str()) {
            ("", prefix) => format!("{}/...", prefix.trim_end_matches('/')),
            (exact, _) => exact.to_owned(),
        }
    }

    /// Its pools as they are typed: `web`, or `web=90,next=10`.
    pub(crate) fn shares(&self) -> String {
        match self.pools.as_slice() {
            [share] => share.pool.clone(),
            shares => {
                let shares: Vec<String> =
                    shares.iter().map(|share| format!("{}={}", share.pool, share.weight)).collect();
                shares.join(",")
            }
        }
    }
}

impl From<pb::Route> for RouteView {
    fn from(wire: pb::Route) -> Self {
        let weights: Vec<(String, u32)> = if wire.pools.is_empty() {
            vec![(wire.pool.clone(), 1)]
        } else {
            wire.pools.into_iter().map(|pool| (pool.pool, pool.weight.unwrap_or(1))).collect()
        };
        let total: u32 = weights.iter().map(|(_, weight)| weight).sum();
        let share = |(pool, weight): (String, u32)| {
            let percent = 100.0 * f64::from(weight) / f64::from(total.max(1));
            // Two decimals are enough for shares of 256ths.
            ShareView { pool, weight, percent: (percent * 100.0).round() / 100.0 }
        };
        Self {
            name: wire.name,
            listener: wire.listener,
            host: wire.host,
            path_prefix: wire.path_prefix,
            path: wire.path,
            pool: wire.pool,
            pools: weights.into_iter().map(share).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_shown_to_end_at_a_slash() {
        let paths = |path_prefix: &str, path: &str| {
            let (path_prefix, path) = (path_prefix.to_owned(), path.to_owned());
            RouteView::from(pb::Route { path_prefix, path, ..Default::default() }).paths()
        };
        assert_eq!(paths("", ""), "/...");
        assert_eq!(paths("/", ""), "/...");
        assert_eq!(paths("/cart", ""), "/cart/...");
        assert_eq!(paths("/cart/", ""), "/cart/...");
        assert_eq!(paths("", "/cart"), "/cart");
    }

    #[test]
    fn shares_are_shown_as_they_are_typed() {
        let pool = |pool: &str, weight| pb::WeightedPool { pool: pool.to_owned(), weight };
        let pools = vec![pool("web", Some(2)), pool("next", None)];
        let view = RouteView::from(pb::Route { pools, ..pb::Route::default() });
        assert_eq!(view.shares(), "web=2,next=1");
        assert_eq!((view.pools[0].percent, view.pools[1].percent), (66.67, 33.33));
        let view = RouteView::from(pb::Route { pool: "web".to_owned(), ..Default::default() });
        assert_eq!((view.shares().as_str(), view.pools[0].percent), ("web", 100.0));
    }
}
