//! The services over real channels, with proxies that are scripted.

mod farewell;
mod fleet;
mod registry;
mod sync;

use std::time::Duration;

use lb_core::sync::{Outcome, Rejection, Subscriber, Transmission};
use lb_proto::{
    convert::{self, sync as wire},
    v1::{
        self as pb, control_message::Message as Down, fleet_client::FleetClient,
        proxy_message::Message as Up, registry_client::RegistryClient, stats_client::StatsClient,
        sync_client::SyncClient,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{Config, Running, start};

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    running: Running,
    channel: Channel,
}

async fn world() -> World {
    world_with(Config::in_memory()).await
}

async fn world_with(config: Config) -> World {
    let running = start(config).await.unwrap();
    let channel = Endpoint::from_shared(running.url()).unwrap().connect().await.unwrap();
    World { running, channel }
}

fn backend(address: &str) -> pb::Object {
    let backend = pb::Backend { address: address.to_owned(), ..Default::default() };
    pb::Object { object: Some(pb::object::Object::Backend(backend)), revision: 0 }
}

fn wait(timeout_ms: u32) -> pb::WriteOptions {
    pb::WriteOptions { wait: Some(pb::Wait { timeout_ms }), ..Default::default() }
}

fn held_by(subscriber: &Subscriber) -> (Option<pb::Version>, bytes::Bytes) {
    match subscriber.held() {
        Some(held) => {
            (Some(wire::version_to_wire(held.version)), wire::digest_to_wire(held.digest))
        }
        None => (None, bytes::Bytes::new()),
    }
}

impl World {
    fn registry(&self) -> RegistryClient<Channel> {
        RegistryClient::new(self.channel.clone())
    }

    fn fleet(&self) -> FleetClient<Channel> {
        FleetClient::new(self.channel.clone())
    }

    async fn add(
        &self,
        address: &str,
        options: Option<pb::WriteOptions>,
    ) -> Result<pb::WriteResponse, Status> {
        let request = pb::PutRequest {
            object: Some(backend(address)),
            mode: pb::PutMode::Create.into(),
            options,
        };
        self.registry().put(request).await.map(tonic::Response::into_inner)
    }

    async fn proxies(&self) -> Vec<pb::Proxy> {
        self.fleet().list_proxies(pb::ListProxiesRequest {}).await.unwrap().into_inner().proxies
    }

    /// Waits for an event of a type.
    async fn event(&self, wanted: &str) -> pb::Event {
        let request = pb::WatchRequest { past: 1000, ..Default::default() };
        let mut events = self.fleet().watch(request).await.unwrap().into_inner();
        let found = async {
            loop {
                let event = events.message().await.unwrap().expect("the stream goes on");
                if event.r#type == wanted {
                    return event;
                }
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no {wanted} came"))
    }

    async fn connect(&self, hello: pb::Hello, subscriber: Subscriber) -> Proxy {
        let (up, receiver) = mpsc::channel(16);
        up.send(wire::up(Up::Hello(hello))).await.unwrap();
        let mut client = SyncClient::new(self.channel.clone());
        let down = client.stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Proxy { up, down, subscriber, assembly: None }
    }

    /// A proxy that holds what `subscriber` does.
    async fn proxy_with(&self, id: &str, subscriber: Subscriber) -> Proxy {
        let (held, held_digest) = held_by(&subscriber);
        let hello = pb::Hello { held, held_digest, ..hello(id) };
        let mut proxy = self.connect(hello, subscriber).await;
        let welcome = proxy.next().await.unwrap();
        assert!(matches!(welcome, Down::Welcome(_)), "{welcome:?}");
        proxy
    }

    /// A proxy that starts empty and has caught up.
    async fn proxy(&self, id: &str) -> Proxy {
        let mut proxy = self.proxy_with(id, new_subscriber()).await;
        let state = proxy.transmission().await;
        assert!(matches!(state, Transmission::Snapshot(_)));
        proxy.apply(state).await;
        proxy
    }
}

/// A backend that is up, without anybody there; since which revision it is.
async fn serving(world: &World) -> u64 {
    let trust = pb::Pool {
        name: "default".into(),
        health_check: Some(pb::HealthCheck { protocol: "none".into(), ..Default::default() }),
        ..Default::default()
    };
    let request = pb::PutRequest {
        object: Some(pb::Object { object: Some(pb::object::Object::Pool(trust)), revision: 0 }),
        ..Default::default()
    };
    world.registry().put(request).await.unwrap();
    world.add("127.0.0.1:1", None).await.unwrap();
    world.event("backend_up").await.revision
}

fn hello(id: &str) -> pb::Hello {
    pb::Hello {
        proxy_id: id.to_owned(),
        instance_id: format!("{id}-instance"),
        protocol_versions: vec![1],
        workers: 2,
        ..Default::default()
    }
}

fn new_subscriber() -> Subscriber {
    Subscriber::new(convert::decode_object)
}

/// A proxy without traffic: the real subscriber behind a real stream.
struct Proxy {
    up: mpsc::Sender<pb::ProxyMessage>,
    down: Streaming<pb::ControlMessage>,
    subscriber: Subscriber,
    assembly: Option<wire::Assembly>,
}

impl Proxy {
    /// The next message that is no heartbeat.
    async fn next(&mut self) -> Result<Down, Status> {
        loop {
            let message = timeout(PATIENCE, self.down.message()).await.expect("a message")?;
            match message {
                Some(pb::ControlMessage { message: Some(Down::Heartbeat(_)) }) => {}
                Some(pb::ControlMessage { message: Some(message) }) => return Ok(message),
                Some(pb::ControlMessage { message: None }) | None => {
                    return Err(Status::cancelled("the stream ended"));
                }
            }
        }
    }

    /// The next delta or snapshot.
    async fn transmission(&mut self) -> Transmission {
        loop {
            match self.next().await.unwrap() {
                Down::Delta(delta) => {
                    return Transmission::Delta(wire::delta_from_wire(delta).unwrap());
                }
                Down::SnapshotBegin(begin) => self.assembly = Some(wire::Assembly::begin(begin)),
                Down::SnapshotChunk(chunk) => {
                    self.assembly.as_mut().unwrap().chunk(chunk).unwrap();
                }
                Down::SnapshotEnd(end) => {
                    return Transmission::Snapshot(
                        self.assembly.take().unwrap().end(&end).unwrap(),
                    );
                }
                Down::Tune(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Takes a transmission and acknowledges it.
    async fn apply(&mut self, transmission: Transmission) {
        let outcome = match transmission {
            Transmission::Delta(delta) => self.subscriber.on_delta(delta),
            Transmission::Snapshot(state) => self.subscriber.on_snapshot(state),
        };
        let answer = match outcome {
            Outcome::Apply(update) => self.subscriber.answer(update.nonce),
            Outcome::Refuse(answer) => answer,
        };
        self.up.send(wire::answer_to_wire(answer, 10)).await.unwrap();
    }

    /// Applies what comes until it has this revision, and the control plane knows.
    async fn reach(&mut self, revision: u64, world: &World) {
        while self.subscriber.held().is_none_or(|held| held.version.revision < revision) {
            let next = self.transmission().await;
            self.apply(next).await;
        }
        let known = async {
            while world.proxies().await[0].applied_revision < revision {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, known).await.expect("the control plane hears of it");
    }

    /// Refuses one object of a delta, and applies the rest.
    async fn reject(&mut self, transmission: Transmission) {
        let Transmission::Delta(delta) = transmission else { panic!("a delta was expected") };
        let object = delta.upserts[0].clone();
        let Outcome::Apply(update) = self.subscriber.on_delta(delta) else { panic!("it fits") };
        let mut answer = self.subscriber.answer(update.nonce);
        answer.rejections = vec![Rejection {
            key: object.key,
            revision: object.revision,
            code: "unknown_algorithm".to_owned(),
            message: "unknown algorithm \"quantum\"".to_owned(),
        }];
        self.up.send(wire::answer_to_wire(answer, 10)).await.unwrap();
    }
}
