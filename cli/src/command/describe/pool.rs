//! A pool: its settings, its traffic, and its backends.

use super::{Page, traffic_section};
use crate::{
    command::{get, judgement, remedy},
    format,
    output::Screen,
    view::{BackendView, PoolView, session_results},
};

pub(crate) fn page(view: &PoolView, backends: &[BackendView], now: u64, screen: Screen) -> String {
    let mut page = Page::new(&format!("pool {}: {}", view.name, pool_verdict(view)));
    if let Some(panic) = view.panic_sentence() {
        page.wide_row("panic mode", &panic);
    }
    for (field, value) in view.fields() {
        page.wide_row(field, &value);
    }
    if let Some(slots) = &view.slots {
        page.wide_row("in flight", &slots.sentence(view.concurrency.max_in_flight));
        if let Some(adaptive) = &slots.adaptive {
            page.wide_row("limit", &adaptive.sentence());
        }
    }
    if let Some(traffic) = &view.traffic {
        traffic_section(&mut page, traffic, now);
    }
    if !view.sessions_total.is_empty() {
        page.section("sessions");
        page.row("requests", &session_results(&view.sessions_total));
    }
    sources_section(&mut page, view, now);
    page.section("backends");
    let failing = view.source_status.iter().find_map(|source| source.remedy(&view.name));
    if backends.is_empty() {
        page.section("  none");
        if !view.sources.is_empty() {
            let look = || format!("'lbctl describe pool {}' once its sources answered", view.name);
            page.next_step(&failing.unwrap_or_else(look));
            return page.text;
        }
        page.next_step(&format!("'lbctl add-backend HOST:PORT --pool {}'", view.name));
        return page.text;
    }
    page.text += &screen.render(&get::backend_table(backends, now, false).indented(2));
    if let Some(remedy) = failing {
        page.next_step(&remedy);
        return page.text;
    }
    let enabled = || backends.iter().filter(|backend| backend.admin_state == "enabled");
    let worst = enabled().find(|backend| backend.health != "up");
    let worst = worst.or_else(|| enabled().find(|backend| backend.is_amiss()));
    // All of them may be disabled, drained, or without weight.
    let idle = backends.iter().all(|backend| !backend.serves()).then(|| backends.first());
    page.next_step(&match worst.or_else(|| idle.flatten()) {
        Some(worst) => format!("'lbctl describe backend {}'", worst.id),
        None => {
            judgement::remedy_of_pool(view, backends).unwrap_or_else(|| remedy::NOTHING.to_owned())
        }
    });
    page.text
}

fn sources_section(page: &mut Page, view: &PoolView, now: u64) {
    if view.source_status.is_empty() {
        return;
    }
    page.section("sources");
    for source in &view.source_status {
        page.section(&format!("  {}", source.source));
        let answered = match source.answered_unix_ms {
            None => "never since the control plane started".to_owned(),
            at => format!("{}, {} backends", format::moment(at, now), source.found),
        };
        page.row("  last answer", &answered);
        if source.failing_since_unix_ms.is_some() {
            let since = format::moment(source.failing_since_unix_ms, now);
            page.row("  failing since", &format!("{since}; the last backends are kept"));
            page.row("  because", &source.failure.sentence());
        }
        let asked = match source.next_unix_ms {
            // The first question is on its way.
            None => "being asked now".to_owned(),
            at => format::plan(at, now),
        };
        page.row("  asked again", &asked);
        if source.leaving > 0 {
            page.row("  leaving", &format!("{}: {}", source.leaving, source.waiting));
        }
        for skipped in &source.skipped {
            page.row("  not taken", skipped);
        }
    }
}

fn pool_verdict(view: &PoolView) -> String {
    let Some(counts) = view.backends else { return "unknown".to_owned() };
    let (up, out, total) = (counts.up, counts.out, counts.total());
    if total == 0 {
        return "empty".to_owned();
    }
    if let Some(panic) = &view.panic {
        let although = if panic.cause == "all_ejected" { "taken out" } else { "down" };
        return format!("panic mode: {} of {total} used although {although}", panic.helping);
    }
    match (view.serving.unwrap_or(up), &view.fallback_pool, out) {
        (0, Some(pool), _) => format!("nothing can serve; its requests go to {pool} if that can"),
        (0, None, _) => "nothing can serve".to_owned(),
        (_, _, 0) => format!("{up} of {total} up"),
        _ => format!("{up} of {total} up, {out} kept out by a breaker or as an outlier"),
    }
}
