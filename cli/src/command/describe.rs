//! `describe`: everything that is known about one object, what it means, and what to
//! do next.

use std::time::Duration;

use super::{Session, backend, get, remedy};
use crate::{
    args::{Describe, GetKind},
    clock,
    exit::{Exit, Failure},
    format,
    output::{Cell, Screen, Table},
    view::{self, BackendView, ChecksView, PoolView, ProcessView, ProxyView, Traffic},
};

/// Describes one object.
pub(super) async fn run(session: &Session, args: Describe) -> Result<(), Failure> {
    let (screen, name) = (session.screen, &args.name);
    let names = || vec![format!("{}/{name}", args.kind.name())];
    let now = clock::unix_ms();
    match args.kind {
        GetKind::Backends => {
            let Some(view) = backend::read(session, name).await? else {
                let all = get::backends(session, "").await?;
                return get::choose(all, Some(name), "backend", |view| &view.id).map(drop);
            };
            screen.answer(&view, names, || describe_backend(&view, now, screen))
        }
        GetKind::Pools => {
            let found = get::choose(get::pools(session).await?, Some(name), "pool", |v| &v.name)?;
            let view = first(found)?;
            let backends = get::backends(session, name).await?;
            screen.answer(&view, names, || describe_pool(&view, &backends, now, screen))
        }
        GetKind::Proxies => {
            let found = get::choose(get::proxies(session).await?, Some(name), "proxy", |v| &v.id)?;
            let view = first(found)?;
            screen.answer(&view, names, || describe_proxy(&view, now))
        }
        GetKind::Listeners | GetKind::Routes => {
            let view = get::object(session, args.kind.name(), name).await?;
            screen.answer(&view, names, || {
                let mut page = Page::new(&format!("{} {name}", view.kind));
                for (field, value) in view.fields() {
                    page.row(field, &value);
                }
                page.row("revision", &view.revision.to_string());
                page.text
            })
        }
    }
}

fn first<T>(found: Vec<T>) -> Result<T, Failure> {
    found.into_iter().next().ok_or_else(|| Failure::new(Exit::NotFound, "it is gone"))
}

/// Headed lines of labels and values.
struct Page {
    text: String,
}

impl Page {
    fn new(title: &str) -> Self {
        Self { text: format!("{title}\n") }
    }

    fn row(&mut self, label: &str, value: &str) {
        let value = match value {
            "" => "-".to_owned(),
            value => value.replace(|c: char| c.is_control(), "?"),
        };
        self.text += &format!("  {label:<18} {value}\n");
    }

    fn section(&mut self, title: &str) {
        self.text += &format!("{title}\n");
    }

    fn next_step(&mut self, step: &str) {
        self.text += &format!("next: {step}\n");
    }
}

fn describe_backend(view: &BackendView, now: u64, screen: Screen) -> String {
    let since = format::moment(view.since_unix_ms, now);
    let mut page = Page::new(&format!("backend {}: {}", view.id, view.state()));
    page.row("since", &since);
    page.row("reason", &view.reason.sentence());
    let resolved = view.resolved_addresses.join(", ");
    let same = resolved.is_empty() || resolved == view.address;
    let address =
        if same { view.address.clone() } else { format!("{} -> {resolved}", view.address) };
    page.row("address", &address);
    page.row("pool", &view.pool);
    page.row("weight", &view.weight.to_string());
    page.row("wanted", view.admin_state);
    page.row("labels", &view::labels(&view.labels));
    page.row("revision", &format!("{} (added in {})", view.revision, view.incarnation));
    match &view.checks {
        Some(checks) => checks_section(&mut page, checks, now),
        None => {
            page.section("checks\n  none: the pool's health check is off, or it is not run here")
        }
    }
    traffic_section(&mut page, &view.traffic);
    if !view.proxies.is_empty() {
        page.text += &screen.render(&per_proxy(view));
    }
    page.next_step(&remedy::next_step(view));
    page.text
}

fn checks_section(page: &mut Page, checks: &ChecksView, now: u64) {
    page.section("checks");
    let took = format::latency(Some(checks.last_duration_us.into()));
    let last = match checks.last_check_unix_ms {
        None => "never".to_owned(),
        at => format!("{}, took {took}", format::moment(at, now)),
    };
    page.row("last check", &last);
    page.row("last result", &checks.last_result.sentence());
    page.row("last success", &format::moment(checks.last_success_unix_ms, now));
    page.row("next check", &format::moment(checks.next_check_unix_ms, now));
    let in_a_row = match (checks.passes_in_a_row, checks.failures_in_a_row) {
        (passes, 0) => format!("{passes} passed"),
        (_, failures) => format!("{failures} failed"),
    };
    page.row("in a row", &in_a_row);
    page.row("total", &format!("{}, {} failed", checks.checks_total, checks.failures_total));
}

