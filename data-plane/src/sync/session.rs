//! One session with one control plane.

use std::time::{Duration, Instant};

use lb_core::{
    backoff::Backoff,
    balance::Phase,
    model::Algorithm,
    sync::{Answer, Outcome},
};
use lb_proto::{
    PROTOCOL_VERSIONS,
    convert::sync::{
        Assembly, Malformed, answer_to_wire, delta_from_wire, digest_to_wire, held_from_wire,
        rejection_to_wire, up, version_to_wire,
    },
    v1::{
        self as pb, control_message::Message as Down, proxy_message::Message as Up,
        sync_client::SyncClient,
    },
};
use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tracing::{debug, error, info, warn};

use super::{
    CONNECT_TIMEOUT, Connected, ControlPlane, Follower, STATS_PERIOD_MS,
    endpoint::{broken, chain},
    management::{self, Told},
};
use crate::{
    clock::{present, unix_ms},
    worker::now,
};

/// Messages to the control plane that may wait: answers and heartbeats.
const OUTBOX: usize = 16;
/// The largest message. Deltas stay far below it: larger changes come as snapshots, in chunks.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nobody answered as a control plane does.
    Failed(String),
    /// A control plane answered that it does not want this proxy.
    Refused(String),
    /// It broke.
    Lost(String),
    /// The control plane ended it.
    Goaway { reason: String, after: Duration },
    /// This proxy has said goodbye.
    Left,
}

/// A session that was welcomed.
struct Session {
    inbox: Streaming<pb::ControlMessage>,
    outbox: mpsc::Sender<pb::ProxyMessage>,
    heartbeat: Interval,
    lease: Duration,
    assembly: Option<Assembly>,
    /// What time it was for the control plane, and when it said so, until its word counts.
    clock: Option<(Instant, u64)>,
}

