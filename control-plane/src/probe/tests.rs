//! The prober against real sockets, and the registry that it tells.

use std::{net::SocketAddr, time::Duration};

use lb_core::model::{BackendStatus, CheckProtocol, Health, Pool, PoolName, Resource};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
    time::timeout,
};

use super::*;
use crate::{
    events::EventLog,
    fleet::Fleet,
    registry::{Item, PutMode, WriteRequest},
    resilience::{CHECKED_MAX, run as judge},
    store::MemoryStore,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A backend that answers every connection with what it is set to.
#[derive(Debug)]
struct Scripted {
    address: SocketAddr,
    answer: watch::Sender<&'static str>,
    heads: mpsc::UnboundedReceiver<String>,
}

impl Scripted {
    async fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = watch::channel(answer);
        let (head_sender, heads) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (receiver, head_sender) = (receiver.clone(), head_sender.clone());
                tokio::spawn(async move {
                    let mut head = vec![0; 4096];
                    let length = stream.read(&mut head).await.unwrap_or(0);
                    let head = String::from_utf8_lossy(&head[..length]).into_owned();
                    head_sender.send(head).ok();
                    let answer = *receiver.borrow();
                    stream.write_all(answer.as_bytes()).await.ok();
                });
            }
        });
        Self { address, answer: sender, heads }
    }
}

struct Probed {
    registry: Registry,
    checks: Arc<Checks>,
    _stop: tokio_util::sync::DropGuard,
}

fn probed() -> Probed {
    let events = Arc::new(EventLog::new());
    let registry = Registry::start(Box::new(MemoryStore::new()), Arc::clone(&events)).unwrap();
    let (checks, stop) = (Arc::new(Checks::default()), CancellationToken::new());
    let prober = judged_prober(&registry, Arc::clone(&checks), events, &stop);
    tokio::spawn(run(registry.clone(), prober, stop.clone()));
    Probed { registry, checks, _stop: stop.drop_guard() }
}

/// A prober whose words are judged.
fn judged_prober(
    registry: &Registry,
    checks: Arc<Checks>,
    events: Arc<EventLog>,
    stop: &CancellationToken,
) -> Prober {
    let resilience =
        Arc::new(Resilience::new(registry.term(), Duration::from_secs(5), Some(Vec::new())));
    let (checked, receiver) = mpsc::channel(CHECKED_MAX);
    let judged = Arc::clone(&resilience);
    let fleet = Arc::new(Fleet::new(registry.revisions(), Arc::clone(&events)));
    tokio::spawn(judge(judged, registry.clone(), fleet, events, receiver, stop.clone()));
    Prober { checks, resilience, checked, resolver: resolver() }
}

/// Of the system: these tests use its names only.
fn resolver() -> Arc<Resolver> {
    Arc::new(Resolver::new(&[]))
}

impl Probed {
    async fn put(&self, resource: Resource) {
        let resource = Box::new(resource);
        let item = Item::Put { resource, mode: PutMode::Upsert, assign_id: false };
        let request = WriteRequest { items: vec![item], ..WriteRequest::default() };
        self.registry.write(request).await.unwrap();
    }

    async fn set_policy(&self, protocol: CheckProtocol) {
        let ms = Duration::from_millis;
        let mut pool = Pool::new(PoolName::default_pool());
        pool.health =
            HealthPolicy::new(protocol, ms(200), ms(20), Duration::from_secs(10), 2, 3).unwrap();
        self.put(Resource::Pool(pool)).await;
    }

    async fn add(&self, address: &str, admin_state: AdminState) {
        let backend = Backend {
            admin_state,
            ..Backend::new(
                BackendId::new("b").unwrap(),
                PoolName::default_pool(),
                address.parse().unwrap(),
            )
        };
        self.put(Resource::Backend(backend)).await;
    }

