//! A limit: its settings, what it came to, and what each proxy has of it.

use super::Page;
use crate::{command::limit, format, output::Screen, view::LimitView};

pub(super) fn page(view: &LimitView, screen: Screen) -> String {
    let (settings, totals) = (&view.settings, &view.totals);
    let is_refusing = totals.refused_per_second >= 0.05;
    let verdict = match (settings.shadow, is_refusing) {
        (true, true) => "would refuse requests now",
        (true, false) => "only counts",
        (false, true) => "refuses requests now",
        (false, false) => "lets everything pass now",
    };
    let mut page = Page::new(&format!("limit {}: {verdict}", settings.name));
    for (field, value) in settings.fields() {
        page.wide_row(field, &value);
    }
    page.wide_row("revision", &view.revision.to_string());
    page.section("decisions");
    let per_second = |total: u64, rate| format!("{total} ({} per second)", format::rate(rate));
    page.row("passed", &per_second(totals.admitted_total, totals.admitted_per_second));
    let refused = if settings.shadow { "would be refused" } else { "refused" };
    page.row(refused, &per_second(totals.refused_total, totals.refused_per_second));
    if settings.key != "all" {
        page.row("keys forgiven", &totals.forgiven_keys_total.to_string());
    }
    page.section("proxies");
    if view.proxies.is_empty() {
        page.section("  none has told anything yet");
    } else {
        page.text += &limit::shares_of(view, screen);
    }
    let is_safe = view.proxies.iter().any(|share| share.basis == "safe_share");
    page.next_step(&match (settings.shadow, is_refusing) {
        _ if is_safe => "some proxies hear no control plane and use their safe share: 'lbctl get \
                         proxies'"
            .to_owned(),
        (true, _) => format!("'lbctl set-limit {} --shadow=false' makes it refuse", settings.name),
        (false, true) => format!(
            "'lbctl set-limit {} --rate COUNT/UNIT' lets more pass; the access log names the \
             limit of each refusal",
            settings.name
        ),
        (false, false) => "nothing to do".to_owned(),
    });
    page.text
}
