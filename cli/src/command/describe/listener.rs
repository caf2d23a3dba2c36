//! A listener: its settings, where proxies accept for it, and which routes it has.

use super::Page;
use crate::{
    command::judgement::{self, Facts},
    format,
    output::{Screen, Table},
    view::{ObjectView, ProxyView},
};

pub(super) fn page(view: &ObjectView, facts: &Facts, screen: Screen) -> String {
    let name = view.name();
    let has_address = |proxy: &&ProxyView| proxy.listen.iter().any(|l| l.listener == name);
    let live = || facts.proxies.iter().filter(|proxy| proxy.is_connected());
    let at = live().filter(has_address).count();
    let verdict = match (at, live().count()) {
        (_, 0) => "no proxy is connected".to_owned(),
        (0, _) => "no proxy has an address for it".to_owned(),
        (at, all) => format!("at {at} of {}", format::count(all, "proxy", "proxies")),
    };
    let mut page = Page::new(&format!("listener {name}: {verdict}"));
    page.settings(view);
    page.section("addresses");
    if facts.proxies.iter().any(|proxy| has_address(&proxy)) {
        page.text += &screen.render(&addresses(name, &facts.proxies));
    } else {
        page.section("  none");
    }
    page.section("routes");
    let routes = facts.routes.iter().filter(|route| route.listener.as_str() == name);
    let routes: Vec<&str> = routes.map(|route| route.name.as_str()).collect();
    page.section(&match routes.as_slice() {
        [] => "  none: every request is answered 404".to_owned(),
        routes => format!("  {}", routes.join(", ")),
    });
    let otherwise = match (live().count(), routes.is_empty()) {
        (0, _) => format!("start a proxy with 'lbctl data-plane --listen {name}=HOST:PORT'"),
        (_, true) => format!("'lbctl add-route NAME --listener {name} --pool POOL'"),
        (_, false) => "nothing to do".to_owned(),
    };
    page.problems(&judgement::about(facts, "listener", name), &otherwise);
    page.text
}

fn addresses(name: &str, proxies: &[ProxyView]) -> Table {
    let mut table = Table::new(&["PROXY", "STATE", "ADDRESS"]).indented(2);
    for proxy in proxies {
        for listen in proxy.listen.iter().filter(|listen| listen.listener == name) {
            table.row([(&proxy.id).into(), (&proxy.state).into(), (&listen.address).into()]);
        }
    }
    table
}
