//! Pools whose backends come from names, services and files, under traffic.

use std::net::{IpAddr, Ipv4Addr};

use lb_proto::v1::{self as pb, Health, object::Object as Any};
use lb_tests::{
    backend::{Action, Backend, ok},
    client::get,
    cluster::Cluster,
    eventually::eventually,
    load::Load,
    name_server::NameServer,
    port::Port,
};

use crate::program;

const NAME: &str = "web.lb.test";
const SERVICE: &str = "_http._tcp.lb.test";

/// Backends on one port of 127.0.0.1, .2, .3, ..., which say their last number.
fn neighbours(count: u8) -> Vec<Backend> {
    let first = Port::reserve();
    let beside = (2..=count).map(|n| first.beside(Ipv4Addr::new(127, 0, 0, n))).collect::<Vec<_>>();
    std::iter::once(first)
        .chain(beside)
        .map(|port| {
            let IpAddr::V4(ip) = port.address().ip() else { panic!("loopback is IPv4 here") };
            let body = ok(&ip.octets()[3].to_string());
            Backend::at(port, move |_| vec![Action::ReadBody, Action::Send(body.clone())])
        })
        .collect()
}

fn ips(numbers: &[u8]) -> Vec<IpAddr> {
    numbers.iter().map(|n| IpAddr::from([127, 0, 0, *n])).collect()
}

async fn cluster(names: &NameServer, proxies: usize) -> Cluster {
    let server = format!("--dns-server={}", names.address());
    Cluster::start_as(program(), proxies, &[], &[&server]).await
}

async fn backends(cluster: &Cluster) -> Vec<pb::Backend> {
    let objects = cluster.api.list("backend").await.0;
    objects
        .into_iter()
        .filter_map(|object| match object {
            Any::Backend(backend) => Some(backend),
            _ => None,
        })
        .collect()
}