    /// Waits until the backend's status is as wanted.
    async fn until(&self, wanted: impl Fn(&BackendStatus) -> bool) -> BackendStatus {
        let mut revisions = self.registry.revisions();
        let waiting = async {
            loop {
                revisions.borrow_and_update();
                let status = self.registry.read(|view| {
                    let backend = view.catalog.backends().values().next()?;
                    view.catalog.status(&backend.value).cloned()
                });
                if let Some(status) = status.filter(|status| wanted(status)) {
                    return status;
                }
                revisions.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, waiting).await.expect("the verdict should come")
    }
}

fn over_http() -> CheckProtocol {
    CheckProtocol::Http { path: "/health".into() }
}

#[tokio::test]
async fn a_backend_comes_up_goes_down_and_comes_back() {
    let mut backend = Scripted::start("HTTP/1.1 204 No Content\r\n\r\n").await;
    let probed = probed();
    probed.set_policy(over_http()).await;
    probed.add(&backend.address.to_string(), AdminState::Enabled).await;
    let up = probed.until(|status| status.health == Health::Up).await;
    assert_eq!(up.reason.code, "check_passed");
    assert_eq!(up.addresses, [backend.address]);
    let head = backend.heads.recv().await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /health http/1.1\r\n"), "{head}");
    for field in [
        format!("host: {}", backend.address),
        "connection: close".into(),
        format!("user-agent: lb-health-check/{}", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(head.contains(&format!("\r\n{field}\r\n")), "{field} in {head}");
    }

    backend.answer.send_replace("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    let down = probed.until(|status| status.health == Health::Down).await;
    assert_eq!(down.reason.code, "check_status");
    assert!(down.reason.message.contains("404"), "{}", down.reason.message);
    let report = probed.checks.report(&up.backend).unwrap();
    assert!(report.failures_in_a_row >= 3 && report.last_success.is_some());

    backend.answer.send_replace("HTTP/1.1 301 Moved\r\nlocation: /\r\n\r\n");
    probed.until(|status| status.health == Health::Up).await;
}

#[tokio::test]
async fn failures_are_told_apart() {
    let probed = probed();
    probed.set_policy(over_http()).await;
    let reset = Scripted::start("").await;
    let garbage = Scripted::start("SSH-2.0-OpenSSH_9.7\r\n\r\n").await;
    let doubtful = Scripted::start(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    )
    .await;
    let refusing = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for (address, code) in [
        (reset.address.to_string(), "backend_reset"),
        (garbage.address.to_string(), "backend_protocol_error"),
        (doubtful.address.to_string(), "backend_protocol_error"),
        (refusing.to_string(), "backend_connect_refused"),
        ("does-not-exist.invalid:80".to_owned(), "dns_failure"),
    ] {
        probed.add(&address, AdminState::Enabled).await;
        let down = probed.until(|status| status.health == Health::Down).await;
        assert_eq!(down.reason.code, code, "{}", down.reason.message);
    }
}

#[tokio::test]
async fn a_silent_backend_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limit = Duration::from_millis(30);
    let host = address.to_string().parse().unwrap();
    let reason = http::probe(address, &host, "/health", limit).await.unwrap_err();
    assert_eq!(reason.code, "backend_timeout");
    assert!(reason.message.contains("30ms"), "{}", reason.message);
    assert!(tcp::probe(address, limit).await.is_ok(), "connecting is enough for tcp");
}

#[tokio::test]
async fn without_checks_a_backend_is_up_at_once() {
    let probed = probed();
    probed.set_policy(CheckProtocol::None).await;
    probed.add("127.0.0.1:9", AdminState::Enabled).await;
    let up = probed.until(|status| status.health == Health::Up).await;
    assert_eq!(up.reason.code, "no_checks");
    assert_eq!(up.addresses, ["127.0.0.1:9".parse().unwrap()]);
}

#[tokio::test]
async fn of_several_addresses_the_one_that_answers_comes_first() {
    let backend = Scripted::start("HTTP/1.1 200 OK\r\n\r\n").await;
    let probed = probed();
    probed.set_policy(over_http()).await;
    // On most machines this is [::1] too, where nobody listens.
    probed.add(&format!("localhost:{}", backend.address.port()), AdminState::Enabled).await;
    let up = probed.until(|status| status.health == Health::Up).await;
    assert_eq!(up.addresses[0], backend.address);
}

#[tokio::test]
async fn a_disabled_backend_must_prove_itself_again() {
    let backend = Scripted::start("HTTP/1.1 200 OK\r\n\r\n").await;
    let probed = probed();
    probed.set_policy(over_http()).await;
    let address = backend.address.to_string();
    probed.add(&address, AdminState::Enabled).await;
    probed.until(|status| status.health == Health::Up).await;
    probed.add(&address, AdminState::Disabled).await;
    let forgotten = probed.until(|status| status.health == Health::Unknown).await;
    assert_eq!(forgotten.reason.code, "not_checked");
    probed.add(&address, AdminState::Enabled).await;
    probed.until(|status| status.health == Health::Up).await;
}

#[tokio::test]
async fn verdicts_outlive_the_prober() {
    let probed = probed();
    // An interval so long that no second check comes within this test.
    let ms = Duration::from_millis;
    let mut pool = Pool::new(PoolName::default_pool());
    let hour = Duration::from_secs(3600);
    pool.health = HealthPolicy::new(over_http(), hour, hour, ms(500), 2, 3).unwrap();
    probed.put(Resource::Pool(pool)).await;
    let backend = Scripted::start("HTTP/1.1 200 OK\r\n\r\n").await;
    probed.add(&backend.address.to_string(), AdminState::Enabled).await;
    let up = probed.until(|status| status.health == Health::Up).await;
    let revision = probed.registry.revision();
    let stop = CancellationToken::new();
    let prober = judged_prober(&probed.registry, Arc::default(), Arc::default(), &stop);
    let again = tokio::spawn(run(probed.registry.clone(), prober, stop.clone()));
    stop.cancel();
    again.await.unwrap();
    assert_eq!(probed.registry.revision(), revision, "a new prober takes nothing out");
    assert_eq!(probed.until(|_| true).await, up);
}

/// What happens when somebody mends the path of a check because the pool is falling.
#[tokio::test]
async fn a_new_check_corrects_what_the_old_one_has_told_and_nobody_has_stored_yet() {
    let backend = Scripted::start("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    let registry = Registry::start(Box::new(MemoryStore::new()), Arc::default()).unwrap();
    let (checked, mut words) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let resilience =
        Arc::new(Resilience::new(registry.term(), Duration::from_secs(5), Some(Vec::new())));
    let prober = Prober { checks: Arc::default(), resilience, checked, resolver: resolver() };
    let probed = Probed { registry, checks: Arc::default(), _stop: stop.clone().drop_guard() };
    probed.set_policy(over_http()).await;
    probed.add(&backend.address.to_string(), AdminState::Enabled).await;
    let known = probed.registry.read(|view| {
        let backend = &view.catalog.backends().values().next().unwrap().value;
        BackendStatus {
            backend: backend.id.clone(),
            incarnation: backend.incarnation,
            health: Health::Up,
            addresses: vec![],
            reason: lb_core::model::Reason::new("check_passed", "it did"),
            since_unix_ms: 1,
            was_up: true,
            standing: lb_core::model::Standing::default(),
        }
    });
    let known = BackendStatus { addresses: vec![backend.address], ..known };
    probed.registry.record(vec![known.clone()]).await.unwrap();
    tokio::spawn(run(probed.registry.clone(), prober, stop.clone()));
    let mut word = async || timeout(PATIENCE, words.recv()).await.expect("a word").unwrap().status;
    assert_eq!(word().await.health, Health::Down);
    probed.set_policy(CheckProtocol::Tcp).await;
    assert_eq!(word().await, known, "and not silence, which leaves the backend down for good");
}

#[tokio::test]
async fn a_repaired_policy_is_tried_at_once() {
    let backend = Scripted::start("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    let probed = probed();
    // An interval so long that only a check out of turn can help.
    let hour = Duration::from_secs(3600);
    let policy = |protocol| {
        let mut pool = Pool::new(PoolName::default_pool());
        let limit = Duration::from_secs(10);
        pool.health = HealthPolicy::new(protocol, hour, hour, limit, 2, 3).unwrap();
        Resource::Pool(pool)
    };
    probed.put(policy(over_http())).await;
    probed.add(&backend.address.to_string(), AdminState::Enabled).await;
    probed.until(|status| status.health == Health::Down).await;
    probed.put(policy(CheckProtocol::Tcp)).await;
    probed.until(|status| status.health == Health::Up).await;
    probed.put(policy(over_http())).await;
    let still = probed.until(|_| true).await;
    assert_eq!(still.health, Health::Up, "what is up stays up until the new check fails");
}
