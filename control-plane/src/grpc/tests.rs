//! The services over real channels, with proxies that are scripted.

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
        let request = pb::WatchRequest { past: 1000 };
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

#[tokio::test]
async fn a_backend_is_added_listed_changed_and_removed() {
    let world = world().await;
    let added = world.add("127.0.0.1:9", None).await.unwrap();
    assert!(added.changed);
    let Some(pb::object::Object::Backend(backend)) = &added.objects[0].object else {
        panic!("a backend was put");
    };
    assert_eq!((backend.id.as_str(), backend.pool.as_str()), ("backend1", "default"));

    let get = pb::GetRequest { kind: "backend".into(), name: "backend1".into() };
    let got = world.registry().get(get.clone()).await.unwrap().into_inner();
    assert_eq!(got.object.as_ref(), added.objects.first());

    let state = pb::SetBackendStateRequest {
        id: "backend1".into(),
        state: pb::AdminState::Disabled.into(),
        options: None,
    };
    world.registry().set_backend_state(state).await.unwrap();
    let all = world.registry().list(pb::ListRequest::default()).await.unwrap().into_inner();
    assert_eq!(all.objects.len(), 4, "pool, backend, listener and route");

    let list = pb::ListBackendsRequest::default();
    let views = world.fleet().list_backends(list).await.unwrap().into_inner().backends;
    assert_eq!(views[0].backend.as_ref().unwrap().admin_state(), pb::AdminState::Disabled);
    assert!(views[0].status.is_some());

    let delete =
        pb::DeleteRequest { kind: "backend".into(), name: "backend1".into(), options: None };
    world.registry().delete(delete).await.unwrap();
    let gone = world.registry().get(get).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert!(gone.message().contains("backend1"), "{}", gone.message());
}

