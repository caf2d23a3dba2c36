//! What traffic says of a backend, within its status.

use std::time::Duration;

use lb_core::model::{
    Disagreement, EjectedBy, Ejection, Invalid, ProxyId, SlowStart, Standing, shorten,
};

use super::millis;
use crate::v1 as pb;

/// Reads the part of a status that its traffic makes.
pub(super) fn standing_from_wire(wire: &mut pb::BackendStatus) -> Result<Standing, Invalid> {
    let disagreements = std::mem::take(&mut wire.disagreements).into_iter();
    let disagreements = disagreements.take(Standing::DISAGREEMENTS_MAX).map(|wire| {
        let proxy = (!wire.proxy.is_empty()).then(|| ProxyId::new(&wire.proxy)).transpose()?;
        Ok(Disagreement { proxy, reason: wire.reason.unwrap_or_default().into() })
    });
    Ok(Standing {
        ejection: wire.ejection.take().map(Ejection::try_from).transpose()?,
        slow_start: wire.slow_start.take().map(SlowStart::from),
        disagreements: disagreements.collect::<Result<_, _>>()?,
    })
}

impl TryFrom<pb::Ejection> for Ejection {
    type Error = Invalid;

    fn try_from(wire: pb::Ejection) -> Result<Self, Invalid> {
        let by = match wire.by.as_str() {
            "breaker" => EjectedBy::Breaker,
            "outlier" => EjectedBy::Outlier,
            other => {
                let shown = shorten(other);
                let message = format!("unknown kind of ejection {shown:?}");
                return Err(Invalid::unknown("status.ejection", "unknown_ejection", message));
            }
        };
        Ok(Self {
            by,
            is_half_open: wire.half_open,
            open_for: Duration::from_millis(wire.open_for_ms.into()),
            times: wire.times,
            reason: wire.reason.unwrap_or_default().into(),
            since_unix_ms: wire.since_unix_ms,
        })
    }
}

impl From<&Ejection> for pb::Ejection {
    fn from(ejection: &Ejection) -> Self {
        Self {
            by: ejection.by.name().to_owned(),
            half_open: ejection.is_half_open,
            open_for_ms: millis(ejection.open_for),
            times: ejection.times,
            reason: Some(ejection.reason.clone().into()),
            since_unix_ms: ejection.since_unix_ms,
        }
    }
}

impl From<pb::SlowStart> for SlowStart {
    fn from(wire: pb::SlowStart) -> Self {
        let duration = Duration::from_millis(wire.duration_ms.into());
        Self { since_unix_ms: wire.since_unix_ms, duration }
    }
}

impl From<&SlowStart> for pb::SlowStart {
    fn from(ramp: &SlowStart) -> Self {
        Self { since_unix_ms: ramp.since_unix_ms, duration_ms: millis(ramp.duration) }
    }
}

impl From<&Disagreement> for pb::Disagreement {
    fn from(disagreement: &Disagreement) -> Self {
        let proxy = disagreement.proxy.as_ref();
        Self {
            proxy: proxy.map(ToString::to_string).unwrap_or_default(),
            reason: Some(disagreement.reason.clone().into()),
        }
    }
}
