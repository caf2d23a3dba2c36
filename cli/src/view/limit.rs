//! A limit, what it came to, and what each proxy has of it.

use lb_proto::v1 as pb;
use serde::Serialize;

use super::object::Fields;

/// How a limit is set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LimitSettingsView {
    pub(crate) name: String,
    pub(crate) rate: String,
    pub(crate) burst: u32,
    pub(crate) key: String,
    pub(crate) scope: String,
    /// Nothing when it counts requests to any pool.
    pub(crate) pool: Option<String>,
    /// Nothing when it counts requests of any route.
    pub(crate) route: Option<String>,
    pub(crate) shadow: bool,
    pub(crate) incarnation: u64,
}

/// A limit with what it came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LimitView {
    #[serde(flatten)]
    pub(crate) settings: LimitSettingsView,
    pub(crate) revision: u64,
    #[serde(flatten)]
    pub(crate) totals: LimitTotalsView,
    pub(crate) proxies: Vec<LimitShareView>,
}

/// What a limit decided since the control plane started.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LimitTotalsView {
    pub(crate) admitted_total: u64,
    pub(crate) refused_total: u64,
    pub(crate) forgiven_keys_total: u64,
    pub(crate) admitted_per_second: f64,
    pub(crate) refused_per_second: f64,
}

/// What one proxy has of a limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LimitShareView {
    pub(crate) proxy_id: String,
    /// leased, own, even_share, safe_share or unknown.
    pub(crate) basis: String,
    /// What it may let pass; of a limit by key, of each key that is not hot. Null when it has
    /// not told lately.
    pub(crate) lease_per_second: Option<f64>,
    pub(crate) hot_keys: u32,
    #[serde(flatten)]
    pub(crate) totals: LimitTotalsView,
}

impl LimitSettingsView {
    /// Its settings.
    pub(crate) fn fields(&self) -> Fields {
        vec![
            ("rate", self.rate.clone()),
            ("burst", self.burst.to_string()),
            ("key", self.key.clone()),
            ("scope", self.scope.clone()),
            ("counts", self.target()),
            ("shadow", self.shadow.to_string()),
        ]
    }

    /// Which requests it counts, in words.
    pub(crate) fn target(&self) -> String {
        match (&self.pool, &self.route) {
            (Some(pool), _) => format!("pool {pool}"),
            (None, Some(route)) => format!("route {route}"),
            (None, None) => "all requests".to_owned(),
        }
    }
}

impl From<pb::Limit> for LimitSettingsView {
    fn from(wire: pb::Limit) -> Self {
        let given = |name: String| (!name.is_empty()).then_some(name);
        Self {
            name: wire.name,
            rate: wire.rate,
            burst: wire.burst.unwrap_or_default(),
            key: wire.key,
            scope: wire.scope,
            pool: given(wire.pool),
            route: given(wire.route),
            shadow: wire.shadow,
            incarnation: wire.incarnation,
        }
    }
}

impl From<pb::LimitView> for LimitView {
    fn from(wire: pb::LimitView) -> Self {
        Self {
            settings: wire.limit.unwrap_or_default().into(),
            revision: wire.revision,
            totals: wire.totals.unwrap_or_default().into(),
            proxies: wire.proxies.into_iter().map(LimitShareView::from).collect(),
        }
    }
}

impl From<pb::LimitTotals> for LimitTotalsView {
    fn from(wire: pb::LimitTotals) -> Self {
        Self {
            admitted_total: wire.admitted,
            refused_total: wire.refused,
            forgiven_keys_total: wire.forgiven,
            admitted_per_second: wire.admitted_rate,
            refused_per_second: wire.refused_rate,
        }
    }
}

impl From<pb::ProxyLimitTotals> for LimitShareView {
    fn from(wire: pb::ProxyLimitTotals) -> Self {
        let is_told = wire.basis != "unknown";
        let lease = wire.rate as f64 / lb_core::limit::MICROS as f64;
        Self {
            proxy_id: wire.proxy_id,
            basis: wire.basis,
            lease_per_second: is_told.then_some(lease),
            hot_keys: wire.hot_keys,
            totals: wire.totals.unwrap_or_default().into(),
        }
    }
}
