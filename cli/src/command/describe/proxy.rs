//! A proxy: its versions, its addresses, its process, what it refused, and the next step.

use std::time::Duration;

use super::{Page, since};
use crate::{
    format,
    view::{ProcessView, ProxyView, by_reason, most_frequent},
};

pub(crate) fn page(view: &ProxyView, now: u64) -> String {
    let mut page = Page::new(&format!("proxy {}: {}", view.id, view.state));
    let seen = format::duration(Duration::from_millis(view.last_seen_ms));
    page.row("last heard of", &format!("{seen} ago"));
    page.row("connected", &format::moment(view.connected_unix_ms, now));
    let applied = match view.ahead_revision {
        Some(revision) => format!("{revision}, and the store of the control plane is older"),
        None => view.applied_revision.to_string(),
    };
    page.row("applied revision", &applied);
    page.row("sent revision", &view.sent_revision.to_string());
    if view.lag_ms > 0 || view.ahead_revision.is_none() {
        let lag = format::duration(Duration::from_millis(view.lag_ms.into()));
        page.row("lag", &format!("{lag} from commit to applied"));
    }
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
        process_section(&mut page, process);
        clients_section(&mut page, process, view, now);
    }
    if let Some(refusal) = &view.refusal {
        page.section("refused the whole state");
        page.row("why", refusal);
    }
    if let Some(key) = &view.awaited_session_key {
        page.section("session keys");
        page.row("waits for it", &format!("key {key} does not sign before this proxy has it"));
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

fn process_section(page: &mut Page, process: &ProcessView) {
    page.section("process");
    let of = |max: u64, text: String| if max == 0 { String::new() } else { format!(" of {text}") };
    let (count, max) = (process.client_connections, process.connections_max);
    page.row("connections", &format!("{count}{}", of(max.into(), max.to_string())));
    let workers: Vec<String> = process.worker_connections.iter().map(u32::to_string).collect();
    page.row("of each worker", &workers.join(", "));
    let max = process.memory_max_bytes;
    let memory = format::bytes(process.resident_bytes);
    page.row("memory", &format!("{memory}{}", of(max, format::bytes(max))));
    if let Some(overload) = &process.overload {
        page.row("overloaded", &overload.sentence());
    }
    page.row("cpu time", &format::duration(Duration::from_micros(process.cpu_us_total)));
}

/// What it did since the control plane counts, which may be less than the life of its process.
fn clients_section(page: &mut Page, process: &ProcessView, view: &ProxyView, now: u64) {
    page.section(&format!("clients{}", since(view.counted_since_unix_ms, now)));
    let rate = format::rate(view.requests_per_second);
    page.row("requests", &format!("{} ({rate} per second)", process.requests_total));
    page.row("client aborts", &process.client_aborts_total.to_string());
    page.row("log lines lost", &process.access_log_dropped_total.to_string());
    page.section("  answers of its own");
    let answers = most_frequent(by_reason(&process.own_answers_total));
    if answers.is_empty() {
        page.section("    none");
    }
    for (reason, count) in answers {
        page.wide_row(&format!("  {reason}"), &count.to_string());
    }
}

fn proxy_next_step(view: &ProxyView) -> String {
    let id = &view.id;
    let overload = view.process.as_ref().and_then(|process| process.overload.as_ref());
    let overload = overload.filter(|overload| overload.is_overloaded());
    match view.state.as_str() {
        "synced" => overload.map_or("nothing to do", |overload| overload.remedy()).to_owned(),
        "behind" => format!(
            "'lbctl wait proxy/{id} --for synced'; if it stays behind, look at that process: it \
             may be stopped or overloaded"
        ),
        "rejected" if view.awaits_consent => format!(
            "add the backends of the pools that it can serve to this store; or, if they are not \
             wanted any more, 'lbctl adopt-store {id}'"
        ),
        "rejected" if view.ahead_revision.is_some() => {
            "an older copy of the store was put back: put the newest copy of the control plane's \
             data directory back; if there is none, start it with an empty directory and 'lbctl \
             apply' an export (docs/operating.md, Backup and restore)"
                .to_owned()
        }
        "rejected" => "correct the refused object, or update the proxy if it is older than the \
                       control plane"
            .to_owned(),
        "stopped" => {
            "nothing to do: it was stopped in order and serves nobody; it is listed for an \
                      hour"
                .to_owned()
        }
        _ => format!(
            "it serves its last state if it runs: look at its process and its network, then \
             'lbctl wait proxy/{id} --for synced'; if it will not come back, 'lbctl forget-proxy \
             {id}'"
        ),
    }
}

/// Where to look when there is an alarm about it.
pub(in crate::command) fn next_look(view: &ProxyView) -> String {
    let id = &view.id;
    if view.state == "lost" {
        format!(
            "look at its process and its network ('lbctl describe proxy {id}'); if it will not \
             come back, 'lbctl forget-proxy {id}'"
        )
    } else {
        format!("'lbctl describe proxy {id}'")
    }
}

#[cfg(test)]
mod tests {
    use lb_proto::v1 as pb;

    use super::*;

    /// 2026-11-22 21:52:11 UTC.
    const NOW_MS: u64 = 1_795_384_331_000;

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
        insta::assert_snapshot!(page(&view, NOW_MS), @r"
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

    #[test]
    fn answers_of_its_own_are_told_by_reason_the_most_frequent_first() {
        let counts = [("client_protocol_error", 3), ("internal", 0), ("no_route", 12)];
        let view = ProxyView::from(pb::Proxy {
            id: "proxy-1".to_owned(),
            state: "synced".to_owned(),
            request_rate: 4.0,
            counted_since_unix_ms: NOW_MS - 1_143_000,
            process: Some(pb::ProcessReport {
                requests: 120,
                client_connections: 5,
                worker_connections: vec![3, 2],
                resident_bytes: 9 << 20,
                max_connections: 6,
                max_memory_bytes: 64 << 20,
                overload_stage: "close_idle".to_owned(),
                overload: Some(pb::Reason {
                    code: "connections".to_owned(),
                    message: "5 of 6 connections are in use (83 %)".to_owned(),
                }),
                cpu_us: 1_200_000,
                client_aborts: 1,
                access_log_dropped: 7,
                own_answers: counts.map(|(reason, count)| (reason.to_owned(), count)).into(),
                ..pb::ProcessReport::default()
            }),
            ..pb::Proxy::default()
        });
        let text = page(&view, NOW_MS);
        let process = &text[text.find("process").unwrap()..];
        insta::assert_snapshot!(process, @r"
        process
          connections        5 of 6
          of each worker     3, 2
          memory             9.0 MiB of 64.0 MiB
          overloaded         idle clients are closed (close_idle): 5 of 6 connections are in use (83 %)
          cpu time           1.2s
        clients since 21:33:08 UTC, when the control plane started
          requests           120 (4.0 per second)
          client aborts      1
          log lines lost     7
          answers of its own
            no_route                 12
            client_protocol_error    3
        next: raise its --max-connections and limit of open files, or add a proxy
        ");
    }
}
