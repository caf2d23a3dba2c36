//! Bad places and bad peers: directories that cannot be used, disks that are full, files
//! that were damaged, and strangers on every port. Each ends in one clear sentence, and
//! whatever serves goes on.

use std::{fs, net::SocketAddr, path::Path};

use lb_proto::v1::{self as pb, sync_client::SyncClient};
use lb_tests::{
    PATIENCE,
    api::{Api, large_backend},
    backend::Backend,
    client::{Client, get},
    cluster::Cluster,
    eventually::eventually,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::program;

const CONTROL_PLANE: [&str; 3] = ["control-plane", "--grpc=127.0.0.1:0", "--http=127.0.0.1:0"];
const PROXY: [&str; 5] = [
    "data-plane",
    "--host=127.0.0.1",
    "--port=0",
    "--admin=127.0.0.1:0",
    // Nobody listens on port 9 (discard) in a test's world.
    "--control-plane=http://127.0.0.1:9",
];

fn data_dir(path: &Path) -> String {
    format!("--data-dir={}", path.display())
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

/// Root may write anywhere, but not even root makes a directory below a file.
#[tokio::test]
async fn an_unusable_data_directory_is_named_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let path = file.join("state");
    for plane in [&CONTROL_PLANE[..], &PROXY] {
        let refused = program().run(&[plane, &[&data_dir(&path)]].concat()).await.expect(78);
        for part in ["cannot use the data directory", path.to_str().unwrap(), "--data-dir"] {
            assert!(refused.stderr.contains(part), "{part}: {refused:?}");
        }
        assert_eq!(refused.stdout, "", "it never listened");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a directory");
}

/// The limit stands for a full disk: no byte of a file can be written behind it.
#[tokio::test]
async fn a_control_plane_does_not_start_on_a_full_disk_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let data_dir = data_dir(&path);
    let args = [&CONTROL_PLANE[..], &[&data_dir]].concat();
    let refused = program().with_file_size(8).run(&args).await.expect(1);
    for part in [path.to_str().unwrap(), "opened", "disk is full"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    // With room, the same directory will do.
    let process = program().start("control plane", &owned(&args));
    process.listening().await;
}

#[tokio::test]
async fn a_disk_that_fills_up_refuses_writes_until_there_is_room_and_loses_none() {
    let directory = tempfile::tempdir().unwrap();
    let args = owned(&[&CONTROL_PLANE[..], &[&data_dir(directory.path())]].concat());
    let mut process = program().with_file_size(256).start("control plane", &args);
    let listening = process.listening().await;
    let (api, http) = (Api::new(listening.address("grpc")), listening.address("http"));
    let mut stored = 0;
    let refused = loop {
        assert!(stored < 2_000, "256 KiB take more than they can hold");
        match api.put(large_backend(stored), pb::WriteOptions::default()).await {
            Ok(_) => stored += 1,
            Err(refused) => break refused,
        }
    };
    for part in ["did not take effect", "disk is full", "tries by itself"] {
        assert!(refused.message().contains(part), "{part}: {refused:?}");
    }
    // It goes on telling what it holds, and says to whoever asks that it is not well.
    assert_eq!(api.list("backend").await.0.len(), stored);
    assert_eq!(get(http, "/livez").await.status, 200);
    let ready = get(http, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("[-] store loaded and writable: it is opened"), "{ready:?}");
    let server = format!("http://{}", listening.address("grpc"));
    let check = async || program().run(&["--server", &server, "check"]).await;
    eventually("lbctl check tells of the store", async || {
        let checked = check().await.expect(1).stdout;
        if checked.contains("its store takes no writes") { Ok(()) } else { Err(checked) }
    })
    .await;
    // As soon as there is room it goes on by itself.
    process.lift_file_size();
    eventually("writes are taken again", async || {
        let ready = get(http, "/readyz?verbose").await;
        if ready.status == 200 { Ok(()) } else { Err(ready.text()) }
    })
    .await;
    eventually("lbctl check finds it well", async || {
        let checked = check().await.stdout;
        if checked.contains("its store takes writes") { Ok(()) } else { Err(checked) }
    })
    .await;
    let held = api.list("backend").await.0.len();
    // The one that was refused may have reached the disk before the limit did.
    assert!(held == stored || held == stored + 1, "{held} of {stored}");
    for number in held..held + 50 {
        api.put(large_backend(number), pb::WriteOptions::default()).await.unwrap();
    }
    let mut events = api.watch(1000).await;
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "store_recovered") {
        let event = events.message().await.unwrap().expect("events go on");
        if event.r#type.starts_with("store_") {
            told.push(event.r#type);
        }
    }
    assert_eq!(told[0], "store_failed");
    process.kill().await;

    let process = program().start("control plane", &args);
    let api = Api::new(process.listening().await.address("grpc"));
    assert_eq!(api.list("backend").await.0.len(), held + 50);
}

#[tokio::test]
async fn a_proxy_on_a_full_disk_serves_and_complains() {
    let backend = Backend::saying("a");
    let cluster = Cluster::start(program(), 0).await;
    cluster.api.add_backend(backend.address(), 1).await;
    let directory = cluster.path("full");
    let args = [
        "data-plane".to_owned(),
        "--id=full".to_owned(),
        "--host=127.0.0.1".to_owned(),
        "--port=0".to_owned(),
        "--admin=127.0.0.1:0".to_owned(),
        format!("--control-plane=http://{}", cluster.grpc()),
        data_dir(&directory),
    ];
    let proxy = program().with_file_size(0).start("full", &args);
    let address = proxy.listening().await.address("default");
    cluster.api.settled(1).await;
    assert_eq!(get(address, "/").await.text(), "a");
    proxy.complaint("cannot be kept").await;
}

/// As on a file system that has become read-only, which not even root can write to: no file can
/// take the place of a directory.
#[tokio::test]
async fn a_proxy_whose_directory_cannot_be_written_any_more_serves_and_says_where() {
    let backend = Backend::saying("a");
    let mut cluster = Cluster::start(program(), 1).await;
    let ids = cluster.add_backends(&[backend.address()]).await;
    let kept = ["last-good", "last-good.1"].map(|name| cluster.proxy(0).data_dir().join(name));
    eventually("both generations are kept", async || {
        if kept.iter().all(|path| path.exists()) { Ok(()) } else { Err("not yet") }
    })
    .await;
    fs::remove_file(&kept[1]).unwrap();
    fs::create_dir(&kept[1]).unwrap();
    fs::write(kept[1].join("in the way"), "").unwrap();
    let weight = |weight: &'static str| ["set-backend", &ids[0], "--weight", weight];
    drop(cluster.lbctl(&weight("7")).await.expect(0));
    let process = cluster.proxy(0).process();
    process.complaint(&format!("path={}", kept[0].display())).await;
    process.complaint("make the directory writable again").await;
    assert_eq!(get(cluster.address(), "/").await.text(), "a");
    // Mended, it is written although nothing changes any more.
    fs::remove_dir_all(&kept[1]).unwrap();
    eventually(
        "it is kept again",
        async || {
            if kept[1].is_file() { Ok(()) } else { Err("not yet") }
        },
    )
    .await;
    cluster.kill_control_plane().await;
    cluster.kill_proxy(0).await;
    cluster.start_proxy(0).await;
    assert_eq!(get(cluster.address(), "/").await.text(), "a");
}

#[tokio::test]
async fn a_damaged_store_is_refused_and_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = data_dir(directory.path());
    let args = [&CONTROL_PLANE[..], &[&data_dir]].concat();
    let mut process = program().start("control plane", &owned(&args));
    process.listening().await;
    process.kill().await;
    let store = directory.path().join("control-plane.redb");
    let whole = fs::read(&store).unwrap();
    let nonsense = vec![b'x'; whole.len()];
    for bytes in [&whole[..whole.len() / 2], &nonsense] {
        fs::write(&store, bytes).unwrap();
        let refused = program().run(&args).await.expect(78);
        for part in [store.to_str().unwrap(), "damaged", "restore it from a backup"] {
            assert!(refused.stderr.contains(part), "{part}: {refused:?}");
        }
        let left = fs::metadata(&store).unwrap().len();
        assert_eq!(left, bytes.len() as u64, "it is still there to be examined");
    }
    fs::write(&store, whole).unwrap();
    program().start("control plane", &owned(&args)).listening().await;
}

