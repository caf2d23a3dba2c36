//! A limit as it is declared.

use lb_core::model::{Invalid, Limit, LimitKey, LimitName, LimitScope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::unit::Number;
use crate::convert::limit::{names, target};

/// How many requests may pass. Several limits may count one request: it passes if all let it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Limit)]
pub struct DeclaredLimit {
    /// Its name, unique among limits.
    #[schema(required = true)]
    pub name: String,
    /// How many may pass in the long run, for each key: `100/s`, `600/m`, `10/h`, `1000/d`. At
    /// most 10000000/s.
    #[schema(required = true)]
    pub rate: String,
    /// How many may come at once. A second's worth of the rate, at least 1, unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Number>,
    /// What tells requests apart: `all`, `client_address`, `header:NAME`, `cookie:NAME` or
    /// `path`. Requests without the header or the cookie are not limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Counts requests to this pool. With neither this nor `route` it counts all requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Counts requests that match this route. Excludes `pool`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Over what it is counted: `fleet`, all proxies together; `proxy`, each by itself;
    /// `backend`, each backend, for what all proxies send it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Whether it only counts what it would refuse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<bool>,
}

impl TryFrom<DeclaredLimit> for Limit {
    type Error = Invalid;

    fn try_from(declared: DeclaredLimit) -> Result<Self, Invalid> {
        let given = |name: Option<String>| name.unwrap_or_default();
        let mut limit = Self::new(LimitName::new(&declared.name)?, declared.rate.parse()?);
        limit.target = target(&given(declared.pool), &given(declared.route))?;
        let scope: LimitScope =
            declared.scope.map_or_else(|| Ok(LimitScope::default()), |text| text.parse())?;
        let key: LimitKey =
            declared.key.map_or_else(|| Ok(LimitKey::default()), |text| text.parse())?;
        limit = limit.counted(scope, key)?;
        if let Some(burst) = declared.burst {
            limit = limit.with_burst(burst.0)?;
        }
        limit.shadow = declared.shadow.unwrap_or_default();
        Ok(limit)
    }
}

impl From<&Limit> for DeclaredLimit {
    fn from(limit: &Limit) -> Self {
        let (pool, route) = names(&limit.target);
        let given = |name: String| (!name.is_empty()).then_some(name);
        Self {
            name: limit.name.to_string(),
            rate: limit.rate.to_string(),
            burst: Some(Number(limit.burst())),
            key: Some(limit.key().to_string()),
            pool: given(pool),
            route: given(route),
            scope: Some(limit.scope().to_string()),
            shadow: Some(limit.shadow),
        }
    }
}