/// Waits until the pool has backends at these hosts, with these weights, and that is
/// applied everywhere.
async fn becomes(cluster: &Cluster, wanted: &[(&str, u32)]) {
    eventually(&format!("the backends are {wanted:?}"), async || {
        let mut found: Vec<(String, u32)> = backends(cluster)
            .await
            .into_iter()
            .map(|b| (b.address.rsplit_once(':').unwrap().0.to_owned(), b.weight.unwrap()))
            .collect();
        found.sort();
        let same = found.iter().map(|(host, weight)| (&**host, *weight)).eq(wanted.iter().copied());
        if same { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    cluster.settled().await;
}

/// Waits until the first source of the pool is failing, or no longer is.
async fn failing(cluster: &Cluster, wanted: bool) -> pb::SourceStatus {
    eventually(&format!("the source is failing: {wanted}"), async || {
        let request = pb::GetStatusRequest {};
        let status = cluster.api.fleet().get_status(request).await.unwrap().into_inner();
        let source = status.pools[0].sources[0].clone();
        let failing = source.failing_since_unix_ms != 0;
        if failing == wanted { Ok(source) } else { Err(format!("{source:?}")) }
    })
    .await
}

#[tokio::test]
async fn a_name_grows_and_shrinks_and_fails_without_a_failed_request() {
    let (names, servers) = (NameServer::start().await, neighbours(4));
    let port = servers[0].address().port();
    names.addresses(NAME, &ips(&[1, 2]), 1);
    let cluster = cluster(&names, 2).await;
    let source = format!("dns:{NAME}:{port}");
    drop(cluster.lbctl(&["set-pool", "default", "--source", &source]).await.expect(0));
    becomes(&cluster, &[("127.0.0.1", 1), ("127.0.0.2", 1)]).await;
    let load = Load::start(&cluster.addresses(), 2);
    load.answered_by("2").await;

    names.addresses(NAME, &ips(&[3, 2, 1]), 1);
    becomes(&cluster, &[("127.0.0.1", 1), ("127.0.0.2", 1), ("127.0.0.3", 1)]).await;
    load.answered_by("3").await;
    // One of three goes at once; then all are replaced, which is said twice.
    names.addresses(NAME, &ips(&[2, 3]), 1);
    becomes(&cluster, &[("127.0.0.2", 1), ("127.0.0.3", 1)]).await;
    names.addresses(NAME, &ips(&[1, 4]), 1);
    becomes(&cluster, &[("127.0.0.1", 1), ("127.0.0.4", 1)]).await;
    load.answered_by("4").await;

    for (break_it, code) in [
        (NameServer::fail as fn(&NameServer, &str), "ServFail"),
        (NameServer::forget, "NXDOMAIN"),
        (NameServer::ignore, "answered"),
    ] {
        break_it(&names, NAME);
        let reason = failing(&cluster, true).await.failure.unwrap();
        let said = reason.message.to_lowercase();
        assert!(
            said.contains(&code.to_lowercase()) || said.contains("server failure"),
            "{reason:?}"
        );
        let text = cluster.lbctl(&["describe", "pool", "default"]).await.expect(0).stdout;
        for row in ["failing since", "last backends are kept", "asked again", "next: "] {
            assert!(text.contains(row), "{row}: {text}");
        }
        let status = cluster.lbctl(&["status"]).await.expect(0).stdout;
        assert!(status.contains(&format!("{source} failing for")), "{status}");
        assert_eq!(backends(&cluster).await.len(), 2, "the last answer is kept");
        names.addresses(NAME, &ips(&[1, 4]), 1);
        failing(&cluster, false).await;
    }
    load.answered(50).await;
    load.stop().await.assert_flawless();
}

#[tokio::test]
async fn the_time_to_live_says_when_a_name_is_asked_again() {
    let (names, servers) = (NameServer::start().await, neighbours(2));
    names.addresses(NAME, &ips(&[1]), 1);
    let cluster = cluster(&names, 1).await;
    let address = format!("{NAME}:{}", servers[0].address().port());
    drop(cluster.lbctl(&["add-backend", &address, "--id", "named"]).await.expect(0));
    cluster.settled().await;
    assert_eq!(get(cluster.address(), "/").await.text(), "1");
    // The name moves: seen after a second, and so is its new time to live.
    names.addresses(NAME, &ips(&[2]), 120);
    let view = eventually("the name has moved", async || {
        let view = cluster.api.backend("named").await;
        let addresses = view.status.clone().unwrap_or_default().addresses;
        let there = addresses.len() == 1 && addresses[0].starts_with("127.0.0.2:");
        if there { Ok(view) } else { Err(format!("{addresses:?}")) }
    })
    .await;
    let resolution = view.checks.unwrap().resolution.unwrap();
    assert_eq!(resolution.ttl_ms, 120_000);
    assert!(resolution.next_unix_ms > resolution.resolved_unix_ms + 100_000, "{resolution:?}");
    cluster.settled().await;
    assert_eq!(get(cluster.address(), "/").await.text(), "2");
    let text = cluster.lbctl(&["describe", "backend", "named"]).await.expect(0).stdout;
    assert!(text.contains("resolved") && text.contains("for 2m"), "{text}");
}

#[tokio::test]
async fn services_have_weights_and_priorities() {
    let (names, mut servers) = (NameServer::start().await, neighbours(3));
    let port = servers[0].address().port();
    for (name, number) in [("a.lb.test", 1), ("b.lb.test", 2), ("c.lb.test", 3)] {
        names.addresses(name, &ips(&[number]), 1);
    }
    let targets =
        [(10, 3000, port, "a.lb.test"), (10, 1000, port, "b.lb.test"), (20, 5, port, "c.lb.test")];
    names.services(SERVICE, &targets, 1);
    let cluster = cluster(&names, 1).await;
    let source = format!("srv:{SERVICE}");
    let args = ["set-pool", "default", "--source", &source, "--algorithm", "weighted_round_robin"];
    drop(cluster.lbctl(&args).await.expect(0));
    becomes(&cluster, &[("a.lb.test", 256), ("b.lb.test", 85), ("c.lb.test", 0)]).await;

    let id = backends(&cluster).await[0].id.clone();
    let refused = cluster.lbctl(&["set-backend", &id, "--weight", "7"]).await;
    assert!(refused.stderr.contains("gets its weight from"), "{refused:?}");

    // While none of the first priority can serve, the second does.
    let load = Load::start(&cluster.addresses(), 1);
    servers[0].stop().await;
    servers[1].stop().await;
    load.answered_by("3").await;
    servers[0].resume();
    load.answered_by("1").await;
    servers[1].resume();
    becomes(&cluster, &[("a.lb.test", 256), ("b.lb.test", 85), ("c.lb.test", 0)]).await;
    names.services(SERVICE, &targets[1..], 1);
    becomes(&cluster, &[("b.lb.test", 256), ("c.lb.test", 0)]).await;
    drop(load.stop().await);
}

#[tokio::test]
async fn a_file_is_followed_and_what_the_operator_said_sticks() {
    let (names, servers) = (NameServer::start().await, neighbours(3));
    let port = servers[0].address().port();
    let mut cluster = cluster(&names, 1).await;
    let path = cluster.path("web.txt");
    std::fs::write(&path, format!("127.0.0.1:{port}\n127.0.0.2:{port} weight=2 id=two\n")).unwrap();
    let source = format!("file:{}", path.display());
    let set = cluster.lbctl(&["set-pool", "default", "--source", &source]).await.expect(0);
    assert!(set.stdout.contains(&source), "{set:?}");
    becomes(&cluster, &[("127.0.0.1", 1), ("127.0.0.2", 2)]).await;

    // A mistake keeps the last content, and is told with its line.
    std::fs::write(&path, format!("127.0.0.1:{port}\n127.0.0.2\n")).unwrap();
    let reason = failing(&cluster, true).await.failure.unwrap();
    assert!(reason.message.contains("line 2:"), "{reason:?}");
    assert_eq!(backends(&cluster).await.len(), 2);

    // Replaced by a rename; what is disabled stays so, over a restart too.
    drop(cluster.lbctl(&["disable-backend", "two"]).await.expect(0));
    let refused = cluster.lbctl(&["remove-backend", "two"]).await;
    assert!(refused.stderr.contains("would come back"), "{refused:?}");
    let next = cluster.path("next");
    let lines = format!("127.0.0.1:{port}\n127.0.0.2:{port} weight=5 id=two\n127.0.0.3:{port}\n");
    std::fs::write(&next, lines).unwrap();
    std::fs::rename(&next, &path).unwrap();
    becomes(&cluster, &[("127.0.0.1", 1), ("127.0.0.2", 5), ("127.0.0.3", 1)]).await;
    assert_eq!(cluster.api.backend("two").await.backend.unwrap().admin_state, 1);

    // Without its source, a control plane that starts again removes nothing.
    std::fs::remove_file(&path).unwrap();
    failing(&cluster, true).await;
    cluster.kill_control_plane().await;
    cluster.start_control_plane().await;
    failing(&cluster, true).await;
    becomes(&cluster, &[("127.0.0.1", 1), ("127.0.0.2", 5), ("127.0.0.3", 1)]).await;
    assert_eq!(cluster.api.backend("two").await.backend.unwrap().admin_state, 1);
    cluster.api.verdict("two", Health::Unknown).await;

    drop(cluster.lbctl(&["set-pool", "default", "--no-sources"]).await.expect(0));
    becomes(&cluster, &[]).await;
}
