//! A control plane and a proxy that say what a test tells them.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use lb_core::{
    model::{Epoch, Key, Version},
    sync::{
        Delta, FullState, Nonce, Object, ObjectSet, Outcome, Rejection, Subscriber, Transmission,
    },
};
use lb_proto::{
    convert::{self, sync as wire},
    v1::{
        self as pb, control_message::Message as Down, object::Object as Any,
        proxy_message::Message as Up, sync_client::SyncClient, sync_server,
    },
};
use prost::Message as _;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use crate::{PATIENCE, scene::unix_ms, statistics::Statistics};

/// A control plane whose every message a test writes.
#[derive(Debug)]
pub struct ControlPlane {
    address: SocketAddr,
    sessions: mpsc::Receiver<Session>,
    /// What proxies report.
    pub statistics: Statistics,
    /// What its clock is ahead of the real one.
    pub ahead_ms: u64,
    /// How often proxies report; 0 for their own default.
    pub stats_period_ms: u32,
    server: JoinHandle<()>,
}

/// A proxy's stream, seen from the control plane.
#[derive(Debug)]
pub struct Session {
    /// With what the proxy introduced itself.
    pub hello: pb::Hello,
    up: Streaming<pb::ProxyMessage>,
    down: mpsc::Sender<Result<pb::ControlMessage, Status>>,
    objects: ObjectSet,
    revision: u64,
    nonce: u64,
}

