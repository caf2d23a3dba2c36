//! One proxy's stream: what the proxy is to be sent, and what its answers mean.
//!
//! What is to be sent stands in a queue that holds one transmission at most, because the
//! protocol allows one unacknowledged; further changes merge in the registry until it is
//! answered.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use lb_core::{
    model::Version,
    moment::Moment,
    sync::{AckOutcome, Answer, Due, Held, Nonce, Refusal, Sending, Session},
};
use lb_proto::{
    convert::sync as convert,
    frame::{Frame, Whole},
    v1::{self as pb, control_message::Message as Down, proxy_message::Message as Up},
};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tonic::Status;
use tracing::{debug, info, warn};

use super::{Context, encoded::Later, hello::Introduction, status};
use crate::{
    clock::{age, millis32, unix_ms},
    fleet::{Membership, Progress, Step},
};

/// One proxy's stream.
#[derive(Debug)]
pub(super) struct ProxyStream {
    context: Arc<Context>,
    membership: Membership,
    session: Session,
    /// At most one transmission, and what little goes beside it.
    outgoing: VecDeque<Frame>,
    /// When the newest change of the delta that is unacknowledged was committed.
    committed: Option<Moment>,
    /// Index among the live proxies, and their number.
    place: (u32, u32),
    /// Whether a whole state is to be sent once there is room for one.
    wants_room: bool,
    /// Room for a whole state, until it has left.
    room: Option<OwnedSemaphorePermit>,
    /// The changes that are unacknowledged, so that others can be sent the same: most proxies are
    /// sent them before the first has answered.
    delta: Option<Arc<Later<Bytes>>>,
    /// The whole state that is under way, for the same reason.
    whole: Option<Arc<Later<Whole>>>,
    /// When the proxy was last heard of.
    heard: Instant,
    /// No whole state is sent before, because the last ones were refused.
    not_before: Instant,
}

/// What is sent next.
enum Content {
    /// Changes, and when the newest of them was committed.
    Delta(Arc<Later<Bytes>>, Moment),
    /// A whole state.
    Whole(Arc<Later<Whole>>),
}

/// Between two whole states of which the first was refused because it would silence a pool: twice
/// as long each time. A new store is likely to get its first verdicts one after the other.
const PAUSE: Duration = Duration::from_secs(1);
/// At most.
const PAUSE_MAX: Duration = Duration::from_secs(15);

impl ProxyStream {
    /// Welcomes a proxy into the fleet.
    pub(super) fn open(context: &Arc<Context>, proxy: Introduction) -> Result<Self, Status> {
        let Introduction { protocol_version, held, rejections, info } = proxy;
        let membership = context.fleet.join(info).map_err(|taken| status::of_taken(&taken))?;
        let (session, is_due) = context.registry.read(|view| {
            let mut session = Session::open(&view.publisher, held, rejections);
            let is_due = session.due(&view.publisher).is_some();
            (session, is_due)
        });
        let mut stream = Self {
            context: Arc::clone(context),
            membership,
            session,
            outgoing: VecDeque::new(),
            committed: None,
            place: (0, 0),
            wants_room: false,
            room: None,
            delta: None,
            whole: None,
            heard: Instant::now(),
            not_before: Instant::now(),
        };
        stream.place = stream.place_now();
        stream.welcome(protocol_version);
        if !is_due {
            // It need not wait for its turn to know that it holds the newest state.
            stream.queue_heartbeat();
        }
        stream.show(Step::Sent);
        Ok(stream)
    }

    /// The proxy's place in the fleet.
    pub(super) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// What is to be sent, in order.
    pub(super) fn outgoing(&mut self) -> &mut VecDeque<Frame> {
        &mut self.outgoing
    }

    fn queue(&mut self, message: Down) {
        self.outgoing.push_back(convert::down(message).into());
    }

    /// Tells the proxy that this control plane stops.
    pub(super) fn say_goodbye(&mut self) {
        self.queue(Down::Goaway(pb::Goaway {
            reason: "the control plane is stopping".to_owned(),
            ..pb::Goaway::default()
        }));
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
        self.queue(Down::Welcome(welcome));
    }

    /// Whether a whole state waits for room: see [`Self::give_room`].
    pub(super) fn wants_room(&self) -> bool {
        self.wants_room
    }

    /// There is room for a whole state.
    pub(super) fn give_room(&mut self, permit: OwnedSemaphorePermit) {
        self.room = Some(permit);
    }

    /// Queues what the proxy lacks, once everything before it has left, and there is room.
    pub(super) fn prepare(&mut self) {
        if !self.outgoing.is_empty() {
            return;
        }
        self.wants_room = false;
        // That of a whole state which has left is given back, unless it has just been given.
        let mut room = self.room.take();
        self.whole = None;
        let Self { session, context, .. } = self;
        // What is sent is encoded below, when no change waits for it.
        let next = context.registry.read(|view| {
            let publisher = &view.publisher;
            if session.due(publisher)? == Due::Snapshot {
                if Instant::now() < self.not_before {
                    return None;
                }
                room =
                    room.take().or_else(|| Arc::clone(&context.snapshots).try_acquire_owned().ok());
                self.wants_room = room.is_none();
                self.room = Some(room.take()?);
            }
            let sending = session.begin(publisher)?;
            let content = match sending.due {
                Due::Delta(from) => {
                    Content::Delta(context.encoded.delta(publisher, from), view.committed)
                }
                Due::Snapshot => Content::Whole(context.encoded.whole(publisher)),
            };
            Some((sending, publisher.version(), content))
        });
        let Some((Sending { nonce, due, allow_empty }, to, content)) = next else { return };
        let (sent, proxy) = (context.fleet.sent(), self.membership.id());
        let count = match content {
            Content::Delta(delta, committed) => {
                debug!(%proxy, ?due, %to, "sending changes");
                self.outgoing.push_back(Frame::delta(nonce, Bytes::clone(&delta)));
                (self.delta, self.committed) = (Some(delta), Some(committed));
                &sent.deltas
            }
            Content::Whole(whole) => {
                info!(%proxy, version = %to, objects = whole.objects(), "sending a snapshot");
                self.outgoing.extend(whole.frames(nonce, allow_empty));
                (self.whole, self.committed) = (Some(whole), None);
                &sent.snapshots
            }
        };
        count.add(self.outgoing.iter().map(|frame| frame.encoded_len() as u64).sum());
        self.show(Step::Sent);
    }

