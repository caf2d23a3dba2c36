//! What this plane knows, as messages.

use std::{collections::BTreeMap, time::Duration};

use lb_core::{
    health::{candidates::Candidates, panic::Panic},
    model::{AdminState, DrainWish, Source},
    stats::whole_us,
};
use lb_proto::{
    convert::{self, histogram_to_wire},
    v1 as pb,
};

use super::status;
use crate::{
    clock::{millis, millis32, told, told_if_any},
    declared::{RefusedFile, UNDECLARED_TOLD, Undeclared},
    discovery::SourceReport,
    drain::DrainReport,
    events::Event,
    fleet::{Laggard, ProxyView, Refused, WaitProgress},
    leases::{AdaptiveView, HolderView, LeaseView},
    probe::CheckReport,
    registry::{Stored, WriteRequest, Written},
    resilience::Kept,
    stats::{Answers, LimitTotals, OwnAnswers, Process, Totals, Unanswered},
};

pub(super) fn event(event: Event) -> pb::Event {
    let several = event.count > 1;
    pb::Event {
        count: if several { event.count } else { 0 },
        first_unix_ms: if several { event.first_unix_ms } else { 0 },
        sequence: event.sequence,
        at_unix_ms: event.at_unix_ms,
        r#type: event.what.name().to_owned(),
        kind: event.kind.to_owned(),
        name: event.name,
        revision: event.revision,
        reason: (!event.reason.code.is_empty()).then(|| event.reason.into()),
    }
}

pub(super) fn check_report(report: CheckReport) -> pb::CheckReport {
    pb::CheckReport {
        passes_in_a_row: report.passes_in_a_row,
        failures_in_a_row: report.failures_in_a_row,
        last_check_unix_ms: told_if_any(report.last_check),
        last_success_unix_ms: told_if_any(report.last_success),
        next_check_unix_ms: told_if_any(report.next_check),
        last_duration_us: u32::try_from(report.last_duration.as_micros()).unwrap_or(u32::MAX),
        last_result: Some(report.last_result.into()),
        checks_total: report.checks_total,
        failures_total: report.failures_total,
        checked_revision: report.checked_revision,
        awaited: report.awaited,
        resolution: report.resolution.map(|resolution| pb::Resolution {
            resolved_unix_ms: told_if_any(resolution.resolved),
            ttl_ms: millis32(resolution.ttl),
            next_unix_ms: told_if_any(resolution.next),
            failing_since_unix_ms: told_if_any(resolution.failing_since),
            failure: resolution.failing_since.map(|_| resolution.failure.into()),
        }),
    }
}

/// Only while backends that are not well are used.
pub(super) fn panic(picks: &Candidates) -> Option<pb::PanicReport> {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let panic = picks.panic?;
    let (well, of) = match panic {
        Panic::FewLeft { well, of } => (well, of),
        Panic::AllEjected => (0, picks.places.len()),
    };
    Some(pb::PanicReport {
        cause: panic.name().to_owned(),
        well: count(well),
        of: count(of),
        helping: count(picks.helping()),
    })
}

pub(super) fn kept(kept: Kept) -> pb::KeptReport {
    pb::KeptReport {
        reason: Some(kept.reason.into()),
        since_unix_ms: kept.since_unix_ms,
        by: kept.by.name().to_owned(),
    }
}

pub(super) fn unanswered(unanswered: Unanswered) -> pb::UnansweredReport {
    let Unanswered { requests, silent } = unanswered;
    pb::UnansweredReport { requests, silent_ms: millis(silent) }
}

pub(super) fn limit_totals(totals: &LimitTotals) -> pb::LimitTotals {
    pb::LimitTotals {
        admitted: totals.counts.admitted,
        refused: totals.counts.refused,
        forgiven: totals.counts.forgiven,
        admitted_rate: totals.admitted_rate,
        refused_rate: totals.refused_rate,
    }
}

pub(super) fn source(source: &Source, report: SourceReport) -> pb::SourceStatus {
    let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
    pb::SourceStatus {
        source: source.to_string(),
        found: count(report.found),
        answered_unix_ms: told_if_any(report.answered),
        next_unix_ms: told_if_any(report.next),
        failing_since_unix_ms: told_if_any(report.failing_since),
        failure: report.failing_since.map(|_| report.failure.into()),
        leaving: count(report.leaving),
        waiting: report.waiting.to_owned(),
        skipped: report.skipped,
    }
}

