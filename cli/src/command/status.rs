//! `status`: the fleet on one screen, and what is wrong with it.

#[cfg(test)]
mod tests;

use std::time::Duration;

use lb_core::model::{Route, natural_order};
use lb_proto::v1 as pb;
use serde::Serialize;

use super::{Session, describe::next_look, get, remedy};
use crate::{
    clock,
    exit::Failure,
    format,
    output::Screen,
    view::{BackendView, PoolView, ProcessView, ProxyView, RefusedView, StandingView, Traffic},
};

/// Lines about single backends and proxies, so that a bad day still fits on a screen.
const ALARMS_MAX: usize = 10;

/// Reasons on the line about answers of the proxies' own.
const REASONS_MAX: usize = 4;

/// The fleet at one moment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StatusView {
    server_id: String,
    build_version: String,
    revision: u64,
    started_unix_ms: u64,
    last_change_unix_ms: u64,
    proxies_synced: usize,
    pub(crate) proxies: Vec<ProxyView>,
    /// Processes that are not let in.
    refused_proxies: Vec<RefusedView>,
    pub(crate) pools: Vec<PoolView>,
    pub(crate) traffic: Traffic,
    /// All proxies together.
    process: Option<ProcessView>,
    /// Enabled backends that are not up.
    unhealthy_backends: Vec<BackendView>,
    draining_backends: Vec<BackendView>,
    /// Pools without a backend to which routes lead.
    empty_pools: Vec<EmptyPool>,
}

/// A pool without a backend to which routes lead.
#[derive(Clone, Debug, Serialize)]
struct EmptyPool {
    pool: String,
    routes: Vec<String>,
}

/// Prints the fleet.
pub(super) async fn run(session: &Session) -> Result<(), Failure> {
    let (view, _) = read(session).await?;
    let names = || vec![format!("revision/{}", view.revision)];
    session.screen.answer(&view, names, || page(&view, clock::unix_ms(), session.screen))
}

/// Asks for the fleet and all its backends.
pub(crate) async fn read(session: &Session) -> Result<(StatusView, Vec<BackendView>), Failure> {
    let request = pb::GetStatusRequest {};
    let status = session.client.call(session.client.fleet().get_status(request)).await?;
    let backends = get::backends(session, "").await?;
    // One that this build cannot read is of a newer control plane, which judges it.
    let routes: Vec<Route> = get::routes(session).await?.into_iter().flatten().collect();
    Ok((StatusView::new(status, &backends, &routes), backends))
}

impl StatusView {
    pub(crate) fn new(
        status: pb::GetStatusResponse,
        backends: &[BackendView],
        routes: &[Route],
    ) -> Self {
        let pools: Vec<PoolView> = status.pools.into_iter().map(PoolView::from).collect();
        let mut proxies: Vec<ProxyView> = status.proxies.into_iter().map(ProxyView::from).collect();
        proxies.sort_by(|a, b| natural_order(&a.id, &b.id));
        Self {
            server_id: status.server_id,
            build_version: status.build_version,
            revision: status.version.map_or(0, |version| version.revision),
            started_unix_ms: status.started_unix_ms,
            last_change_unix_ms: status.last_change_unix_ms,
            proxies_synced: proxies.iter().filter(|proxy| proxy.state == "synced").count(),
            proxies,
            refused_proxies: status.refused.into_iter().map(RefusedView::from).collect(),
            empty_pools: empty_pools(&pools, routes),
            pools,
            traffic: status.totals.into(),
            process: status.process.map(ProcessView::from),
            draining_backends: backends
                .iter()
                .filter(|backend| backend.drain.is_some())
                .cloned()
                .collect(),
            unhealthy_backends: backends
                .iter()
                .filter(|backend| backend.admin_state == "enabled" && is_amiss(backend))
                .cloned()
                .collect(),
        }
    }
}

/// Pools without a backend to which routes lead.
fn empty_pools(pools: &[PoolView], routes: &[Route]) -> Vec<EmptyPool> {
    let empty = pools.iter().filter(|pool| pool.backends.is_none_or(|counts| counts.total() == 0));
    let with_routes = empty.map(|pool| EmptyPool {
        pool: pool.name.clone(),
        routes: routes
            .iter()
            .filter(|route| {
                let mut shares = route.pools.iter();
                shares.any(|(name, weight)| weight > 0 && name.as_str() == pool.name)
            })
            .map(|route| route.name.to_string())
            .collect(),
    });
    with_routes.filter(|pool| !pool.routes.is_empty()).collect()
}