fn traffic_section(page: &mut Page, traffic: &Traffic) {
    page.section("traffic");
    let rate = format::rate(traffic.requests_per_second);
    page.row("requests", &format!("{} ({rate} per second)", traffic.requests_total));
    page.row("in flight", &traffic.in_flight.to_string());
    let ended = traffic.successes_total + traffic.failures_total;
    page.row("success", &format::percent(traffic.successes_total, ended));
    page.row("failures", &traffic.failures.by_kind());
    page.row("moved elsewhere", &traffic.retries_total.to_string());
    let latency = format!(
        "p50 {}  p99 {}  mean {}",
        format::latency(traffic.latency_p50_us),
        format::latency(traffic.latency_p99_us),
        format::latency(traffic.latency_mean_us),
    );
    page.row("latency", &latency);
    let bytes = format!(
        "{} to backends, {} from them",
        format::bytes(traffic.bytes_to_backend_total),
        format::bytes(traffic.bytes_from_backend_total),
    );
    page.row("bytes", &bytes);
}

fn per_proxy(view: &BackendView) -> Table {
    let headers = ["PROXY", "REQUESTS", "FAILED", "IN-FLIGHT", "REQ/S", "P50", "P99", "FAILURES"];
    let mut table = Table::new(&headers).indented(2);
    for proxy in &view.proxies {
        let traffic = &proxy.traffic;
        table.row([
            Cell::from(&proxy.proxy_id),
            traffic.requests_total.into(),
            traffic.failures_total.into(),
            traffic.in_flight.into(),
            format::rate(traffic.requests_per_second).into(),
            format::latency(traffic.latency_p50_us).into(),
            format::latency(traffic.latency_p99_us).into(),
            traffic.failures.by_kind().into(),
        ]);
    }
    table
}

fn describe_pool(view: &PoolView, backends: &[BackendView], now: u64, screen: Screen) -> String {
    let mut page = Page::new(&format!("pool {}: {}", view.name, pool_verdict(view)));
    for (field, value) in view.fields() {
        page.row(field, &value);
    }
    if let Some(traffic) = &view.traffic {
        traffic_section(&mut page, traffic);
    }
    page.section("backends");
    if backends.is_empty() {
        page.section("  none");
        page.next_step(&format!("'lbctl add-backend HOST:PORT --pool {}'", view.name));
        return page.text;
    }
    page.text += &screen.render(&get::backend_table(backends, now, false).indented(2));
    let worst =
        backends.iter().find(|backend| backend.admin_state == "enabled" && backend.health != "up");
    if let Some(worst) = worst {
        page.next_step(&format!("'lbctl describe backend {}'", worst.id));
    }
    page.text
}

fn pool_verdict(view: &PoolView) -> String {
    match view.backends {
        Some(counts) if counts.total() == 0 => "empty".to_owned(),
        Some(counts) if counts.up == 0 => "nothing can serve".to_owned(),
        Some(counts) => format!("{} of {} up", counts.up, counts.total()),
        None => "unknown".to_owned(),
    }
}

fn describe_proxy(view: &ProxyView, now: u64) -> String {
    let mut page = Page::new(&format!("proxy {}: {}", view.id, view.state));
    let seen = format::duration(Duration::from_millis(view.last_seen_ms));
    page.row("last heard of", &format!("{seen} ago"));
    page.row("connected", &format::moment(view.connected_unix_ms, now));
    page.row("applied revision", &view.applied_revision.to_string());
    page.row("sent revision", &view.sent_revision.to_string());
    let lag = format::duration(Duration::from_millis(view.lag_ms.into()));
    page.row("lag", &format!("{lag} from commit to applied"));
    page.row("digest", &view.digest);
    if view.stale_since_unix_ms.is_some() {
        page.row("stale since", &format::moment(view.stale_since_unix_ms, now));
    }
    page.row("held at connect", &view.held_source);
    let session = format!(
        "{} snapshots, {} deltas, {} divergences",
        view.snapshots_sent_total, view.deltas_sent_total, view.divergences_total
    );
    page.row("session", &session);
    for listen in &view.listen {
        page.row(&format!("listener {}", listen.listener), &listen.address);
    }
    page.row("admin", &view.admin_address);
    page.row("build", &format!("{}, {} workers", view.build_version, view.workers));
    page.row("instance", &view.instance_id);
    if let Some(process) = &view.process {
        process_section(&mut page, process, view.requests_per_second);
    }
    if let Some(refusal) = &view.refusal {
        page.section("refused the whole state");
        page.row("why", refusal);
    }
    if !view.rejections.is_empty() {
        page.section("refused objects (their former values are kept)");
    }
    for rejection in &view.rejections {
        page.row(&format!("revision {}", rejection.revision), &rejection.sentence());
    }
    page.next_step(&proxy_next_step(view));
    page.text
}

fn process_section(page: &mut Page, process: &ProcessView, rate: f64) {
    page.section("process");
    let rate = format::rate(rate);
    page.row("requests", &format!("{} ({rate} per second)", process.requests_total));
    page.row("connections", &process.client_connections.to_string());
    page.row("memory", &format::bytes(process.resident_bytes));
    page.row("cpu time", &format::duration(Duration::from_micros(process.cpu_us_total)));
    let own = format!(
        "no healthy backend {}, no route {}, client errors {}, client aborts {}",
        process.no_healthy_backend_total,
        process.no_route_total,
        process.client_errors_total,
        process.client_aborts_total,
    );
    page.row("answered itself", &own);
}

