//! An explanation for people.

use super::view::{ExplainView, NotShown, PoolShare};
use crate::output::{Cell, Screen, Table, Tone};

pub(super) fn page(view: &ExplainView, screen: Screen) -> String {
    let host = if view.host.is_empty() { "(none)" } else { &view.host };
    let ExplainView { method, target, listener, .. } = view;
    let mut text = format!("{method} {target}, host {host}, on listener {listener}\n");
    match &view.route {
        Some(route) => text += &format!("takes route {}, which goes to\n", route.name),
        None => text += "takes no route: 404 no_route\n",
    }
    if view.route.is_some() {
        text += &screen.render(&pool_table(&view.pools));
    }
    if !view.not_taken.is_empty() {
        text += "not taken\n";
        text += &screen.render(&not_taken(view));
    }
    for NotShown { reason, routes } in &view.not_shown {
        text += &format!("and {routes} more: {}\n", reason.replace('_', " "));
    }
    if let Some(step) = next_step(view) {
        text += &format!("next: {step}\n");
    }
    text
}

/// The pools of a route, a line each.
pub(in crate::command) fn pool_table(pools: &[PoolShare]) -> Table {
    let mut table = Table::new(&["POOL", "WEIGHT", "SHARE", "SERVING"]).indented(2);
    for pool in pools {
        let dead = pool.serving == 0 && pool.share.weight > 0;
        let mut serving = format!("{} of {} backends", pool.serving, pool.backends);
        if pool.helping > 0 {
            serving += ", panic mode";
        }
        table.row([
            (&pool.share.pool).into(),
            pool.share.weight.into(),
            format!("{}%", pool.share.percent).into(),
            Cell::toned(serving, if dead { Tone::Bad } else { Tone::Plain }),
        ]);
    }
    table
}

fn not_taken(view: &ExplainView) -> Table {
    let mut table = Table::new(&["ROUTE", "HOST", "PATH", "WHY"]).indented(2);
    for other in &view.not_taken {
        let host = if other.route.host.is_empty() { "*" } else { &other.route.host };
        table.row([
            (&other.route.name).into(),
            host.into(),
            other.route.paths().into(),
            (&other.message).into(),
        ]);
    }
    table
}

fn next_step(view: &ExplainView) -> Option<String> {
    let taken = || view.pools.iter().filter(|pool| pool.share.weight > 0);
    let Some(dead) = taken().find(|pool| pool.serving == 0) else {
        let helped = taken().find(|pool| pool.helping > 0)?;
        let (pool, helping) = (&helped.share.pool, helped.helping);
        return Some(format!(
            "pool {pool} is in panic mode, and uses {helping} of its backends that are not well: \
             'lbctl describe pool {pool}' says why"
        ));
    };
    let (pool, percent) = (&dead.share.pool, dead.share.percent);
    Some(if let Some(instead) = &dead.instead {
        format!(
            "no backend of pool {pool} can serve: {instead}; 'lbctl describe pool {pool}' says why"
        )
    } else if dead.backends == 0 {
        format!(
            "{percent}% of the requests get 503, because pool {pool} has no backends: 'lbctl \
             add-backend HOST:PORT --pool {pool}'"
        )
    } else {
        format!(
            "{percent}% of the requests get 503, because no backend of pool {pool} can serve: \
             'lbctl get backends --pool {pool} -o wide' says why"
        )
    })
}
