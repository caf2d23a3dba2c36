//! Looks after the keys that sign sessions: lets one that was announced sign once every proxy
//! knows it ([`lb_core::affinity::rotation`]), replaces one that is old, and drops those of which
//! no session is left.
//!
//! A cookie's time is wall time, since it outlives all processes; so it is here.

mod rotation;
mod view;

use std::time::Duration;

use lb_core::{
    affinity::{
        KeyId, Role,
        rotation::{Knowledge, Readiness, readiness},
    },
    model::{Kind, ProxyId, Reason, SessionKeys},
};
use tokio::time::sleep;
use tracing::{debug, warn};

pub(crate) use self::{
    rotation::Rotation,
    view::{KeyView, KeysView, Rotated, RotationRequest, Waits, rotate, view},
};
use crate::{
    clock::unix_ms,
    events::EventType,
    fleet::Laggard,
    grpc::Context,
    registry::{KeyStep, WriteError, session_keys::is_over},
};

/// Between looks while a key waits for proxies.
const LOOK: Duration = Duration::from_millis(50);
/// The same while a connected proxy refuses the state: it may do so for hours.
const LOOK_AT_REFUSAL: Duration = Duration::from_secs(1);
/// Between looks at the age of keys.
const LOOK_AT_AGE: Duration = Duration::from_secs(10);

/// What is to be done about the keys.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Due {
    Nothing,
    Soon,
    /// This step; the key that signs from then on, if the step is to activate one.
    Now(KeyStep, Option<Announced>),
    /// The announced key cannot sign for a good while.
    Held(Announced),
}

/// A key that was announced.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Announced {
    key: KeyId,
    /// Lost proxies that lack the key. If there are none and none refuses either, the key is held
    /// because there may be lost proxies that this process does not know of.
    lost: Vec<ProxyId>,
    /// Connected proxies that refuse the state with the key, each with its reason.
    refusing: Vec<(ProxyId, String)>,
}

impl Announced {
    /// Whether the same proxies lack the same key. How a refusal is put may differ from attempt to
    /// attempt.
    fn is_like(&self, other: &Self) -> bool {
        let (these, those) = (self.refusing.iter(), other.refusing.iter());
        let is_refused_alike = these.map(|(proxy, _)| proxy).eq(those.map(|(proxy, _)| proxy));
        self.key == other.key && self.lost == other.lost && is_refused_alike
    }
}

/// Looks after them until the context is stopped.
pub(crate) async fn run(context: &Context) {
    let mut revisions = context.registry.revisions();
    let mut members = context.fleet.members();
    let age_max = Some(context.session_key_age).filter(|age| !age.is_zero());
    let look_at_age = LOOK_AT_AGE.min(age_max.unwrap_or(LOOK_AT_AGE)).max(LOOK);
    let mut told: Option<Announced> = None;
    loop {
        revisions.mark_unchanged();
        members.mark_unchanged();
        let pause = match due(context, unix_ms() / 1000) {
            Due::Nothing => look_at_age,
            Due::Soon => LOOK,
            Due::Held(held) => {
                if !told.as_ref().is_some_and(|told| told.is_like(&held)) {
                    tell(context, &held);
                    told = Some(held.clone());
                }
                // A proxy that takes the state after all changes neither the state nor the members.
                if held.refusing.is_empty() { look_at_age } else { LOOK_AT_REFUSAL }
            }
            Due::Now(step, signs) => match take(context, step, signs).await {
                Ok(()) => continue,
                Err(WriteError::Stopping) => return,
                Err(error) => {
                    debug!(%error, ?step, "a rotation of session keys waits");
                    look_at_age
                }
            },
        };
        tokio::select! {
            () = context.stop.cancelled() => return,
            changed = revisions.changed() => if changed.is_err() { return },
            changed = members.changed() => if changed.is_err() { return },
            () = context.rotation.news() => {}
            () = sleep(pause) => {}
        }
    }
}

fn due(context: &Context, now_s: u64) -> Due {
    let stored = context.registry.read(|view| view.catalog.session_keys().cloned());
    let Some(stored) = stored else { return Due::Nothing };
    let ring = &stored.value.ring;
    if let Some(next) = ring.next() {
        return signs(context, next.id(), stored.revision);
    }
    if ring.keys().iter().any(|held| is_over(held, now_s)) {
        return Due::Now(KeyStep::Prune, None);
    }
    let age = now_s.saturating_sub(ring.active().made_s());
    let age_max = context.session_key_age.as_secs();
    let is_old = age_max > 0 && ring.active().made_s() > 0 && age >= age_max;
    let retired = ring.keys().iter().filter(|held| matches!(held.role, Role::Retired { .. }));
    // By itself it does not fill the ring: an operator may have need of it.
    if is_old && retired.count() < 2 { Due::Now(KeyStep::Announce, None) } else { Due::Nothing }
}

