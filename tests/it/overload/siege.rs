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
/// What its body has, if it has one: as much as is kept until the backend answers.
const BODY: usize = 64 << 10;
/// What a request with a body ends with; one without ends with its head.
const BODY_END: [u8; 4] = *b"end.";

/// Who is besieged, with what, and for how long.
#[derive(Clone, Copy, Debug)]
struct Siege {
    proxies: usize,
    /// Whether requests have bodies rather than long heads.
    uploads: bool,
    /// As many requests in flight as the memory of a proxy has room for, with this padding.
    fitting: usize,
    seconds: usize,
    /// What must be served, of what is served in normal times.
    least: f64,
}

impl Siege {
    /// The target's figures need a minute, and a machine that is left alone.
    const TARGET: Self = Self { proxies: 1, uploads: false, fitting: 400, seconds: 60, least: 0.8 };
    const SHORT: Self = Self { seconds: 6, least: 0.3, ..Self::TARGET };

    /// What is sent again and again.
    fn request(&self) -> String {
        if self.uploads {
            let body = "x".repeat(BODY - BODY_END.len());
            let end = str::from_utf8(&BODY_END).unwrap();
            format!("PUT / HTTP/1.1\r\nHost: siege\r\nContent-Length: {BODY}\r\n\r\n{body}{end}")
        } else {
            let padding = "x".repeat(PADDING);
            format!("GET / HTTP/1.1\r\nHost: siege\r\nX-Padding: {padding}\r\n\r\n")
        }
    }

    /// As many as may connect to a proxy: somewhat more than fit, so that memory runs short
    /// before.
    fn cap(&self) -> usize {
        self.fitting * 5 / 4
    }
}

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
    let mut expected = None;
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let is_upload = buffer[0] == b'P';
        let expected = *expected.get_or_insert(if is_upload { BODY_END } else { *b"\r\n\r\n" });
        let tail = &buffer[count.saturating_sub(4)..count];
        end.rotate_left(tail.len());
        end[4 - tail.len()..].copy_from_slice(tail);
        if end == expected {
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
    /// So many before each proxy.
    fn gather(self: &Arc<Self>, cluster: &Cluster, siege: &Siege, each: usize) -> JoinSet<()> {
        let addresses = cluster.addresses();
        let count = addresses.len() * each;
        self.wanted.store(count, Relaxed);
        let request = Arc::new(siege.request());
        let mut clients = JoinSet::new();
        for (number, address) in (0..count).zip(addresses.iter().cycle()) {
            clients.spawn(Arc::clone(self).ask(number, *address, Arc::clone(&request)));
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

async fn fleet(siege: &Siege, args: &[&str], backend: SocketAddr) -> Cluster {
    let args = [&["--workers=2"], args].concat();
    let cluster = Cluster::start_with(program(), siege.proxies, &args).await;
    cluster.api.change_pool(no_checks).await;
    cluster.add_backends(&[backend]).await;
    cluster
}

/// What the first proxy tells of itself.
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

/// The gravest stage of all proxies.
async fn stage(cluster: &Cluster, proxies: usize) -> f64 {
    let mut gravest = 0.0_f64;
    for proxy in 0..proxies {
        let scrape = Scrape::of(cluster.proxy(proxy).admin()).await;
        gravest = gravest.max(scrape.value("lb_overload_stage"));
    }
    gravest
}

/// What a fleet serves a second when as many ask as there is to be room for, and the memory
/// in KiB that a proxy has in use then.
async fn peak(siege: &Siege, backend: SocketAddr) -> (f64, u64) {
    let unbound = fleet(siege, &["--max-memory=unlimited"], backend).await;
    let crowd = Arc::new(Crowd::default());
    let clients = crowd.gather(&unbound, siege, siege.fitting);
    sleep(3 * SERVICE).await;
    let peak = crowd.rate(4 * SERVICE).await;
    println!("peak: {peak:.0}/s; {}", told(&unbound).await);
    let memory = unbound.proxy(0).process().status_kb("VmRSS");
    crowd.wanted.store(0, Relaxed);
    clients.join_all().await;
    (peak, memory)
}

// A crowd that has to be served by the machine that it is on may find it busy: the figures of
// the target are for the minutes and the fleet that `LB_TEST_SCALE=full` has.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_siege_a_proxy_serves_on_loses_nothing_and_recovers() {
    withstands(&if full_scale() { Siege::TARGET } else { Siege::SHORT }).await;
}

/// In each there are fewer, so that what a proxy has besides weighs more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_siege_a_fleet_serves_on_loses_nothing_and_recovers() {
    withstands(&if full_scale() {
        Siege { proxies: 8, fitting: 150, ..Siege::TARGET }
    } else {
        Siege { proxies: 2, fitting: 150, ..Siege::SHORT }
    })
    .await;
}

/// Bodies that are kept take other memory than heads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_siege_of_uploads_a_proxy_serves_on_loses_nothing_and_recovers() {
    let siege = if full_scale() { Siege::TARGET } else { Siege { fitting: 200, ..Siege::SHORT } };
    withstands(&Siege { uploads: true, ..siege }).await;
}

async fn withstands(siege: &Siege) {
    let (backend, _server) = backend();
    let (peak, memory) = peak(siege, backend).await;

    let max = format!("--max-memory={}k", memory * 100 / 88);
    let cap = format!("--max-connections={}", siege.cap());
    let cluster = fleet(siege, &[&max, &cap], backend).await;
    let crowd = Arc::new(Crowd::default());
    let clients = crowd.gather(&cluster, siege, 2 * siege.cap());
    sleep(3 * SERVICE).await;
    let mut rates = Vec::new();
    let mut gravest = 0.0_f64;
    for _ in 0..siege.seconds {
        rates.push(crowd.rate(Duration::from_secs(1)).await);
        gravest = gravest.max(stage(&cluster, siege.proxies).await);
        println!("{:.0}/s; {}", rates.last().unwrap(), told(&cluster).await);
    }
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    println!(
        "under siege for {} s: {mean:.0}/s, {:.0} % of the peak, {} refused",
        siege.seconds,
        mean / peak * 100.0,
        crowd.refused.load(Relaxed),
    );
    let shown = eventually("the fleet is told", async || {
        let shown = cluster.lbctl(&["status"]).await.expect(0).stdout;
        if shown.contains("proxy-1 is overloaded: ") { Ok(shown) } else { Err(shown) }
    })
    .await;
    assert!(shown.contains("add a proxy"), "{shown}");

    crowd.wanted.store(0, Relaxed);
    clients.join_all().await;
    let began = Instant::now();
    eventually("nothing is given up any more", async || {
        let stage = stage(&cluster, siege.proxies).await;
        if stage == 0.0 { Ok(()) } else { Err(stage) }
    })
    .await;
    let recovered = began.elapsed();
    println!("back to normal {recovered:?} after the last answer; {}", told(&cluster).await);
    assert_eq!(crowd.failed.load(Relaxed), 0, "what is in flight is never given up");
    assert!(gravest >= 2.0, "it was no siege: stage {gravest}");
    assert!(mean >= siege.least * peak, "{mean:.0} of {peak:.0} a second");
    if full_scale() {
        assert!(recovered < Duration::from_secs(2), "{recovered:?}");
    }
}
