//! A backend: its verdict and why, its checks, its traffic, and the next step.

use std::time::Duration;

use lb_proto::duration::measured_text;

use super::{Page, traffic_section};
use crate::{
    command::remedy,
    format,
    output::{Cell, Screen, Table, Tone},
    view::{self, BackendView, ChecksView, DrainView, ResolutionView, StandingView},
};

/// `advice` is what its pool's answers say, if they blame it.
pub(crate) fn page(view: &BackendView, advice: Option<&str>, now: u64, screen: Screen) -> String {
    let since = format::moment(view.since_unix_ms, now);
    let mut page = Page::new(&format!("backend {}: {}", view.id, view.state()));
    page.row("since", &since);
    page.row("reason", &view.reason.sentence());
    if let Some(hanging) = view.hanging() {
        page.row("hangs", &hanging.sentence());
    }
    let resolved = view.resolved_addresses.join(", ");
    let same = resolved.is_empty() || resolved == view.address;
    let address =
        if same { view.address.clone() } else { format!("{} -> {resolved}", view.address) };
    page.row("address", &address);
    page.row("pool", &view.pool);
    page.row("weight", &view.weight.to_string());
    if let Some(slots) = &view.slots {
        page.row("max in flight", &slots.sentence(view.max_in_flight));
    }
    page.row("wanted", view.admin_state);
    page.row("labels", &view::labels(&view.labels));
    if let Some(source) = &view.source {
        page.row("discovered by", &format!("{source} (it cannot be removed by hand)"));
    }
    page.row("revision", &format!("{} (added in {})", view.revision, view.incarnation));
    if let Some(drain) = &view.drain {
        drain_section(&mut page, drain, now);
    }
    standing_section(&mut page, view, now);
    if let Some(resolution) = view.checks.as_ref().and_then(|checks| checks.resolution.as_ref()) {
        name_section(&mut page, resolution, now);
    }
    match &view.checks {
        Some(checks) => checks_section(&mut page, checks, now),
        None => {
            page.section("checks\n  none: the pool's health check is off, or it is not run here")
        }
    }
    traffic_section(&mut page, &view.traffic, now);
    if !view.proxies.is_empty() {
        page.text += &screen.render(&per_proxy(view));
    }
    // What is known about itself tells more.
    let next = remedy::next_step(view);
    page.next_step(if next == remedy::NOTHING { advice.unwrap_or(&next) } else { &next });
    page.text
}

fn drain_section(page: &mut Page, drain: &DrainView, now: u64) {
    page.section("drain");
    page.row("since", &format::moment(Some(drain.since_unix_ms), now));
    let left = format::duration(Duration::from_millis(drain.time_left_ms));
    let state = match drain {
        DrainView { drained: true, .. } => format!("over: {}", drain.outcome()),
        DrainView { cutting: true, .. } => "the time is up: what is left is cut".to_owned(),
        _ => format!("{left} until what is left is cut"),
    };
    page.row("deadline", &state);
    if !drain.drained {
        page.row("left", &drain.left());
    }
    if let Some(why) = &drain.held_up {
        page.row("held up", why);
    }
    page.row("afterwards", if drain.remove { "the backend is removed" } else { "it stays" });
}

