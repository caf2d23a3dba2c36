//! More clients than there is room for, for a while: what is served meanwhile and after.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use lb_tests::{
    client::Client,
    cluster::{Cluster, no_checks},
    eventually::eventually,
    exposition::Scrape,
    full_scale,
    port::Port,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep},
};

use crate::program;

/// How long the backend takes for each request, however many there are.
const SERVICE: Duration = Duration::from_secs(1);
/// What a request's head carries, so that a request in flight takes memory.
const PADDING: usize = 56 << 10;
/// As many as memory has room for, with this padding.
const FITTING: usize = 400;
/// As many as may connect: somewhat more, so that memory runs short before.
const CAP: usize = FITTING * 5 / 4;

/// Answers each request after about [`SERVICE`], and keeps nothing.
fn backend() -> (SocketAddr, JoinHandle<()>) {
    let port = Port::reserve();
    let (address, listener) = (port.address(), port.listen());
    let server = tokio::spawn(async move {
        let _port = port;
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(answer(stream));
            while connections.try_join_next().is_some() {}
        }
    });
    (address, server)
}

async fn answer(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    let mut end = [0; 4];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let tail = &buffer[count.saturating_sub(4)..count];
        end.rotate_left(tail.len());
        end[4 - tail.len()..].copy_from_slice(tail);
        if end == *b"\r\n\r\n" {
            sleep(SERVICE.mul_f64(fastrand::f64() + 0.5)).await;
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                return;
            }
        }
    }
}