fn proxy_next_step(view: &ProxyView) -> String {
    let id = &view.id;
    match view.state.as_str() {
        "synced" => "nothing to do".to_owned(),
        "behind" => format!(
            "'lbctl wait proxy/{id} --for synced'; if it stays behind, look at that process: it \
             may be stopped or overloaded"
        ),
        "rejected" => "correct the refused object, or update the proxy if it is older than the \
                       control plane"
            .to_owned(),
        _ => format!(
            "it serves its last state if it runs: look at its process and its network, then \
             'lbctl wait proxy/{id} --for synced'"
        ),
    }
}

#[cfg(test)]
mod tests {
    use lb_proto::v1 as pb;

    use super::*;
    use crate::args::OutputFormat;

    /// 2026-11-22 21:52:11 UTC.
    const NOW_MS: u64 = 1_795_384_331_000;

    fn refused() -> pb::BackendView {
        let reason = Some(pb::Reason {
            code: "backend_connect_refused".to_owned(),
            message: "connection refused".to_owned(),
        });
        pb::BackendView {
            backend: Some(pb::Backend {
                id: "backend2".to_owned(),
                pool: "default".to_owned(),
                address: "localhost:8002".to_owned(),
                weight: Some(2),
                incarnation: 3,
                ..pb::Backend::default()
            }),
            revision: 7,
            status: Some(pb::BackendStatus {
                health: pb::Health::Down.into(),
                addresses: vec!["127.0.0.1:8002".to_owned()],
                reason: reason.clone(),
                since_unix_ms: NOW_MS - 41_000,
                ..pb::BackendStatus::default()
            }),
            checks: Some(pb::CheckReport {
                failures_in_a_row: 9,
                last_check_unix_ms: NOW_MS - 400,
                last_success_unix_ms: NOW_MS - 44_000,
                next_check_unix_ms: NOW_MS + 700,
                last_duration_us: 210,
                last_result: reason,
                checks_total: 44,
                failures_total: 9,
                ..pb::CheckReport::default()
            }),
            totals: Some(pb::BackendTotals {
                requests: 1000,
                successes: 996,
                failures: Some(pb::Failures { connect: 4, ..pb::Failures::default() }),
                ..pb::BackendTotals::default()
            }),
            proxies: vec![pb::ProxyBackendTotals {
                proxy_id: "proxy-1".to_owned(),
                totals: Some(pb::BackendTotals { requests: 1000, ..pb::BackendTotals::default() }),
            }],
        }
    }

    #[test]
    fn a_backend_that_is_down_says_why_since_when_and_what_next() {
        let screen = Screen::new(OutputFormat::Table);
        let text = describe_backend(&refused().into(), NOW_MS, screen);
        insta::assert_snapshot!(text, @r"
        backend backend2: down
          since              41s ago (21:51:30 UTC)
          reason             connection refused (backend_connect_refused)
          address            localhost:8002 -> 127.0.0.1:8002
          pool               default
          weight             2
          wanted             enabled
          labels             none
          revision           7 (added in 3)
        checks
          last check         0s ago (21:52:10 UTC), took 0.21ms
          last result        connection refused (backend_connect_refused)
          last success       44s ago (21:51:27 UTC)
          next check         in 700ms (21:52:11 UTC)
          in a row           9 failed
          total              44, 9 failed
        traffic
          requests           1000 (0 per second)
          in flight          0
          success            99.60%
          failures           connect 4
          moved elsewhere    0
          latency            p50 -  p99 -  mean -
          bytes              0 B to backends, 0 B from them
          PROXY    REQUESTS  FAILED  IN-FLIGHT  REQ/S  P50  P99  FAILURES
          proxy-1      1000       0          0      0    -    -  none
        next: nothing listens at localhost:8002: start the server, or correct the address with 'lbctl set-backend backend2 --address HOST:PORT'
        ");
    }

    #[test]
    fn a_proxy_that_is_behind_says_what_to_do() {
        let view = ProxyView::from(pb::Proxy {
            id: "proxy-2".to_owned(),
            state: "behind".to_owned(),
            sent_revision: 118,
            applied_revision: 117,
            digest: vec![0x9f, 0x3c].into(),
            last_seen_ms: 9_600,
            listen_addresses: vec![pb::ListenAddress {
                listener: "default".to_owned(),
                address: "0.0.0.0:8081".to_owned(),
            }],
            ..pb::Proxy::default()
        });
        insta::assert_snapshot!(describe_proxy(&view, NOW_MS), @r"
        proxy proxy-2: behind
          last heard of      9.6s ago
          connected          never
          applied revision   117
          sent revision      118
          lag                0ms from commit to applied
          digest             9f3c
          held at connect    -
          session            0 snapshots, 0 deltas, 0 divergences
          listener default   0.0.0.0:8081
          admin              -
          build              , 0 workers
          instance           -
        next: 'lbctl wait proxy/proxy-2 --for synced'; if it stays behind, look at that process: it may be stopped or overloaded
        ");
    }
}