    /// When the proxy was last heard of.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// Takes in what the proxy says.
    pub(super) fn hear(&mut self, message: pb::ProxyMessage) -> Result<(), Status> {
        self.heard = Instant::now();
        let malformed = |error: convert::Malformed| Status::invalid_argument(error.to_string());
        match message.message {
            Some(Up::Ack(ack)) => match convert::ack_from_wire(&ack).map_err(malformed)? {
                Some(answer) => self.answer(answer),
                None => self.membership.seen(),
            },
            Some(Up::Nack(nack)) => self.answer(convert::nack_from_wire(nack).map_err(malformed)?),
            Some(Up::Heartbeat(beat)) => {
                let held = convert::held_from_wire(beat.version.as_ref(), &beat.digest)
                    .map_err(malformed)?;
                self.membership.seen();
                self.compare(held);
            }
            Some(Up::Farewell(pb::Farewell {})) => self.membership.say_goodbye(),
            Some(Up::Hello(_)) => {
                return Err(Status::invalid_argument("a stream has one Hello, its first message"));
            }
            // A newer proxy may say more than this build understands.
            None => self.membership.seen(),
        }
        Ok(())
    }

    fn answer(&mut self, answer: Answer) {
        let why = answer.refused.as_ref().map(|(_, message)| message.clone());
        let outcome = self.session.on_answer(answer);
        let proxy = self.membership.id();
        if outcome != AckOutcome::Stale {
            self.delta = None;
        }
        let mut lag = None;
        match outcome {
            AckOutcome::Applied(revision) => {
                debug!(%proxy, revision, "applied");
                lag = self.committed.take().map(age);
            }
            AckOutcome::Refused => {
                warn!(%proxy, why, "a state was refused whole");
                if let Some(more) = self.session.silenced().checked_sub(1) {
                    let pause = PAUSE.saturating_mul(1 << more.min(10)).min(PAUSE_MAX);
                    self.not_before = Instant::now() + pause;
                }
            }
            AckOutcome::Diverged => {
                warn!(%proxy, why, "digests do not agree; sending the state again");
            }
            AckOutcome::Stale => debug!(%proxy, "answer to nothing that was asked"),
        }
        self.show(Step::Answered { lag });
    }

    /// An operator wants the proxy to take the state although it would silence pools.
    pub(super) fn consent(&mut self) {
        if self.session.consent() {
            self.not_before = Instant::now();
            self.show(Step::Sent);
        }
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
    pub(super) fn beat(&mut self) {
        if self.outgoing.is_empty() {
            self.queue_heartbeat();
        }
    }

    fn queue_heartbeat(&mut self) {
        let Held { version, digest } = self.published();
        self.queue(Down::Heartbeat(heartbeat(version, digest)));
    }

    /// Tells the proxy its place among the live ones, if it has moved.
    pub(super) fn tune(&mut self) {
        let place = self.place_now();
        if place != self.place {
            self.place = place;
            let (proxy_index, proxy_count) = place;
            let stats_period_ms = millis32(self.context.stats_period());
            let tune = pb::Tune { proxy_index, proxy_count, stats_period_ms };
            self.queue(Down::Tune(tune));
        }
    }

    fn place_now(&self) -> (u32, u32) {
        let live = self.context.fleet.live();
        let index = live.binary_search(self.membership.id()).unwrap_or_default();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (number(index), number(live.len()).max(1))
    }

    /// Tells the fleet how far this proxy is.
    fn show(&self, step: Step) {
        let session = &self.session;
        let store = self.published().version;
        let held = session.held().map(|held| held.version);
        let ahead = held.filter(|held| held.epoch == store.epoch && held.revision > store.revision);
        let progress = Progress {
            ahead_revision: ahead.map(|held| held.revision),
            sent_revision: session.sent_revision(),
            applied_revision: session.applied_revision(),
            digest: session.held().map(|held| held.digest),
            rejections: session.rejections().to_vec(),
            refusal: session.refusal().map(str::to_owned),
            awaits_consent: session.awaits_consent(),
            divergences: session.divergences(),
            snapshots_sent: session.snapshots_sent(),
            deltas_sent: session.deltas_sent(),
        };
        self.membership.advance(progress, step);
    }
}

fn heartbeat(version: Version, digest: lb_core::sync::Digest) -> pb::Heartbeat {
    pb::Heartbeat {
        sent_unix_ms: unix_ms(),
        version: Some(convert::version_to_wire(version)),
        digest: convert::digest_to_wire(digest),
    }
}
