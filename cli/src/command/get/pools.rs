//! Pools in a table.

use super::{up_of, worry};
use crate::{
    format,
    output::{Cell, Table, Tone},
    view::{Counts, PoolView, Traffic, slots},
};

/// A header, and the count below it.
type Count = (&'static str, fn(&Counts) -> u32);

/// Counts of backends that are zero nearly always: they have a column where one is not, so that
/// the table fits on a terminal of 80 columns.
const RARE: [Count; 3] = [
    ("UNKNOWN", |counts| counts.unknown),
    ("DISABLED", |counts| counts.disabled),
    ("DRAINING", |counts| counts.draining),
];

/// Pools, a line each.
pub(crate) fn pool_table(views: &[PoolView], wide: bool) -> Table {
    let mut rare = RARE.to_vec();
    rare.retain(|(_, of)| {
        wide || views.iter().filter_map(|view| view.backends.as_ref()).any(|all| of(all) > 0)
    });
    let mut headers = vec!["POOL", "ALGORITHM", "UP", "DOWN"];
    headers.extend(rare.iter().map(|(name, _)| *name));
    headers.extend(["REQ/S", "SUCCESS", "P99"]);
    if wide {
        headers.extend([
            "SLOTS",
            "WAITING",
            "CHECK",
            "INTERVAL",
            "CONNECT-TIMEOUT",
            "REQUEST-TIMEOUT",
        ]);
    }
    let mut table = Table::new(&headers);
    let nothing = Traffic::default();
    for view in views {
        let traffic = view.traffic.as_ref().unwrap_or(&nothing);
        let mut row: Vec<Cell> = vec![(&view.name).into(), (&view.algorithm).into()];
        match view.backends {
            Some(counts) => {
                row.push(up_of(&counts));
                row.push(Cell::toned(counts.down.to_string(), worry(counts.down, Tone::Bad)));
                row.extend(rare.iter().map(|(_, of)| Cell::from(of(&counts))));
            }
            None => row.extend((0..2 + rare.len()).map(|_| Cell::from("-"))),
        }
        let (ok, _, p99) = traffic.outcome();
        row.extend::<[Cell; 3]>([
            format::rate(traffic.requests_per_second).into(),
            ok.into(),
            format::latency(p99).into(),
        ]);
        if wide {
            let millis = |ms: u32| format::duration(std::time::Duration::from_millis(ms.into()));
            row.extend(slots(view.slots.as_ref(), view.concurrency.max_in_flight).map(Cell::from));
            row.extend::<[Cell; 4]>([
                match &view.health_path {
                    Some(path) => format!("{} {path}", view.health).into(),
                    None => (&view.health).into(),
                },
                millis(view.health_interval_ms).into(),
                millis(view.connect_timeout_ms).into(),
                millis(view.request_timeout_ms).into(),
            ]);
        }
        table.row(row);
    }
    table
}