/// Clients who ask without a pause, and come again when they are told to.
#[derive(Debug, Default)]
struct Crowd {
    /// How many are wanted: those with a higher number stop.
    wanted: AtomicUsize,
    answered: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Crowd {
    fn gather(self: &Arc<Self>, address: SocketAddr, count: usize) -> JoinSet<()> {
        self.wanted.store(count, Relaxed);
        let request = Arc::new(format!(
            "GET / HTTP/1.1\r\nHost: siege\r\nX-Padding: {}\r\n\r\n",
            "x".repeat(PADDING)
        ));
        let mut clients = JoinSet::new();
        for number in 0..count {
            clients.spawn(Arc::clone(self).ask(number, address, Arc::clone(&request)));
        }
        clients
    }

    async fn ask(self: Arc<Self>, number: usize, address: SocketAddr, request: Arc<String>) {
        let mut kept: Option<Client> = None;
        // Nobody comes at the same moment as all others.
        sleep(SERVICE.mul_f64(2.0 * fastrand::f64())).await;
        while number < self.wanted.load(Relaxed) {
            let mut client = match kept.take() {
                Some(client) => client,
                None => match Client::try_connect(address).await {
                    Ok(client) => client,
                    Err(error) => {
                        println!("cannot connect: {error}");
                        self.failed.fetch_add(1, Relaxed);
                        continue;
                    }
                },
            };
            if let Err(error) = client.try_send(request.as_bytes()).await {
                println!("cannot send: {error}");
                self.failed.fetch_add(1, Relaxed);
                continue;
            }
            match client.try_response("GET").await {
                Ok(response) if response.status == 200 => {
                    self.answered.fetch_add(1, Relaxed);
                    let keeps = response.field("Connection") != Some("close");
                    kept = keeps.then_some(client);
                }
                Ok(response) => {
                    response.expect(503, "overloaded");
                    self.refused.fetch_add(1, Relaxed);
                    let wait = response.field("Retry-After").map(str::parse);
                    sleep(Duration::from_secs(wait.unwrap().unwrap())).await;
                }
                Err(why) => {
                    println!("client {number}: {why}");
                    self.failed.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// Answers a second over this span.
    async fn rate(&self, span: Duration) -> f64 {
        let (before, began) = (self.answered.load(Relaxed), Instant::now());
        sleep(span).await;
        let count = self.answered.load(Relaxed) - before;
        count as f64 / began.elapsed().as_secs_f64()
    }
}

async fn proxy(args: &[&str], backend: SocketAddr) -> Cluster {
    let args = [&["--workers=2"], args].concat();
    let cluster = Cluster::start_with(program(), 1, &args).await;
    cluster.api.change_pool(no_checks).await;
    cluster.add_backends(&[backend]).await;
    cluster
}

async fn told(cluster: &Cluster) -> String {
    let scrape = Scrape::of(cluster.proxy(0).admin()).await;
    format!(
        "stage {} memory {:.1} of {:.1} MiB, {} connections, {} idle closed",
        scrape.value("lb_overload_stage"),
        scrape.value("lb_memory_used_bytes") / f64::from(1 << 20),
        scrape.value("lb_memory_max_bytes") / f64::from(1 << 20),
        scrape.value("lb_connections{side=\"downstream\",state=\"open\"}"),
        scrape.value("lb_overload_closed_connections_total"),
    )
}

/// A crowd that has to be served by the machine that it is on may find it busy: the figure of
/// the target is for the minute that `LB_TEST_SCALE=full` has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_siege_a_proxy_serves_on_loses_nothing_and_recovers() {
    let (span, least) = if full_scale() { (60, 0.8) } else { (6, 0.3) };
    let (backend, _server) = backend();

    // What it serves, and takes, when as many ask as there is to be room for.
    let unbound = proxy(&["--max-memory=unlimited"], backend).await;
    let crowd = Arc::new(Crowd::default());
    let clients = crowd.gather(unbound.address(), FITTING);
    sleep(3 * SERVICE).await;
    let peak = crowd.rate(4 * SERVICE).await;
    println!("peak: {peak:.0}/s; {}", told(&unbound).await);
    let memory = unbound.proxy(0).process().status_kb("VmRSS");
    crowd.wanted.store(0, Relaxed);
    clients.join_all().await;
    drop(unbound);

    let max = format!("--max-memory={}k", memory * 100 / 88);
    let cap = format!("--max-connections={CAP}");
    let cluster = proxy(&[&max, &cap], backend).await;
    let crowd = Arc::new(Crowd::default());
    let clients = crowd.gather(cluster.address(), 2 * CAP);
    sleep(3 * SERVICE).await;
    let mut rates = Vec::new();
    let mut gravest = 0.0_f64;
    for _ in 0..span {
        rates.push(crowd.rate(Duration::from_secs(1)).await);
        let scrape = Scrape::of(cluster.proxy(0).admin()).await;
        gravest = gravest.max(scrape.value("lb_overload_stage"));
    }
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    println!(
        "under siege for {span} s: {mean:.0}/s, {:.0} % of the peak, {} refused; {}",
        mean / peak * 100.0,
        crowd.refused.load(Relaxed),
        told(&cluster).await
    );
    let event = eventually("the fleet is told", async || {
        let shown = cluster.lbctl(&["status"]).await.expect(0).stdout;
        if shown.contains("proxy-1 is overloaded: ") { Ok(shown) } else { Err(shown) }
    })
    .await;
    assert!(event.contains("add a proxy"), "{event}");

    crowd.wanted.store(0, Relaxed);
    clients.join_all().await;
    let began = Instant::now();
    eventually("nothing is given up any more", async || {
        let scrape = Scrape::of(cluster.proxy(0).admin()).await;
        let stage = scrape.value("lb_overload_stage");
        if stage == 0.0 { Ok(()) } else { Err(stage) }
    })
    .await;
    println!(
        "back to normal {:?} after the last answer; {}",
        began.elapsed(),
        told(&cluster).await
    );
    assert_eq!(crowd.failed.load(Relaxed), 0, "what is in flight is never given up");
    assert!(gravest >= 2.0, "it was no siege: stage {gravest}");
    assert!(mean >= least * peak, "{mean:.0} of {peak:.0} a second");
    if full_scale() {
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}
