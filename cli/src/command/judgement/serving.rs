//! Pools and backends.

use lb_core::model::Address;

use super::{Facts, Group};
use crate::{command::remedy, format, view::BackendView};

pub(super) fn pools(facts: &Facts, group: &mut Group<'_>) {
    for pool in &facts.pools {
        let name = &pool.name;
        let object = || format!("pool/{name}");
        let failing: Vec<_> =
            pool.source_status.iter().filter(|s| s.failing_since_unix_ms.is_some()).collect();
        for source in &failing {
            let message =
                format!("pool {name}: {} fails: {}", source.source, source.failure.sentence());
            group.fail("pool_source", object(), message, source.remedy(name).unwrap_or_default());
        }
        let total = pool.backends.map_or(0, |counts| counts.total());
        if total == 0 && failing.is_empty() {
            let remedy = format!("'lbctl add-backend HOST:PORT --pool {name}'");
            group.warn("pool_backends", object(), format!("pool {name} has no backends"), remedy);
        } else if total > 0 && !facts.serves(name) {
            let message = format!("pool {name} has no backend that serves, of {total}");
            group.cannot_serve("pool_serves", object(), message, name, facts);
        }
        if pool.health == "none" {
            let message = format!("pool {name} does not check its backends");
            let remedy = format!("'lbctl set-pool {name} --health http', or --health tcp");
            group.warn("pool_checks", object(), message, remedy);
        }
    }
    let all = format::count(facts.pools.len(), "pool", "pools");
    group.else_ok("pool_serves", format!("{all} with checked backends that serve"));
}

pub(super) fn backends(facts: &Facts, group: &mut Group<'_>) {
    let elsewhere: Vec<&str> = facts
        .live_proxies()
        .filter(|proxy| proxy.elsewhere)
        .map(|proxy| proxy.id.as_str())
        .collect();
    for backend in &facts.backends {
        let BackendView { id, address, reason, .. } = backend;
        let object = || format!("backend/{id}");
        let next = || remedy::next_step(backend);
        match (backend.admin_state, backend.health) {
            ("enabled", "down") => {
                let message = format!("{id} {address} is down: {}", reason.sentence());
                group.fail("backend_up", object(), message, next());
            }
            ("enabled", "unknown") => {
                group.warn(
                    "backend_up",
                    object(),
                    format!("{id} {address} is not checked yet"),
                    next(),
                );
            }
            _ => {}
        }
        let is_loopback = address.parse().is_ok_and(|address: Address| address.is_loopback());
        if is_loopback && !elsewhere.is_empty() {
            group.warn(
                "backend_loopback",
                object(),
                format!("{id} {address} means its own machine to {}", elsewhere.join(", ")),
                format!("'lbctl set-backend {id} --address HOST:PORT' with one that all can reach"),
            );
        }
    }
    let enabled = facts.backends.iter().filter(|b| b.admin_state == "enabled").count();
    let all = format::count(enabled, "enabled backend", "enabled backends");
    group.else_ok("backend_up", format!("{all}, none of them down"));
}
