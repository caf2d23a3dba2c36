//! What any gRPC or HTTP client finds without our code.

use lb_proto::v1::{self as pb, object::Object as Any};
use lb_tests::{
    backend::Backend,
    client::{Client, get},
    cluster::Cluster,
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::program;

#[tokio::test]
async fn health_is_serving() {
    let cluster = Cluster::start(program(), 0).await;
    let mut health = HealthClient::new(cluster.api.channel());
    for service in ["", "lb.v1.Registry", "lb.v1.Fleet", "lb.v1.Sync", "lb.v1.Stats"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status.as_str_name(), "SERVING", "{service}");
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(cluster.http(), path).await.status, 200, "{path}");
    }
    assert_eq!(get(cluster.http(), "/nothing").await.status, 404);
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let cluster = Cluster::start(program(), 0).await;
    let mut client = ServerReflectionClient::new(cluster.api.channel());
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["lb.v1.Registry", "lb.v1.Fleet", "lb.v1.Sync", "lb.v1.Stats"] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
}

#[tokio::test]
async fn events_tell_what_happens_in_order() {
    let backend = Backend::saying("a");
    let cluster = Cluster::start(program(), 1).await;
    let mut events = cluster.api.watch(0).await;
    cluster.add_backends(&[backend.address()]).await;
    let mut seen: Vec<pb::Event> = Vec::new();
    while seen.last().is_none_or(|event| event.r#type != "backend_up") {
        seen.push(events.message().await.unwrap().unwrap());
    }
    let added = seen.iter().find(|event| event.r#type == "object_changed").unwrap();
    assert_eq!((&*added.kind, &*added.name), ("backend", "backend1"));
    assert!(seen.windows(2).all(|two| two[0].sequence < two[1].sequence), "{seen:?}");
    let up = seen.last().unwrap();
    assert_eq!(up.reason.as_ref().unwrap().code, "check_passed");
    assert!(up.revision > added.revision);
}

#[tokio::test]
async fn statistics_count_each_request_once_over_all_proxies() {
    let backend = Backend::saying("a");
    let cluster = Cluster::start(program(), 2).await;
    cluster.add_backends(&[backend.address()]).await;
    for proxy in cluster.addresses() {
        for _ in 0..5 {
            assert_eq!(get(proxy, "/").await.status, 200);
        }
    }
    lb_tests::eventually::eventually("all requests are reported", async || {
        let view = cluster.api.backend("backend1").await;
        let totals = view.totals.clone().unwrap_or_default();
        let each: Vec<u64> = view
            .proxies
            .iter()
            .filter_map(|proxy| Some(proxy.totals.as_ref()?.successes))
            .collect();
        if totals.successes == 10 && each == [5, 5] { Ok(()) } else { Err(format!("{view:?}")) }
    })
    .await;
    let json = cluster.lbctl(&["get", "backends", "-o", "json"]).await.expect(0).json();
    assert_eq!(json[0]["traffic"]["requests_total"], 10, "{json}");
}

#[tokio::test]
async fn what_a_proxy_answers_by_itself_is_counted_by_reason() {
    let backend = Backend::saying("a");
    let cluster = Cluster::start(program(), 1).await;
    cluster.add_backends(&[backend.address()]).await;
    let route = pb::Route {
        name: "default".to_owned(),
        listener: "default".to_owned(),
        host: "known.example".to_owned(),
        pool: "default".to_owned(),
        ..pb::Route::default()
    };
    cluster.api.put_applied(Any::Route(route)).await;

    let long = "x".repeat(9000);
    for (status, times, request) in [
        (400, 3, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned()),
        (414, 2, format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")),
        (404, 4, "GET / HTTP/1.1\r\nHost: unknown.example\r\n\r\n".to_owned()),
    ] {
        for _ in 0..times {
            let mut client = Client::connect(cluster.addresses()[0]).await;
            client.send(&request).await;
            let response = client.response().await;
            assert_eq!(response.status, status);
            // A bound is told with the key that moves it.
            let told = "longer than allowed here: 8KiB (max_request_line_bytes)";
            assert_eq!(response.text().contains(told), status == 414, "{}", response.text());
        }
    }
    let expected =
        serde_json::json!({"client_protocol_error": 3, "header_too_large": 2, "no_route": 4});
    lb_tests::eventually::eventually("all answers are reported", async || {
        let json = cluster.lbctl(&["get", "proxies", "-o", "json"]).await.expect(0).json();
        let process = &json[0]["process"];
        if process["own_answers_total"] == expected { Ok(()) } else { Err(process.to_string()) }
    })
    .await;
    let text = cluster.lbctl(&["describe", "proxy", "proxy-1"]).await.expect(0).stdout;
    let section = &text[text.find("answers of its own").expect("the section")..];
    let lines: Vec<Vec<&str>> =
        section.lines().skip(1).take(3).map(|line| line.split_whitespace().collect()).collect();
    let sorted = [["no_route", "4"], ["client_protocol_error", "3"], ["header_too_large", "2"]];
    assert_eq!(lines, sorted, "{text}");
    let stats = cluster.lbctl(&["stats"]).await.expect(0).stdout;
    let line = "no_route 4, client_protocol_error 3, header_too_large 2";
    assert!(stats.contains(line), "{stats}");
    drop(cluster.lbctl(&["add-pool", "bare"]).await.expect(0));
    let none = cluster.lbctl(&["get", "backends", "--pool", "bare"]).await.expect(0);
    assert!(none.stderr.contains("pool bare has no backends; 'lbctl add-backend"), "{none:?}");
}

#[tokio::test]
async fn lbctl_says_when_no_control_plane_answers() {
    let port = lb_tests::port::Port::reserve();
    let server = format!("http://{}", port.address());
    let refused = program().run(&["--server", &server, "status"]).await.expect(3);
    assert!(refused.stderr.contains(&server), "{refused:?}");
    assert!(refused.stderr.contains("lbctl control-plane"), "{refused:?}");
}
