//! What the users of the old balancer type, row by row, on free ports: the same commands
//! must give the same results.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, process::Stdio};

use lb_tests::{
    client::{Client, get, try_get},
    eventually::eventually,
    port::Port,
    process::Process,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, process::Command};

use crate::program;

/// Three demo backends, as `scripts/start_backends.sh` starts them.
struct Backends {
    ports: Vec<Port>,
    _processes: Vec<Process>,
}

impl Backends {
    async fn start(count: usize) -> Self {
        let ports: Vec<Port> = (0..count).map(|_| Port::reserve()).collect();
        let mut processes = Vec::new();
        for port in &ports {
            let number = port.address().port();
            let args = ["demo-backend", "--exit-with-parent", &format!("--port={number}")];
            let process = program().start("demo-backend", &args.map(str::to_owned));
            process.listening().await;
            processes.push(process);
        }
        Self { ports, _processes: processes }
    }

    /// As servers call themselves, in order.
    fn ids(&self) -> Vec<String> {
        self.ports.iter().map(|port| format!("backend-{}", port.address().port())).collect()
    }

    fn flag(&self) -> String {
        let addresses: Vec<String> =
            self.ports.iter().map(|port| format!("localhost:{}", port.address().port())).collect();
        format!("--backends={}", addresses.join(","))
    }
}

/// `lbctl dev --replicas 1` before given backends.
struct Dev {
    process: Process,
    at: SocketAddr,
    control: SocketAddr,
    _temp_dir: TempDir,
}

impl Dev {
    async fn start(backends: &Backends, further: &[&str]) -> Self {
        let mut args = vec!["dev", "--port", "0", "--replicas", "1"];
        let flag = backends.flag();
        args.push(&flag);
        args.extend(further);
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let temp_dir = tempfile::tempdir().expect("a temporary directory can be made");
        let process = program().with_temp_dir(temp_dir.path()).start("dev", &args);
        let ready = |text: &str| text.contains("ready in") && text.contains("Ctrl-C stops");
        let text = process.printed("the ready block", ready).await;
        let url = |name: &str| {
            let mut lines = text.lines().map(str::trim_start);
            let line = lines.find(|line| line.starts_with(name) && line.contains("http://"));
            let url = line.and_then(|line| line.split("http://").nth(1)).expect("a URL");
            let address = url.split_whitespace().next().expect("an address");
            address.replace("localhost", "127.0.0.1").parse().expect("an address")
        };
        let (at, control) = (url("proxy-1"), url("control plane"));
        Self { process, at, control, _temp_dir: temp_dir }
    }

    async fn ask(&self, fields: &str) -> String {
        server_of(self.at, fields).await
    }
}

/// `curl http://localhost:8080/ | jq -r .server_info.id`
async fn server_of(at: SocketAddr, fields: &str) -> String {
    let mut client = Client::connect(at).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).await;
    let response = client.response().await;
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["server_info"]["id"].as_str().expect("an id").to_owned()
}

/// `sort | uniq -c`
fn counts(answers: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    answers.iter().for_each(|answer| *counts.entry(answer.as_str()).or_default() += 1);
    counts
}

async fn local(at: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut client = Client::connect(at).await;
    let length = body.len();
    client
        .send(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}",
            at.port()
        ))
        .await;
    let response = client.response().await;
    (response.status, response.json())
}

#[tokio::test]
async fn six_requests_of_round_robin_go_round_twice() {
    let backends = Backends::start(3).await;
    let dev = Dev::start(&backends, &["--algorithm", "round_robin"]).await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(dev.ask("").await);
    }
    assert_eq!(answers, [backends.ids(), backends.ids()].concat());
    let (_, listed) = local(dev.at, "GET", "/lb/backends", "").await;
    let listed: Vec<(&Value, &Value)> =
        listed.as_array().unwrap().iter().map(|b| (&b["id"], &b["weight"])).collect();
    let expected =
        [json!("backend1"), json!(1), json!("backend2"), json!(2), json!("backend3"), json!(1)];
    assert_eq!(
        listed,
        [(&expected[0], &expected[1]), (&expected[2], &expected[3]), (&expected[4], &expected[5])]
    );
}

