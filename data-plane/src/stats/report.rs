//! Reports what was counted to the control plane.
//!
//! One report at a time is on its way. One that was not answered is sent again as it
//! was, under the same number, so that nothing is lost and nothing counted twice.

use std::{collections::HashMap, sync::Arc, time::Duration};

use lb_core::{
    model::{InstanceId, ProxyId},
    stats::BackendCounters,
};
use lb_proto::{
    convert,
    v1::{self as pb, stats_client::StatsClient},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tracing::debug;

use super::{Sums, sum};
use crate::{
    live::{BackendState, Config, Identity},
    process,
    sync::Connected,
    worker::Fleet,
};

/// An answer that takes longer will not come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes reports, and remembers what was reported.
#[derive(Debug)]
pub(crate) struct Reporter {
    id: ProxyId,
    instance: InstanceId,
    fleet: Arc<Fleet>,
    config: watch::Receiver<Arc<Config>>,
    backends: HashMap<Identity, Tracked>,
    sent: Sums,
    sequence: u64,
    /// Made, and not answered yet.
    pending: Option<pb::StatsReport>,
    last: Instant,
}

#[derive(Debug)]
struct Tracked {
    state: Arc<BackendState>,
    sent: BackendCounters,
    activity: u64,
    in_flight: u32,
    configured: bool,
}

impl Reporter {
    pub(crate) fn new(
        id: ProxyId,
        instance: InstanceId,
        fleet: Arc<Fleet>,
        config: watch::Receiver<Arc<Config>>,
    ) -> Self {
        Self {
            id,
            instance,
            fleet,
            config,
            backends: HashMap::new(),
            sent: Sums::default(),
            sequence: 0,
            pending: None,
            last: Instant::now(),
        }
    }

    /// Reports to whichever control plane the follower has found.
    pub(crate) async fn run(mut self, mut connected: watch::Receiver<Option<Connected>>) {
        loop {
            let current = connected.borrow_and_update().clone();
            if let Some(current) = current {
                tokio::select! {
                    problem = self.report_to(current) => {
                        debug!(problem, "statistics are not taken");
                        // The follower tells of a new connection; until then this one
                        // may recover.
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    changed = connected.changed() => if changed.is_err() { return },
                }
            } else if connected.changed().await.is_err() {
                return;
            }
        }
    }

    async fn report_to(&mut self, connected: Connected) -> String {
        let (reports, outbox) = mpsc::channel(1);
        let mut client = StatsClient::new(connected.channel);
        // The stream's first message opens it.
        let first = self.next_report();
        if reports.send(first).await.is_err() {
            return "the stream ended before it began".to_owned();
        }
        let opened = timeout(ANSWER_TIMEOUT, client.report(ReceiverStream::new(outbox))).await;
        let mut answers = match opened {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return status.message().to_owned(),
            Err(_) => return "no answer in time".to_owned(),
        };
        let mut period = connected.stats_period;
        loop {
            match timeout(ANSWER_TIMEOUT, answers.message()).await {
                Ok(Ok(Some(reply))) => {
                    if self.pending.as_ref().is_some_and(|sent| sent.sequence == reply.sequence) {
                        self.pending = None;
                    }
                    if reply.period_ms > 0 {
                        period = Duration::from_millis(u64::from(reply.period_ms));
                    }
                }
                Ok(Ok(None)) => return "the stream ended".to_owned(),
                Ok(Err(status)) => return status.message().to_owned(),
                Err(_) => return "no answer in time".to_owned(),
            }
            tokio::time::sleep(period).await;
            let report = self.next_report();
            if reports.send(report).await.is_err() {
                return "the stream ended".to_owned();
            }
        }
    }

    /// The report that is still unanswered, else a new one.
    fn next_report(&mut self) -> pb::StatsReport {
        let report = self.pending.take().unwrap_or_else(|| self.make_report());
        self.pending = Some(report.clone());
        report
    }

    fn make_report(&mut self) -> pb::StatsReport {
        self.track();
        let mut backends = Vec::new();
        self.backends.retain(|_, tracked| {
            let report = tracked.report();
            let alive = tracked.configured || report.is_some() || tracked.in_flight > 0;
            backends.extend(report);
            alive
        });
        let sums = sum(self.fleet.workers.iter().map(|worker| &*worker.shard));
        let since = std::mem::replace(&mut self.sent, sums);
        self.sequence += 1;
        let now = Instant::now();
        let interval = now - std::mem::replace(&mut self.last, now);
        pb::StatsReport {
            proxy_id: self.id.to_string(),
            instance_id: self.instance.to_string(),
            sequence: self.sequence,
            interval_ms: u32::try_from(interval.as_millis()).unwrap_or(u32::MAX),
            backends,
            process: Some(process_report(&sums, &since)),
        }
    }

    /// Notes which backends there are. One that is gone is reported until its last
    /// request has ended.
    fn track(&mut self) {
        if !self.backends.is_empty() && !self.config.has_changed().unwrap_or(false) {
            return;
        }
        let config = Arc::clone(&self.config.borrow_and_update());
        for tracked in self.backends.values_mut() {
            tracked.configured = false;
        }
        for state in config.pools.iter().flat_map(|pool| &pool.backends) {
            let tracked = self.backends.entry(state.identity.clone()).or_insert_with(|| Tracked {
                state: Arc::clone(state),
                sent: BackendCounters::default(),
                activity: 0,
                in_flight: 0,
                configured: true,
            });
            tracked.configured = true;
            tracked.state = Arc::clone(state);
        }
    }
}

impl Tracked {
    /// What is new since the last report, if anything is.
    fn report(&mut self) -> Option<pb::BackendReport> {
        let (activity, in_flight) = (self.state.activity(), self.state.in_flight());
        let unchanged = activity == self.activity && in_flight == self.in_flight;
        // What is in flight is told each time, because a silent gauge expires.
        if unchanged && in_flight == 0 {
            return None;
        }
        self.activity = activity;
        self.in_flight = in_flight;
        let counters = self.state.counters();
        let new = difference(&counters, &self.sent);
        self.sent = counters;
        let identity = &self.state.identity;
        Some(convert::counters_to_wire(
            self.state.pool.as_str(),
            identity.id.as_str(),
            identity.incarnation.0,
            in_flight,
            &new,
        ))
    }
}

fn difference(now: &BackendCounters, before: &BackendCounters) -> BackendCounters {
    let mut failures = now.failures;
    failures.connect -= before.failures.connect;
    failures.reset -= before.failures.reset;
    failures.timeout -= before.failures.timeout;
    failures.protocol -= before.failures.protocol;
    failures.status_5xx -= before.failures.status_5xx;
    BackendCounters {
        requests: now.requests - before.requests,
        successes: now.successes - before.successes,
        failures,
        retries: now.retries - before.retries,
        bytes_to_backend: now.bytes_to_backend - before.bytes_to_backend,
        bytes_from_backend: now.bytes_from_backend - before.bytes_from_backend,
        latency: now.latency.since(&before.latency),
    }
}

fn process_report(sums: &Sums, since: &Sums) -> pb::ProcessReport {
    let classes = sums.status_classes.iter().zip(since.status_classes);
    pb::ProcessReport {
        requests: sums.requests - since.requests,
        no_healthy_backend: sums.no_healthy_backend - since.no_healthy_backend,
        no_route: sums.no_route - since.no_route,
        client_errors: sums.client_errors - since.client_errors,
        client_aborts: sums.client_aborts - since.client_aborts,
        client_connections: u32::try_from(sums.connections).unwrap_or(u32::MAX),
        resident_bytes: process::resident_bytes(),
        cpu_us: process::cpu_us(),
        status_classes: classes.map(|(now, before)| now - before).collect(),
    }
}