/// Whether a key that was announced with this revision is to sign.
fn signs(context: &Context, key: KeyId, revision: u64) -> Due {
    // First: who comes back after this is among those that lack it.
    let is_awaited = context.drains.awaits_proxies(&context.fleet.accounted_for());
    let (lost, behind): (Vec<Laggard>, Vec<Laggard>) =
        context.fleet.lacking(revision).into_iter().partition(|laggard| laggard.lost);
    let rotation = &context.rotation;
    let known = Knowledge {
        behind: behind.len(),
        lost: lost.len(),
        is_awaited,
        may_be_more: rotation.may_be_more(),
    };
    let lost = lost.into_iter().map(|laggard| laggard.proxy).collect();
    let refuses = |laggard: Laggard| Some((laggard.proxy, laggard.refusal?));
    let refusing = behind.into_iter().filter_map(refuses).collect();
    let announced = Announced { key, lost, refusing };
    match readiness(rotation.consent(key), known) {
        Readiness::Ready => Due::Now(KeyStep::Activate, Some(announced)),
        Readiness::Soon if announced.refusing.is_empty() => Due::Soon,
        Readiness::Soon => Due::Held(announced),
        Readiness::LackedByLost | Readiness::Unsure => Due::Held(announced),
    }
}

/// Takes a step, and says who pays for a key that signs by force.
async fn take(
    context: &Context,
    step: KeyStep,
    signs: Option<Announced>,
) -> Result<(), WriteError> {
    context.registry.step_keys(step.into()).await?;
    if let Some(Announced { key, lost, .. }) = signs.filter(|signs| !signs.lost.is_empty()) {
        let message = format!(
            "key {key} signs although {} it, as was asked for: a client that comes there and \
             elsewhere begins a new session at each change, until the proxy is connected again",
            lack(&lost)
        );
        warn!(message, "session keys changed");
        record(context, Reason::new("forced", message));
    }
    Ok(())
}

/// Tells why a key does not sign, once.
fn tell(context: &Context, held: &Announced) {
    let Announced { key, lost, refusing } = held;
    let reason = if let [(proxy, why), more @ ..] = &refusing[..] {
        let others = match more.len() {
            0 => String::new(),
            number => format!(" (and {number} others)"),
        };
        let message = format!(
            "key {key} does not sign yet: {proxy}{others} is connected and refuses the state that \
             has it: {why}. It signs once that is corrected ('lbctl describe proxy {proxy}'), or the \
             proxy is stopped"
        );
        Reason::new("lacked_by_refusing", message)
    } else if lost.is_empty() {
        let message = format!(
            "key {key} does not sign yet: this control plane was restarted less than a day ago, and \
             a proxy that was cut off before would not know the key. It signs a day after the \
             restart, or once 'lbctl rotate-session-keys' is given"
        );
        Reason::new("unsure", message)
    } else {
        let message = format!(
            "key {key} does not sign yet: {} it, and may be serving traffic. It signs once they are \
             connected again, or have been lost for a day, or at once with 'lbctl \
             rotate-session-keys --force', if they serve nobody any more",
            lack(lost)
        );
        Reason::new("lacked_by_lost", message)
    };
    warn!(reason.code, reason.message, "session keys wait");
    record(context, reason);
}

fn record(context: &Context, reason: Reason) {
    let revision = *context.registry.revisions().borrow();
    let kind = Kind::SessionKeys.name();
    context.events.record(EventType::SessionKeysChanged, kind, SessionKeys::NAME, revision, reason);
}

/// `proxy-2 and 3 others, which are lost, lack`.
fn lack(lost: &[ProxyId]) -> String {
    match lost {
        [] => "nobody lacks".to_owned(),
        [one] => format!("{one}, which is lost, lacks"),
        [one, another] => format!("{one} and {another}, which are lost, lack"),
        [one, rest @ ..] => format!("{one} and {} others, which are lost, lack", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_a_refusal_is_put_otherwise_is_no_news() {
        let held = |why: &str| Announced {
            key: KeyId(1),
            lost: Vec::new(),
            refusing: vec![(ProxyId::new("p1").unwrap(), why.to_owned())],
        };
        assert!(held("port 40001 is taken").is_like(&held("port 40002 is taken")));
        let lost = Announced { lost: vec![ProxyId::new("p2").unwrap()], ..held("") };
        assert!(!held("").is_like(&lost));
        assert!(!held("").is_like(&Announced { refusing: Vec::new(), ..held("") }));
    }
}
