//! Thousands of clients that stop in the middle: what each costs, who else notices, and how
//! they end. `LB_TEST_SCALE=full` has the numbers that the targets are for.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use lb_tests::{
    backend::{Action, Backend, ok},
    client::{Client, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
    full_scale,
    port::Port,
    process::Program,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::Instant,
};

use crate::{one_proxy, program};

/// Of the proxy's resident set for each client; without optimization futures are larger.
const KB_EACH_MAX: f64 = if cfg!(debug_assertions) { 20.0 } else { 10.0 };
/// What the first few of a kind take once for all: code that runs for the first time, free
/// buffers, what the allocators of two workers ask the system for. Among many it counts as theirs.
const KB_ONCE_FOR_FEW: f64 = 4096.0;

fn many(few: usize, full: usize) -> usize {
    // Each is a connection here, and one more on the side of the backend.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit })
        .unwrap();
    if full_scale() { full } else { few }
}

/// Long enough for all to get there, and short enough to be waited for.
fn deadline() -> Duration {
    Duration::from_secs(if full_scale() { 15 } else { 4 })
}

fn resident_kb(cluster: &Cluster) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "kilobytes of memory are few")]
    let kb = cluster.proxy(0).process().status_kb("VmRSS") as f64;
    kb
}

/// Everything that is needed once is there after this.
async fn warm_up(cluster: &Cluster) -> f64 {
    for _ in 0..100 {
        assert_eq!(get(cluster.address(), "/").await.status, 200);
    }
    resident_kb(cluster)
}

/// A client whose system takes no more than it reads.
async fn connect(address: SocketAddr) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    Client::over(socket.connect(address).await.unwrap())
}

async fn open(address: SocketAddr, count: usize, request: &'static str) -> Vec<Client> {
    let mut opening = JoinSet::new();
    let mut clients = Vec::new();
    for _ in 0..count {
        opening.spawn(async move {
            let mut client = connect(address).await;
            client.send(request).await;
            client
        });
        if opening.len() == 100 {
            clients.extend(opening.join_next().await.map(Result::unwrap));
        }
    }
    clients.extend(opening.join_all().await);
    clients
}

async fn are_there(cluster: &Cluster, count: usize) {
    eventually(&format!("{count} clients are there"), async || {
        let process = cluster.api.proxy("proxy-1").await.process.unwrap_or_default();
        if process.client_connections as usize >= count {
            Ok(())
        } else {
            Err(process.client_connections)
        }
    })
    .await;
}