/// Whether an operator should know of a backend that is wanted.
fn is_amiss(backend: &BackendView) -> bool {
    backend.health != "up"
        || backend.standing.ejection.is_some()
        || !backend.standing.disagreements.is_empty()
        || backend.avoided_by().is_some()
        || backend.failing_checks().is_some()
}

/// Whether an operator should know of a proxy.
fn is_alarming(proxy: &ProxyView) -> bool {
    proxy.state != "synced" && !proxy.is_stopped()
}

/// The screen.
pub(crate) fn page(view: &StatusView, now: u64, screen: Screen) -> String {
    let age = |at: u64| format::age_of(Some(at).filter(|at| *at != 0), now);
    let stopped = view.proxies.iter().filter(|proxy| proxy.is_stopped()).count();
    let mut fleet = match view.proxies.len() - stopped {
        0 => "no proxy connected".to_owned(),
        all => format!("{}/{all} proxies in sync", view.proxies_synced),
    };
    if stopped > 0 {
        fleet += &format!(", {stopped} stopped");
    }
    let changed = age(view.last_change_unix_ms);
    let mut text =
        format!("FLEET    {fleet} at revision {} (changed {changed} ago)\n", view.revision);
    text += &format!(
        "CONTROL  {}, version {}, up {}\n",
        view.server_id,
        view.build_version,
        age(view.started_unix_ms)
    );
    let traffic = &view.traffic;
    text += &format!(
        "TRAFFIC  {} requests/s   {} ok   p50 {}   p99 {}   in flight {}\n",
        format::rate(traffic.requests_per_second),
        traffic.ok_ratio(),
        format::latency(traffic.latency_p50_us),
        format::latency(traffic.latency_p99_us),
        traffic.in_flight,
    );
    if let Some(line) = view.process.as_ref().and_then(own_answers) {
        text += &format!("ANSWERS  of the proxies' own: {line}\n");
    }
    for backend in &view.draining_backends {
        let Some(drain) = &backend.drain else { continue };
        if let Some(why) = &drain.held_up {
            text += &format!("DRAIN    {}: it cannot go on: {why}\n", backend.id);
            continue;
        }
        if drain.drained {
            continue;
        }
        let left = format::duration(Duration::from_millis(drain.time_left_ms));
        text +=
            &format!("DRAIN    {}: left {}; {left} until that is cut\n", backend.id, drain.left());
    }
    text.push('\n');
    text += &screen.render(&get::pool_table(&view.pools, false));
    let alarms = alarms(view, now);
    if !alarms.is_empty() {
        text.push('\n');
    }
    for (line, next) in alarms.iter().take(ALARMS_MAX) {
        text += &format!("! {line}\n  next: {next}\n");
    }
    if let Some(more) = alarms.len().checked_sub(ALARMS_MAX).filter(|more| *more > 0) {
        text += &format!("! and {more} more: 'lbctl get backends', 'lbctl get proxies'\n");
    }
    text
}

/// What the proxies answered by themselves, the most frequent reasons first: `no_route 12,
/// header_too_large 1`. Nothing if they never did.
fn own_answers(process: &ProcessView) -> Option<String> {
    let answers = process.answers_by_count();
    let shown = answers.iter().take(REASONS_MAX).map(|(reason, n)| format!("{reason} {n}"));
    let mut line = shown.collect::<Vec<_>>().join(", ");
    let rest: u64 = answers.iter().skip(REASONS_MAX).map(|(_, n)| n).sum();
    if rest > 0 {
        line += &format!(", others {rest}");
    }
    Some(line).filter(|line| !line.is_empty())
}

