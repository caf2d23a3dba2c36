//! Looks after the keys that sign sessions: lets one that was announced sign once every live
//! proxy knows it, replaces one that is old, and drops those of which no session is left.
//!
//! A cookie's time is wall time, since it outlives all processes; so it is here.

use std::time::Duration;

use lb_core::affinity::Role;
use tokio::time::sleep;
use tracing::debug;

use crate::{
    clock::unix_ms,
    grpc::Context,
    registry::{KeyStep, WriteError, session_keys::is_over},
};

/// Between looks while a key waits for proxies.
const LOOK: Duration = Duration::from_millis(50);
/// Between looks at the age of keys.
const LOOK_AT_AGE: Duration = Duration::from_secs(10);

/// What is to be done about the keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Due {
    Nothing,
    Soon,
    Now(KeyStep),
}

/// Looks after them until the context is stopped.
pub(crate) async fn run(context: &Context) {
    let mut revisions = context.registry.revisions();
    let age_max = Some(context.session_key_age).filter(|age| !age.is_zero());
    let look_at_age = LOOK_AT_AGE.min(age_max.unwrap_or(LOOK_AT_AGE)).max(LOOK);
    loop {
        revisions.mark_unchanged();
        let pause = match due(context, unix_ms() / 1000) {
            Due::Nothing => look_at_age,
            Due::Soon => LOOK,
            Due::Now(step) => match context.registry.step_keys(step).await {
                Ok(_) => continue,
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
            () = sleep(pause) => {}
        }
    }
}

fn due(context: &Context, now_s: u64) -> Due {
    let stored = context.registry.read(|view| view.catalog.session_keys().cloned());
    let Some(stored) = stored else { return Due::Nothing };
    let ring = &stored.value.ring;
    if ring.next().is_some() {
        let is_known = is_known_by_all(context, stored.revision);
        return if is_known { Due::Now(KeyStep::Activate) } else { Due::Soon };
    }
    if ring.keys().iter().any(|held| is_over(held, now_s)) {
        return Due::Now(KeyStep::Prune);
    }
    let age = now_s.saturating_sub(ring.active().made_s());
    let age_max = context.session_key_age.as_secs();
    let is_old = age_max > 0 && ring.active().made_s() > 0 && age >= age_max;
    let retired = ring.keys().iter().filter(|held| matches!(held.role, Role::Retired { .. }));
    // By itself it does not fill the ring: an operator may have need of it.
    if is_old && retired.count() < 2 { Due::Now(KeyStep::Announce) } else { Due::Nothing }
}

/// Whether every live proxy has applied the keys of this revision. After a restart of the
/// control plane proxies are on their way back to it, and are waited for.
pub(crate) fn is_known_by_all(context: &Context, revision: u64) -> bool {
    let progress = context.fleet.progress(revision);
    !context.drains.awaits_proxies(&context.fleet.live())
        && progress.laggards.iter().all(|laggard| laggard.lost)
}
