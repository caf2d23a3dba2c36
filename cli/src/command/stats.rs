//! `stats`: how many requests the fleet answered, how well and how fast.

use std::collections::BTreeMap;

use lb_proto::v1 as pb;
use serde::Serialize;

use super::{Session, get};
use crate::{
    clock,
    exit::Failure,
    format,
    output::{Screen, Table},
    view::{BackendView, PoolView, Traffic, by_reason, is_connected, most_frequent},
};

/// The statistics, all proxies together.
#[derive(Debug, Serialize)]
struct StatsView {
    /// When the control plane was started, which counts since then.
    started_unix_ms: u64,
    /// Answered, by a backend or by a proxy itself.
    requests_total: u64,
    /// With a status below 500.
    successes_total: u64,
    /// With 5xx.
    failures_total: u64,
    client_aborts_total: usize,
    /// What the proxies answered by themselves, by reason.
    own_answers_total: BTreeMap<String, u64>,
    proxies: usize,
    traffic: Traffic,
    pools: Vec<PoolView>,
    backends: Vec<BackendView>,
}

/// Prints them.
pub(super) async fn run(session: &Session) -> Result<(), Failure> {
    let request = pb::GetStatusRequest {};
    let status = session.client.call(session.client.fleet().get_status(request)).await?;
    let view = StatsView::new(status, get::backends(session, "").await?);
    let names = || view.backends.iter().map(|b| format!("backend/{}", b.id)).collect();
    session.screen.answer(&view, names, || page(&view, clock::unix_ms(), session.screen))
}

impl StatsView {
    fn new(status: pb::GetStatusResponse, backends: Vec<BackendView>) -> Self {
        let process = status.process.unwrap_or_default();
        let by_class = |class: usize| process.status_classes.get(class).copied().unwrap_or(0);
        let successes_total = (0..4).map(by_class).sum();
        let failures_total = by_class(4);
        Self {
            started_unix_ms: status.started_unix_ms,
            requests_total: successes_total + failures_total,
            successes_total,
            failures_total,
            client_aborts_total: usize::try_from(process.client_aborts).unwrap_or(usize::MAX),
            own_answers_total: process.own_answers,
            proxies: status.proxies.iter().filter(|proxy| is_connected(&proxy.state)).count(),
            traffic: Traffic::from(status.totals).with_recent(status.recent),
            pools: status.pools.into_iter().map(PoolView::from).collect(),
            backends,
        }
    }
}

fn page(view: &StatsView, now: u64, screen: Screen) -> String {
    let algorithms: Vec<String> =
        view.pools.iter().map(|pool| format!("{} {}", pool.name, pool.algorithm)).collect();
    let traffic = &view.traffic;
    let mut text = format!("NOW       {}\n", traffic.line());
    text += &format!(
        "SINCE     {} UTC, {} ago, when the control plane started:\n",
        format::clock(view.started_unix_ms, now),
        format::age_of(Some(view.started_unix_ms), now),
    );
    text += &format!(
        "REQUESTS  {} answered by {}: {} well, {} with 5xx ({} well)\n",
        view.requests_total,
        format::count(view.proxies, "proxy", "proxies"),
        view.successes_total,
        view.failures_total,
        format::percent(view.successes_total, view.requests_total),
    );
    let own = most_frequent(by_reason(&view.own_answers_total)).into_iter();
    let own: Vec<String> = own.map(|(reason, count)| format!("{reason} {count}")).collect();
    if !own.is_empty() {
        text += &format!("ANSWERS   of the proxies' own: {}\n", own.join(", "));
    }
    if view.client_aborts_total > 0 {
        let clients = format::count(view.client_aborts_total, "client", "clients");
        text += &format!("ABORTS    {clients} left before the answer\n");
    }
    text += &format!(
        "LATENCY   of backends: mean {}   p50 {}   p99 {}\n",
        format::latency(traffic.latency_mean_us),
        format::latency(traffic.latency_p50_us),
        format::latency(traffic.latency_p99_us),
    );
    text += &format!("POOLS     {}\n\n", algorithms.join(", "));
    let mut table =
        Table::new(&["ID", "ADDRESS", "STATE", "REQUESTS", "FAILED", "IN-FLIGHT", "MEAN"]);
    for backend in &view.backends {
        let traffic = &backend.traffic;
        table.row([
            backend.id.as_str().into(),
            backend.address.as_str().into(),
            backend.state().into(),
            traffic.requests_total.into(),
            traffic.failures_total.into(),
            traffic.in_flight.into(),
            format::latency(traffic.latency_mean_us).into(),
        ]);
    }
    text + &screen.render(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::OutputFormat;

    #[test]
    fn what_was_answered_and_how_is_on_one_page() {
        let status = pb::GetStatusResponse {
            started_unix_ms: 1_795_384_331_000 - 1_143_000,
            process: Some(pb::ProcessReport {
                status_classes: vec![0, 140, 0, 8, 2],
                client_aborts: 1,
                own_answers: [("no_healthy_backend".to_owned(), 2)].into(),
                ..pb::ProcessReport::default()
            }),
            recent: Some(pb::RecentAnswers {
                window_ms: 10_000,
                status_classes: vec![0, 198, 0, 0, 2],
                ..pb::RecentAnswers::default()
            }),
            pools: vec![pb::PoolStatus {
                pool: Some(pb::Pool {
                    name: "default".to_owned(),
                    algorithm: "round_robin".to_owned(),
                    ..pb::Pool::default()
                }),
                ..pb::PoolStatus::default()
            }],
            ..pb::GetStatusResponse::default()
        };
        let view = StatsView::new(status, Vec::new());
        let text = page(&view, 1_795_384_331_000, Screen::new(OutputFormat::Table));
        insta::assert_snapshot!(text, @r"
        NOW       last 10s: 20 req/s  99.00% ok  p50 -  p99 -  in flight 0
        SINCE     21:33:08 UTC, 19m3s ago, when the control plane started:
        REQUESTS  150 answered by 0 proxies: 148 well, 2 with 5xx (98.66% well)
        ANSWERS   of the proxies' own: no_healthy_backend 2
        ABORTS    1 client left before the answer
        LATENCY   of backends: mean -   p50 -   p99 -
        POOLS     default round_robin

        ID  ADDRESS  STATE  REQUESTS  FAILED  IN-FLIGHT  MEAN
        ");
    }
}
