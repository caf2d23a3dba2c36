//! The statistics service: one stream per proxy, apart from its sync stream, so that
//! figures never delay configuration.

use std::{pin::Pin, sync::Arc, time::Duration};

use lb_core::{
    model::{BackendId, Epoch, Incarnation, InstanceId, LimitName, PoolName, ProxyId, Reason},
    resilience::probe::{ProbeState, ProbeWord, TokenId},
};
use lb_proto::{
    convert::{counters_from_wire, histogram_from_wire},
    v1::{self as pb, stats_server},
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{Context, status};
use crate::{
    clock::millis32,
    events::EventType,
    registry::Catalog,
    resilience::{ProbeReport, Role, Token},
    stats::{
        Answers, AnswersPart, BackendPart, COUNT_MAX, LimitCounts, LimitPart, LimitShare, Overload,
        OwnAnswers, Process, Report, ShareBasis,
    },
};

/// More connections than one process can have.
const CONNECTIONS_MAX: u32 = 1 << 24;
/// More workers than a proxy can be told to have.
const WORKERS_MAX: usize = 1024;

/// Takes reports.
#[derive(Debug)]
pub(super) struct StatsService {
    context: Arc<Context>,
}

impl StatsService {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl stats_server::Stats for StatsService {
    type ReportStream = Pin<Box<dyn Stream<Item = Result<pb::StatsReply, Status>> + Send>>;

    async fn report(
        &self,
        message: Request<Streaming<pb::StatsReport>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let mut incoming = message.into_inner();
        let (sender, receiver) = mpsc::channel(1);
        let context = Arc::clone(&self.context);
        self.context.tracker.spawn(async move {
            let count = async {
                while let Ok(Some(message)) = incoming.message().await {
                    let reply = count(&context, message);
                    let refused = reply.is_err();
                    if sender.send(reply).await.is_err() || refused {
                        return;
                    }
                }
            };
            tokio::select! {
                () = count => {}
                () = context.stop.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn count(context: &Context, message: pb::StatsReport) -> Result<pb::StatsReply, Status> {
    let mut report = read(message)?;
    let member = context.fleet.member(&report.proxy);
    let present = member.as_ref().map(|member| &member.instance);
    let (counted, tokens, cuts) = context.registry.read(|view| {
        let is_foreign = report.is_of_another_store(view.publisher.version().epoch);
        if is_foreign {
            report.disown();
        }
        let role = match &member {
            Some(member) if !is_foreign && member.is_live && member.instance == report.instance => {
                Role::Present { took_over: member.took_over }
            }
            _ => Role::Other,
        };
        let counted = context.statistics.count(&report, present, &view.catalog);
        let hear = || context.resilience.report(&report, role, &view.catalog);
        let tokens = if counted.is_news { hear() } else { Vec::new() };
        // Whoever is present learns of it by the configuration.
        let cuts = if role == Role::Other { cuts(&report, &view.catalog) } else { Vec::new() };
        (counted, tokens, cuts)
    });
    if let Some(is_worse) = counted.overload_worse {
        tell_overload(context, &report, is_worse);
    }
    Ok(pb::StatsReply {
        sequence: counted.sequence,
        period_ms: millis32(context.stats_period()),
        probes: tokens.iter().map(token_to_wire).collect(),
        cuts,
    })
}

/// Tells that a proxy gives up more for want of connections or memory than before, or less.
fn tell_overload(context: &Context, report: &Report, is_worse: bool) {
    let Overload { stage, reason } = &report.process.overload;
    let (what, message) = match (is_worse, reason.message.is_empty()) {
        (true, _) => (EventType::ProxyOverloaded, format!("{stage}: {}", reason.message)),
        (false, true) => (EventType::ProxyRelieved, stage.clone()),
        (false, false) => (EventType::ProxyRelieved, format!("{stage}: {}", reason.message)),
    };
    let (name, revision) = (report.proxy.as_str(), context.registry.revision());
    context.events.record(what, "proxy", name, revision, Reason::new(stage, message));
}

/// The backends at which a process has something in flight that is to be cut.
fn cuts(report: &Report, catalog: &Catalog) -> Vec<pb::DrainCut> {
    let busy = report.backends.iter().filter(|part| part.in_flight > 0);
    busy.filter(|part| {
        catalog.backends().get(&part.backend).is_some_and(|stored| {
            stored.value.incarnation == part.incarnation
                && stored.value.drain.is_some_and(|drain| drain.cutting)
        })
    })
    .map(|part| pb::DrainCut { backend: part.backend.to_string(), incarnation: part.incarnation.0 })
    .collect()
}

fn read(message: pb::StatsReport) -> Result<Report, Status> {
    let invalid = |invalid| status::of_invalid(&invalid);
    if message.sequence == 0 {
        return Err(Status::invalid_argument("reports are numbered from 1, not from 0"));
    }
    let backends = message.backends.into_iter().map(|mut part| {
        check_counts(&part)?;
        bound_sum(&mut part.latency);
        Ok(BackendPart {
            pool: PoolName::new(&part.pool).map_err(invalid)?,
            backend: BackendId::new(&part.backend).map_err(invalid)?,
            incarnation: Incarnation(part.incarnation),
            in_flight: part.in_flight,
            unanswered: part.unanswered,
            upgraded: part.upgraded,
            cut: part.cut,
            sessions: part.sessions,
            trailing_failures: part.trailing_failures,
            begun: part.begun,
            avoided: part.avoided,
            counters: counters_from_wire(part),
        })
    });
    Ok(Report {
        proxy: ProxyId::new(&message.proxy_id).map_err(invalid)?,
        instance: InstanceId::new(&message.instance_id).map_err(invalid)?,
        sequence: message.sequence,
        sent: Duration::from_millis(message.sent_ms),
        probes: message.probes.iter().map(read_probe).collect::<Result<_, _>>()?,
        interval: Duration::from_millis(u64::from(message.interval_ms)),
        applied_revision: message.applied_revision,
        applied_epoch: match &message.applied_epoch[..] {
            [] => None,
            bytes => Some(
                Epoch::from_slice(bytes)
                    .ok_or_else(|| Status::invalid_argument("an epoch has 16 bytes"))?,
            ),
        },
        backends: backends.collect::<Result<_, Status>>()?,
        limits: message.limits.iter().map(read_limit).collect::<Result<_, _>>()?,
        answers: match message.tells_answers {
            true => Some(message.answers.into_iter().map(read_answers).collect::<Result<_, _>>()?),
            false => None,
        },
        process: read_process(message.process.unwrap_or_default())?,
        sessions: message.pools.into_iter().map(read_sessions).collect::<Result<_, _>>()?,
    })
}

fn read_sessions(wire: pb::PoolReport) -> Result<(PoolName, OwnAnswers), Status> {
    let pool = PoolName::new(&wire.pool).map_err(|invalid| status::of_invalid(&invalid))?;
    all_plausible(wire.sessions.values())?;
    words("sessions", wire.sessions).map(|results| (pool, results))
}

fn read_answers(mut wire: pb::AnswersReport) -> Result<AnswersPart, Status> {
    let pool = Some(&*wire.pool).filter(|name| !name.is_empty()).map(PoolName::new).transpose();
    let status_classes = classes(&wire.status_classes);
    let durations = wire.durations.iter().flat_map(|histogram| &histogram.counts);
    let counts = status_classes.iter().chain([&wire.broken]).chain(durations);
    all_plausible(counts.chain(wire.failures.values()))?;
    bound_sum(&mut wire.durations);
    let answers = Answers {
        status_classes,
        broken: wire.broken,
        durations: histogram_from_wire(wire.durations),
        failures: words("failures", wire.failures)?,
    };
    Ok(AnswersPart { pool: pool.map_err(|invalid| status::of_invalid(&invalid))?, answers })
}

/// Counts by short words, of which there are not too many.
fn words(
    what: &str,
    counts: std::collections::BTreeMap<String, u64>,
) -> Result<OwnAnswers, Status> {
    OwnAnswers::new(counts).ok_or_else(|| {
        Status::invalid_argument(format!(
            "{what} has at most {} reasons, each of at most {} lower-case letters, digits \
             and underscores",
            OwnAnswers::REASONS_MAX,
            OwnAnswers::REASON_BYTES_MAX
        ))
    })
}

fn token_to_wire(token: &Token) -> pb::ProbeToken {
    pb::ProbeToken {
        backend: token.backend.to_string(),
        incarnation: token.incarnation.0,
        term: token.token.id.term,
        number: token.token.id.sequence,
        life_ms: millis32(token.token.life),
    }
}

fn read_probe(wire: &pb::ProbeReport) -> Result<ProbeReport, Status> {
    let state = match pb::ProbeOutcome::try_from(wire.outcome) {
        Ok(pb::ProbeOutcome::Running) => ProbeState::InUse,
        Ok(pb::ProbeOutcome::Succeeded) => ProbeState::Succeeded,
        Ok(pb::ProbeOutcome::Failed) => ProbeState::Failed,
        Err(_) => {
            let message = format!("unknown outcome {} of a probe", wire.outcome);
            return Err(Status::invalid_argument(message));
        }
    };
    let id = TokenId { term: wire.term, sequence: wire.number };
    Ok(ProbeReport {
        backend: BackendId::new(&wire.backend).map_err(|invalid| status::of_invalid(&invalid))?,
        incarnation: Incarnation(wire.incarnation),
        word: ProbeWord { id, state },
    })
}

fn read_limit(wire: &pb::LimitReport) -> Result<LimitPart, Status> {
    all_plausible([wire.admitted, wire.refused, wire.forgiven].iter())?;
    let basis = match pb::LimitBasis::try_from(wire.basis) {
        Ok(pb::LimitBasis::Own) => ShareBasis::Own,
        Ok(pb::LimitBasis::Leased) => ShareBasis::Leased,
        Ok(pb::LimitBasis::EvenShare) => ShareBasis::Even,
        Ok(pb::LimitBasis::SafeShare) => ShareBasis::Safe,
        Ok(pb::LimitBasis::Unspecified) | Err(_) => ShareBasis::Unknown,
    };
    Ok(LimitPart {
        limit: LimitName::new(&wire.limit).map_err(|invalid| status::of_invalid(&invalid))?,
        incarnation: Incarnation(wire.incarnation),
        counts: LimitCounts {
            admitted: wire.admitted,
            refused: wire.refused,
            forgiven: wire.forgiven,
        },
        share: LimitShare { rate: wire.rate, hot_keys: wire.hot_keys, basis },
    })
}

fn read_process(wire: pb::ProcessReport) -> Result<Process, Status> {
    let status_classes = classes(&wire.status_classes);
    let counts = [
        wire.requests,
        wire.no_healthy_backend,
        wire.no_route,
        wire.client_errors,
        wire.client_aborts,
        wire.access_log_dropped,
        wire.resident_bytes,
        wire.cpu_us,
    ];
    let answers = wire.own_answers.values();
    all_plausible(counts.iter().chain(&status_classes).chain(answers))?;
    let own_answers = words("own_answers", wire.own_answers)?;
    let overload = wire.overload.unwrap_or_default();
    let gauge = |connections: u32| connections.min(CONNECTIONS_MAX);
    let workers = wire.worker_connections.into_iter().take(WORKERS_MAX);
    Ok(Process {
        requests: wire.requests,
        no_healthy_backend: wire.no_healthy_backend,
        no_route: wire.no_route,
        client_errors: wire.client_errors,
        client_aborts: wire.client_aborts,
        status_classes,
        own_answers,
        access_log_dropped: wire.access_log_dropped,
        client_connections: gauge(wire.client_connections),
        worker_connections: workers.map(gauge).collect(),
        resident_bytes: wire.resident_bytes,
        cpu_us: wire.cpu_us,
        connections_max: gauge(wire.max_connections),
        memory_max: wire.max_memory_bytes,
        overload: Overload::new(wire.overload_stage, &overload.code, &overload.message),
    })
}

fn check_counts(part: &pb::BackendReport) -> Result<(), Status> {
    let failures = part.failures.unwrap_or_default();
    let counts = [
        part.requests,
        part.successes,
        part.retries,
        part.bytes_to_backend,
        part.bytes_from_backend,
        failures.connect,
        failures.reset,
        failures.timeout,
        failures.protocol,
        failures.status_5xx,
        failures.status_gateway,
        part.trailing_failures,
        part.sessions,
        part.begun,
        u64::from(part.in_flight) << 24,
        u64::from(part.unanswered) << 24,
        u64::from(part.upgraded) << 24,
        u64::from(part.cut) << 16,
    ];
    let latency = part.latency.iter().flat_map(|h| &h.counts);
    all_plausible(counts.iter().chain(latency))
}

/// 1xx to 5xx, however many were told.
fn classes(told: &[u64]) -> [u64; 5] {
    std::array::from_fn(|class| told.get(class).copied().unwrap_or_default())
}

/// Long-lived streams that all end at once make no report unbelievable.
fn bound_sum(histogram: &mut Option<pb::Histogram>) {
    if let Some(histogram) = histogram {
        histogram.sum_us = histogram.sum_us.min(COUNT_MAX);
    }
}

/// Sums of such counts cannot overflow in the lifetime of a process.
fn all_plausible<'a>(mut counts: impl Iterator<Item = &'a u64>) -> Result<(), Status> {
    match counts.find(|count| **count > COUNT_MAX) {
        Some(count) => Err(Status::invalid_argument(format!(
            "a report that counts {count} is not believed; at most {COUNT_MAX} is"
        ))),
        None => Ok(()),
    }
}