/// Totals that count since the control plane was started.
pub(super) fn totals(totals: Totals, since_unix_ms: u64) -> pb::BackendTotals {
    let counters = totals.counters;
    pb::BackendTotals {
        requests: counters.requests,
        successes: counters.successes,
        failures: Some(counters.failures.into()),
        in_flight: totals.in_flight,
        latency: Some(histogram_to_wire(&counters.latency)),
        request_rate: totals.request_rate,
        retries: counters.retries,
        bytes_to_backend: counters.bytes_to_backend,
        bytes_from_backend: counters.bytes_from_backend,
        since_unix_ms,
    }
}

/// What was answered in the last seconds, which are so long.
pub(super) fn recent(window: Duration, answers: &Answers) -> pb::RecentAnswers {
    pb::RecentAnswers {
        window_ms: millis32(window),
        status_classes: answers.status_classes.into(),
        durations: Some(histogram_to_wire(&answers.durations)),
        broken: answers.broken,
        failures: words(&answers.failures),
    }
}

/// Counts by reason.
pub(super) fn words(counts: &OwnAnswers) -> BTreeMap<String, u64> {
    counts.iter().map(|(word, count)| (word.to_owned(), count)).collect()
}

pub(super) fn drain(report: DrainReport) -> pb::DrainReport {
    let share = |share: crate::drain::DrainShare| pb::DrainShare {
        proxy_id: share.proxy.to_string(),
        state: share.word.name().to_owned(),
        requests: share.requests,
        upgraded: share.upgraded,
    };
    pb::DrainReport {
        left_ms: millis(report.time_left),
        awaits_proxies: report.awaits_proxies,
        proxies: report.proxies.into_iter().map(share).collect(),
        held_up: report.held_up.unwrap_or_default(),
        sessions_left_ms: millis(report.sessions_left),
        session_requests: report.session_requests,
    }
}

pub(super) fn process(process: &Process) -> pb::ProcessReport {
    pb::ProcessReport {
        requests: process.requests,
        no_healthy_backend: process.no_healthy_backend,
        no_route: process.no_route,
        client_errors: process.client_errors,
        client_aborts: process.client_aborts,
        client_connections: process.client_connections,
        resident_bytes: process.resident_bytes,
        cpu_us: process.cpu_us,
        status_classes: process.status_classes.into(),
        own_answers: words(&process.own_answers),
        access_log_dropped: process.access_log_dropped,
        worker_connections: process.worker_connections.clone(),
        overload_stage: process.overload.stage.clone(),
        overload: (!process.overload.reason.code.is_empty())
            .then(|| process.overload.reason.clone().into()),
        max_connections: process.connections_max,
        max_memory_bytes: process.memory_max,
    }
}

pub(super) fn proxy(proxy: ProxyView, figures: Option<(Process, f64)>) -> pb::Proxy {
    let ProxyView { info, state, progress, connected, last_seen, lag } = proxy;
    let (report, request_rate) = match figures {
        Some((figures, rate)) => (Some(process(&figures)), rate),
        None => (None, 0.0),
    };
    pb::Proxy {
        id: info.id.to_string(),
        instance_id: info.instance.to_string(),
        state: state.name().to_owned(),
        sent_revision: progress.sent_revision,
        applied_revision: progress.applied_revision,
        digest: progress.digest.map(convert::sync::digest_to_wire).unwrap_or_default(),
        connected_unix_ms: told(connected),
        last_seen_ms: millis(last_seen),
        lag_ms: millis32(lag),
        stale_since_unix_ms: told_if_any(info.stale_since),
        rejections: progress.rejections.into_iter().map(convert::sync::rejection_to_wire).collect(),
        refusal: progress.refusal.unwrap_or_default(),
        awaits_consent: progress.awaits_consent,
        ahead_revision: progress.ahead_revision.unwrap_or_default(),
        listen_addresses: info
            .listen_addresses
            .into_iter()
            .map(|(listener, address)| pb::ListenAddress { listener, address })
            .collect(),
        admin_address: info.admin_address,
        peer_address: info.peer_address,
        elsewhere: info.elsewhere,
        build_version: info.build_version,
        workers: info.workers,
        process: report,
        request_rate,
        divergences: progress.divergences,
        snapshots_sent: progress.snapshots_sent,
        deltas_sent: progress.deltas_sent,
        held_source: info.held_source.to_owned(),
        awaited_session_key: String::new(),
        counted_since_unix_ms: 0,
    }
}

