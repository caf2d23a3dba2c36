//! Tables in Markdown. Ratios are taken within a round, between neighbours in time, and
//! then their median over the rounds.

use std::fmt::Write as _;

use crate::{
    args::{Contender, Workload},
    compare::{Entry, title},
    measure::Row,
};

/// Workloads whose added latency is shown; `--json` has all.
const ADDED: [Workload; 3] = [Workload::KeepAlive, Workload::Close, Workload::Few2];

/// As it is called in tables.
pub(crate) fn name(contender: Contender) -> &'static str {
    match contender {
        Contender::Direct => "no proxy",
        Contender::BytePump => "bytes only, no HTTP",
        Contender::Ours => "this proxy",
        Contender::OursLogging => "this proxy, with access log",
        Contender::Nginx => "nginx",
        Contender::Haproxy => "HAProxy",
        Contender::Envoy => "Envoy",
    }
}

/// The whole report.
pub(crate) fn markdown(
    heading: &str,
    entries: &[Entry],
    workloads: &[Workload],
    rows: &[Row],
) -> String {
    let mut text = format!("{heading}\n");
    let timed: Vec<Workload> =
        workloads.iter().copied().filter(|workload| *workload != Workload::Memory).collect();
    for reference in [Contender::Nginx, Contender::BytePump] {
        if !timed.is_empty() && rows.iter().any(|row| row.contender == reference) {
            let heading = format!("CPU of a request / {}", name(reference));
            let columns: Vec<String> = timed.iter().map(|one| title(*one).to_owned()).collect();
            table(&mut text, &heading, &columns, entries, |contender| {
                timed.iter().map(|one| cpu_cell(rows, *one, contender, reference)).collect()
            });
        }
    }
    // With more clients than cores, the median is mostly waiting for each other.
    let added: Vec<Workload> = timed.iter().copied().filter(|one| ADDED.contains(one)).collect();
    let mut columns: Vec<String> =
        added.iter().map(|one| format!("p50 added, {}", title(*one))).collect();
    if workloads.contains(&Workload::Memory) {
        columns.extend(["resident".to_owned(), "an idle connection".to_owned()]);
    }
    table(&mut text, "latency and memory", &columns, entries, |contender| {
        let mut cells: Vec<_> = added.iter().map(|one| added_cell(rows, *one, contender)).collect();
        if workloads.contains(&Workload::Memory) {
            cells.extend(memory_cells(rows, contender));
        }
        cells
    });
    text
}

fn table(
    text: &mut String,
    heading: &str,
    columns: &[String],
    entries: &[Entry],
    cells: impl Fn(Contender) -> Vec<String>,
) {
    text.push('\n');
    let mut line = |cells: &[String]| {
        // Writing to a string cannot fail.
        writeln!(text, "| {} |", cells.join(" | ")).ok();
    };
    line(&[&[heading.to_owned()], columns].concat());
    line(&vec!["---".to_owned(); columns.len() + 1]);
    for entry in entries.iter().filter(|entry| entry.contender != Contender::Direct) {
        let mut row = vec![name(entry.contender).to_owned()];
        match &entry.absent {
            Some(why) => {
                row.push(why.clone());
                row.resize(columns.len() + 1, String::new());
            }
            None => row.extend(cells(entry.contender)),
        }
        line(&row);
    }
}

/// The ratio to the reference, and the time itself.
fn cpu_cell(
    rows: &[Row],
    workload: Workload,
    contender: Contender,
    reference: Contender,
) -> String {
    let ratio = median(paired(rows, workload, "cpu_us", contender, reference, |a, b| a / b));
    let time = median(values(rows, workload, "cpu_us", contender));
    match (ratio, time) {
        (Some(ratio), Some(time)) => format!("{ratio:.2} ({time:.0} µs)"),
        _ => "-".to_owned(),
    }
}

fn added_cell(rows: &[Row], workload: Workload, contender: Contender) -> String {
    let direct = Contender::Direct;
    let added = paired(rows, workload, "p50_us", contender, direct, |a, b| a - b);
    median(added).map_or_else(|| "-".to_owned(), |added| format!("{added:.0} µs"))
}

fn memory_cells(rows: &[Row], contender: Contender) -> [String; 2] {
    let found = |figure| median(values(rows, Workload::Memory, figure, contender));
    let cell = |value: Option<f64>, unit: f64, name: &str| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{:.1} {name}", value / unit))
    };
    [cell(found("resident_bytes"), 1e6, "MB"), cell(found("bytes_per_idle_connection"), 1e3, "kB")]
}

fn values(rows: &[Row], workload: Workload, figure: &str, contender: Contender) -> Vec<f64> {
    rows.iter()
        .filter(|row| row.workload == workload && row.contender == contender)
        .filter_map(|row| row.figures.get(figure).copied())
        .collect()
}

/// A figure against that of another contender, round by round; rounds that lack one of
/// them are left out.
fn paired(
    rows: &[Row],
    workload: Workload,
    figure: &str,
    contender: Contender,
    reference: Contender,
    combine: impl Fn(f64, f64) -> f64,
) -> Vec<f64> {
    let of = |contender, round| {
        let row = rows
            .iter()
            .find(|row| (row.round, row.workload, row.contender) == (round, workload, contender))?;
        row.figures.get(figure).copied()
    };
    let rounds = rows.iter().map(|row| row.round).max().unwrap_or_default();
    (1..=rounds)
        .filter_map(|round| Some(combine(of(contender, round)?, of(reference, round)?)))
        .collect()
}

/// The middle value; of an even count, the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn row(round: u32, contender: Contender, cpu_us: f64) -> Row {
        let figures = BTreeMap::from([("cpu_us", cpu_us)]);
        Row { round, contender, workload: Workload::KeepAlive, figures }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn ratios_are_taken_within_rounds_so_that_a_slow_minute_changes_nothing() {
        let rows = [
            row(1, Contender::Ours, 10.0),
            row(1, Contender::Nginx, 20.0),
            // The machine is three times as slow.
            row(2, Contender::Ours, 30.0),
            row(2, Contender::Nginx, 60.0),
            // The reference failed.
            row(3, Contender::Ours, 99.0),
        ];
        let cell = cpu_cell(&rows, Workload::KeepAlive, Contender::Ours, Contender::Nginx);
        assert_eq!(cell, "0.50 (30 µs)");
        assert_eq!(cpu_cell(&rows, Workload::Close, Contender::Ours, Contender::Nginx), "-");
    }

    #[test]
    fn who_is_not_installed_still_has_a_row() {
        let entries = [Entry {
            contender: Contender::Envoy,
            version: String::new(),
            absent: Some("not installed".to_owned()),
        }];
        let rows = [row(1, Contender::Nginx, 20.0)];
        let text = markdown("", &entries, &[Workload::KeepAlive], &rows);
        assert!(text.contains("| Envoy | not installed |"), "{text}");
    }
}