/// What is wrong, each with the next step; proxies first, since they carry the traffic.
fn alarms(view: &StatusView, now: u64) -> Vec<(String, String)> {
    let proxies = view.proxies.iter().filter(|proxy| is_alarming(proxy)).map(|proxy| {
        let seen = format::duration(Duration::from_millis(proxy.last_seen_ms));
        let mut line = format!(
            "{} {} at revision {}, last heard of {seen} ago",
            proxy.id, proxy.state, proxy.applied_revision
        );
        for rejection in &proxy.rejections {
            line += &format!("; refused {}", rejection.sentence());
        }
        if let Some(refusal) = &proxy.refusal {
            line += &format!("; refused everything: {refusal}");
        }
        if let Some(key) = &proxy.awaited_session_key {
            line += &format!("; session key {key} does not sign before it has it");
        }
        (line, next_look(proxy))
    });
    let refused =
        view.refused_proxies.iter().map(|refused| (refused.sentence(now), refused.next_step()));
    let overloaded = view.proxies.iter().filter_map(|proxy| {
        let overload = proxy.process.as_ref()?.overload.as_ref()?;
        let line = format!("{} is overloaded: {}", proxy.id, overload.sentence());
        overload.is_overloaded().then(|| (line, overload.remedy().to_owned()))
    });
    let backends = view.unhealthy_backends.iter().map(|backend| {
        let ejected = backend.standing.ejection.as_ref().map(|ejection| ejection.since_unix_ms);
        let since = format::age_of(ejected.or(backend.since_unix_ms), now);
        let last = backend.checks.as_ref().and_then(|checks| checks.last_success_unix_ms);
        let last = last.map_or_else(String::new, |at| {
            format!("; last success {} UTC", format::clock(at, now))
        });
        let why = match &backend.standing {
            StandingView { ejection: Some(ejection), .. } => ejection.reason.sentence(),
            StandingView { disagreements, .. } if backend.health == "up" => {
                let first = disagreements.first();
                let seen = first.map(|first| {
                    format!("{} sees it otherwise: {}", first.who(), first.reason.sentence())
                });
                let avoided = backend.avoided_by().map(|by| format!("avoided by {by}"));
                let checks = backend.failing_checks().filter(|_| disagreements.is_empty());
                let checks = checks.map(|checks| {
                    let last = checks.last_result.sentence();
                    format!("{} checks in a row failed: {last}", checks.failures_in_a_row)
                });
                [seen, avoided, checks].into_iter().flatten().collect::<Vec<_>>().join("; ")
            }
            StandingView { .. } => remedy::present(backend).sentence(),
        };
        let (id, address, state) = (&backend.id, &backend.address, backend.state());
        let line = format!("{id} {address} {state} for {since}: {why}{last}");
        (line, remedy::next_step(backend))
    });
    let sources = view.pools.iter().flat_map(|pool| {
        pool.source_status.iter().filter_map(|source| {
            let since = format::age_of(Some(source.failing_since_unix_ms?), now);
            let last = format::age_of(source.answered_unix_ms, now);
            let line = format!(
                "pool {}: {} failing for {since}, last answer {last} ago: {}",
                pool.name,
                source.source,
                source.failure.sentence()
            );
            Some((line, format!("'lbctl describe pool {}'", pool.name)))
        })
    });
    let pools = view.pools.iter().filter_map(|pool| {
        let counts = pool.backends.filter(|counts| counts.total() > 0 && counts.up == 0)?;
        let who = match counts.total() {
            1 => "its only backend is not up".to_owned(),
            all => format!("none of its {all} backends is up"),
        };
        let instead = instead(view, pool);
        let line = format!("pool {}: {who}: {}{instead}", pool.name, counts.sentence());
        Some((line, format!("'lbctl describe pool {}'", pool.name)))
    });
    let empty = view.empty_pools.iter().filter_map(|empty| {
        let pool = view.pools.iter().find(|pool| pool.name == empty.pool)?;
        let routes = match empty.routes.as_slice() {
            [one] => format!("route {one} leads"),
            [one, more @ ..] => format!("route {one} and {} more lead", more.len()),
            [] => return None,
        };
        let instead = instead(view, pool);
        let line = format!("pool {}: it has no backends, and {routes} there{instead}", pool.name);
        let next = if pool.source_status.is_empty() {
            format!("'lbctl add-backend HOST:PORT --pool {}'", pool.name)
        } else {
            format!("'lbctl describe pool {}' shows what its sources find", pool.name)
        };
        Some((line, next))
    });
    let mut alarms: Vec<(String, String)> = proxies
        .chain(refused)
        .chain(overloaded)
        .chain(sources)
        .chain(pools)
        .chain(backends)
        .collect();
    let is_bare = view.pools.iter().all(|pool| pool.backends.is_none_or(|c| c.total() == 0));
    if !is_bare {
        alarms.extend(empty);
    }
    if view.proxies.iter().all(ProxyView::is_stopped) {
        let next = "start one with 'lbctl data-plane', or the whole balancer with 'lbctl dev'";
        alarms.insert(0, ("no proxy is connected: nothing serves".to_owned(), next.to_owned()));
    }
    if is_bare {
        let next = "'lbctl add-backend HOST:PORT'";
        alarms.push(("there are no backends".to_owned(), next.to_owned()));
    }
    alarms
}

/// What answers in place of a pool that cannot.
fn instead(view: &StatusView, pool: &PoolView) -> String {
    let serves = |name: &str| {
        let other = view.pools.iter().find(|pool| pool.name == name);
        other.and_then(|pool| pool.backends).is_some_and(|counts| counts.up > 0)
    };
    pool.instead(serves).map_or_else(String::new, |instead| format!("; {instead}"))
}
