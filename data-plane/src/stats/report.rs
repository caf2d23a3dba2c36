//! Reports what was counted to the control plane.
//!
//! One report at a time is on its way. One that was not answered is sent again as it
//! was, under the same number, so that nothing is lost and nothing counted twice.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use lb_core::model::{InstanceId, ProxyId};
use lb_proto::{
    convert::{self, sync::version_to_wire},
    v1::{self as pb, stats_client::StatsClient},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tracing::{debug, warn};

use super::{
    Sums, changes::Changes, clients::ClientReporter, limits::LimitReporter, process,
    sessions::SessionReporter, sum, tracked::Tracked,
};
use crate::{
    live::{BackendState, Config, Identity, PoolConfig, Trouble},
    status::Status,
    sync::Connected,
    worker::{Fleet, Mail, WorkerHandle},
};

/// An answer that takes longer will not come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// After a first failure: what fails with it is told with it.
const URGENT_AFTER: Duration = Duration::from_millis(20);
/// Between two reports, however much fails, where the period is the shortest.
const URGENT_PERIOD: Duration = Duration::from_millis(50);
/// The same, however long the period is: no breaker waits longer to learn what fails.
const URGENT_PERIOD_MAX: Duration = Duration::from_secs(1);

/// Between two reports, however much fails: when everything does, all proxies have something to
/// tell, and the period is what keeps their reports a small part of the control plane's work.
fn urgent_period(period: Duration) -> Duration {
    (period / 5).clamp(URGENT_PERIOD, URGENT_PERIOD_MAX)
}

/// A connection on which no report was taken for so long is not expected to recover.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3);

/// How long a process that ends waits until its last report was heard.
const LAST_REPORT_FOR: Duration = Duration::from_millis(500);

/// Makes reports, and remembers what was reported.
#[derive(Debug)]
pub(crate) struct Reporter {
    id: ProxyId,
    instance: InstanceId,
    fleet: Arc<Fleet>,
    config: watch::Receiver<Arc<Config>>,
    trouble: Arc<Trouble>,
    status: Arc<Status>,
    backends: HashMap<Identity, Tracked>,
    /// The pools that these are of.
    pools: Vec<Arc<PoolConfig>>,
    limits: LimitReporter,
    /// Those that there is or was a token for, until everything was said about it.
    tried: Vec<Arc<BackendState>>,
    sent: Sums,
    /// What clients were answered, as it was told.
    clients: ClientReporter,
    /// Of each pool that had sessions, what was told.
    sessions: SessionReporter,
    sequence: u64,
    /// Made, and not answered yet.
    pending: Option<pb::StatsReport>,
    last: Instant,
    /// What the times of reports are counted from.
    began: Instant,
    /// When the last report was made that was heard.
    heard: watch::Sender<Option<Instant>>,
}

/// Waits for the last report.
#[derive(Debug)]
pub(crate) struct LastReport {
    heard: watch::Receiver<Option<Instant>>,
    trouble: Arc<Trouble>,
}

impl LastReport {
    /// Has everything reported that was counted until now, if there is somebody who takes
    /// it, and not for long.
    pub(crate) async fn told(mut self) {
        if self.heard.borrow().is_none() {
            return;
        }
        let counted = Instant::now();
        self.trouble.news.notify_one();
        let told = self.heard.wait_for(|heard| heard.is_some_and(|heard| heard >= counted));
        // Whoever is away hears it from nobody.
        drop(timeout(LAST_REPORT_FOR, told).await);
    }
}

impl Reporter {
    pub(crate) fn new(
        id: ProxyId,
        instance: InstanceId,
        fleet: Arc<Fleet>,
        config: watch::Receiver<Arc<Config>>,
        trouble: Arc<Trouble>,
        status: Arc<Status>,
    ) -> Self {
        Self {
            id,
            instance,
            fleet,
            config,
            trouble,
            status,
            backends: HashMap::new(),
            pools: Vec::new(),
            limits: LimitReporter::default(),
            tried: Vec::new(),
            sent: Sums::default(),
            clients: ClientReporter::default(),
            sessions: SessionReporter::default(),
            sequence: 0,
            pending: None,
            last: Instant::now(),
            began: Instant::now(),
            heard: watch::Sender::new(None),
        }
    }

    /// To wait by for the last report.
    pub(crate) fn last(&self) -> LastReport {
        LastReport { heard: self.heard.subscribe(), trouble: Arc::clone(&self.trouble) }
    }

    /// Reports to whichever control plane the follower has found.
    pub(crate) async fn run(mut self, mut connected: watch::Receiver<Option<Connected>>) {
        let mut failing = Failing::default();
        loop {
            if connected.has_changed().unwrap_or(false) {
                failing = Failing::default();
            }
            let current = connected.borrow_and_update().clone();
            if let Some(current) = current {
                let (unheard, heard) = (current.unheard.clone(), *self.heard.borrow());
                tokio::select! {
                    problem = self.report_to(current) => {
                        debug!(problem, "statistics are not taken");
                        if failing.fails(*self.heard.borrow() != heard, Instant::now()) {
                            unheard.cancel();
                        }
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
            Ok(Err(status)) => return self.failed(&status),
            Err(_) => return "no answer in time".to_owned(),
        };
        let mut period = connected.stats_period;
        loop {
            match timeout(ANSWER_TIMEOUT, answers.message()).await {
                Ok(Ok(Some(reply))) => {
                    if self.pending.as_ref().is_some_and(|sent| sent.sequence == reply.sequence) {
                        self.pending = None;
                        self.hear(&reply);
                    }
                    if reply.period_ms > 0 {
                        period = Duration::from_millis(u64::from(reply.period_ms));
                    }
                }
                Ok(Ok(None)) => return "the stream ended".to_owned(),
                Ok(Err(status)) => return self.failed(&status),
                Err(_) => return "no answer in time".to_owned(),
            }
            self.pause(period).await;
            let report = self.next_report();
            if reports.send(report).await.is_err() {
                return "the stream ended".to_owned();
            }
        }
    }

    /// A report was not taken. One that never will be is dropped: it would keep all later ones
    /// from being heard.
    fn failed(&mut self, status: &tonic::Status) -> String {
        if status.code() == Code::InvalidArgument && self.pending.take().is_some() {
            warn!(
                sequence = self.sequence,
                "the control plane refuses a report of statistics, and what it counted is lost: {}; \
                 let both be of one version",
                status.message()
            );
        }
        status.message().to_owned()
    }

    /// Waits until the next report is due: sooner when something has failed, so that the fleet
    /// learns of it before many more requests do.
    async fn pause(&self, period: Duration) {
        let began = Instant::now();
        let due = began + period;
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = self.trouble.news.notified() => {
                let soon = (Instant::now() + URGENT_AFTER).max(began + urgent_period(period));
                tokio::time::sleep_until(soon.min(due)).await;
            }
        }
    }

    /// Takes what the control plane says in answer to the last report.
    fn hear(&mut self, reply: &pb::StatsReply) {
        // The backend of a token may be newer than the last report.
        self.track();
        let asked = self.last.into_std();
        for token in &reply.probes {
            let state = self.backends.values().map(|tracked| &tracked.state).find(|state| {
                state.identity.id.as_str() == token.backend
                    && state.identity.incarnation.0 == token.incarnation
            });
            let Some(state) = state else { continue };
            state.give_token(convert::probe_token_from_wire(token), asked);
            if !self.tried.iter().any(|tried| tried.identity == state.identity) {
                self.tried.push(Arc::clone(state));
            }
        }
        self.heard.send_replace(Some(self.last));
        self.cut(&reply.cuts);
        let now = Instant::now().into_std();
        self.tried.retain(|state| state.acknowledge_probe(reply.sequence, now));
    }

    /// Cuts what is left at backends whose drain is over. A process that follows a
    /// configuration learns of it by that, and hears nothing here.
    fn cut(&self, cuts: &[pb::DrainCut]) {
        if cuts.is_empty() {
            return;
        }
        let mut is_news = false;
        for Tracked { state, .. } in self.backends.values() {
            let identity = &state.identity;
            let is_meant = |cut: &pb::DrainCut| {
                cut.backend == identity.id.as_str() && cut.incarnation == identity.incarnation.0
            };
            if cuts.iter().any(is_meant) && !state.is_cutting() {
                state.set_cutting(true);
                is_news = true;
            }
        }
        if is_news {
            self.fleet.tell(|| Mail::LookAgain);
        }
    }

    /// The report that is still unanswered, else a new one.
    fn next_report(&mut self) -> pb::StatsReport {
        let report = self.pending.take().unwrap_or_else(|| self.make_report());
        self.pending = Some(report.clone());
        report
    }

    fn make_report(&mut self) -> pb::StatsReport {
        // Before anything is looked at: a token that is taken from now on is taken later than
        // this report says.
        let now = Instant::now();
        // Read before anything is counted: what follows is of this revision at least.
        let applied = self.config.borrow().version.map(version_to_wire).unwrap_or_default();
        self.track();
        let mut backends = Vec::new();
        self.backends.retain(|_, tracked| {
            let report = tracked.report();
            let alive = tracked.configured || report.is_some() || tracked.in_flight > 0;
            backends.extend(report);
            alive
        });
        let fleet = Arc::clone(&self.fleet);
        let shards = || fleet.workers.iter().map(|worker| &*worker.shard);
        let mut sums = sum(shards());
        sums.access_log_dropped = self.fleet.access_log.as_ref().map_or(0, |log| log.dropped());
        let before = std::mem::replace(&mut self.sent, sums);
        self.sequence += 1;
        let sequence = self.sequence;
        let words = self.tried.iter().filter_map(|state| {
            let identity = &state.identity;
            let word = state.probe_word(sequence)?;
            Some(convert::probe_word_to_wire(&identity.id, identity.incarnation, word))
        });
        let probes = words.collect();
        // One loan at a time: whoever replaces the configuration waits for all of them to end.
        let config = Arc::clone(&self.config.borrow());
        let interval = now - std::mem::replace(&mut self.last, now);
        pb::StatsReport {
            proxy_id: self.id.to_string(),
            instance_id: self.instance.to_string(),
            sequence: self.sequence,
            interval_ms: u32::try_from(interval.as_millis()).unwrap_or(u32::MAX),
            backends,
            process: Some(self.process_report(&sums.since(&before))),
            probes,
            pools: self.sessions.report(&config),
            answers: self.clients.report(&config, &shards()),
            tells_answers: true,
            sent_ms: u64::try_from((now - self.began).as_millis()).unwrap_or(u64::MAX),
            applied_revision: applied.revision,
            applied_epoch: applied.epoch,
            limits: self.limits.report(&config, now.into_std()),
        }
    }

    fn process_report(&self, new: &Sums) -> pb::ProcessReport {
        let standing = self.status.overload();
        let open_max = self.fleet.admission.open_max();
        pb::ProcessReport {
            overload_stage: standing.stage.name().to_owned(),
            overload: standing.cause.map(|(resource, message)| pb::Reason {
                code: resource.name().to_owned(),
                message,
            }),
            max_connections: u32::try_from(open_max).unwrap_or(u32::MAX),
            max_memory_bytes: standing.memory.limit,
            ..process::report(new, self.worker_connections())
        }
    }

    fn worker_connections(&self) -> Vec<u32> {
        let count = |worker: &WorkerHandle| worker.connections.0.load(Ordering::Relaxed);
        let workers = self.fleet.workers.iter();
        workers.map(|worker| u32::try_from(count(worker)).unwrap_or(u32::MAX)).collect()
    }

    /// Notes which backends there are. One that is gone is reported until its last
    /// request has ended.
    fn track(&mut self) {
        if !self.backends.is_empty() && !self.config.has_changed().unwrap_or(false) {
            return;
        }
        let config = Arc::clone(&self.config.borrow_and_update());
        let changes = Changes::between(&self.pools, &config.pools);
        for gone in changes.gone {
            if let Some(tracked) = self.backends.get_mut(&gone.identity) {
                tracked.configured = false;
            }
        }
        for state in changes.come {
            let known = self.backends.entry(state.identity.clone());
            let tracked = known.or_insert_with(|| Tracked::new(state));
            tracked.configured = true;
            if !tracked.state.continues(state) {
                *tracked = Tracked::new(state);
            }
            tracked.state = Arc::clone(state);
        }
        self.pools.clone_from(&config.pools);
    }
}

/// Since when no report was taken on a connection.
#[derive(Debug, Default)]
struct Failing(Option<Instant>);

impl Failing {
    /// A try has failed, perhaps after some reports were `heard`; whether the connection should be
    /// given up.
    fn fails(&mut self, heard: bool, now: Instant) -> bool {
        if heard {
            self.0 = None;
        }
        now - *self.0.get_or_insert(now) >= GIVE_UP_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_given_up_when_nothing_is_heard_on_it_for_long() {
        let (began, mut failing) = (Instant::now(), Failing::default());
        let at = |s| began + Duration::from_secs(s);
        assert!(![0, 1, 2].map(|s| failing.fails(false, at(s))).contains(&true));
        assert!(!failing.fails(true, at(3)), "it has recovered meanwhile");
        assert!(![4, 5].map(|s| failing.fails(false, at(s))).contains(&true));
        assert!(failing.fails(false, at(6)));
    }

    #[test]
    fn reports_of_failures_are_rarer_in_a_large_fleet() {
        let ms = Duration::from_millis;
        assert_eq!(urgent_period(ms(250)), ms(50));
        assert_eq!(urgent_period(ms(2500)), ms(500));
        assert_eq!(urgent_period(ms(0)), ms(50));
    }
}