#[tokio::test]
async fn four_balancers_run_side_by_side_over_the_same_backends() {
    let backends = Backends::start(3).await;
    let (round, weighted, hashed, least) = tokio::join!(
        Dev::start(&backends, &["--algorithm", "round_robin"]),
        Dev::start(&backends, &["--algorithm", "weighted_round_robin"]),
        Dev::start(&backends, &["--algorithm", "ip_hash"]),
        Dev::start(&backends, &["--algorithm", "least_connections"]),
    );
    let ids = backends.ids();
    assert_eq!(round.ask("").await, ids[0]);

    // Twenty requests to 1:2:1.
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(weighted.ask("").await);
    }
    let expected: BTreeMap<&str, usize> = ids.iter().map(String::as_str).zip([5, 10, 5]).collect();
    assert_eq!(counts(&answers), expected);

    // Five requests of one client, then of others, as the header says.
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(hashed.ask("").await);
    }
    assert_eq!(counts(&answers).len(), 1, "{answers:?}");
    let mut servers = Vec::new();
    for last in 100..120 {
        let field = format!("X-Forwarded-For: 192.168.1.{last}\r\n");
        let server = hashed.ask(&field).await;
        assert_eq!(hashed.ask(&field).await, server, "{field}");
        servers.push(server);
    }
    assert!(counts(&servers).len() > 1, "{servers:?}");

    // Concurrent requests, and the counts of each backend.
    let asked: Vec<_> = (0..30)
        .map(|_| {
            let at = least.at;
            tokio::spawn(async move { server_of(at, "").await })
        })
        .collect();
    for request in asked {
        assert!(ids.contains(&request.await.unwrap()));
    }
    eventually("every backend's requests are told", async || {
        let (_, listed) = local(least.at, "GET", "/lb/backends", "").await;
        let listed = listed.as_array().cloned().unwrap_or_default();
        let all: u64 = listed.iter().filter_map(|b| b["total_requests"].as_u64()).sum();
        let none = listed.iter().all(|b| b["active_connections"] == 0);
        if all == 30 && none { Ok(()) } else { Err(format!("{listed:?}")) }
    })
    .await;
    for (dev, class) in [
        (&round, "RoundRobinBalancer"),
        (&weighted, "WeightedRoundRobinBalancer"),
        (&hashed, "IPHashBalancer"),
        (&least, "LeastConnectionsBalancer"),
    ] {
        let (_, stats) = local(dev.at, "GET", "/lb/stats", "").await;
        assert_eq!(stats["load_balancer"], class);
    }
    for dev in [&round, &weighted, &hashed, &least] {
        apache_bench(dev.at, 100, 5).await;
    }
}

/// `ab -n REQUESTS -c CLIENTS`, where it is installed.
async fn apache_bench(at: SocketAddr, requests: u32, clients: u32) {
    let mut ab = Command::new("ab");
    ab.args(["-n", &requests.to_string(), "-c", &clients.to_string(), &format!("http://{at}/")]);
    let Ok(output) = ab.output().await else {
        println!("skipped: ab is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |name: &str| {
        let line = said.lines().find(|line| line.starts_with(name));
        let words = line.and_then(|line| line.split_whitespace().last()?.parse::<u32>().ok());
        words.unwrap_or_else(|| panic!("no {name:?}: {said} {output:?}"))
    };
    // Answers differ in length between backends, which ab calls failed; those that count are
    // the others.
    let broken = said.lines().any(|line| {
        line.contains("(Connect:")
            && !(line.contains("Connect: 0, Receive: 0,") && line.contains("Exceptions: 0"))
    });
    assert_eq!((number("Complete requests:"), broken), (requests, false), "{said}");
    assert!(!said.contains("Non-2xx"), "{said}");
}

#[tokio::test]
async fn apache_bench_and_clients_of_http_1_0_are_served() {
    let backends = Backends::start(3).await;
    let dev = Dev::start(&backends, &["--access-log", "off"]).await;
    apache_bench(dev.at, 1000, 10).await;
    // As ab speaks, with and without -k.
    for (field, closes) in [("Connection: Keep-Alive\r\n", false), ("", true)] {
        let mut stream = tokio::net::TcpStream::connect(dev.at).await.unwrap();
        let request = format!("GET / HTTP/1.0\r\n{field}Host: localhost\r\nUser-Agent: ab\r\n\r\n");
        for _ in 0..if closes { 1 } else { 3 } {
            let (head, body) = http_1_0(&mut stream, &request).await;
            assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.0 200"), "{head}");
            assert!(body["server_info"]["id"].is_string(), "{body}");
        }
        if closes {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert!(rest.is_empty(), "{rest:?}");
        }
    }
}

/// One answer with Content-Length, which an HTTP/1.0 client needs to keep a connection.
async fn http_1_0(stream: &mut tokio::net::TcpStream, request: &str) -> (String, Value) {
    use tokio::io::AsyncWriteExt as _;

    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "cut off");
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let length = lb_tests::client::field(&head, "Content-Length").expect("a length");
    let length: usize = length.parse().unwrap();
    while bytes.len() < end + length {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "cut off");
    }
    (head, serde_json::from_slice(&bytes[end..]).unwrap())
}

