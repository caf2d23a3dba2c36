//! What clients were answered in the last seconds.

use super::{Facts, Group};
use crate::{
    format,
    view::{BackendView, PoolView, RecentView},
};

/// Fewer answers than this say nothing about a share.
const ANSWERS_MIN: u64 = 20;
/// More than one failed of so many is told.
const FAILED_ONE_OF: u64 = 100;
/// One failed of so many keeps requests from being served.
const FAILS_ONE_OF: u64 = 2;

/// Tells pools whose clients are failed.
pub(super) fn of_pools(facts: &Facts, group: &mut Group<'_>) {
    for pool in &facts.pools {
        let Some(recent) = failing(pool) else { continue };
        let object = format!("pool/{}", pool.name);
        let message = format!("pool {}: {}", pool.name, sentence(recent));
        let next = next_step(pool, recent, worst(pool, &facts.backends));
        tell(group, "pool_answers", Some(object), message, next, recent);
    }
}

/// What to do about a pool whose clients are failed, and about the backend that is to blame, as the
/// status has it; nothing if all is well.
pub(in crate::command) fn remedy_of(pool: &PoolView, backends: &[BackendView]) -> Option<String> {
    failing(pool).map(|recent| next_step(pool, recent, worst(pool, backends)))
}

/// The same, if the pool's backends are to blame, and this one most.
pub(crate) fn remedy_at(
    backend: &BackendView,
    pool: &PoolView,
    backends: &[BackendView],
) -> Option<String> {
    let recent = failing(pool).filter(|recent| blames_backends(recent.main_reason()))?;
    let worst = worst(pool, backends).filter(|worst| worst.id == backend.id);
    worst.is_some().then(|| next_step(pool, recent, worst))
}

fn failing(pool: &PoolView) -> Option<&RecentView> {
    let recent = pool.traffic.as_ref().and_then(|traffic| traffic.recent.as_ref());
    recent.filter(|recent| is_failing(recent))
}

/// Whether answers that failed for this reason did so at a backend; without one, a backend answered.
fn blames_backends(reason: Option<&str>) -> bool {
    reason.is_none_or(|reason| reason.starts_with("backend_") || reason == "dns_failure")
}

/// The backend of a pool at which most requests have failed.
fn worst<'a>(pool: &PoolView, backends: &'a [BackendView]) -> Option<&'a BackendView> {
    let failed = |backend: &&BackendView| backend.traffic.failures_total;
    let own = backends.iter().filter(|backend| backend.pool == pool.name);
    own.max_by_key(failed).filter(|worst| failed(worst) > 0)
}

/// Tells if clients are failed before a pool is found.
pub(super) fn without_pool(facts: &Facts, group: &mut Group<'_>) {
    let recent = facts.unrouted.as_ref();
    let Some(recent) = recent.filter(|recent| is_failing(recent)) else { return };
    let message = format!("requests that reach no pool: {}", sentence(recent));
    let next = match recent.main_reason() {
        Some("config_missing") => {
            "'lbctl get proxies' tells which listens where nothing is \
                                   configured ('lbctl get listeners')"
        }
        _ => "the log of the proxies has the reason",
    };
    tell(group, "route_answers", None, message, next.to_owned(), recent);
}

fn is_failing(recent: &RecentView) -> bool {
    recent.answers >= ANSWERS_MIN && recent.failed > recent.answers / FAILED_ONE_OF
}

fn tell(
    group: &mut Group<'_>,
    check: &'static str,
    object: Option<String>,
    message: String,
    next: String,
    recent: &RecentView,
) {
    if recent.failed >= recent.answers.div_ceil(FAILS_ONE_OF) {
        group.fail(check, object, message, next);
    } else {
        group.warn(check, object, message, next);
    }
}

/// `0.9% of 40308 answers in the last 10s went well: no_healthy_backend 51000/s`
fn sentence(recent: &RecentView) -> String {
    let RecentView { answers, failed, .. } = recent;
    let what = if recent.broken > 0 { "5xx or broken off" } else { "5xx" };
    let share = format::percent(*failed, *answers);
    format!("{share} of {answers} answers of the {} are {what}: {}", recent.window(), recent.why())
}

fn next_step(pool: &PoolView, recent: &RecentView, worst: Option<&BackendView>) -> String {
    let name = &pool.name;
    let look = |otherwise: &str| match worst {
        Some(BackendView { id, address, traffic, .. }) => format!(
            "look at the log of the server of {id}, {address}, which has most of the failures so far \
             ({})",
            traffic.failures.by_kind()
        ),
        None => format!("'lbctl get backends --pool {name}' {otherwise}"),
    };
    match recent.main_reason() {
        Some("queue_full" | "queue_timeout") => format!(
            "its backends take no more at a time: add one, or allow more with 'lbctl set-pool {name} \
             --max-in-flight N'; 'lbctl describe pool {name}' shows who waits"
        ),
        Some("no_lease") => format!(
            "no control plane lent these proxies slots of it, and others may still use theirs: \
             'lbctl get proxies' shows who is cut off; a request timeout ('lbctl describe pool \
             {name}') after that began each goes on by itself"
        ),
        Some("backend_timeout") => format!(
            "{}; if they are meant to be that slow, 'lbctl set-pool {name} --request-timeout 60s'",
            look("shows at which it fails")
        ),
        Some("loop_detected") => {
            "'lbctl check' looks for the backend that leads back here".to_owned()
        }
        Some("overloaded") => "'lbctl get proxies' shows which proxy has too much to do".to_owned(),
        reason @ Some(_) if blames_backends(reason) => look("shows at which it fails"),
        Some(_) => format!("'lbctl describe pool {name}'"),
        None => look("shows which of them fails: look at the log of its server"),
    }
}
