//! A limit: its settings, what it came to, and what each proxy has of it.

use super::Page;
use crate::{
    command::limit,
    format,
    output::Screen,
    view::{LimitView, ProxyView},
};

pub(super) fn page(view: &LimitView, proxies: &[ProxyView], screen: Screen) -> String {
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
    let on_safe_share = on_safe_share(view, proxies);
    page.next_step(&match (settings.shadow, is_refusing) {
        _ if on_safe_share.is_some() => on_safe_share.unwrap_or_default(),
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

/// Why proxies do with their safe share, and what to do about it. One that is connected was not
/// lent its share yet, as after the limit was added.
fn on_safe_share(view: &LimitView, proxies: &[ProxyView]) -> Option<String> {
    let safe = view.proxies.iter().filter(|share| share.basis == "safe_share");
    let hears = |id: &str| proxies.iter().any(|proxy| proxy.id == id && proxy.is_connected());
    let (waiting, cut_off): (Vec<&str>, Vec<&str>) =
        safe.map(|share| share.proxy_id.as_str()).partition(|id| hears(id));
    if !cut_off.is_empty() {
        return Some(format!(
            "{}: no control plane is heard there, and a safe share is used: 'lbctl get proxies'",
            cut_off.join(", ")
        ));
    }
    (!waiting.is_empty()).then(|| {
        format!(
            "{}: not lent yet, a safe share is used until then: look again in a moment",
            waiting.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use lb_proto::v1 as pb;

    use super::*;
    use crate::args::OutputFormat;

    #[test]
    fn a_proxy_that_is_connected_is_not_said_to_hear_nobody() {
        let share = pb::ProxyLimitTotals {
            proxy_id: "edge-2".to_owned(),
            basis: "safe_share".to_owned(),
            ..pb::ProxyLimitTotals::default()
        };
        let view = LimitView::from(pb::LimitView {
            limit: Some(pb::Limit { name: "rl".to_owned(), ..pb::Limit::default() }),
            proxies: vec![share],
            ..pb::LimitView::default()
        });
        let next = |is_connected: bool| {
            let state = if is_connected { "synced" } else { "lost" };
            let proxy = pb::Proxy {
                id: "edge-2".to_owned(),
                state: state.to_owned(),
                ..pb::Proxy::default()
            };
            let text = page(&view, &[ProxyView::from(proxy)], Screen::new(OutputFormat::Table));
            text.lines().last().unwrap_or_default().to_owned()
        };
        insta::assert_snapshot!(next(true), @"next: edge-2: not lent yet, a safe share is used until then: look again in a moment");
        insta::assert_snapshot!(next(false), @"next: edge-2: no control plane is heard there, and a safe share is used: 'lbctl get proxies'");
    }
}
