//! `lbctl dev`: the whole balancer from one command, and how it ends.

use std::{net::SocketAddr, time::Duration};

use lb_tests::{
    client::{get, try_get},
    eventually::eventually,
    port::Port,
    process::{Descendant, Process, children_of},
};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{net::TcpListener, time::Instant};

use crate::program;

/// Until everything is gone after Ctrl-C, or after the parent was killed.
const END_MAX: Duration = Duration::from_secs(5);

/// A `dev` that is ready.
struct Dev {
    process: Process,
    proxies: Vec<SocketAddr>,
    grpc: String,
    _temp_dir: TempDir,
}

impl Dev {
    async fn start() -> Self {
        let args = ["dev", "--host", "127.0.0.1", "--port", "0"].map(str::to_owned);
        let temp_dir = tempfile::tempdir().expect("a temporary directory can be made");
        let process = program().with_temp_dir(temp_dir.path()).start("dev", &args);
        let text = process
            .printed("the ready block", |text| text.contains("ready in") && text.contains("Try:"))
            .await;
        let proxies = text
            .lines()
            .filter(|line| line.trim_start().starts_with("proxy-") && line.contains("admin http"))
            .map(|line| {
                let url = line.split_whitespace().nth(1).expect("a URL");
                url.strip_prefix("http://").expect("a URL").parse().expect("an address")
            })
            .collect();
        let grpc = text
            .lines()
            .find(|line| line.trim_start().starts_with("control plane"))
            .and_then(|line| line.split_whitespace().last())
            .expect("the control plane's address");
        Self { process, proxies, grpc: grpc.to_owned(), _temp_dir: temp_dir }
    }

    /// The control plane, the proxies and the demo backends.
    fn children(&self) -> Vec<Descendant> {
        let children = children_of(self.process.id());
        assert_eq!(children.len(), 6, "{children:#?}");
        children
    }

    fn child(&self, command: &str) -> Descendant {
        let mut found = self.children();
        found.retain(|child| child.command.contains(command));
        assert_eq!(found.len(), 1, "{found:#?}");
        found.remove(0)
    }
}

async fn id_of_backend(address: SocketAddr) -> String {
    let response = get(address, "/").await;
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["server_info"]["id"].as_str().expect("an id").to_owned()
}

async fn all_gone(children: &[Descendant]) {
    eventually("all children end", async || {
        let alive: Vec<&Descendant> = children.iter().filter(|child| child.is_alive()).collect();
        if alive.is_empty() { Ok(()) } else { Err(format!("{alive:?}")) }
    })
    .await;
}

#[tokio::test]
async fn every_proxy_serves_the_demo_backends_in_turn() {
    let dev = Dev::start().await;
    let listed = program().run(&["--server", &dev.grpc, "get", "backends", "-o", "json"]).await;
    let listed = listed.expect(0).json();
    let ids: Vec<String> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|backend| backend["address"].as_str().unwrap().rsplit_once(':').unwrap().1)
        .map(|port| format!("backend-{port}"))
        .collect();
    assert_eq!(ids.len(), 3, "{listed}");
    let [first, second] = dev.proxies[..] else { panic!("two proxies: {:?}", dev.proxies) };
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(id_of_backend(first).await);
    }
    assert_eq!(answers, [&ids[..], &ids[..]].concat());
    assert!(ids.contains(&id_of_backend(second).await));
}

#[tokio::test]
async fn ctrl_c_ends_every_process() {
    let mut dev = Dev::start().await;
    let children = dev.children();
    let began = Instant::now();
    dev.process.signal(Signal::INT);
    assert_eq!(dev.process.exited().await, 0);
    all_gone(&children).await;
    let took = began.elapsed();
    println!("ctrl-c: everything gone after {took:?}");
    assert!(took < END_MAX, "{took:?}");
}

#[tokio::test]
async fn children_do_not_outlive_a_killed_parent() {
    let mut dev = Dev::start().await;
    let children = dev.children();
    let began = Instant::now();
    dev.process.kill().await;
    all_gone(&children).await;
    let took = began.elapsed();
    println!("kill -9 of the parent: everything gone after {took:?}");
    assert!(took < END_MAX, "{took:?}");
}

/// A port of habit is free while its process is being restarted, and another `dev` that
/// starts in this moment would take it. Who finds them taken uses ports that nobody else
/// is after.
async fn occupy_the_habitual_ports() -> Vec<TcpListener> {
    let mut held = Vec::new();
    for port in [9400, 9401, 9500, 9501, 8001, 8002, 8003] {
        // Taken already is as good.
        held.extend(TcpListener::bind(("127.0.0.1", port)).await.ok());
    }
    held
}

#[tokio::test]
async fn a_killed_child_is_started_again_and_serves() {
    let habits = occupy_the_habitual_ports().await;
    let dev = Dev::start().await;
    drop(habits);
    for child in ["--id=proxy-2", "under-test control-plane", "--id=proxy-1"] {
        dev.child(child).kill().await;
        for proxy in &dev.proxies {
            eventually(
                &format!("{proxy} serves after the end of {child}"),
                async || match try_get(*proxy, "/").await {
                    Ok(response) if response.status == 200 => Ok(()),
                    other => Err(format!("{other:?}")),
                },
            )
            .await;
        }
        eventually("all children are there", async || {
            let children = children_of(dev.process.id());
            let alive = children.iter().filter(|child| child.is_alive()).count();
            if alive == 6 { Ok(()) } else { Err(format!("{alive} children")) }
        })
        .await;
    }
    let status = ["--server", &dev.grpc, "wait", "proxies", "--count", "2", "--timeout", "30s"];
    drop(program().run(&status).await.expect(0));
    let said = dev.process.stdout() + &dev.process.stderr();
    assert!(said.contains("proxy-2 was killed by signal 9; restarting"), "{said}");
}

#[tokio::test]
async fn a_taken_traffic_port_is_one_sentence() {
    let port = Port::reserve();
    let _taken = port.listen();
    let number = port.address().port().to_string();
    let args = ["dev", "--host", "127.0.0.1", "--replicas", "1", "--port", &number];
    let refused = program().run(&args).await.expect(9);
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    assert!(refused.stderr.contains(&format!("port {number} is already in use")), "{refused:?}");
    assert_eq!(refused.stdout, "");
}

#[tokio::test]
async fn two_run_side_by_side() {
    let (one, other) = tokio::join!(Dev::start(), Dev::start());
    for dev in [&one, &other] {
        for proxy in &dev.proxies {
            id_of_backend(*proxy).await;
        }
    }
    assert_ne!(one.grpc, other.grpc);
}