#[tokio::test]
async fn damaged_kept_configurations_are_passed_over_with_a_warning() {
    let backend = Backend::saying("a");
    let mut cluster = Cluster::start(program(), 1).await;
    cluster.add_backends(&[backend.address()]).await;
    let kept = ["last-good", "last-good.1"].map(|name| cluster.proxy(0).data_dir().join(name));
    for (round, damage) in [&b"nonsense"[..], b"", &[0xff; 5000]].into_iter().enumerate() {
        eventually("both generations are kept", async || {
            if kept.iter().all(|path| path.exists()) { Ok(()) } else { Err("not yet") }
        })
        .await;
        cluster.kill_proxy(0).await;
        for path in &kept {
            fs::write(path, damage).unwrap();
        }
        cluster.start_proxy(0).await;
        cluster.proxy(0).process().complaint("kept configuration").await;
        // The control plane gives it everything anew.
        cluster.settled().await;
        assert_eq!(get(cluster.address(), "/").await.text(), "a", "round {round}");
        cluster.api.change_pool(|pool| pool.choices = 0).await;
        let weight = u32::try_from(round).unwrap() + 2;
        drop(
            cluster
                .lbctl(&["set-backend", "backend1", "--weight", &weight.to_string()])
                .await
                .expect(0),
        );
    }
}

