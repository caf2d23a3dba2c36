//! Pools and backends.

use std::collections::{BTreeSet, HashMap};

use lb_core::model::Address;

use super::{Facts, Group, answers};
use crate::{
    command::remedy,
    format,
    view::{BackendView, PoolView},
};

pub(super) fn pools(facts: &Facts, group: &mut Group<'_>) {
    let is_bare = facts.pools.iter().all(|pool| total(pool) == 0);
    if is_bare {
        let message = "there are no backends".to_owned();
        group.fail("pool_backends", None, message, "'lbctl add-backend HOST:PORT'");
    }
    for pool in &facts.pools {
        let name = &pool.name;
        let object = || format!("pool/{name}");
        for source in pool.source_status.iter() {
            let Some(since) = source.failing_since_unix_ms else { continue };
            let since = format::age_of(Some(since), facts.now_unix_ms);
            let last = format::age_of(source.answered_unix_ms, facts.now_unix_ms);
            let message = format!(
                "pool {name}: {} failing for {since}, last answer {last} ago: {}",
                source.source,
                source.failure.sentence()
            );
            group.fail("pool_source", object(), message, source.remedy(name).unwrap_or_default());
        }
        if total(pool) == 0 {
            if !is_bare {
                empty(facts, pool, group);
            }
        } else if !facts.serves(name) {
            let (message, remedy) = without_serving(facts, pool);
            group.cannot_serve("pool_serves", object(), message, remedy, name, facts);
        } else if let Some(panic) = pool.panic_sentence() {
            let message = format!("pool {name}: panic mode: {panic}");
            group.fail("pool_panic", object(), message, format!("'lbctl describe pool {name}'"));
        }
        if let Some(message) = idle_weights(facts, pool) {
            let remedy = format!("'lbctl set-algorithm {name} weighted_round_robin' goes by them");
            group.advise("pool_weights", object(), message, remedy);
        }
        if pool.health == "none" {
            let message = format!("pool {name} does not check its backends");
            let remedy = format!("'lbctl set-pool {name} --health http', or --health tcp");
            group.advise("pool_checks", object(), message, remedy);
        }
    }
    answers::of_pools(facts, group);
    let all = format::count(facts.pools.len(), "pool", "pools");
    group.else_ok("pool_serves", format!("{all} with checked backends that serve"));
}

/// Weights that differ where nobody looks at them.
fn idle_weights(facts: &Facts, pool: &PoolView) -> Option<String> {
    let name = &pool.name;
    let own = facts.backends.iter().filter(|b| &b.pool == name && b.source.is_none());
    let weights: BTreeSet<u32> = own.map(|b| b.weight).filter(|weight| *weight > 0).collect();
    (pool.algorithm == "round_robin" && weights.len() > 1).then(|| {
        format!(
            "pool {name}: its backends differ in weight, and round_robin knows no weights but 0"
        )
    })
}

fn total(pool: &PoolView) -> u32 {
    pool.backends.map_or(0, |counts| counts.total())
}

/// A pool without a backend keeps requests from being served only if a route leads there.
fn empty(facts: &Facts, pool: &PoolView, group: &mut Group<'_>) {
    let name = &pool.name;
    let object = format!("pool/{name}");
    let remedy = if pool.source_status.is_empty() {
        format!("'lbctl add-backend HOST:PORT --pool {name}'")
    } else {
        format!("'lbctl describe pool {name}' shows what its sources find")
    };
    let routes: Vec<_> = facts.routes_to(name).map(|route| &route.name).collect();
    let routes = match routes.as_slice() {
        [] => {
            let message = format!("pool {name} has no backends");
            return group.advise("pool_backends", object, message, remedy);
        }
        [one] => format!("route {one} leads"),
        [one, more @ ..] => format!("route {one} and {} more lead", more.len()),
    };
    let message = format!("pool {name}: it has no backends, and {routes} there");
    group.cannot_serve("pool_backends", object, message, remedy, name, facts);
}