fn standing_section(page: &mut Page, view: &BackendView, now: u64) {
    let standing = &view.standing;
    // Whoever gets no requests has no share that grows.
    let ramp = standing.slow_start.as_ref().filter(|_| standing.ejection.is_none());
    let ramp = ramp.and_then(|ramp| Some((ramp.percent(now)?, ramp.duration_ms)));
    let StandingView { ejection, disagreements, .. } = standing;
    let avoided_by = view.avoided_by();
    let is_silent = ejection.is_none() && ramp.is_none() && disagreements.is_empty();
    if is_silent && avoided_by.is_none() && view.kept.is_none() {
        return;
    }
    page.section("what traffic says");
    if let Some(ejection) = ejection {
        page.row(ejection.state(), &format::moment(Some(ejection.since_unix_ms), now));
        page.row("because", &ejection.reason.sentence());
        let plan = match ejection.until_unix_ms() {
            None => "one request of the fleet at a time tries it".to_owned(),
            end => format!("it is out until then: {}", format::plan(end, now)),
        };
        page.row("next", &plan);
        page.row("times in a row", &ejection.times.to_string());
        page.row("back at once", &remedy::bring_back(view).unwrap_or_default());
    }
    if let Some(kept) = view.kept.as_ref().filter(|_| ejection.is_none()) {
        page.row("failing", &format::moment(Some(kept.since_unix_ms), now));
        page.row("because", &kept.reason.sentence());
    }
    if let Some((percent, duration_ms)) = ramp {
        let duration = format::duration(Duration::from_millis(duration_ms.into()));
        page.row("slow start", &format!("{percent} % of {duration}"));
    }
    if let Some(proxies) = avoided_by {
        let why = "they see it fail, and send nothing for a while";
        page.row("avoided by", &format!("{proxies}: {why}"));
    }
    let fails = ejection.is_some() || view.failing_checks().is_some();
    for disagreement in disagreements {
        let (who, reason) = (disagreement.who(), disagreement.reason.sentence());
        let agrees = fails && disagreement.sees_it_fail();
        let label = if agrees { "seen failing, too" } else { "seen otherwise" };
        page.row(label, &format!("by {who}: {reason}"));
    }
}

fn name_section(page: &mut Page, name: &ResolutionView, now: u64) {
    page.section("name");
    let resolved = match name.resolved_unix_ms {
        None => "never since the control plane started".to_owned(),
        at => {
            let ttl = format::duration(Duration::from_millis(name.ttl_ms.into()));
            format!("{}, for {ttl}", format::moment(at, now))
        }
    };
    page.row("resolved", &resolved);
    if name.failing_since_unix_ms.is_some() {
        let since = format::moment(name.failing_since_unix_ms, now);
        page.row("failing since", &format!("{since}; the last addresses are kept"));
        page.row("because", &name.failure.sentence());
        page.row("what to do", "look at the name, and at the control plane's name servers");
    }
    page.row("asked again", &format::plan(name.next_unix_ms, now));
}

fn checks_section(page: &mut Page, checks: &ChecksView, now: u64) {
    page.section("checks");
    let took = measured_text(Duration::from_micros(checks.last_duration_us.into()));
    let last = match checks.last_check_unix_ms {
        None => "never".to_owned(),
        at => format!("{}, took {took}", format::moment(at, now)),
    };
    page.row("last check", &last);
    page.row("last result", &checks.last_result.sentence());
    page.row("last success", &format::moment(checks.last_success_unix_ms, now));
    page.row("next check", &format::plan(checks.next_check_unix_ms, now));
    let in_a_row = match (checks.passes_in_a_row, checks.failures_in_a_row) {
        (passes, 0) => format!("{passes} passed"),
        (_, failures) => format!("{failures} failed"),
    };
    page.row("in a row", &in_a_row);
    page.row("total", &format!("{}, {} failed", checks.checks_total, checks.failures_total));
}

