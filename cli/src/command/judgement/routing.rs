//! Listeners and routes: whether requests come in, and whether they get anywhere.

use std::collections::BTreeSet;

use lb_core::{
    model::Route,
    routing::{Obstacle, obstacle},
};

use super::{Facts, Group};
use crate::{format, view::ObjectView};

pub(super) fn listeners(facts: &Facts, group: &mut Group<'_>) {
    let known: BTreeSet<&str> = facts.listeners.iter().map(ObjectView::name).collect();
    for name in &known {
        let object = || format!("listener/{name}");
        let remedy = format!(
            "start proxies with '--listen {name}=HOST:PORT', or 'lbctl remove-listener {name}'"
        );
        let without: Vec<&str> = facts
            .live_proxies()
            .filter(|proxy| proxy.listen.iter().all(|listen| listen.listener != *name))
            .map(|proxy| proxy.id.as_str())
            .collect();
        if without.is_empty() {
            continue;
        }
        let message = if without.len() == facts.live_proxies().count() {
            format!("no proxy has an address for listener {name}: nobody can reach it")
        } else {
            let have = if without.len() == 1 { "has" } else { "have" };
            format!("{} {have} no address for listener {name}", without.join(", "))
        };
        group.advise("listener_address", object(), message, remedy);
    }
    for proxy in facts.live_proxies() {
        let bound = proxy.listen.iter().map(|listen| listen.listener.as_str());
        for name in bound.filter(|name| !known.contains(name)) {
            group.advise(
                "listener_object",
                format!("proxy/{}", proxy.id),
                format!("{} listens for {name:?}, and there is no such listener", proxy.id),
                format!("'lbctl add-listener {name}'; until then nothing is routed there"),
            );
        }
    }
    let all = format::count(known.len(), "listener", "listeners");
    let told = match facts.live_proxies().next() {
        Some(_) => format!("{all} with an address at every proxy"),
        None => format!("{all}, and no proxy that could have an address for one"),
    };
    group.else_ok("listener_address", told);
}

pub(super) fn routes(facts: &Facts, group: &mut Group<'_>) {
    let bound: BTreeSet<&str> =
        facts.live_proxies().flat_map(|p| &p.listen).map(|l| l.listener.as_str()).collect();
    for route in &facts.routes {
        let name = &route.name;
        let object = || format!("route/{name}");
        if let Some((why, remedy)) = obstacle_of(facts, route) {
            let message = format!("route {name} never matches: {why}");
            group.advise("route_reachable", object(), message, remedy);
        }
        let listener = route.listener.as_str();
        if !facts.proxies.is_empty() && !bound.contains(listener) {
            group.advise(
                "route_reachable",
                object(),
                format!("route {name} never matches: no proxy listens for {listener}"),
                format!("start proxies with '--listen {listener}=HOST:PORT'"),
            );
        }
        let shares = route.pools.iter().filter(|(_, weight)| *weight > 0);
        for (pool, _) in shares.filter(|(pool, _)| !facts.serves(pool.as_str())) {
            let message = format!("route {name} goes to pool {pool}, which cannot serve");
            let remedy = format!("'lbctl describe pool {pool}'");
            group.cannot_serve("route_served", object(), message, remedy, pool.as_str(), facts);
            // The pool says more.
            group.is_advice();
        }
    }
    bare_listeners(facts, &bound, group);
    let all = format::count(facts.routes.len(), "route", "routes");
    group.else_ok("route_served", format!("{all} with a pool that can serve"));
}

/// Listeners without a route, where everything is refused. Of one that no proxy has an address for,
/// that is told instead.
fn bare_listeners(facts: &Facts, bound: &BTreeSet<&str>, group: &mut Group<'_>) {
    let names = facts.listeners.iter().map(ObjectView::name);
    let is_bare = |name: &&str| facts.routes.iter().all(|route| route.listener.as_str() != *name);
    for name in names.filter(is_bare) {
        let object = format!("listener/{name}");
        let message = format!("listener {name} has no route: everything is answered 404");
        let remedy = format!("'lbctl add-route NAME --listener {name} --pool POOL'");
        if bound.contains(name) || bound.is_empty() {
            group.fail("route_exists", object, message, remedy);
        }
    }
    if facts.routes.is_empty() && facts.listeners.is_empty() {
        let message = "there are no routes: every answer is 404".to_owned();
        group.fail("route_exists", None, message, "'lbctl add-route NAME --pool POOL'");
    }
}

/// Why it is never taken, and what to do.
fn obstacle_of(facts: &Facts, route: &Route) -> Option<(String, String)> {
    let name = &route.name;
    Some(match obstacle(&facts.routes, route)? {
        Obstacle::HostHasPort => (
            format!("{} has a port, and hosts are compared without", route.host),
            format!("'lbctl set-route {name} --host HOST' without the port"),
        ),
        Obstacle::PathHas(unmatched) => {
            let (what, begins) = (unmatched.name(), unmatched.begins_with());
            (
                format!("{} has {what}, and paths are compared without", route.path),
                format!("'lbctl set-route {name} --path PATH' without what follows the '{begins}'"),
            )
        }
        Obstacle::SameMatch(other) => (
            format!("route {} matches the same requests, and its name comes first", other.name),
            format!("'lbctl remove-route {name}', or let it match something else"),
        ),
    })
}
