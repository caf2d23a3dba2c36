//! A pool: its policy, and how its backends are.

use lb_proto::v1 as pb;
use serde::Serialize;

use super::Traffic;

/// A pool with the number of its backends by state, and its traffic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PoolView {
    pub(crate) name: String,
    pub(crate) algorithm: String,
    pub(crate) choices: Option<u32>,
    pub(crate) error_hold_ms: Option<u32>,
    pub(crate) health: String,
    pub(crate) health_path: Option<String>,
    pub(crate) health_interval_ms: u32,
    pub(crate) health_edge_interval_ms: u32,
    pub(crate) health_timeout_ms: u32,
    pub(crate) rise: u32,
    pub(crate) fall: u32,
    pub(crate) connect_timeout_ms: u32,
    pub(crate) request_timeout_ms: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backends: Option<Counts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) traffic: Option<Traffic>,
}

/// Backends by state.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Counts {
    pub(crate) up: u32,
    pub(crate) down: u32,
    pub(crate) unknown: u32,
    pub(crate) disabled: u32,
    pub(crate) draining: u32,
}

impl Counts {
    /// All of them.
    pub(crate) fn total(&self) -> u32 {
        self.up + self.down + self.unknown + self.disabled + self.draining
    }
}

impl From<pb::Pool> for PoolView {
    fn from(wire: pb::Pool) -> Self {
        let least = wire.algorithm == "least_connections";
        let check = wire.health_check.unwrap_or_default();
        Self {
            name: wire.name,
            algorithm: wire.algorithm,
            choices: least.then_some(wire.choices),
            error_hold_ms: wire.error_hold_ms.filter(|_| least),
            health_path: (check.protocol == "http").then_some(check.path),
            health: check.protocol,
            health_interval_ms: check.interval_ms,
            health_edge_interval_ms: check.edge_interval_ms,
            health_timeout_ms: check.timeout_ms,
            rise: check.rise,
            fall: check.fall,
            connect_timeout_ms: wire.connect_timeout_ms,
            request_timeout_ms: wire.request_timeout_ms,
            backends: None,
            traffic: None,
        }
    }
}

impl From<pb::PoolStatus> for PoolView {
    fn from(wire: pb::PoolStatus) -> Self {
        let mut view = Self::from(wire.pool.unwrap_or_default());
        view.backends = Some(Counts {
            up: wire.up,
            down: wire.down,
            unknown: wire.unknown,
            disabled: wire.disabled,
            draining: wire.draining,
        });
        view.traffic = Some(wire.totals.into());
        view
    }
}
