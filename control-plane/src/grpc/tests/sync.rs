//! The life of a sync stream.

use std::sync::Arc;

use super::*;

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

/// A large change would be in memory until the next one, which may be weeks away.
#[tokio::test]
async fn what_every_proxy_has_applied_is_freed() {
    let world = world().await;
    let (mut first, mut second) = (world.proxy("p1").await, world.proxy("p2").await);
    // One that no check of a backend follows.
    let pool = pb::Pool { name: "empty".into(), ..Default::default() };
    let mut registry = world.registry();
    let write = registry.put(pb::PutRequest {
        object: Some(pb::Object { object: Some(pb::object::Object::Pool(pool)), revision: 0 }),
        options: Some(wait(20_000)),
        ..Default::default()
    });
    let held = || world.running.context().encoded.held();
    let follow = async {
        let (one, other) = (first.transmission().await, second.transmission().await);
        first.apply(one).await;
        let progress = async {
            while world.proxies().await[0].state != "synced" {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, progress).await.expect("the first is in sync");
        assert_eq!(held(), 1, "the second has not applied it yet");
        second.apply(other).await;
    };
    let (written, ()) = tokio::join!(write, follow);
    assert!(written.unwrap().into_inner().progress.unwrap().done);
    assert_eq!(held(), 0);
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

/// Whatever the period of heartbeats: it is stale by its own account until it is told.
#[tokio::test]
async fn a_proxy_that_lacks_nothing_is_told_so_with_its_welcome() {
    let hour = Duration::from_secs(3600);
    let config = Config { heartbeat: hour, lease: hour, ..Config::in_memory() };
    let world = world_with(config).await;
    let proxy = world.proxy("p1").await;
    world.event("proxy_synced").await;
    let Proxy { subscriber, down, up, .. } = proxy;
    drop((up, down));
    world.event("proxy_lost").await;
    let mut back = world.proxy_with("p1", subscriber).await;
    let next = timeout(PATIENCE, back.down.message()).await.expect("it comes at once");
    let Some(Down::Heartbeat(beat)) = next.unwrap().unwrap().message else { panic!("a heartbeat") };
    assert_eq!((beat.version, beat.digest), held_by(&back.subscriber));
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
async fn an_operator_may_have_a_proxy_take_what_it_refuses() {
    let (first, second) = (world().await, world().await);
    let up = serving(&first).await;
    let mut proxy = first.proxy("p1").await;
    proxy.reach(up, &first).await;
    let mut moved = second.proxy_with("p1", proxy.subscriber).await;
    let state = moved.transmission().await;
    moved.apply(state).await;
    let told = second.event("proxy_rejected").await.reason.unwrap();
    assert!(told.message.contains("'lbctl adopt-store'"), "{}", told.message);
    assert!(second.proxies().await[0].awaits_consent);
    let unknown = pb::AdoptStoreRequest { proxy_id: "p2".into() };
    assert_eq!(second.fleet().adopt_store(unknown).await.unwrap_err().code(), Code::NotFound);
    let all = pb::AdoptStoreRequest::default();
    let adopting = second.fleet().adopt_store(all.clone()).await.unwrap().into_inner();
    assert_eq!(adopting.proxies, ["p1"]);
    let state = moved.transmission().await;
    moved.apply(state).await;
    moved.reach(adopting.revision, &second).await;
    assert_eq!(second.proxies().await[0].state, "synced");
    assert!(second.fleet().adopt_store(all).await.unwrap().into_inner().proxies.is_empty());
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
async fn a_proxy_that_is_refused_is_told_to_whoever_looks() {
    let world = world().await;
    let _first = world.proxy("twin").await;
    let second = pb::Hello { instance_id: "other".into(), ..hello("twin") };
    for _ in 0..3 {
        world.connect(second.clone(), new_subscriber()).await.next().await.unwrap_err();
    }
    let event = world.event("proxy_refused").await;
    let reason = event.reason.unwrap();
    assert_eq!((&*event.name, &*reason.code), ("twin", "proxy_id_in_use"));
    assert!(reason.message.contains("instance other"), "{}", reason.message);
    assert!(reason.message.contains("--id"), "{}", reason.message);
    let status = world.fleet().get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
    let [refused] = &status.refused[..] else { panic!("{status:?}") };
    assert_eq!((&*refused.instance_id, refused.attempts), ("other", 3));
    let listed = world.fleet().list_proxies(pb::ListProxiesRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.refused, status.refused);
    let request = pb::WatchRequest { past: 1000 };
    let mut events = world.fleet().watch(request).await.unwrap().into_inner();
    let newest = status.version.unwrap().revision;
    world.add("127.0.0.1:1", None).await.unwrap();
    let mut told = 0;
    loop {
        let event = events.message().await.unwrap().unwrap();
        told += u32::from(event.r#type == "proxy_refused");
        if event.revision > newest {
            break;
        }
    }
    assert_eq!(told, 1, "attempts are counted, and told once");

    // Once it is let in, it is no longer listed.
    drop(_first);
    world.event("proxy_lost").await;
    world.connect(second, new_subscriber()).await.next().await.unwrap();
    let status = world.fleet().get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
    assert!(status.refused.is_empty(), "{status:?}");
}

#[tokio::test]
async fn what_a_proxy_refused_is_known_when_its_stream_begins_anew() {
    let world = world().await;
    let mut proxy = world.proxy("p1").await;
    let written = world.add("127.0.0.1:1", None).await.unwrap();
    proxy.reach(written.revision, &world).await;
    let (held, held_digest) = held_by(&proxy.subscriber);
    let rejected = pb::Rejection {
        kind: "backend".into(),
        name: "backend1".into(),
        revision: written.revision,
        code: "unknown_algorithm".into(),
        message: "no".into(),
    };
    drop((proxy.up, proxy.down));
    world.event("proxy_lost").await;
    let rejections = vec![rejected.clone()];
    let again = pb::Hello { held, held_digest, rejections, ..hello("p1") };
    let mut back = world.connect(again, proxy.subscriber).await;
    back.next().await.unwrap();
    let listed = world.proxies().await.remove(0);
    assert_eq!((&*listed.state, &listed.rejections), ("rejected", &vec![rejected]));
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

/// Everybody's place is told anew whenever somebody comes or goes, on several threads at once:
/// neither may ever wait for the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_come_and_go_while_places_are_told() {
    // Those who stay say nothing meanwhile.
    let lease = Duration::from_secs(600);
    let world = Arc::new(world_with(Config { lease, ..Config::in_memory() }).await);
    let mut staying = Vec::new();
    for number in 0..100 {
        staying.push(world.proxy_with(&format!("p{number}"), new_subscriber()).await);
    }
    let passing = (0..4).map(|task| {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            for number in 0..150 {
                let id = format!("passing-{task}-{number}");
                drop(world.proxy_with(&id, new_subscriber()).await);
            }
        })
    });
    for passed in passing.collect::<Vec<_>>() {
        passed.await.unwrap();
    }
    let listed = world.proxies().await;
    assert_eq!(listed.len(), 700, "everybody was there, and the control plane still answers");
}

/// Room for whole states would be kept from all others for as long as it goes on.
#[tokio::test]
async fn a_proxy_that_reads_nothing_is_not_waited_for_though_it_is_heard() {
    let (lease, heartbeat) = (Duration::from_secs(1), Duration::from_millis(100));
    let world = world_with(Config { lease, heartbeat, ..Config::in_memory() }).await;
    // More than a connection holds of which nobody reads.
    for name in ["a", "b", "c", "d"] {
        let body = "x".repeat(60_000).into();
        let pool = pb::Pool {
            name: name.into(),
            fallback_answer: Some(pb::StaticAnswer { body, ..Default::default() }),
            ..Default::default()
        };
        let object = pb::Object { object: Some(pb::object::Object::Pool(pool)), revision: 0 };
        let request = pb::PutRequest { object: Some(object), ..Default::default() };
        world.registry().put(request).await.unwrap();
    }
    let endpoint = Endpoint::from_shared(world.running.url()).unwrap();
    let narrow = endpoint.initial_stream_window_size(65_535).connect().await.unwrap();
    let (up, receiver) = mpsc::channel(1);
    up.send(wire::up(Up::Hello(hello("mute")))).await.unwrap();
    let stream = SyncClient::new(narrow).stream(ReceiverStream::new(receiver)).await.unwrap();
    let room = &world.running.context().snapshots;
    let taken = async {
        while room.available_permits() == crate::grpc::SNAPSHOTS_MAX {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, taken).await.expect("it is sent the whole state");
    let beats = async {
        while room.available_permits() < crate::grpc::SNAPSHOTS_MAX {
            up.send(wire::up(Up::Heartbeat(pb::Heartbeat::default()))).await.ok();
            tokio::time::sleep(heartbeat).await;
        }
    };
    timeout(PATIENCE, beats).await.expect("the room is given back");
    let lost = world.event("proxy_lost").await;
    assert_eq!(lost.name, "mute");
    let mut down = stream.into_inner();
    let why = loop {
        match down.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it is told why"),
            Err(status) => break status,
        }
    };
    assert!(why.message().contains("has read nothing"), "{why}");
}
