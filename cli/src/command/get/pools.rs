//! Pools in a table.

use super::{up_of, worry};
use crate::{
    format,
    output::{Cell, Table, Tone},
    view::{PoolView, slots},
};

/// Pools, a line each.
pub(crate) fn pool_table(views: &[PoolView], wide: bool) -> Table {
    let mut headers = vec![
        "POOL",
        "ALGORITHM",
        "UP",
        "DOWN",
        "UNKNOWN",
        "DISABLED",
        "DRAINING",
        "REQ/S",
        "SUCCESS",
        "P99",
    ];
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
    for view in views {
        let traffic = view.traffic.clone().unwrap_or_default();
        let mut row: Vec<Cell> = vec![(&view.name).into(), (&view.algorithm).into()];
        match view.backends {
            Some(counts) => row.extend::<[Cell; 5]>([
                up_of(counts.up, counts.total()),
                Cell::toned(counts.down.to_string(), worry(counts.down, Tone::Bad)),
                counts.unknown.into(),
                counts.disabled.into(),
                counts.draining.into(),
            ]),
            None => row.extend((0..5).map(|_| Cell::from("-"))),
        }
        row.extend::<[Cell; 3]>([
            format::rate(traffic.requests_per_second).into(),
            traffic.ok_ratio().into(),
            format::latency(traffic.latency_p99_us).into(),
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
