//! The panes: which there are, what each lists, and the command that tells the same.
//!
//! The tables are those of the commands, so that a column means the same everywhere.

use std::cmp::Ordering;

use clap::ValueEnum;
use lb_core::model::natural_order;

use super::state::{Sample, Sort};
use crate::{
    command::{EventView, backend_table, pool_table, proxy_table},
    format,
    output::Table,
};

/// One screenful of one kind of thing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Pane {
    /// The fleet, its traffic, and what is wrong
    Overview,
    /// Pools with their backends by state
    Pools,
    /// Backends with their verdicts
    Backends,
    /// Proxies and what they have applied
    Proxies,
    /// What happened, the newest first
    Events,
}

impl Pane {
    /// In the order of their numbers, from 1.
    pub(crate) const ALL: [Self; 5] =
        [Self::Overview, Self::Pools, Self::Backends, Self::Proxies, Self::Events];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Pools => "Pools",
            Self::Backends => "Backends",
            Self::Proxies => "Proxies",
            Self::Events => "Events",
        }
    }

    /// What tells the same without this screen.
    pub(super) fn command(self) -> &'static str {
        match self {
            Self::Overview => "lbctl status",
            Self::Pools => "lbctl get pools",
            Self::Backends => "lbctl get backends",
            Self::Proxies => "lbctl get proxies",
            Self::Events => "lbctl watch --past 20",
        }
    }

    /// The kind of its lines, where they can be described.
    pub(super) fn kind(self) -> Option<&'static str> {
        match self {
            Self::Pools => Some("pool"),
            Self::Backends => Some("backend"),
            Self::Proxies => Some("proxy"),
            Self::Overview | Self::Events => None,
        }
    }

    /// The pane behind this one, and around.
    pub(super) fn next(self) -> Self {
        let at = Self::ALL.iter().position(|pane| *pane == self).unwrap_or_default();
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    /// Its lines; the overview has none.
    pub(super) fn table<'e>(
        self,
        sample: &Sample,
        events: impl Iterator<Item = &'e EventView>,
        now: u64,
    ) -> Option<Table> {
        match self {
            Self::Overview => None,
            Self::Pools => Some(pool_table(&sample.status.pools, false)),
            Self::Backends => Some(backend_table(&sample.backends, now, true)),
            Self::Proxies => Some(proxy_table(&sample.status.proxies, now, true)),
            Self::Events => Some(event_table(events, now)),
        }
    }
}

fn event_table<'e>(events: impl Iterator<Item = &'e EventView>, now: u64) -> Table {
    let mut table = Table::new(&["TIME", "EVENT", "OBJECT", "REVISION", "REASON"]);
    for event in events {
        table.row([
            format::clock(event.at_unix_ms, now).into(),
            (&event.event_type).into(),
            format!("{}/{}", event.kind, event.name).into(),
            event.revision.into(),
            event.sentence(now).into(),
        ]);
    }
    table
}

/// Leaves the rows that contain the filter, whatever the case, sorted if that is wanted.
pub(super) fn arrange(table: &mut Table, filter: &str, sort: Option<Sort>) {
    let filter = filter.to_lowercase();
    let rows = table.rows();
    let matches =
        |row: &usize| rows[*row].iter().any(|cell| cell.text().to_lowercase().contains(&filter));
    let mut order: Vec<usize> = (0..rows.len()).filter(matches).collect();
    if let Some(Sort { column, descending }) = sort.filter(|s| s.column < table.headers().len()) {
        order.sort_by(|a, b| {
            let order = compare(rows[*a][column].text(), rows[*b][column].text());
            if descending { order.reverse() } else { order }
        });
    }
    table.choose(&order);
}

/// Numbers by their value, with units and without; other text as people sort it.
fn compare(a: &str, b: &str) -> Ordering {
    match (quantity(a), quantity(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => natural_order(a, b),
    }
}

/// The value of `812`, `99.98%`, `9.7ms`, `3m12s`; a missing one is less than any.
fn quantity(text: &str) -> Option<f64> {
    if text == "-" {
        return Some(-1.0);
    }
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let letters = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        sum += number
            * match &unit[..letters] {
                "" | "%" | "s" => 1.0,
                "ms" => 1e-3,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return None,
            };
        rest = &unit[letters..];
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_sorted_by_what_they_mean() {
        for ascending in [
            ["-", "0", "9", "10"],
            ["0.21ms", "9.7ms", "312ms", "1.50s"],
            ["59s", "1m0s", "2h5m", "4d3h"],
            ["backend1", "backend2", "backend10", "web"],
            ["80.00%", "99.9%", "99.98%", "100%"],
        ] {
            assert!(ascending.is_sorted_by(|a, b| compare(a, b).is_lt()), "{ascending:?}");
        }
    }

    #[test]
    fn a_filter_and_an_order_leave_the_rows_that_are_wanted() {
        let mut table = Table::new(&["ID", "REQUESTS"]);
        for (id, requests) in [("web1", 9), ("api", 1), ("web2", 10)] {
            table.row([id.into(), requests.into()]);
        }
        arrange(&mut table, "WEB", Some(Sort { column: 1, descending: true }));
        let ids: Vec<&str> = table.rows().iter().map(|row| row[0].text()).collect();
        assert_eq!(ids, ["web2", "web1"]);
    }

    #[test]
    fn tab_goes_around() {
        let walked = Pane::ALL.iter().fold(Pane::Overview, |pane, _| pane.next());
        assert_eq!(walked, Pane::Overview);
    }
}