impl ControlPlane {
    /// Listens on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (sender, sessions) = mpsc::channel(4);
        let service = sync_server::SyncServer::new(Service { sessions: sender });
        let (statistics, reports) = Statistics::new();
        let server = tonic::transport::Server::builder().add_service(service).add_service(reports);
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            server.serve_with_incoming(incoming).await.expect("the server serves");
        });
        Self { address, sessions, statistics, ahead_ms: 0, stats_period_ms: 0, server }
    }

    /// Where proxies connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next proxy that connects, welcomed.
    pub async fn session(&mut self) -> Session {
        let session = timeout(PATIENCE, self.sessions.recv()).await;
        let session = session.expect("a proxy connects").expect("the server lives");
        let welcome = pb::Welcome {
            session_id: "scripted".to_owned(),
            server_id: "scripted".to_owned(),
            protocol_version: 1,
            // Long ones, so that the script need not care.
            heartbeat_ms: 1000,
            lease_ms: 600_000,
            stats_period_ms: self.stats_period_ms,
            now_unix_ms: unix_ms() + self.ahead_ms,
            ..pb::Welcome::default()
        };
        session.send(Down::Welcome(welcome)).await;
        session
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Session {
    /// Sends objects as a snapshot; the answer.
    pub async fn snapshot(&mut self, objects: Vec<Draft>) -> Up {
        self.begin();
        for object in objects {
            self.objects.insert(object.at(self.revision));
        }
        let state = FullState {
            nonce: Nonce(self.nonce),
            version: self.version(),
            objects: self.objects.iter().cloned().collect(),
            digest: self.objects.digest(),
            allow_empty: true,
            committed_unix_ms: 0,
        };
        self.transmit(Transmission::Snapshot(state)).await
    }

    /// Sends objects as a delta; the answer.
    pub async fn delta(&mut self, objects: Vec<Draft>) -> Up {
        self.begin();
        let revision = self.revision;
        let upserts: Vec<Object> = objects.into_iter().map(|draft| draft.at(revision)).collect();
        for object in &upserts {
            self.objects.insert(object.clone());
        }
        let delta = Delta {
            nonce: Nonce(self.nonce),
            from_revision: self.revision - 1,
            to: self.version(),
            upserts,
            deletes: Vec::new(),
            digest: self.objects.digest(),
            allow_empty: true,
            committed_unix_ms: 0,
        };
        self.transmit(Transmission::Delta(delta)).await
    }

    fn begin(&mut self) {
        self.revision += 1;
        self.nonce += 1;
    }

    fn version(&self) -> Version {
        Version { epoch: Epoch([7; 16]), revision: self.revision }
    }

    async fn transmit(&mut self, transmission: Transmission) -> Up {
        for message in wire::transmission_to_wire(transmission) {
            self.down.send(Ok(message)).await.expect("the proxy listens");
        }
        loop {
            let message = timeout(PATIENCE, self.up.message()).await.expect("the proxy answers");
            match message.expect("the stream goes on").and_then(|message| message.message) {
                Some(Up::Heartbeat(_)) => {}
                Some(answer) => return answer,
                None => panic!("the proxy ended its stream"),
            }
        }
    }

    async fn send(&self, message: Down) {
        self.down.send(Ok(wire::down(message))).await.expect("the proxy listens");
    }
}

/// An object to be sent. Nothing of it is checked: it may well be invalid.
#[derive(Clone, Debug)]
pub struct Draft {
    key: Key,
    payload: Vec<u8>,
}

impl Draft {
    fn at(self, revision: u64) -> Object {
        Object { key: self.key, revision, payload: self.payload.into() }
    }
}

impl From<Any> for Draft {
    fn from(object: Any) -> Self {
        let (kind, name, payload) = match &object {
            Any::Pool(pool) => ("pool", &pool.name, pool.encode_to_vec()),
            Any::Backend(backend) => ("backend", &backend.id, backend.encode_to_vec()),
            Any::Listener(listener) => ("listener", &listener.name, listener.encode_to_vec()),
            Any::Route(route) => ("route", &route.name, route.encode_to_vec()),
            Any::Limit(limit) => ("limit", &limit.name, limit.encode_to_vec()),
        };
        Self { key: Key::new(kind, name), payload }
    }
}

impl From<pb::BackendStatus> for Draft {
    fn from(status: pb::BackendStatus) -> Self {
        let key = Key::new("status", &status.backend);
        Self { key, payload: status.encode_to_vec() }
    }
}

struct Service {
    sessions: mpsc::Sender<Session>,
}

#[tonic::async_trait]
impl sync_server::Sync for Service {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<pb::ControlMessage, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<pb::ProxyMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let mut up = request.into_inner();
        let Some(pb::ProxyMessage { message: Some(Up::Hello(hello)) }) = up.message().await? else {
            return Err(Status::invalid_argument("no Hello"));
        };
        let (down, receiver) = mpsc::channel(64);
        let objects = ObjectSet::new();
        let session = Session { hello, up, down, objects, revision: 0, nonce: 0 };
        self.sessions.send(session).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// A proxy without traffic: the real subscriber behind a real stream, which refuses what a
/// test wants refused.
#[derive(Debug)]
pub struct Proxy {
    follower: JoinHandle<Subscriber>,
    leave: Arc<Notify>,
}

/// Which objects a scripted proxy refuses, and with which code and message.
pub type Refuse = fn(&Object) -> Option<(&'static str, &'static str)>;

/// A configuration that a scripted proxy has taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Taken {
    /// What it holds now.
    pub revision: u64,
    /// Bytes of the messages that brought it.
    pub bytes: usize,
    /// When the control plane committed it.
    pub committed_unix_ms: u64,
}

impl Proxy {
    /// Connects and follows until it is dropped.
    pub async fn follow(channel: Channel, id: &str, refuse: Refuse) -> Self {
        Self::observed(channel, id, refuse, |_| {}).await.expect("the control plane is there")
    }

    /// The same, and tells of each configuration that it takes.
    pub async fn observed(
        channel: Channel,
        id: &str,
        refuse: Refuse,
        observe: impl FnMut(Taken) + Send + 'static,
    ) -> Result<Self, Status> {
        let subscriber = Subscriber::new(convert::decode_object);
        Self::resumed(channel, id, subscriber, refuse, observe).await
    }

    /// The same with what a proxy of this id held before.
    pub async fn resumed(
        channel: Channel,
        id: &str,
        subscriber: Subscriber,
        refuse: Refuse,
        observe: impl FnMut(Taken) + Send + 'static,
    ) -> Result<Self, Status> {
        let held = subscriber.held();
        let hello = pb::Hello {
            proxy_id: id.to_owned(),
            instance_id: format!("{id}-scripted"),
            protocol_versions: vec![1],
            workers: 1,
            held: held.map(|held| wire::version_to_wire(held.version)),
            held_digest: held.map(|held| wire::digest_to_wire(held.digest)).unwrap_or_default(),
            ..pb::Hello::default()
        };
        let (up, receiver) = mpsc::channel(16);
        up.send(wire::up(Up::Hello(hello))).await.expect("the receiver is held here");
        let down = SyncClient::new(channel).stream(ReceiverStream::new(receiver)).await?;
        let down = down.into_inner();
        let leave = Arc::new(Notify::new());
        let left = Arc::clone(&leave);
        let mut subscriber = subscriber;
        let follower = tokio::spawn(async move {
            tokio::select! {
                () = follow(down, up, &mut subscriber, refuse, observe) => {}
                () = left.notified() => {}
            }
            subscriber
        });
        Ok(Self { follower, leave })
    }

    /// Ends the stream; what the proxy holds then.
    pub async fn left(self) -> Subscriber {
        self.leave.notify_one();
        self.ended().await
    }

    /// Waits for the end of the stream; what the proxy holds then.
    pub async fn ended(mut self) -> Subscriber {
        (&mut self.follower).await.expect("a follower does not panic")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

async fn follow(
    mut down: Streaming<pb::ControlMessage>,
    up: mpsc::Sender<pb::ProxyMessage>,
    subscriber: &mut Subscriber,
    refuse: Refuse,
    mut observe: impl FnMut(Taken),
) {
    let mut assembly: Option<wire::Assembly> = None;
    // Of the message at hand, or of the snapshot that it belongs to.
    let (mut bytes, mut committed_unix_ms) = (0, 0);
    while let Ok(Some(message)) = down.message().await {
        bytes += message.encoded_len();
        let Some(message) = message.message else { continue };
        let (outcome, objects) = match message {
            Down::Delta(delta) => {
                committed_unix_ms = delta.committed_unix_ms;
                let delta = wire::delta_from_wire(delta).expect("a well-formed delta");
                let objects = delta.upserts.clone();
                (subscriber.on_delta(delta), objects)
            }
            Down::SnapshotBegin(begin) => {
                committed_unix_ms = begin.committed_unix_ms;
                assembly = Some(wire::Assembly::begin(begin));
                continue;
            }
            Down::SnapshotChunk(chunk) => {
                let assembly = assembly.as_mut().expect("a snapshot has begun");
                assembly.chunk(chunk).expect("a well-formed chunk");
                continue;
            }
            Down::SnapshotEnd(end) => {
                let state = assembly.take().expect("a snapshot has begun").end(&end);
                let state = state.expect("a whole snapshot");
                let objects = state.objects.clone();
                (subscriber.on_snapshot(state), objects)
            }
            Down::Heartbeat(beat) => {
                up.send(wire::up(Up::Heartbeat(beat_back(subscriber, &beat)))).await.ok();
                bytes = 0;
                continue;
            }
            Down::Welcome(_) | Down::Tune(_) => {
                bytes = 0;
                continue;
            }
            Down::Goaway(_) => break,
        };
        let answer = match outcome {
            Outcome::Refuse(answer) => answer,
            Outcome::Apply(update) => {
                let revision = subscriber.held().map_or(0, |held| held.version.revision);
                observe(Taken { revision, bytes: std::mem::take(&mut bytes), committed_unix_ms });
                let mut answer = subscriber.answer(update.nonce);
                answer.rejections.extend(objects.iter().filter_map(|object| {
                    let (code, message) = refuse(object)?;
                    Some(Rejection {
                        key: object.key.clone(),
                        revision: object.revision,
                        code: code.to_owned(),
                        message: message.to_owned(),
                    })
                }));
                answer
            }
        };
        if up.send(wire::answer_to_wire(answer, 1)).await.is_err() {
            break;
        }
    }
}

fn beat_back(subscriber: &Subscriber, theirs: &pb::Heartbeat) -> pb::Heartbeat {
    let held = subscriber.held();
    pb::Heartbeat {
        sent_unix_ms: theirs.sent_unix_ms,
        version: held.map(|held| wire::version_to_wire(held.version)),
        digest: held.map(|held| wire::digest_to_wire(held.digest)).unwrap_or_default(),
    }
}