fn per_proxy(view: &BackendView) -> Table {
    let headers =
        ["PROXY", "REQUESTS", "FAILED", "IN-FLIGHT", "REQ/S", "P50", "P99", "AVOIDS", "FAILURES"];
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
            if proxy.avoided { Cell::toned("yes", Tone::Bad) } else { "no".into() },
            traffic.failures.by_kind().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use lb_proto::v1 as pb;

    use super::*;
    use crate::{args::OutputFormat, view::a_drain};

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
            picked: None,
            kept: None,
            unanswered: None,
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
                avoided: false,
            }],
            drain: None,
            slots: None,
        }
    }

    #[test]
    fn a_backend_that_is_down_says_why_since_when_and_what_next() {
        let screen = Screen::new(OutputFormat::Table);
        let text = page(&refused().into(), None, NOW_MS, screen);
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
          last check         0s ago (21:52:10 UTC), took under 1 ms
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
          PROXY    REQUESTS  FAILED  IN-FLIGHT  REQ/S  P50  P99  AVOIDS  FAILURES
          proxy-1      1000       0          0      0    -    -  no      none
        next: nothing listens at localhost:8002: start the server, or correct the address with 'lbctl set-backend backend2 --address HOST:PORT'
        ");
    }

    #[test]
    fn who_avoids_a_backend_that_is_up_is_told() {
        let mut wire = refused();
        wire.proxies[0].avoided = true;
        wire.status.as_mut().unwrap().health = pb::Health::Up.into();
        let view = BackendView::from(wire);
        let text = page(&view, None, NOW_MS, Screen::new(OutputFormat::Table));
        assert!(text.contains("\nwhat traffic says\n  avoided by         proxy-1: "), "{text}");
        assert!(text.lines().any(|line| line.ends_with("  yes     none")), "{text}");
        let next = text.lines().last().unwrap();
        assert!(next.contains("proxy-1"), "{next}");
    }

    #[test]
    fn of_a_backend_that_is_out_nothing_grows_and_who_sees_it_fail_agrees() {
        let mut wire = refused();
        let status = wire.status.as_mut().unwrap();
        status.set_health(pb::Health::Up);
        let duration_ms = 10_000;
        status.slow_start = Some(pb::SlowStart { since_unix_ms: NOW_MS - 6000, duration_ms });
        let told = |code: &str| pb::Disagreement {
            proxy: "edge-1".to_owned(),
            reason: Some(pb::Reason { code: code.to_owned(), message: "no answer".to_owned() }),
        };
        status.disagreements = vec![told("unreachable_from_proxy")];
        let shown = |wire: &pb::BackendView| {
            let text = page(&wire.clone().into(), None, NOW_MS, Screen::new(OutputFormat::Table));
            let said = text.lines().skip_while(|line| *line != "what traffic says").skip(1);
            said.take_while(|line| line.starts_with(' ')).collect::<Vec<_>>().join("\n")
        };
        // The checks fail as well.
        insta::assert_snapshot!(shown(&wire), @r"
          slow start         60 % of 10s
          seen failing, too  by edge-1: no answer (unreachable_from_proxy)
        ");
        wire.checks.as_mut().unwrap().failures_in_a_row = 0;
        assert!(shown(&wire).contains("seen otherwise     by edge-1"), "{}", shown(&wire));
        wire.status.as_mut().unwrap().ejection =
            Some(pb::Ejection { by: "breaker".to_owned(), ..pb::Ejection::default() });
        assert!(!shown(&wire).contains("slow start"), "{}", shown(&wire));
        assert!(shown(&wire).contains("seen failing, too  by edge-1"), "{}", shown(&wire));
    }

    #[test]
    fn what_the_answers_of_its_pool_say_of_it_is_told_where_nothing_else_is_known() {
        let mut wire = refused();
        let last = |wire: &pb::BackendView| {
            let screen = Screen::new(OutputFormat::Table);
            let text = page(&wire.clone().into(), Some("look at its log"), NOW_MS, screen);
            text.lines().last().unwrap_or_default().to_owned()
        };
        assert!(last(&wire).starts_with("next: nothing listens at localhost:8002"));
        wire.status.as_mut().unwrap().set_health(pb::Health::Up);
        wire.checks = None;
        assert_eq!(last(&wire), "next: look at its log");
    }

    #[test]
    fn a_drain_says_what_is_left_where_and_until_when() {
        let shares = [("proxy-1", "told", 2, 1), ("proxy-2", "told", 0, 0)];
        let drain = DrainView { since_unix_ms: NOW_MS - 12_000, ..a_drain(&shares) };
        let view = BackendView {
            admin_state: "draining",
            drain: Some(drain),
            ..BackendView::from(refused())
        };
        let text = page(&view, None, NOW_MS, Screen::new(OutputFormat::Table));
        let drain: Vec<&str> = text.lines().skip_while(|line| *line != "drain").take(5).collect();
        assert!(text.starts_with("backend backend2: draining (3 left)\n"), "{text}");
        insta::assert_snapshot!(drain.join("\n"), @r"
        drain
          since              12s ago (21:51:59 UTC)
          deadline           48s until what is left is cut
          left               proxy-1 2 requests, 1 upgraded
          afterwards         it stays
        ");
        let next = text.lines().last().unwrap();
        insta::assert_snapshot!(next, @"next: 'lbctl wait backend/backend2 --for drained' waits for its end, 'lbctl enable-backend backend2' ends it early");
    }
}