/// Sends bytes to a port and nothing more; what came back until the connection ended.
async fn shout(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut client = Client::connect(address).await;
    // It may be closed before everything is written.
    client.try_send(bytes).await.ok();
    let mut stream = client.into_stream();
    stream.shutdown().await.ok();
    let mut answer = Vec::new();
    // A reset is an end, too.
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends").ok();
    answer
}

#[tokio::test]
async fn strangers_on_the_ports_of_a_control_plane_do_no_harm() {
    let cluster = Cluster::start(program(), 1).await;
    let before = cluster.api.list("").await;
    let noise: Vec<u8> = (0..100_000).map(|_| fastrand::u8(..)).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let broken_frames = [&preface[..], &noise].concat();
    let plain = b"GET /lb/health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for bytes in [&noise[..], &broken_frames, &plain[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let answer = shout(cluster.grpc(), bytes).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{:?}", String::from_utf8_lossy(&answer));
    }
    // HTTP/1 on the port of gRPC is the commonest mistake, and is told where HTTP is.
    let told = String::from_utf8(shout(cluster.grpc(), plain).await).unwrap();
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("speaks gRPC"), "{told}");
    assert!(told.contains(&cluster.http().to_string()), "{told}");
    for bytes in [&noise[..], &broken_frames, b"\x16\x03\x01\x02\x00\x01\x00"] {
        let answer = shout(cluster.http(), bytes).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{:?}", String::from_utf8_lossy(&answer));
    }
    // lbctl says what it met when it is sent to the wrong port.
    for wrong in [cluster.http(), cluster.address()] {
        let server = format!("--server=http://{wrong}");
        let refused = program().run(&[&server, "status", "--timeout=5s"]).await.expect(3);
        assert!(refused.stderr.contains(&wrong.to_string()), "{refused:?}");
    }
    assert_eq!(cluster.api.list("").await, before, "nothing has changed");
    assert_eq!(get(cluster.http(), "/livez").await.status, 200);
}

/// The body is not sent: an answer that waits for it would never come.
#[tokio::test]
async fn a_body_that_is_announced_as_too_long_is_refused_before_it_is_sent() {
    let cluster = Cluster::start(program(), 0).await;
    for path in ["/lb/backends/add", "/v1/backends", "/v1/apply"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: 10485760\r\n\r\n",
            cluster.http()
        );
        let mut stream = TcpStream::connect(cluster.http()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        timeout(PATIENCE, stream.read_exact(&mut start)).await.unwrap().unwrap();
        assert_eq!(&start, b"HTTP/1.1 413", "{path}");
    }
}