/// Says and checks what each costs while all are there, and that others are served.
async fn assert_bearable(cluster: &Cluster, what: &str, count: usize, before: f64) {
    let began = Instant::now();
    assert_eq!(get(cluster.address(), "/").await.status, 200);
    let answered = began.elapsed();
    #[expect(clippy::cast_precision_loss, reason = "thousands at most")]
    let (count, more) = (count as f64, resident_kb(cluster) - before);
    let each = more / count;
    println!("{count} {what}: {each:.1} KiB each, another client is served in {answered:?}");
    let once = if full_scale() { 0.0 } else { KB_ONCE_FOR_FEW };
    assert!(more < KB_EACH_MAX * count + once, "{each}");
    assert!(answered < Duration::from_secs(if full_scale() { 1 } else { 5 }), "{answered:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_heads_cost_little_and_end_in_time() {
    let count = many(500, 5000);
    let backend = Backend::saying("a");
    let cluster = one_proxy(&[&backend]).await;
    let ms = u32::try_from(deadline().as_millis()).unwrap();
    cluster.api.change_listener(|listener| listener.header_timeout_ms = ms).await;
    let before = warm_up(&cluster).await;
    let half = "GET /a/path?with=a&query HTTP/1.1\r\nHost: test\r\nUser-Agent: slow/1.0\r\nAcc";
    let clients = open(cluster.address(), count, half).await;
    are_there(&cluster, count).await;
    assert_bearable(&cluster, "half-sent heads", count, before).await;
    for mut client in clients {
        client.response().await.expect(408, "client_header_timeout");
        assert_eq!(client.end().await.unwrap(), b"");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_bodies_cost_little_and_end_in_time() {
    let count = many(500, 5000);
    let backend = Backend::saying("a");
    let cluster = one_proxy(&[&backend]).await;
    let ms = u32::try_from(deadline().as_millis()).unwrap();
    cluster.api.change_listener(|listener| listener.body_idle_timeout_ms = ms).await;
    let before = warm_up(&cluster).await;
    let reached = backend.requests();
    let stalled = concat!(
        "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n",
        "0123456789012345678901234567890123456789012345678901234567890123456789",
    );
    let clients = open(cluster.address(), count, stalled).await;
    backend.reached(reached + count).await;
    assert_bearable(&cluster, "stalled bodies", count, before).await;
    for mut client in clients {
        client.response().await.expect(408, "client_body_timeout");
    }
    let totals = cluster.api.backend("backend1").await.totals.unwrap_or_default();
    assert_eq!(totals.failures.unwrap_or_default(), Default::default(), "it is not to blame");
}

const LENGTH: &str = "GET /length HTTP/1.1\r\nHost: test\r\n\r\n";
/// A response that no buffers on the way hold.
const LONG: usize = 8 << 20;

async fn long_responses(mut stream: TcpStream, body: Arc<Vec<u8>>) {
    let mut head = Vec::new();
    while stream.read_buf(&mut head).await.is_ok_and(|count| count > 0) {
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let request = String::from_utf8_lossy(&std::mem::take(&mut head)).into_owned();
        let whole = match request.split(' ').nth(1) {
            Some("/length") => stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n").as_bytes())
                .await
                .and(stream.write_all(&body).await),
            Some("/chunked") => {
                let chunk = format!("{LONG:x}\r\n");
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
                stream
                    .write_all((head + &chunk).as_bytes())
                    .await
                    .and(stream.write_all(&body).await)
                    .and(stream.write_all(b"\r\n0\r\n\r\n").await)
            }
            _ => stream.write_all(&ok("a")).await,
        };
        if whole.is_err() {
            return;
        }
    }
}

async fn slow_readers(program: Program, readers: usize, request: &'static str, what: &str) {
    let count = many(readers, 200);
    let port = Port::reserve();
    let listener = port.listen();
    let body = Arc::new(vec![b'x'; LONG]);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(long_responses(stream, Arc::clone(&body)));
        }
    });
    let cluster = Cluster::start(program, 1).await;
    cluster.api.change_pool(no_checks).await;
    cluster.add_backends(&[port.address()]).await;
    let ms = u32::try_from(deadline().as_millis()).unwrap();
    cluster.api.change_listener(|listener| listener.write_idle_timeout_ms = ms).await;
    let before = warm_up(&cluster).await;
    let mut clients = open(cluster.address(), count, request).await;
    for client in &mut clients {
        client.head().await.unwrap();
    }
    // All buffers are full when nothing moves any more.
    let mut last = 0;
    eventually("nothing moves any more", async || {
        let now = std::mem::replace(&mut last, moved(&cluster).await);
        if now == last { Ok(()) } else { Err(last) }
    })
    .await;
    assert_bearable(&cluster, what, count, before).await;
    // Whoever reads again before is no slow reader.
    eventually("all are given up", async || {
        let process = cluster.api.proxy("proxy-1").await.process.unwrap_or_default();
        if process.client_aborts >= count as u64 { Ok(()) } else { Err(process.client_aborts) }
    })
    .await;
    for client in &mut clients {
        assert!(client.reset().await.len() < LONG);
    }
}

/// The processor time of the proxy, which moves what there is to be moved.
async fn moved(cluster: &Cluster) -> u128 {
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.proxy(0).process().cpu().as_millis()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_of_long_bodies_cost_little_and_end_in_time() {
    slow_readers(program(), 20, LENGTH, "slow readers").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_of_chunks_cost_little_and_end_in_time() {
    let request = "GET /chunked HTTP/1.1\r\nHost: test\r\n\r\n";
    slow_readers(program(), 20, request, "slow readers of chunks").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_for_whom_there_is_no_pipe_cost_little_and_end_in_time() {
    let program = program().with_descriptors(if full_scale() { 1024 } else { 512 });
    slow_readers(program, 100, LENGTH, "slow readers without pipes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_cost_next_to_nothing() {
    let count = many(500, 5000);
    let backend = Backend::scripted(|_| vec![Action::Send(ok("a"))]);
    let cluster = one_proxy(&[&backend]).await;
    let before = warm_up(&cluster).await;
    let mut clients = open(cluster.address(), count, "GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    for client in &mut clients {
        assert_eq!(client.response().await.text(), "a");
    }
    assert_bearable(&cluster, "idle connections", count, before).await;
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "a");
    }
}
