//! A pool: its settings, its traffic, and its backends.

use super::{Page, traffic_section};
use crate::{
    command::get,
    output::Screen,
    view::{BackendView, PoolView},
};

pub(super) fn page(view: &PoolView, backends: &[BackendView], now: u64, screen: Screen) -> String {
    let mut page = Page::new(&format!("pool {}: {}", view.name, pool_verdict(view)));
    for (field, value) in view.fields() {
        page.wide_row(field, &value);
    }
    if let Some(traffic) = &view.traffic {
        traffic_section(&mut page, traffic);
    }
    page.section("backends");
    if backends.is_empty() {
        page.section("  none");
        page.next_step(&format!("'lbctl add-backend HOST:PORT --pool {}'", view.name));
        return page.text;
    }
    page.text += &screen.render(&get::backend_table(backends, now, false).indented(2));
    let worst =
        backends.iter().find(|backend| backend.admin_state == "enabled" && backend.health != "up");
    if let Some(worst) = worst {
        page.next_step(&format!("'lbctl describe backend {}'", worst.id));
    }
    page.text
}

fn pool_verdict(view: &PoolView) -> String {
    match view.backends {
        Some(counts) if counts.total() == 0 => "empty".to_owned(),
        Some(counts) if counts.up == 0 => "nothing can serve".to_owned(),
        Some(counts) => format!("{} of {} up", counts.up, counts.total()),
        None => "unknown".to_owned(),
    }
}
