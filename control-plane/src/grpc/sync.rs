//! The sync service: the shell around `lb_core::sync::Session`.
//!
//! One task per stream. It never waits for a slow proxy: what is to be sent stands in a
//! queue that holds one transmission at most, because the protocol allows one
//! unacknowledged, and further changes merge in the registry until it is answered. So
//! a proxy that reads slowly costs its own objects and holds up nobody, and the task
//! goes on to notice heartbeats, the end of the lease, and the end of the stream.

use std::{collections::VecDeque, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use lb_core::{
    model::{InstanceId, ProxyId, Version},
    sync::{AckOutcome, Answer, Held, Nonce, Refusal, Session, Transmission},
};
use lb_proto::{
    PROTOCOL_VERSIONS,
    convert::sync as convert,
    v1::{self as pb, control_message::Message as Down, proxy_message::Message as Up, sync_server},
};
use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use super::{Context, status};
use crate::{
    clock::{millis32, unix_ms},
    fleet::{Membership, Progress, ProxyInfo},
};

/// Messages handed to the transport ahead of time.
const TRANSPORT_BUFFER: usize = 2;
/// Proxies that join or leave together move everybody's place only once.
const TUNE_DELAY: Duration = Duration::from_millis(50);

/// Serves proxies.
#[derive(Debug)]
pub(super) struct SyncService {
    context: Arc<Context>,
}

impl SyncService {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl sync_server::Sync for SyncService {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<pb::ControlMessage, Status>> + Send>>;

    async fn stream(
        &self,
        message: Request<Streaming<pb::ProxyMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let peer = Peer { there: message.remote_addr(), here: message.local_addr() };
        let incoming = message.into_inner();
        let (sender, receiver) = mpsc::channel(TRANSPORT_BUFFER);
        let context = Arc::clone(&self.context);
        // The Hello is read in the task, so that a proxy may wait for the response's
        // head before it speaks.
        self.context.tracker.spawn(async move {
            if let Err(refusal) = serve(&context, peer, incoming, &sender).await {
                debug!(code = ?refusal.code(), message = refusal.message(), "sync stream ended");
                sender.send(Err(refusal)).await.ok();
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

type Sender = mpsc::Sender<Result<pb::ControlMessage, Status>>;

async fn serve(
    context: &Arc<Context>,
    peer: Peer,
    mut incoming: Streaming<pb::ProxyMessage>,
    sender: &Sender,
) -> Result<(), Status> {
    let hello = match timeout(context.lease, incoming.message()).await {
        Ok(Ok(Some(pb::ProxyMessage { message: Some(Up::Hello(hello)) }))) => hello,
        Ok(Ok(Some(_))) => {
            return Err(Status::invalid_argument("the first message of a proxy must be a Hello"));
        }
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(error)) => return Err(error),
        Err(_) => {
            return Err(Status::deadline_exceeded(format!(
                "no Hello came within {:?}",
                context.lease
            )));
        }
    };
    let protocol_version = common_version(&hello.protocol_versions)?;
    let held = convert::held_from_wire(hello.held.as_ref(), &hello.held_digest)
        .map_err(|malformed| Status::invalid_argument(malformed.to_string()))?;
    let info = proxy_info(hello, peer)?;
    let live = context.fleet.live();
    let membership = context.fleet.join(info).map_err(|taken| status::of_taken(&taken))?;
    let session = context.registry.read(|view| Session::open(&view.publisher, held));
    let mut stream = ProxyStream {
        context: Arc::clone(context),
        membership,
        session,
        outgoing: VecDeque::new(),
        committed_unix_ms: 0,
        place: (0, 0),
    };
    stream.place = stream.place_now(&live.borrow());
    stream.welcome(protocol_version);
    stream.show(None);
    stream.run(incoming, sender, live).await
}

/// The newest version that both sides speak.
fn common_version(theirs: &[u32]) -> Result<u32, Status> {
    PROTOCOL_VERSIONS.into_iter().find(|ours| theirs.contains(ours)).ok_or_else(|| {
        Status::failed_precondition(format!(
            "no common version of the sync protocol: the proxy speaks {theirs:?}, this control \
             plane (build {}) speaks {PROTOCOL_VERSIONS:?}; upgrade the older of the two",
            env!("CARGO_PKG_VERSION")
        ))
    })
}

/// Both ends of a stream; nothing when it comes through a Unix socket.
#[derive(Clone, Copy, Debug)]
struct Peer {
    there: Option<SocketAddr>,
    here: Option<SocketAddr>,
}

impl Peer {
    /// Whether it comes from another machine: a machine that speaks to itself uses its
    /// loopback address, or the same address at both ends.
    fn is_elsewhere(self) -> bool {
        self.there.is_some_and(|there| {
            let there = there.ip().to_canonical();
            !there.is_loopback() && self.here.map(|here| here.ip().to_canonical()) != Some(there)
        })
    }
}

fn proxy_info(hello: pb::Hello, peer: Peer) -> Result<ProxyInfo, Status> {
    let invalid = |invalid| status::of_invalid(&invalid);
    let held_source = match hello.held_source() {
        pb::HeldSource::None => "none",
        pb::HeldSource::Disk => "disk",
        pb::HeldSource::Live => "live",
    };
    Ok(ProxyInfo {
        id: ProxyId::new(&hello.proxy_id).map_err(invalid)?,
        instance: InstanceId::new(&hello.instance_id).map_err(invalid)?,
        replaces: hello.replaces_instance_id,
        build_version: hello.build_version.chars().take(100).collect(),
        listen_addresses: hello
            .listen_addresses
            .into_iter()
            .take(100)
            .map(|address| (address.listener, address.address))
            .collect(),
        admin_address: hello.admin_address,
        peer_address: peer.there.map(|there| there.to_string()).unwrap_or_default(),
        elsewhere: peer.is_elsewhere(),
        workers: hello.workers,
        writes_access_log: hello.writes_access_log,
        held_source,
        stale_since_unix_ms: hello.stale_since_unix_ms,
    })
}

/// One proxy's stream.
#[derive(Debug)]
struct ProxyStream {
    context: Arc<Context>,
    membership: Membership,
    session: Session,
    /// At most one transmission, and what little goes beside it.
    outgoing: VecDeque<pb::ControlMessage>,
    /// Of the delta that is unacknowledged; 0 for none.
    committed_unix_ms: u64,
    /// Index among the live proxies, and their number.
    place: (u32, u32),
}

impl ProxyStream {
    async fn run(
        mut self,
        mut incoming: Streaming<pb::ProxyMessage>,
        sender: &Sender,
        mut live: tokio::sync::watch::Receiver<Arc<[ProxyId]>>,
    ) -> Result<(), Status> {
        let lease = self.context.lease;
        let mut revisions = self.context.registry.revisions();
        let mut heartbeat = interval(self.context.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lease_end = Instant::now() + lease;
        let mut tune_at: Option<Instant> = None;
        let replaced = self.membership.replaced().clone();
        loop {
            // Marked before polling, so that a commit in between wakes the loop again.
            revisions.borrow_and_update();
            self.poll();
            tokio::select! {
                permit = sender.reserve(), if !self.outgoing.is_empty() => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(message) = self.outgoing.pop_front() {
                        permit.send(Ok(message));
                    }
                }
                message = incoming.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    lease_end = Instant::now() + lease;
                    self.membership.seen();
                    self.hear(message)?;
                }
                Ok(()) = revisions.changed() => {}
                _ = heartbeat.tick() => self.beat(),
                Ok(()) = live.changed() => {
                    live.borrow_and_update();
                    tune_at.get_or_insert_with(|| Instant::now() + TUNE_DELAY);
                }
                () = sleep_until(tune_at.unwrap_or(lease_end)), if tune_at.is_some() => {
                    tune_at = None;
                    self.tune(&live.borrow());
                }
                () = sleep_until(lease_end) => {
                    info!(proxy = %self.membership.id(), ?lease, "nothing heard within the lease");
                    return Err(Status::deadline_exceeded(format!(
                        "nothing was heard of proxy {} for {lease:?}", self.membership.id()
                    )));
                }
                () = sender.closed() => return Ok(()),
                () = replaced.cancelled() => {
                    return Err(Status::aborted("a newer stream of the same proxy took over"));
                }
                () = self.context.stop.cancelled() => {
                    let goaway = pb::Goaway {
                        reason: "the control plane is stopping".to_owned(),
                        ..pb::Goaway::default()
                    };
                    sender.try_send(Ok(convert::down(Down::Goaway(goaway)))).ok();
                    return Ok(());
                }
            }
        }
    }

    fn welcome(&mut self, protocol_version: u32) {
        let stats_period_ms = millis32(self.context.stats_period());
        let (proxy_index, proxy_count) = self.place;
        let welcome = pb::Welcome {
            session_id: uuid::Uuid::new_v4().to_string(),
            server_id: self.context.server_id.clone(),
            protocol_version,
            heartbeat_ms: millis32(self.context.heartbeat),
            lease_ms: millis32(self.context.lease),
            stats_period_ms,
            control_planes: Vec::new(),
            tune: Some(pb::Tune { proxy_index, proxy_count, stats_period_ms }),
            http_address: self.context.http.to_string(),
            now_unix_ms: unix_ms(),
        };
        self.outgoing.push_back(convert::down(Down::Welcome(welcome)));
    }

    /// Queues what the proxy lacks, once everything before it has left.
    fn poll(&mut self) {
        if !self.outgoing.is_empty() {
            return;
        }
        let session = &mut self.session;
        let Some(next) = self.context.registry.read(|view| session.poll(&view.publisher)) else {
            return;
        };
        self.committed_unix_ms = match &next {
            Transmission::Delta(delta) => {
                debug!(proxy = %self.membership.id(), from = delta.from_revision, to = %delta.to, "delta");
                delta.committed_unix_ms
            }
            Transmission::Snapshot(state) => {
                info!(proxy = %self.membership.id(), version = %state.version,
                      objects = state.objects.len(), "sending a snapshot");
                0
            }
        };
        let sent = self.context.fleet.sent();
        let kind = match &next {
            Transmission::Delta(_) => &sent.deltas,
            Transmission::Snapshot(_) => &sent.snapshots,
        };
        let messages = convert::transmission_to_wire(next);
        kind.add(messages.iter().map(|message| message.encoded_len() as u64).sum());
        self.outgoing.extend(messages);
        self.show(None);
    }

    fn hear(&mut self, message: pb::ProxyMessage) -> Result<(), Status> {
        let malformed = |error: convert::Malformed| Status::invalid_argument(error.to_string());
        match message.message {
            Some(Up::Ack(ack)) => {
                if let Some(answer) = convert::ack_from_wire(&ack).map_err(malformed)? {
                    self.answer(answer);
                }
            }
            Some(Up::Nack(nack)) => self.answer(convert::nack_from_wire(nack).map_err(malformed)?),
            Some(Up::Heartbeat(beat)) => {
                let held = convert::held_from_wire(beat.version.as_ref(), &beat.digest)
                    .map_err(malformed)?;
                self.compare(held);
            }
            Some(Up::Hello(_)) => {
                return Err(Status::invalid_argument("a stream has one Hello, its first message"));
            }
            // A newer proxy may say more than this build understands.
            None => {}
        }
        Ok(())
    }

    fn answer(&mut self, answer: Answer) {
        let why = answer.refused.as_ref().map(|(_, message)| message.clone());
        let outcome = self.session.on_answer(answer);
        let proxy = self.membership.id();
        let mut lag = None;
        match outcome {
            AckOutcome::Applied(revision) => {
                debug!(%proxy, revision, "applied");
                let committed = std::mem::take(&mut self.committed_unix_ms);
                if committed > 0 {
                    lag = Some(Duration::from_millis(unix_ms().saturating_sub(committed)));
                }
            }
            AckOutcome::Refused => {
                warn!(%proxy, why, "a state was refused whole");
            }
            AckOutcome::Diverged => {
                warn!(%proxy, why, "digests do not agree; sending the state again");
            }
            AckOutcome::Stale => debug!(%proxy, "answer to nothing that was asked"),
        }
        self.show(lag);
    }

    /// Two different states of one version must never go on unnoticed.
    fn compare(&mut self, theirs: Option<Held>) {
        let ours = self.published();
        let diverged = theirs
            .is_some_and(|theirs| theirs.version == ours.version && theirs.digest != ours.digest);
        let settled = self.session.applied_revision() == ours.version.revision;
        if diverged && settled {
            let refused = Some((Refusal::Resync, "the digest in a heartbeat differs".to_owned()));
            let rejections = Vec::new();
            self.answer(Answer { nonce: Nonce::default(), held: theirs, rejections, refused });
        }
    }

    fn published(&self) -> Held {
        self.context.registry.read(|view| Held {
            version: view.publisher.version(),
            digest: view.publisher.digest(),
        })
    }

    /// A heartbeat, unless something else is on its way that says as much.
    fn beat(&mut self) {
        if self.outgoing.is_empty() {
            let Held { version, digest } = self.published();
            self.outgoing.push_back(convert::down(Down::Heartbeat(heartbeat(version, digest))));
        }
    }

    fn tune(&mut self, live: &[ProxyId]) {
        let place = self.place_now(live);
        if place != self.place {
            self.place = place;
            let (proxy_index, proxy_count) = place;
            let stats_period_ms = millis32(self.context.stats_period());
            let tune = pb::Tune { proxy_index, proxy_count, stats_period_ms };
            self.outgoing.push_back(convert::down(Down::Tune(tune)));
        }
    }

    fn place_now(&self, live: &[ProxyId]) -> (u32, u32) {
        let index = live.binary_search(self.membership.id()).unwrap_or_default();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (number(index), number(live.len()).max(1))
    }

    /// Tells the fleet how far this proxy is.
    fn show(&self, lag: Option<Duration>) {
        let session = &self.session;
        let progress = Progress {
            sent_revision: session.sent_revision(),
            applied_revision: session.applied_revision(),
            digest: session.held().map(|held| held.digest),
            rejections: session.rejections().to_vec(),
            refusal: session.refusal().map(str::to_owned),
            divergences: session.divergences(),
            snapshots_sent: session.snapshots_sent(),
            deltas_sent: session.deltas_sent(),
        };
        self.membership.advance(progress, lag);
    }
}

impl Drop for ProxyStream {
    fn drop(&mut self) {
        self.context.statistics.lose(self.membership.id());
        self.context.resilience.lost(self.membership.id());
    }
}

fn heartbeat(version: Version, digest: lb_core::sync::Digest) -> pb::Heartbeat {
    pb::Heartbeat {
        sent_unix_ms: unix_ms(),
        version: Some(convert::version_to_wire(version)),
        digest: convert::digest_to_wire(digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_speaks_to_itself_is_not_elsewhere() {
        let peer =
            |there: &str, here: &str| Peer { there: there.parse().ok(), here: here.parse().ok() };
        assert!(!peer("127.0.0.1:5", "127.0.0.1:9400").is_elsewhere());
        assert!(!peer("[::ffff:127.0.0.1]:5", "[::ffff:127.0.0.1]:9400").is_elsewhere());
        assert!(!peer("10.0.0.2:5", "10.0.0.2:9400").is_elsewhere());
        assert!(!peer("", "").is_elsewhere(), "a Unix socket");
        assert!(peer("10.0.0.3:5", "10.0.0.2:9400").is_elsewhere());
    }
}