/// A client that sends all of it before it reads gets the sentence, and no broken pipe.
#[tokio::test]
async fn a_body_that_nobody_reads_does_not_cost_its_client_the_answer() {
    const LENGTH: usize = 10 << 20;
    let cluster = Cluster::start(program(), 0).await;
    let body = vec![b' '; LENGTH];
    for (path, fields, status) in [
        ("/v1/apply", "Content-Type: application/json\r\n", 413),
        ("/lb/backends/add", "Content-Type: application/json\r\n", 413),
        ("/v1/apply", "Content-Type: text/plain\r\n", 415),
        ("/nope", "", 404),
        ("/livez", "", 405),
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{fields}Content-Length: {LENGTH}\r\n\r\n",
            cluster.http()
        );
        let mut stream = TcpStream::connect(cluster.http()).await.unwrap();
        stream.write_all(&[head.as_bytes(), &body].concat()).await.expect(path);
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().expect(path);
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(answer.trim_end().ends_with('}'), "whole, {path}: {answer}");
    }
}

#[tokio::test]
async fn a_proxy_of_another_protocol_version_is_refused_with_both_versions() {
    let cluster = Cluster::start(program(), 1).await;
    let hello = pb::Hello {
        proxy_id: "from-the-future".to_owned(),
        protocol_versions: vec![77],
        ..pb::Hello::default()
    };
    let first = pb::ProxyMessage { message: Some(pb::proxy_message::Message::Hello(hello)) };
    let stream = tokio_stream::once(first).chain(tokio_stream::pending());
    let mut sync = SyncClient::new(cluster.api.channel());
    let refused = match sync.stream(stream).await {
        Err(refused) => refused,
        Ok(answers) => answers.into_inner().message().await.unwrap_err(),
    };
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    for part in ["[77]", "upgrade the older"] {
        assert!(refused.message().contains(part), "{part}: {refused:?}");
    }
    let (proxies, _) = cluster.api.try_proxies().await.unwrap();
    assert_eq!(proxies.len(), 1, "it is not one of the fleet");
}

#[tokio::test]
async fn a_backend_without_a_health_page_is_told_with_the_remedy() {
    let backend = Backend::saying("a");
    backend.set_healthy(false);
    let cluster = Cluster::start(program(), 1).await;
    let address = backend.address().to_string();
    let added = cluster.lbctl(&["add-backend", &address]).await.expect(0);
    assert!(added.stdout.contains("is down: GET /health answered 503"), "{added:?}");
    assert!(added.stdout.contains("--health-path"), "{added:?}");
    get(cluster.address(), "/").await.expect(503, "no_healthy_backend");
}

#[tokio::test]
async fn values_that_are_no_values_are_usage_errors() {
    let cluster = Cluster::start(program(), 0).await;
    let before = cluster.api.list("").await;
    let long = "x".repeat(100_000);
    for (args, part) in [
        (vec!["add-backend", "a:0"], "port 0"),
        (vec!["add-backend", "a:70000"], "70000"),
        (vec!["add-backend", "a:1", "--weight=-1"], "-1"),
        (vec!["add-backend", "a:1", "--weight", "1e9"], "1e9"),
        (vec!["add-backend", "a:1", "--weight", "1000000000"], "0 to 256"),
        (vec!["add-backend", ""], "ADDRESS"),
        (vec!["add-pool", ""], "empty"),
        (vec!["add-pool", &long], "63"),
        (vec!["set-algorithm", "default", "quantum"], "least_connections"),
    ] {
        let refused = cluster.lbctl(&args).await.expect(2);
        assert!(refused.stderr.contains(part), "{args:.80?}: {:.600}", refused.stderr);
        assert_eq!(refused.stdout, "");
    }
    assert_eq!(cluster.api.list("").await, before, "nothing has changed");
}