#[tokio::test]
async fn a_backend_is_added_disabled_enabled_and_removed_by_curl() {
    let backends = Backends::start(3).await;
    let dev = Dev::start(&backends, &[]).await;
    for at in [dev.at, dev.control] {
        assert_eq!(local(at, "GET", "/lb/health", "").await.1["status"], "healthy");
    }
    let more = Backends::start(1).await;
    let port = more.ports[0].address().port();
    let body = json!({"host": "localhost", "port": port, "weight": 1}).to_string();
    let (status, added) = local(dev.at, "POST", "/lb/backends/add", &body).await;
    assert_eq!((status, &added["id"]), (201, &json!("backend4")), "{added}");
    eventually("the new backend takes traffic", async || {
        let server = dev.ask("").await;
        if server == more.ids()[0] { Ok(()) } else { Err(server) }
    })
    .await;
    let (status, _) = local(dev.at, "POST", "/lb/backends/backend1/disable", "").await;
    assert_eq!(status, 200);
    for _ in 0..8 {
        assert_ne!(dev.ask("").await, backends.ids()[0]);
    }
    assert_eq!(local(dev.control, "POST", "/lb/backends/backend1/enable", "").await.0, 200);
    eventually("backend1 serves again", async || {
        let server = dev.ask("").await;
        if server == backends.ids()[0] { Ok(()) } else { Err(server) }
    })
    .await;
    assert_eq!(local(dev.at, "DELETE", "/lb/backends/backend1/remove", "").await.0, 200);
    for _ in 0..8 {
        assert_ne!(dev.ask("").await, backends.ids()[0]);
    }
}

#[tokio::test]
async fn flags_become_the_settings_that_are_told() {
    let backends = Backends::start(3).await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let flags = [
        "--host=127.0.0.1",
        "--algorithm=least_connections",
        "--health-interval=30s",
        "--request-timeout=7s",
        "--debug",
        &format!("--access-log={}", log.path().display()),
    ];
    let dev = Dev::start(&backends, &flags).await;
    let (_, config) = local(dev.at, "GET", "/lb/config", "").await;
    for (key, value) in [
        ("LOAD_BALANCER_ALGORITHM", json!("least_connections")),
        ("HEALTH_CHECK_INTERVAL", json!(30)),
        ("REQUEST_TIMEOUT", json!(7)),
        ("ENABLE_ACCESS_LOG", json!(true)),
        ("SESSION_TIMEOUT", Value::Null),
    ] {
        assert_eq!(config[key], value, "{key}: {config}");
    }
    assert!(dev.process.stderr().contains("DEBUG"), "verbose logs");
    dev.ask("").await;
    eventually("the access log has a line", async || {
        let text = std::fs::read_to_string(log.path()).unwrap();
        if text.contains("\"path\":\"/\"") { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test]
async fn each_algorithm_keeps_its_promise_and_a_server_without_a_name_is_explained() {
    let backends = Backends::start(3).await;
    let tested = program().run(&["test-algorithms", &backends.flag()]).await.expect(0);
    for algorithm in ["round_robin", "weighted_round_robin", "ip_hash", "least_connections"] {
        assert!(tested.stdout.contains(&format!("{algorithm}: ")), "{}", tested.stdout);
    }
    assert_eq!(tested.stdout.matches("  kept\n").count(), 4, "{}", tested.stdout);

    let nameless = lb_tests::backend::Backend::saying("hello");
    let flag = format!("--backends={}", nameless.address());
    let refused = program().run(&["test-algorithms", &flag]).await.expect(1);
    assert!(refused.stderr.contains("server_info.id"), "{}", refused.stderr);
}

#[tokio::test]
async fn statistics_are_a_table_and_json() {
    let backends = Backends::start(3).await;
    let dev = Dev::start(&backends, &[]).await;
    for _ in 0..4 {
        dev.ask("").await;
    }
    let said = dev.process.stdout();
    let grpc = said.split("gRPC ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    eventually("all is counted", async || {
        let json = program().run(&["--server", grpc, "stats", "-o", "json"]).await.expect(0).json();
        if json["requests_total"] == 4 { Ok(()) } else { Err(json.to_string()) }
    })
    .await;
    let table = program().run(&["--server", grpc, "stats"]).await.expect(0).stdout;
    assert!(
        table.contains("REQUESTS  4 answered by 1 proxy: 4 well, 0 with 5xx (100% well)"),
        "{table}"
    );
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(name)
}

#[tokio::test]
async fn the_script_starts_backends_and_stops_them_with_itself() {
    let ports: Vec<Port> = (0..3).map(|_| Port::reserve()).collect();
    let numbers: Vec<String> = ports.iter().map(|p| p.address().port().to_string()).collect();
    let mut child = Command::new(script("start_backends.sh"))
        .args(["--ports", &numbers.join(" ")])
        .env("LBCTL", env!("CARGO_BIN_EXE_lbctl-under-test"))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    for port in &ports {
        eventually("the backend is healthy", async || {
            match try_get(port.address(), "/health").await {
                Ok(response) if response.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let server = get(port.address(), "/").await.json()["server_info"]["id"].clone();
        assert_eq!(server, json!(format!("backend-{}", port.address().port())));
    }
    let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id.try_into().unwrap()));
    rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(143));
    for port in &ports {
        assert!(Client::try_connect(port.address()).await.is_err(), "{port:?} still answers");
    }
}

#[tokio::test]
async fn the_script_of_the_algorithms_passes_its_arguments_on() {
    let output = Command::new(script("test_algorithms.sh"))
        .args(["--requests", "240", "-o", "name"])
        .env("LBCTL", env!("CARGO_BIN_EXE_lbctl-under-test"))
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("algorithm/round_robin\n"));
}
