//! `status`: the fleet on one screen, and what is wrong with it.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use lb_proto::v1 as pb;
use serde::Serialize;

use super::{
    Session, get,
    judgement::{self, Facts, Finding, Level},
};
use crate::{
    clock,
    exit::Failure,
    format,
    output::Screen,
    view::{BackendView, PoolView, ProcessView, ProxyView, RefusedView, Traffic, by_reason},
};

/// What is wrong that is listed, so that a bad day still fits on a screen.
const PROBLEMS_MAX: usize = 10;

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
    /// What the proxies answered by themselves in the time of `traffic.recent`, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    recent_own_answers: BTreeMap<String, u64>,
    /// All proxies together.
    process: Option<ProcessView>,
    /// Enabled backends that are not up.
    unhealthy_backends: Vec<BackendView>,
    draining_backends: Vec<BackendView>,
    /// What is wrong, as `check` finds it, in the order in which it is to be mended.
    problems: Vec<Finding>,
    /// What `check` says of how the fleet is set up.
    advice: usize,
}

/// Prints the fleet.
pub(super) async fn run(session: &Session) -> Result<(), Failure> {
    let (view, _) = read(session).await?;
    let names = || vec![format!("revision/{}", view.revision)];
    session.screen.answer(&view, names, || page(&view, clock::unix_ms(), session.screen))
}

/// Asks for the fleet and all its backends.
pub(crate) async fn read(session: &Session) -> Result<(StatusView, Vec<BackendView>), Failure> {
    let (facts, status) = Facts::with_status(session).await?;
    Ok((StatusView::new(status, &facts), facts.backends))
}

impl StatusView {
    pub(crate) fn new(status: pb::GetStatusResponse, facts: &Facts) -> Self {
        let Facts { proxies, backends, .. } = facts;
        let (problems, others): (Vec<Finding>, Vec<Finding>) = judgement::judge(facts)
            .into_iter()
            .filter(|finding| finding.level != Level::Ok)
            .partition(Finding::is_trouble);
        // Of a route whose pool cannot serve, the pool tells. Weights that nobody looks at do no
        // harm.
        let is_silent =
            |finding: &&Finding| ["route_served", "pool_weights"].contains(&finding.check);
        let advice = others.iter().filter(|finding| !is_silent(finding)).count();
        let amiss = |b: &&BackendView| b.admin_state == "enabled" && b.is_amiss();
        Self {
            server_id: status.server_id,
            build_version: status.build_version,
            revision: status.version.map_or(0, |version| version.revision),
            started_unix_ms: status.started_unix_ms,
            last_change_unix_ms: status.last_change_unix_ms,
            proxies_synced: proxies.iter().filter(|proxy| proxy.state == "synced").count(),
            proxies: proxies.clone(),
            refused_proxies: facts.refused.clone(),
            pools: facts.pools.clone(),
            traffic: Traffic::from(status.totals).with_recent(status.recent),
            recent_own_answers: status.recent_own_answers,
            process: status.process.map(ProcessView::from),
            draining_backends: backends.iter().filter(|b| b.drain.is_some()).cloned().collect(),
            unhealthy_backends: backends.iter().filter(amiss).cloned().collect(),
            problems,
            advice,
        }
    }
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
    text += &format!("TRAFFIC  {}", view.traffic.line());
    let slots = view.pools.iter().filter_map(|pool| pool.slots.as_ref());
    match slots.map(|slots| slots.waiting).sum::<u64>() {
        0 => text.push('\n'),
        waiting => text += &format!(", {waiting} in line\n"),
    }
    if let Some(recent) = &view.traffic.recent {
        let own = recent.rates(by_reason(&view.recent_own_answers));
        if !own.is_empty() {
            text += &format!("ANSWERS  of the proxies' own: {own}\n");
        }
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
    if !view.problems.is_empty() || view.advice > 0 {
        text.push('\n');
    }
    for problem in view.problems.iter().take(PROBLEMS_MAX) {
        text += &format!("! {}\n", problem.message.replace(char::is_control, " "));
        if let Some(remedy) = &problem.remedy {
            text += &format!("  next: {remedy}\n");
        }
    }
    if let Some(more) = view.problems.len().checked_sub(PROBLEMS_MAX).filter(|more| *more > 0) {
        text += &format!("! and {more} more: 'lbctl check' lists all\n");
    }
    if view.advice > 0 {
        let warnings = format::count(view.advice, "warning", "warnings");
        text += &format!("{warnings} about the set-up: 'lbctl check' lists all\n");
    }
    text
}