#[tokio::test]
async fn refusals_have_the_codes_of_the_contract() {
    let world = world().await;
    world.add("127.0.0.1:9", None).await.unwrap();
    let twin = world.add("127.0.0.1:9", None).await.unwrap_err();
    assert_eq!(twin.code(), Code::AlreadyExists);
    assert!(twin.message().contains("backend1"));
    for (address, part) in [("127.0.0.1", "HOST:PORT"), ("", "HOST:PORT"), ("h:0", "port 0")] {
        let bad = world.add(address, None).await.unwrap_err();
        assert_eq!(bad.code(), Code::InvalidArgument);
        assert!(bad.message().contains(part), "{}", bad.message());
    }
    let late = pb::WriteOptions { expected_revision: 1, ..Default::default() };
    let drain = pb::SetBackendStateRequest {
        id: "backend1".into(),
        state: pb::AdminState::Draining.into(),
        options: Some(late),
    };
    let conflict = world.registry().set_backend_state(drain).await.unwrap_err();
    assert_eq!(conflict.code(), Code::Aborted);
    let used = pb::DeleteRequest { kind: "pool".into(), name: "default".into(), options: None };
    let refused = world.registry().delete(used).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let unknown = pb::GetRequest { kind: "cluster".into(), name: "default".into() };
    let refused = world.registry().get(unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let status = pb::ListRequest { kind: "status".into(), pool: String::new() };
    let refused = world.registry().list(status).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let empty = world.registry().put(pb::PutRequest::default()).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_repeated_write_is_answered_and_not_done_again() {
    let world = world().await;
    let options = || Some(pb::WriteOptions { idempotency_key: "k".into(), ..Default::default() });
    let first = world.add("127.0.0.1:9", options()).await.unwrap();
    // That the caller waits, or for how long, does not make it another write.
    let patient = pb::WriteOptions { wait: wait(5).wait, ..options().unwrap() };
    let again = world.add("127.0.0.1:9", Some(patient)).await.unwrap();
    assert_eq!((again.revision, &again.objects), (first.revision, &first.objects));
    let other = world.add("127.0.0.1:10", options()).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn without_a_proxy_a_write_is_stored_and_says_so() {
    let world = world().await;
    let progress = world.add("127.0.0.1:9", Some(wait(0))).await.unwrap().progress.unwrap();
    assert_eq!((progress.proxies, progress.applied, progress.done), (0, 0, true));
}

#[tokio::test]
async fn a_write_waits_until_every_proxy_has_applied_it() {
    let world = world().await;
    let mut proxies = [world.proxy("p1").await, world.proxy("p2").await];
    let write = world.add("127.0.0.1:9", Some(wait(20_000)));
    let follow = async {
        for proxy in &mut proxies {
            let delta = proxy.transmission().await;
            assert!(matches!(&delta, Transmission::Delta(d) if !d.upserts.is_empty()));
            proxy.apply(delta).await;
        }
    };
    let (written, ()) = tokio::join!(write, follow);
    let progress = written.unwrap().progress.unwrap();
    assert_eq!((progress.proxies, progress.applied, progress.done), (2, 2, true));
    assert!(progress.laggards.is_empty());
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_is_named_when_the_time_is_up() {
    let world = world().await;
    let _silent = world.proxy("silent").await;
    world.event("proxy_synced").await;
    let progress = world.add("127.0.0.1:9", Some(wait(50))).await.unwrap().progress.unwrap();
    assert!(!progress.done);
    let laggard = &progress.laggards[0];
    assert_eq!((laggard.proxy_id.as_str(), laggard.state.as_str()), ("silent", "behind"));
    assert_eq!(laggard.applied_revision, 1);
}

#[tokio::test]
async fn a_refused_object_ends_the_wait_and_is_shown_with_its_reason() {
    let world = world().await;
    let mut proxy = world.proxy("p1").await;
    let write = world.add("127.0.0.1:9", Some(wait(20_000)));
    let refuse = async {
        let delta = proxy.transmission().await;
        proxy.reject(delta).await;
    };
    let (written, ()) = tokio::join!(write, refuse);
    let progress = written.unwrap().progress.unwrap();
    assert!(progress.done);
    let rejection = progress.rejections[0].rejection.as_ref().unwrap();
    assert_eq!((&*rejection.name, &*rejection.code), ("backend1", "unknown_algorithm"));
    let listed = world.proxies().await;
    assert_eq!((&*listed[0].state, listed[0].rejections.len()), ("rejected", 1));
    let event = world.event("proxy_rejected").await;
    assert!(event.reason.unwrap().message.contains("quantum"));
}

#[tokio::test]
async fn changes_merge_while_an_answer_is_due() {
    let world = world().await;
    let mut proxy = world.proxy("p1").await;
    world.add("127.0.0.1:1", None).await.unwrap();
    let first = proxy.transmission().await;
    for port in 2..=20 {
        world.add(&format!("127.0.0.1:{port}"), None).await.unwrap();
    }
    proxy.apply(first).await;
    let Transmission::Delta(merged) = proxy.transmission().await else { panic!("a delta") };
    let backends = merged.upserts.iter().filter(|object| &*object.key.kind == "backend").count();
    assert_eq!(backends, 19, "one delta for all that came meanwhile");
    proxy.apply(Transmission::Delta(merged)).await;
}

#[tokio::test]
async fn a_proxy_that_comes_back_gets_only_what_it_missed() {
    let world = world().await;
    let mut proxy = world.proxy("p1").await;
    world.add("127.0.0.1:1", None).await.unwrap();
    let delta = proxy.transmission().await;
    proxy.apply(delta).await;
    let Proxy { subscriber, down, up, .. } = proxy;
    drop((up, down));
    world.event("proxy_lost").await;
    let held = subscriber.held().unwrap().version.revision;

    let written = world.add("127.0.0.1:2", None).await.unwrap();
    let mut back = world.proxy_with("p1", subscriber).await;
    let Transmission::Delta(missed) = back.transmission().await else { panic!("a delta") };
    assert_eq!(missed.from_revision, held);
    assert!(missed.to.revision >= written.revision);
    back.apply(Transmission::Delta(missed)).await;
    let listed = world.proxies().await;
    assert_eq!((listed.len(), listed[0].snapshots_sent), (1, 0));
}

#[tokio::test]
async fn a_proxy_of_another_store_gets_a_snapshot_that_may_not_empty_it() {
    let (first, second) = (world().await, world().await);
    let proxy = first.proxy("p1").await;
    let mut moved = second.proxy_with("p1", proxy.subscriber).await;
    let Transmission::Snapshot(state) = moved.transmission().await else { panic!("a snapshot") };
    assert!(!state.allow_empty);
    moved.apply(Transmission::Snapshot(state)).await;
}

#[tokio::test]
async fn a_digest_that_differs_is_cured_by_a_snapshot() {
    let world = world().await;
    let mut proxy = world.proxy("p1").await;
    world.event("proxy_synced").await;
    let (version, _) = held_by(&proxy.subscriber);
    let wrong =
        pb::Heartbeat { sent_unix_ms: 0, version, digest: bytes::Bytes::from_static(&[7; 16]) };
    proxy.up.send(wire::up(Up::Heartbeat(wrong))).await.unwrap();
    let state = proxy.transmission().await;
    assert!(matches!(state, Transmission::Snapshot(_)));
    proxy.apply(state).await;
    assert_eq!(world.proxies().await[0].divergences, 1);
}

#[tokio::test]
async fn two_live_proxies_with_one_id_are_refused_by_name() {
    let world = world().await;
    let _first = world.proxy("twin").await;
    let second = pb::Hello { instance_id: "other".into(), ..hello("twin") };
    let refusal = world.connect(second, new_subscriber()).await.next().await.unwrap_err();
    assert_eq!(refusal.code(), Code::AlreadyExists);
    assert!(refusal.message().contains("twin-instance"), "{}", refusal.message());
    let heir = pb::Hello {
        instance_id: "heir".into(),
        replaces_instance_id: "twin-instance".into(),
        ..hello("twin")
    };
    let welcome = world.connect(heir, new_subscriber()).await.next().await.unwrap();
    assert!(matches!(welcome, Down::Welcome(_)));
}

#[tokio::test]
async fn a_stream_must_begin_with_a_hello_of_a_known_version() {
    let world = world().await;
    let newer = pb::Hello { protocol_versions: vec![7, 8], ..hello("p1") };
    let refusal = world.connect(newer, new_subscriber()).await.next().await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert!(refusal.message().contains("[7, 8]") && refusal.message().contains("[1]"));

    let (up, receiver) = mpsc::channel(1);
    up.send(wire::up(Up::Heartbeat(pb::Heartbeat::default()))).await.unwrap();
    let mut client = SyncClient::new(world.channel.clone());
    let mut down = client.stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    assert_eq!(down.message().await.unwrap_err().code(), Code::InvalidArgument);

    let nameless = world.connect(hello(""), new_subscriber()).await.next().await.unwrap_err();
    assert_eq!(nameless.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_silent_proxy_loses_its_lease() {
    let config = Config {
        heartbeat: Duration::from_millis(10),
        lease: Duration::from_millis(100),
        ..Config::in_memory()
    };
    let world = world_with(config).await;
    let mut proxy = world.proxy("p1").await;
    let end = loop {
        match proxy.next().await {
            Ok(_) => {}
            Err(end) => break end,
        }
    };
    assert_eq!(end.code(), Code::DeadlineExceeded, "{}", end.message());
    assert_eq!(world.proxies().await[0].state, "lost");
}

#[tokio::test]
async fn proxies_are_told_their_place_among_the_live_ones() {
    let world = world().await;
    let mut b = world.connect(hello("b"), new_subscriber()).await;
    let Down::Welcome(welcome) = b.next().await.unwrap() else { panic!("a welcome") };
    let tune = welcome.tune.unwrap();
    assert_eq!((tune.proxy_index, tune.proxy_count, tune.stats_period_ms), (0, 1, 250));
    let _a = world.proxy("a").await;
    let tune = loop {
        if let Down::Tune(tune) = b.next().await.unwrap() {
            break tune;
        }
    };
    assert_eq!((tune.proxy_index, tune.proxy_count), (1, 2));
}

#[tokio::test]
async fn waiting_for_a_revision_streams_the_progress() {
    let world = world().await;
    let mut proxy = world.proxy("p1").await;
    world.event("proxy_synced").await;
    let revision = world.add("127.0.0.1:9", None).await.unwrap().revision;
    let request = pb::WaitAppliedRequest { revision, timeout_ms: 20_000 };
    let mut progress = world.fleet().wait_applied(request).await.unwrap().into_inner();
    let first = progress.message().await.unwrap().unwrap();
    assert_eq!((first.done, first.laggards.len()), (false, 1));
    let delta = proxy.transmission().await;
    proxy.apply(delta).await;
    let last = progress.message().await.unwrap().unwrap();
    assert_eq!((last.done, last.applied), (true, 1));
    assert!(progress.message().await.unwrap().is_none());

    let future = pb::WaitAppliedRequest { revision: 10_000, timeout_ms: 0 };
    let refused = world.fleet().wait_applied(future).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
}

#[tokio::test]
async fn reports_are_counted_and_shown() {
    let world = world().await;
    let added = world.add("127.0.0.1:9", None).await.unwrap();
    let report = |sequence| pb::StatsReport {
        proxy_id: "p1".into(),
        instance_id: "i".into(),
        sequence,
        interval_ms: 250,
        backends: vec![pb::BackendReport {
            pool: "default".into(),
            backend: "backend1".into(),
            incarnation: added.revision,
            requests: 10,
            successes: 9,
            failures: Some(pb::Failures { timeout: 1, ..Default::default() }),
            in_flight: 2,
            latency: Some(pb::Histogram { buckets: vec![40], counts: vec![10], sum_us: 99_000 }),
            ..Default::default()
        }],
        process: Some(pb::ProcessReport { requests: 10, ..Default::default() }),
    };
    let (up, receiver) = mpsc::channel(4);
    let mut client = StatsClient::new(world.channel.clone());
    for sequence in [1, 1, 2] {
        up.send(report(sequence)).await.unwrap();
    }
    let mut replies = client.report(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    for sequence in [1, 1, 2] {
        let reply = replies.message().await.unwrap().unwrap();
        assert_eq!((reply.sequence, reply.period_ms), (sequence, 250));
    }
    let one = pb::ListBackendsRequest { id: "backend1".into(), ..Default::default() };
    let view = world.fleet().list_backends(one).await.unwrap().into_inner().backends.remove(0);
    let totals = view.totals.unwrap();
    assert_eq!((totals.requests, totals.successes, totals.in_flight), (20, 18, 2));
    assert_eq!(totals.failures.unwrap().timeout, 2);
    assert_eq!(totals.latency.unwrap().counts, [20]);
    assert_eq!(view.proxies[0].proxy_id, "p1");
    let stats = world.fleet().get_stats(pb::GetStatsRequest {}).await.unwrap().into_inner();
    assert_eq!(stats.totals.unwrap().requests, 20);
    assert_eq!(stats.process.unwrap().requests, 20);

    let mut absurd = report(3);
    absurd.backends[0].requests = u64::MAX;
    up.send(absurd).await.unwrap();
    assert_eq!(replies.message().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_status_counts_backends_by_state() {
    let world = world().await;
    world.add("127.0.0.1:1", None).await.unwrap();
    let drain = pb::SetBackendStateRequest {
        id: "backend1".into(),
        state: pb::AdminState::Draining.into(),
        options: None,
    };
    world.registry().set_backend_state(drain).await.unwrap();
    let status = world.fleet().get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.pools.len(), status.pools[0].draining, status.pools[0].up), (1, 1, 0));
    assert!(status.version.unwrap().revision >= 3);
    assert!(!status.server_id.is_empty() && status.last_change_unix_ms > 0);
}

#[tokio::test]
async fn a_new_backend_that_fails_its_first_check_is_told_of() {
    let world = world().await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    world.add(&free.to_string(), None).await.unwrap();
    let event = world.event("backend_check_failed").await;
    assert_eq!((&*event.kind, &*event.name), ("backend", "backend1"));
    assert_eq!(event.reason.unwrap().code, "backend_connect_refused");
}

#[tokio::test]
async fn health_and_reflection_answer() {
    let world = world().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(world.channel.clone());
    for service in ["", "lb.v1.Registry", "lb.v1.Fleet", "lb.v1.Sync", "lb.v1.Stats"] {
        let request = tonic_health::pb::HealthCheckRequest { service: service.into() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status.as_str_name(), "SERVING", "{service}");
    }
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(world.channel.clone());
    let mut answers =
        client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.iter().any(|name| name == "lb.v1.Registry"), "{names:?}");
    assert!(names.iter().any(|name| name == "grpc.health.v1.Health"), "{names:?}");
}

#[tokio::test]
async fn stopping_says_goodbye_and_is_quick() {
    let world = world().await;
    let mut proxy = world.proxy("p1").await;
    world.event("proxy_synced").await;
    let request = pb::WatchRequest { past: 0 };
    let mut events = world.fleet().watch(request).await.unwrap().into_inner();
    let started = Instant::now();
    let World { running, channel } = world;
    let stopping = tokio::spawn(running.stop());
    let goaway = proxy.next().await.unwrap();
    assert!(matches!(goaway, Down::Goaway(_)), "{goaway:?}");
    assert!(proxy.next().await.is_err());
    // Streams of watchers end too, whichever way.
    while let Ok(Some(_)) = events.message().await {}
    drop((proxy, channel));
    assert!(stopping.await.unwrap(), "in order");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config = || Config {
        storage: crate::Storage::Directory(directory.path().to_owned()),
        ..Config::in_memory()
    };
    let world = world_with(config()).await;
    let revision = world.add("127.0.0.1:9", None).await.unwrap().revision;
    let mut proxy = world.proxy("p1").await;
    assert!(matches!(
        start(config()).await.map(|_| ()),
        Err(crate::RunError::DataDir(crate::DataDirError::Locked { .. }))
    ));
    assert!(world.running.stop().await);
    while proxy.next().await.is_ok() {}

    let world = world_with(config()).await;
    let get = pb::GetRequest { kind: "backend".into(), name: "backend1".into() };
    let got = world.registry().get(get).await.unwrap().into_inner();
    assert_eq!(got.object.unwrap().revision, revision);
    // The proxy goes on from what it holds: the epoch is the same.
    let back = world.proxy_with("p1", proxy.subscriber).await;
    world.event("proxy_connected").await;
    assert_eq!(world.proxies().await[0].snapshots_sent, 0);
    drop(back);
}
