//! A route: what it matches, where its requests go, and what keeps them from getting there.

use super::Page;
use crate::{
    command::{
        explain_route::{self, PoolShare},
        judgement::{self, Facts, Level},
    },
    output::Screen,
    view::ObjectView,
};

pub(super) fn page(view: &ObjectView, facts: &Facts, screen: Screen) -> String {
    let name = view.name();
    let findings = judgement::about(facts, "route", name);
    let route = facts.routes.iter().find(|route| route.name.as_str() == name);
    let pools = route.map(|route| explain_route::pools_of(route, &facts.pools, &facts.backends));
    let pools = pools.unwrap_or_default();
    let verdict = match findings.iter().map(|finding| finding.level).max() {
        _ if findings.iter().any(|finding| finding.check == "route_reachable") => "never matches",
        Some(Level::Failed) if pools.iter().all(|pool| !serves(pool)) => "nothing can serve",
        Some(Level::Failed) => "some requests get 503",
        Some(Level::Ok | Level::Warning) | None => "serves",
    };
    let mut page = Page::new(&format!("route {name}: {verdict}"));
    page.settings(view);
    if !pools.is_empty() {
        page.section("pools");
        page.text += &screen.render(&explain_route::pool_table(&pools));
    }
    page.problems(
        &findings,
        "nothing to do; 'lbctl explain-route URL' tells which requests take it",
    );
    page.text
}

fn serves(pool: &PoolShare) -> bool {
    pool.share.weight > 0 && pool.serving > 0
}