/// Why no backend of a pool that has some gets requests, and what to do.
fn without_serving(facts: &Facts, pool: &PoolView) -> (String, String) {
    let name = &pool.name;
    let own = facts.backends.iter().filter(|backend| &backend.pool == name);
    let up = own.filter(|backend| backend.health == "up" && backend.admin_state == "enabled");
    let (weightless, out): (Vec<&BackendView>, Vec<&BackendView>) =
        up.partition(|backend| backend.weight == 0);
    let look = format!("'lbctl describe pool {name}'");
    let total = total(pool) as usize;
    let refused = match facts.instead(name) {
        Some(_) => "",
        None => ": requests are answered 503",
    };
    if let ([first, ..], true) = (&*weightless, weightless.len() == total) {
        let who = match total {
            1 => "its only backend has weight 0".to_owned(),
            _ => "its backends are up, and all have weight 0".to_owned(),
        };
        let remedy = format!("'lbctl set-backend {} --weight 1'", first.id);
        return (format!("pool {name}: {who}{refused}"), remedy);
    }
    let mut why: Vec<String> = pool.backends.iter().map(|counts| counts.sentence()).collect();
    why.retain(|states| !states.is_empty());
    for (count, what) in
        [(weightless.len(), "with weight 0"), (out.len(), "kept out by a breaker or as an outlier")]
    {
        if count > 0 {
            why.push(format!("{count} {what}"));
        }
    }
    let who = match (total, weightless.len() + out.len()) {
        (1, 0) => "its only backend is not up".to_owned(),
        (1, _) => "its only backend gets no requests".to_owned(),
        (all, 0) => format!("none of its {all} backends is up"),
        (all, _) => format!("none of its {all} backends gets requests"),
    };
    (format!("pool {name}: {who}: {}", why.join(", ")), look)
}

pub(super) fn backends(facts: &Facts, group: &mut Group<'_>) {
    let elsewhere: Vec<&str> = facts
        .live_proxies()
        .filter(|proxy| proxy.elsewhere)
        .map(|proxy| proxy.id.as_str())
        .collect();
    for backend in &facts.backends {
        let BackendView { id, address, .. } = backend;
        let object = || format!("backend/{id}");
        if backend.admin_state == "enabled" && backend.is_amiss() {
            let (message, next) = (state(backend, facts.now_unix_ms), remedy::next_step(backend));
            match backend.health {
                "down" => group.fail("backend_up", object(), message, next),
                "unknown" => group.warn("backend_up", object(), message, next),
                _ if backend.kept.is_some() => {
                    group.fail("backend_standing", object(), message, next);
                }
                _ => group.warn("backend_standing", object(), message, next),
            }
        }
        if let Some(hanging) = backend.hanging().filter(|_| backend.admin_state == "enabled") {
            let message = format!("{id} {address}: {}", hanging.sentence());
            group.warn("backend_answers", object(), message, remedy::hanging(backend));
        }
        let is_loopback = address.parse().is_ok_and(|address: Address| address.is_loopback());
        if is_loopback && !elsewhere.is_empty() {
            group.advise(
                "backend_loopback",
                object(),
                format!("{id} {address} means its own machine to {}", elsewhere.join(", ")),
                format!("'lbctl set-backend {id} --address HOST:PORT' with one that all can reach"),
            );
        }
    }
    twins(facts, group);
    let enabled = facts.backends.iter().filter(|b| b.admin_state == "enabled").count();
    let all = format::count(enabled, "enabled backend", "enabled backends");
    group.else_ok("backend_up", format!("{all}, none of them down"));
}

/// Backends of one pool whose names lead to one server, which gets the requests of both.
fn twins(facts: &Facts, group: &mut Group<'_>) {
    let mut seen: HashMap<(&str, &str), &BackendView> = HashMap::new();
    for backend in facts.backends.iter().filter(|backend| backend.admin_state == "enabled") {
        let addresses = backend.resolved_addresses.iter().map(String::as_str);
        let mut places = addresses.map(|address| (backend.pool.as_str(), address));
        if let Some((place, twin)) = places.find_map(|place| Some((place, *seen.get(&place)?))) {
            group.advise(
                "backend_twin",
                format!("backend/{}", backend.id),
                format!(
                    "{} {} and {} {} are one server, {}, and it gets the requests of both",
                    twin.id, twin.address, backend.id, backend.address, place.1
                ),
                format!("'lbctl remove-backend {}'", backend.id),
            );
        }
        for address in &backend.resolved_addresses {
            seen.entry((&backend.pool, address)).or_insert(backend);
        }
    }
}

/// How a backend is that is not as it should be, for how long, and why.
fn state(backend: &BackendView, now: u64) -> String {
    let ejected = backend.standing.ejection.as_ref().map(|ejection| ejection.since_unix_ms);
    let kept = backend.kept.as_ref().map(|kept| kept.since_unix_ms);
    let since = ejected.or(kept).or(backend.since_unix_ms);
    // Before the first check there is nothing to count from.
    let since =
        since.map_or_else(String::new, |at| format!(" for {}", format::age_of(Some(at), now)));
    let last = backend.checks.as_ref().and_then(|checks| checks.last_success_unix_ms);
    let last = last.map_or_else(String::new, |at| {
        format!("; its check passed {} ago", format::age_of(Some(at), now))
    });
    let (id, address, state, why) =
        (&backend.id, &backend.address, backend.state(), remedy::why(backend));
    let again = backend.standing.ejection.as_ref().and_then(|ejection| ejection.until_unix_ms());
    let again = again
        .map_or_else(String::new, |at| format!(", tried again {}", format::plan(Some(at), now)));
    format!("{id} {address} {state}{since}{again}: {why}{last}")
}
