//! What is told about proxies, statistics, events and the server itself.

use super::*;

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
        process: Some(pb::ProcessReport {
            requests: 10,
            own_answers: [("no_route".to_owned(), 2)].into(),
            access_log_dropped: 3,
            worker_connections: vec![4, 5],
            ..Default::default()
        }),
        probes: Vec::new(),
        limits: Vec::new(),
        sent_ms: 250 * sequence,
        applied_revision: 0,
        applied_epoch: bytes::Bytes::new(),
        pools: Vec::new(),
        ..Default::default()
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
    let status = world.fleet().get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
    for process in [stats.process.unwrap(), status.process.unwrap()] {
        assert_eq!((process.requests, process.access_log_dropped), (20, 6));
        assert_eq!(process.own_answers, [("no_route".to_owned(), 4)].into());
        assert!(process.worker_connections.is_empty(), "workers are those of one proxy");
    }

    let mut absurd = report(3);
    absurd.backends[0].requests = u64::MAX;
    up.send(absurd).await.unwrap();
    assert_eq!(replies.message().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_report_with_reasons_that_are_no_words_is_refused() {
    let world = world().await;
    for (reason, count) in [("No Route", 1), ("no_route", u64::MAX)] {
        let report = pb::StatsReport {
            proxy_id: "p1".into(),
            instance_id: "i".into(),
            sequence: 1,
            process: Some(pb::ProcessReport {
                own_answers: [(reason.to_owned(), count)].into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut client = StatsClient::new(world.channel.clone());
        let replies = client.report(tokio_stream::iter([report])).await.unwrap();
        let refused = replies.into_inner().message().await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{reason} {count}");
    }
}

#[tokio::test]
async fn the_status_counts_backends_by_state() {
    let world = world().await;
    world.add("127.0.0.1:1", None).await.unwrap();
    let drain = pb::SetBackendStateRequest {
        id: "backend1".into(),
        state: pb::AdminState::Draining.into(),
        options: None,
        ..Default::default()
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

async fn drain_backend1(world: &World) -> u64 {
    let drain = pb::SetBackendStateRequest {
        id: "backend1".into(),
        state: pb::AdminState::Draining.into(),
        ..Default::default()
    };
    world.registry().set_backend_state(drain).await.unwrap().into_inner().revision
}

/// What `p1` has in flight at `backend1`, which is there since `incarnation`.
fn in_flight(incarnation: u64, upgraded: u32) -> pb::StatsReport {
    pb::StatsReport {
        proxy_id: "p1".into(),
        instance_id: "p1-instance".into(),
        backends: vec![pb::BackendReport {
            pool: "default".into(),
            backend: "backend1".into(),
            incarnation,
            in_flight: upgraded,
            upgraded,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// What is left of `backend1`, after many looks at its drain, which goes on.
async fn left_of_backend1(world: &World, ports: std::ops::Range<u16>) -> pb::DrainShare {
    // Each change makes the drain be looked at.
    for number in ports {
        world.add(&format!("127.0.0.1:{number}"), None).await.unwrap();
    }
    let one = pb::ListBackendsRequest { id: "backend1".into(), ..Default::default() };
    let view = world.fleet().list_backends(one).await.unwrap().into_inner().backends.remove(0);
    assert!(!view.backend.unwrap().drain.unwrap().ended);
    view.drain.expect("it goes on").proxies.remove(0)
}

/// A stream that breaks off, or passes to another process, says nothing of the connections.
#[tokio::test]
async fn a_drain_does_not_end_while_a_proxy_that_has_something_left_connects_anew() {
    let world = world().await;
    let incarnation = world.add("127.0.0.1:1", None).await.unwrap().revision;
    let mut proxy = world.proxy("p1").await;
    let applied_revision = drain_backend1(&world).await;
    proxy.reach(applied_revision, &world).await;
    let report = |sequence, upgraded| pb::StatsReport {
        sequence,
        applied_revision,
        ..in_flight(incarnation, upgraded)
    };
    let (up, receiver) = mpsc::channel(4);
    up.send(report(1, 2)).await.unwrap();
    let mut client = StatsClient::new(world.channel.clone());
    let mut replies = client.report(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    replies.message().await.unwrap().unwrap();
    drop(proxy);
    world.event("proxy_lost").await;
    let share = left_of_backend1(&world, 2..30).await;
    assert_eq!((&*share.state, share.upgraded), ("told", 2));
    up.send(report(2, 0)).await.unwrap();
    world.event("drained").await;
}

/// A proxy that refuses the state of a new store goes on by the old one, whose revisions and
/// backends may be called as those here.
#[tokio::test]
async fn a_drain_does_not_end_by_what_a_proxy_of_another_store_tells() {
    let (first, second) = (world().await, world().await);
    let up = serving(&first).await;
    let mut proxy = first.proxy("p1").await;
    proxy.reach(up, &first).await;

    let incarnation = second.add("127.0.0.1:1", None).await.unwrap().revision;
    let mut moved = second.proxy_with("p1", proxy.subscriber).await;
    let state = moved.transmission().await;
    moved.apply(state).await;
    second.event("proxy_rejected").await;
    let drained = drain_backend1(&second).await;
    let (epoch, _) = held_by(&moved.subscriber);
    let epoch = epoch.unwrap().epoch;
    for (ports, applied_epoch) in [(2..30, epoch), (30..60, bytes::Bytes::new())] {
        let report = pb::StatsReport {
            sequence: 1 + u64::from(applied_epoch.is_empty()),
            applied_revision: drained + 100,
            applied_epoch,
            ..in_flight(incarnation, 0)
        };
        let mut client = StatsClient::new(second.channel.clone());
        let replies = client.report(tokio_stream::iter([report])).await.unwrap();
        replies.into_inner().message().await.unwrap().unwrap();
        assert_eq!(left_of_backend1(&second, ports).await.state, "unheard");
    }
}