impl Follower {
    /// Connects, introduces this proxy, and follows until something ends it.
    pub(super) async fn session(
        &mut self,
        control_plane: &ControlPlane,
        backoff: &mut Backoff,
    ) -> Ended {
        let connecting = timeout(CONNECT_TIMEOUT, control_plane.endpoint().connect());
        let channel = match self.leaving.run_until_cancelled(connecting).await {
            Some(Ok(Ok(channel))) => channel,
            Some(Ok(Err(error))) => return Ended::Failed(chain(&error)),
            Some(Err(_)) => return Ended::Failed("no connection in time".to_owned()),
            // Nobody knows of it there.
            None => return Ended::Left,
        };
        let (outbox, messages) = mpsc::channel(OUTBOX);
        if outbox.send(up(Up::Hello(self.hello()))).await.is_err() {
            return Ended::Failed("the stream ended before it began".to_owned());
        }
        let mut client =
            SyncClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let stream = client.stream(ReceiverStream::new(messages));
        let mut inbox = match timeout(CONNECT_TIMEOUT, stream).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return not_welcomed(control_plane, &status),
            Err(_) => return Ended::Failed("no answer in time".to_owned()),
        };
        let welcome = match timeout(CONNECT_TIMEOUT, inbox.message()).await {
            Ok(Ok(Some(pb::ControlMessage { message: Some(Down::Welcome(welcome)) }))) => welcome,
            Ok(Ok(Some(pb::ControlMessage { message: Some(Down::Goaway(goaway)) }))) => {
                return away(goaway);
            }
            Ok(Ok(_)) => return Ended::Failed("it does not begin with a welcome".to_owned()),
            Ok(Err(status)) => return not_welcomed(control_plane, &status),
            Err(_) => return Ended::Failed("no welcome in time".to_owned()),
        };
        info!(control_plane = control_plane.url(), session = welcome.session_id, "following");
        self.status.welcomed();
        let session = self.welcomed(&welcome, inbox, outbox).await;
        if self.serving.exposes_management().await {
            self.find_management(&welcome.http_address, control_plane.host()).await;
        }
        let stats_period = millis_or(welcome.stats_period_ms, STATS_PERIOD_MS);
        self.connected.send_replace(Some(Connected::new(channel, stats_period)));
        self.follow(session, backoff).await
    }

    /// Notes where the control plane's HTTP is.
    async fn find_management(&self, http: &str, host: Option<&str>) {
        let found = timeout(CONNECT_TIMEOUT, management::find(&Told { http, host })).await;
        let found = found
            .unwrap_or_else(|_| Err("the control plane's name did not resolve in time".to_owned()));
        self.serving.set_management(found).await;
    }

    async fn welcomed(
        &self,
        welcome: &pb::Welcome,
        inbox: Streaming<pb::ControlMessage>,
        outbox: mpsc::Sender<pb::ProxyMessage>,
    ) -> Session {
        if let Some(tune) = &welcome.tune {
            self.tune(tune).await;
        }
        let mut heartbeat = interval(millis_or(welcome.heartbeat_ms, 1000));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let lease = millis_or(welcome.lease_ms, 5000);
        let clock = Some((now(), welcome.now_unix_ms));
        Session { inbox, outbox, heartbeat, lease, assembly: None, clock }
    }

    async fn follow(&mut self, mut session: Session, backoff: &mut Backoff) -> Ended {
        let mut heard = now();
        let leaving = self.leaving.clone();
        loop {
            tokio::select! {
                () = leaving.cancelled() => return say_goodbye(session).await,
                message = session.inbox.message() => {
                    heard = now();
                    let message = match message {
                        Ok(Some(pb::ControlMessage { message: Some(message) })) => message,
                        // Of a kind that this build does not know: not for us.
                        Ok(Some(_)) => continue,
                        Ok(None) => return Ended::Lost("it ended the stream".to_owned()),
                        Err(status) => return Ended::Lost(broken(&status)),
                    };
                    match self.take(message, &mut session, backoff).await {
                        Ok(None) => {}
                        Ok(Some(ended)) => return ended,
                        Err(malformed) => return Ended::Lost(malformed.to_string()),
                    }
                }
                _ = session.heartbeat.tick() => {
                    if now() - heard > session.lease {
                        return Ended::Lost(format!("not a word for {:?}", session.lease));
                    }
                    // A full outbox has words enough in it.
                    drop(session.outbox.try_send(up(Up::Heartbeat(self.heartbeat()))));
                }
            }
        }
    }

    /// Takes one message; answers how the session ended, if it did.
    async fn take(
        &mut self,
        message: Down,
        session: &mut Session,
        backoff: &mut Backoff,
    ) -> Result<Option<Ended>, Malformed> {
        let received = now();
        let outcome = match message {
            Down::Delta(delta) => self.serving.subscriber().on_delta(delta_from_wire(delta)?),
            Down::SnapshotBegin(begin) => {
                session.assembly = Some(Assembly::begin(begin));
                return Ok(None);
            }
            Down::SnapshotChunk(chunk) => {
                let assembly = session.assembly.as_mut();
                assembly.ok_or(Malformed("a chunk without a snapshot"))?.chunk(chunk)?;
                return Ok(None);
            }
            Down::SnapshotEnd(end) => {
                let assembly = session.assembly.take();
                let assembly = assembly.ok_or(Malformed("an end without a snapshot"))?;
                self.serving.subscriber().on_snapshot(assembly.end(&end)?)
            }
            Down::Heartbeat(heartbeat) => {
                return self.on_heartbeat(&heartbeat, session, backoff).await.map(|()| None);
            }
            Down::Tune(tune) => {
                self.tune(&tune).await;
                return Ok(None);
            }
            Down::Goaway(goaway) => return Ok(Some(away(goaway))),
            Down::Welcome(_) => return Err(Malformed("a second welcome")),
        };
        if matches!(outcome, Outcome::Apply(_)) {
            self.hear(session).await;
        }
        let answer = self.settle(outcome, received, backoff).await;
        let elapsed = u32::try_from((now() - received).as_micros()).unwrap_or(u32::MAX);
        Ok(self.send(session, answer_to_wire(answer, elapsed)).await)
    }

    /// The control plane has what is served here, so its word on backends counts. Before that it may
    /// be one with another store, which knows nothing of them and would never have them tried again.
    async fn hear(&self, session: &mut Session) {
        if let Some((told_at, unix_ms)) = session.clock.take() {
            let since = u64::try_from((now() - told_at).as_millis()).unwrap_or(u64::MAX);
            let unix_ms = if unix_ms == 0 { 0 } else { unix_ms.saturating_add(since) };
            self.serving.hear(unix_ms).await;
        }
    }

    /// Applies what may be applied; the answer says what became of it.
    async fn settle(
        &mut self,
        outcome: Outcome,
        received: Instant,
        backoff: &mut Backoff,
    ) -> Answer {
        match outcome {
            Outcome::Apply(update) => {
                self.apply().await;
                backoff.reset();
                self.status.synced();
                let answer = self.serving.subscriber().answer(update.nonce);
                for rejection in self.status.count_apply(now() - received, &answer.rejections) {
                    error!(
                        object = %rejection.key,
                        revision = rejection.revision,
                        code = rejection.code,
                        "refused, the former value stays in use: {}",
                        rejection.message
                    );
                }
                debug!(
                    version = ?answer.held.map(|held| held.version.to_string()),
                    elapsed = ?now() - received,
                    "applied"
                );
                answer
            }
            Outcome::Refuse(answer) => {
                if let Some((_, message)) = &answer.refused {
                    self.status.count_refusal(message);
                    warn!("a configuration is refused whole: {message}");
                }
                answer
            }
        }
    }

    async fn on_heartbeat(
        &mut self,
        heartbeat: &pb::Heartbeat,
        session: &mut Session,
        backoff: &mut Backoff,
    ) -> Result<(), Malformed> {
        let Some(theirs) = held_from_wire(heartbeat.version.as_ref(), &heartbeat.digest)? else {
            return Ok(());
        };
        if self.serving.subscriber().held() == Some(theirs) {
            backoff.reset();
            self.status.synced();
            self.hear(session).await;
            return Ok(());
        }
        let answer = self.serving.subscriber().on_heartbeat(theirs);
        if let Some(answer) = answer {
            warn!("the digests do not agree; asking for a snapshot");
            // The next heartbeat finds it again, should this be lost.
            drop(session.outbox.send(answer_to_wire(answer, 0)).await);
        }
        Ok(())
    }

    async fn send(&self, session: &Session, message: pb::ProxyMessage) -> Option<Ended> {
        let sent = session.outbox.send(message).await;
        sent.err().map(|_| Ended::Lost("it stopped reading".to_owned()))
    }

    async fn tune(&self, tune: &pb::Tune) {
        if tune.proxy_count > 0 {
            self.status.told_proxies(tune.proxy_count);
            let phase = Phase { index: tune.proxy_index, count: tune.proxy_count };
            self.serving.set_phase(phase).await;
        }
    }

    fn heartbeat(&self) -> pb::Heartbeat {
        let held = self.serving.subscriber().held();
        pb::Heartbeat {
            sent_unix_ms: unix_ms(),
            version: held.map(|held| version_to_wire(held.version)),
            digest: held.map(|held| digest_to_wire(held.digest)).unwrap_or_default(),
        }
    }

    fn hello(&self) -> pb::Hello {
        let subscriber = self.serving.subscriber();
        let held = subscriber.held();
        let rejections = subscriber.rejections().cloned().map(rejection_to_wire).collect();
        drop(subscriber);
        let source = match (held, self.from_disk) {
            (None, _) => pb::HeldSource::None,
            (Some(_), true) => pb::HeldSource::Disk,
            (Some(_), false) => pb::HeldSource::Live,
        };
        let introduction = &self.introduction;
        pb::Hello {
            proxy_id: introduction.id.to_string(),
            instance_id: introduction.instance.to_string(),
            replaces_instance_id: introduction.replaces.clone(),
            labels: Default::default(),
            build_version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_versions: PROTOCOL_VERSIONS.to_vec(),
            capabilities: Algorithm::NAMES.iter().map(|name| format!("algorithm:{name}")).collect(),
            held: held.map(|held| version_to_wire(held.version)),
            held_digest: held.map(|held| digest_to_wire(held.digest)).unwrap_or_default(),
            held_source: source.into(),
            listen_addresses: introduction
                .listen_addresses
                .iter()
                .map(|(listener, address)| pb::ListenAddress {
                    listener: listener.clone(),
                    address: address.clone(),
                })
                .collect(),
            stale_since_unix_ms: self
                .status
                .stale_since()
                .map_or(0, |since| since.unix_ms(present())),
            admin_address: introduction.admin_address.clone(),
            workers: u32::try_from(introduction.workers).unwrap_or(u32::MAX),
            writes_access_log: introduction.writes_access_log,
            rejections,
        }
    }
}

/// Tells the control plane that this proxy serves nobody any more, and waits until it has read
/// that: it ends the stream then. One of an older build does not, and whoever waits for this
/// bounds it.
async fn say_goodbye(mut session: Session) -> Ended {
    let said = session.outbox.send(up(Up::Farewell(pb::Farewell {}))).await;
    drop(session.outbox);
    if said.is_ok() {
        while let Ok(Some(_)) = session.inbox.message().await {}
    }
    Ended::Left
}

fn away(goaway: pb::Goaway) -> Ended {
    let after = Duration::from_millis(u64::from(goaway.reconnect_after_ms));
    Ended::Goaway { reason: goaway.reason, after }
}

/// Of a stream that ended before its welcome: whether that was somebody's decision, or the
/// connection's end.
fn not_welcomed(control_plane: &ControlPlane, status: &Status) -> Ended {
    let message = control_plane.problem(status);
    match status.code() {
        Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::ResourceExhausted
        | Code::Unimplemented => Ended::Refused(message),
        _ => Ended::Failed(message),
    }
}

fn millis_or(ms: u32, default: u64) -> Duration {
    Duration::from_millis(if ms == 0 { default } else { u64::from(ms) })
}
