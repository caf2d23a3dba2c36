//! Backends and their status.

use std::time::Duration;

use lb_core::model::{
    AdminState, Backend, BackendId, BackendStatus, Drain, Health, Incarnation, Invalid, Labels,
    MaxInFlight, PoolName, Reason, Weight,
};

use super::standing::standing_from_wire;
use crate::v1 as pb;

impl TryFrom<pb::Backend> for Backend {
    type Error = Invalid;

    /// The id must be there: whoever assigns ids does so before.
    fn try_from(wire: pb::Backend) -> Result<Self, Invalid> {
        Ok(Self {
            id: BackendId::new(&wire.id)?,
            pool: if wire.pool.is_empty() {
                PoolName::default_pool()
            } else {
                PoolName::new(&wire.pool)?
            },
            address: wire.address.parse()?,
            weight: wire.weight.map_or_else(|| Ok(Weight::default()), Weight::new)?,
            admin_state: admin_state(wire.admin_state)?,
            labels: Labels::new(wire.labels)?,
            source: Some(wire.source)
                .filter(|source| !source.is_empty())
                .map(|source| source.parse())
                .transpose()?,
            drain: wire.drain.map(Drain::from),
            max_in_flight: MaxInFlight::of_backend(wire.max_in_flight)?,
            incarnation: Incarnation(wire.incarnation),
        })
    }
}

impl From<pb::Drain> for Drain {
    fn from(wire: pb::Drain) -> Self {
        Self {
            since_unix_ms: wire.since_unix_ms,
            timeout: match wire.timeout_ms {
                0 => Self::TIMEOUT,
                ms => Duration::from_millis(ms.into()),
            },
            remove: wire.remove,
            cutting: wire.cutting,
            ended: wire.ended,
            cut: wire.cut,
        }
    }
}

impl From<Drain> for pb::Drain {
    fn from(drain: Drain) -> Self {
        Self {
            since_unix_ms: drain.since_unix_ms,
            timeout_ms: u32::try_from(drain.timeout.as_millis()).unwrap_or(u32::MAX),
            remove: drain.remove,
            cutting: drain.cutting,
            ended: drain.ended,
            cut: drain.cut,
        }
    }
}

fn admin_state(wire: i32) -> Result<AdminState, Invalid> {
    pb::AdminState::try_from(wire).map(AdminState::from).map_err(|_| {
        Invalid::unknown(
            "backend.admin_state",
            "unknown_admin_state",
            format!("unknown admin state {wire}; known are enabled, disabled, draining"),
        )
    })
}

impl From<pb::AdminState> for AdminState {
    fn from(wire: pb::AdminState) -> Self {
        match wire {
            pb::AdminState::Enabled => Self::Enabled,
            pb::AdminState::Disabled => Self::Disabled,
            pb::AdminState::Draining => Self::Draining,
        }
    }
}

impl From<AdminState> for pb::AdminState {
    fn from(state: AdminState) -> Self {
        match state {
            AdminState::Enabled => Self::Enabled,
            AdminState::Disabled => Self::Disabled,
            AdminState::Draining => Self::Draining,
        }
    }
}

impl From<&Backend> for pb::Backend {
    fn from(backend: &Backend) -> Self {
        Self {
            id: backend.id.to_string(),
            pool: backend.pool.to_string(),
            address: backend.address.to_string(),
            weight: Some(u32::from(backend.weight.get())),
            admin_state: pb::AdminState::from(backend.admin_state).into(),
            labels: backend
                .labels
                .iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            source: backend.source.as_ref().map(ToString::to_string).unwrap_or_default(),
            drain: backend.drain.map(Into::into),
            incarnation: backend.incarnation.0,
            max_in_flight: backend.max_in_flight.map_or(0, MaxInFlight::get),
        }
    }
}

impl TryFrom<pb::BackendStatus> for BackendStatus {
    type Error = Invalid;

    fn try_from(mut wire: pb::BackendStatus) -> Result<Self, Invalid> {
        let standing = standing_from_wire(&mut wire)?;
        let health = pb::Health::try_from(wire.health).map_err(|_| {
            let message = format!("unknown health {}", wire.health);
            Invalid::unknown("status.health", "unknown_health", message)
        })?;
        let addresses = wire.addresses.iter().map(|address| {
            address.parse().map_err(|_| {
                Invalid::value("status.addresses", format!("{address:?} is not IP:PORT"))
            })
        });
        Ok(Self {
            backend: BackendId::new(&wire.backend)?,
            incarnation: Incarnation(wire.incarnation),
            health: health.into(),
            addresses: addresses.collect::<Result<_, _>>()?,
            reason: wire.reason.unwrap_or_default().into(),
            since_unix_ms: wire.since_unix_ms,
            was_up: wire.was_up || health == pb::Health::Up,
            standing,
        })
    }
}

impl From<&BackendStatus> for pb::BackendStatus {
    fn from(status: &BackendStatus) -> Self {
        Self {
            backend: status.backend.to_string(),
            incarnation: status.incarnation.0,
            health: pb::Health::from(status.health).into(),
            addresses: status.addresses.iter().map(ToString::to_string).collect(),
            reason: Some(status.reason.clone().into()),
            since_unix_ms: status.since_unix_ms,
            ejection: status.standing.ejection.as_ref().map(Into::into),
            slow_start: status.standing.slow_start.as_ref().map(Into::into),
            disagreements: status.standing.disagreements.iter().map(Into::into).collect(),
            was_up: status.was_up,
        }
    }
}

impl From<pb::Health> for Health {
    fn from(wire: pb::Health) -> Self {
        match wire {
            pb::Health::Unknown => Self::Unknown,
            pb::Health::Up => Self::Up,
            pb::Health::Down => Self::Down,
        }
    }
}

impl From<Health> for pb::Health {
    fn from(health: Health) -> Self {
        match health {
            Health::Unknown => Self::Unknown,
            Health::Up => Self::Up,
            Health::Down => Self::Down,
        }
    }
}

impl From<pb::Reason> for Reason {
    fn from(wire: pb::Reason) -> Self {
        Self { code: wire.code, message: wire.message }
    }
}

impl From<Reason> for pb::Reason {
    fn from(reason: Reason) -> Self {
        Self { code: reason.code, message: reason.message }
    }
}