pub(super) fn undeclared(undeclared: &Undeclared) -> pb::UndeclaredObjects {
    pb::UndeclaredObjects {
        path: undeclared.path.clone(),
        count: u32::try_from(undeclared.objects.len()).unwrap_or(u32::MAX),
        objects: undeclared.names().take(UNDECLARED_TOLD).collect(),
    }
}

pub(super) fn refused_config(file: RefusedFile) -> pb::RefusedConfig {
    let RefusedFile { path, reason, since_unix_ms } = file;
    pb::RefusedConfig { path, reason: Some(reason.into()), since_unix_ms }
}

pub(super) fn refused_proxy(refused: Refused) -> pb::RefusedProxy {
    let Refused { refusal, since, last, attempts } = refused;
    pb::RefusedProxy {
        id: refusal.id,
        instance_id: refusal.instance,
        build_version: refusal.build_version,
        peer_address: refusal.peer_address,
        reason: Some(refusal.reason.into()),
        since_unix_ms: told(since),
        last_unix_ms: told(last),
        attempts,
    }
}

pub(super) fn apply_progress(progress: WaitProgress, elapsed: Duration) -> pb::ApplyProgress {
    pb::ApplyProgress {
        revision: progress.revision,
        proxies: progress.proxies,
        applied: progress.applied,
        elapsed_ms: millis32(elapsed),
        done: progress.done,
        laggards: progress.laggards.into_iter().map(laggard).collect(),
        lost: progress.lost.into_iter().map(laggard).collect(),
        rejections: progress
            .rejections
            .into_iter()
            .map(|(proxy, rejection)| pb::ProxyRejection {
                proxy_id: proxy.to_string(),
                rejection: Some(convert::sync::rejection_to_wire(rejection)),
            })
            .collect(),
    }
}

fn laggard(laggard: Laggard) -> pb::Laggard {
    pb::Laggard {
        proxy_id: laggard.proxy.to_string(),
        applied_revision: laggard.applied_revision,
        state: laggard.state().to_owned(),
        last_seen_ms: millis(laggard.last_seen.elapsed()),
        refusal: laggard.refusal.unwrap_or_default(),
    }
}

pub(super) fn object(stored: &Stored<lb_core::model::Resource>) -> pb::Object {
    convert::object_to_wire(&stored.value, stored.revision)
}

pub(super) fn written(written: &Written) -> pb::WriteResponse {
    pb::WriteResponse {
        revision: written.revision,
        changed: written.changed,
        objects: written.objects.iter().map(object).collect(),
        progress: None,
        warnings: written.warnings.clone(),
    }
}

/// The options of a write, without the items.
pub(super) fn write_options(options: &pb::WriteOptions) -> WriteRequest {
    WriteRequest {
        expected_revision: options.expected_revision,
        force: options.force,
        dry_run: options.dry_run,
        ..WriteRequest::default()
    }
}

pub(super) fn admin_state(state: i32) -> Result<AdminState, tonic::Status> {
    pb::AdminState::try_from(state).map(AdminState::from).map_err(|_| {
        tonic::Status::invalid_argument(format!(
            "unknown admin state {state}; known are enabled (0), disabled (1), draining (2)"
        ))
    })
}

/// What is wished of a drain, which only a backend that is to drain has.
pub(super) fn drain_wish(
    state: AdminState,
    timeout_ms: u32,
    remove: bool,
) -> Result<DrainWish, tonic::Status> {
    let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms.into()));
    let wish = DrainWish::new(timeout, remove).map_err(|invalid| status::of_invalid(&invalid))?;
    if state != AdminState::Draining && !wish.is_empty() {
        return Err(tonic::Status::invalid_argument(format!(
            "drain_timeout_ms and remove_when_drained are for draining backends, not for {} ones",
            state.name()
        )));
    }
    Ok(wish)
}

/// Who may have how many requests in progress.
pub(super) fn slots(lease: LeaseView) -> pb::SlotsReport {
    let share = |holder: HolderView| pb::SlotsShare {
        proxy_id: holder.proxy.map_or_else(String::new, |proxy| proxy.to_string()),
        granted: holder.granted,
        in_use: holder.in_use,
        waiting: holder.waiting,
    };
    let adaptive = |view: AdaptiveView| pb::AdaptiveReport {
        limit: view.limit,
        aside: view.aside,
        state: view.state.to_owned(),
        reason: view.reason.to_owned(),
        unqueued_us: view.unqueued.map(whole_us),
        answer_us: view.time.map(whole_us),
    };
    pb::SlotsReport {
        proxies: lease.holders.into_iter().map(share).collect(),
        adaptive: lease.adaptive.map(adaptive),
    }
}
