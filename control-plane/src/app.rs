//! Puts the parts together, and takes them apart again.
//!
//! Start: lock the data directory, bind, load the store, apply what is declared, and only
//! then accept: what was never loaded must never be published. A Unix socket is bound and removed
//! under that lock, so that two processes of one directory never take it from each other. Stop:
//! refuse writes, finish the accepted ones, say goodbye to the proxies, close. Whatever is not done
//! within [`STOP_LIMIT`] is cut off; nothing that was acknowledged depends on it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use lb_core::{listening::exit_code, metrics::PerBackend};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    args::Args,
    clock::present,
    connections,
    data_dir::{DataDir, DataDirError, default_path},
    declared::{self, ConfigError, ConfigFile},
    discovery::{self, Resolver},
    drain::{self, Drains},
    events::EventLog,
    fleet::Fleet,
    grpc::{self, Context},
    housekeeping, http,
    leases::{self, Leases},
    limit_events,
    listen::{Endpoint, ListenError},
    probe::{self, Prober},
    process,
    registry::{Registry, WriteError},
    resilience::{self, Resilience},
    session_keys::{self, Rotation},
    session_timeout::{self, SessionTimeoutError},
    stats::Statistics,
    store::{MemoryStore, RedbStore, Store, StoreError},
    telemetry::BadLogLevel,
};

/// How long an orderly stop may take.
pub const STOP_LIMIT: Duration = Duration::from_millis(1500);

/// Settings of a control plane within a process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where gRPC clients connect.
    pub grpc: Endpoint,
    /// Where health is asked for, and the management routes are.
    pub http: Endpoint,
    /// Where the state is kept.
    pub storage: Storage,
    /// A file or directory of declared state, applied before anything is served.
    pub declared: Option<PathBuf>,
    /// Allow addresses that other machines can reach.
    pub insecure: bool,
    /// Name servers to ask instead of the system's; default none.
    pub dns_servers: Vec<SocketAddr>,
    /// Between heartbeats; default 1 s.
    pub heartbeat: Duration,
    /// After how long without a word a proxy is lost; default 5 s.
    pub lease: Duration,
    /// After how long the key that signs sessions is replaced; default 30 days, 0: never.
    pub session_key_age: Duration,
    /// How long sessions of the pool `default` live, if this is to say so; default: it is not.
    pub session_timeout: Option<Duration>,
    /// Whether `/metrics` tells of each backend; default up to 500 of them.
    pub metrics_per_backend: PerBackend,
}

/// Where the state is kept.
#[derive(Clone, Debug)]
pub enum Storage {
    /// In this directory.
    Directory(PathBuf),
    /// Nowhere: it ends with the process.
    Memory,
}

impl Config {
    /// A control plane on free loopback ports that keeps nothing.
    #[must_use]
    pub fn in_memory() -> Self {
        let any = Endpoint::Tcp(([127, 0, 0, 1], 0).into());
        Self {
            grpc: any.clone(),
            http: any,
            storage: Storage::Memory,
            declared: None,
            insecure: false,
            dns_servers: Vec::new(),
            heartbeat: Duration::from_secs(1),
            lease: Duration::from_secs(5),
            session_key_age: Duration::from_secs(30 * 24 * 3600),
            session_timeout: None,
            metrics_per_backend: PerBackend::default(),
        }
    }

    /// Reads a command line.
    pub fn from_args(args: &Args) -> Result<Self, RunError> {
        let variable = |name: &str| std::env::var_os(name);
        let directory = args.data_dir.clone().map_or_else(|| default_path(variable), Ok)?;
        Ok(Self {
            grpc: Endpoint::parse(GRPC_FLAG, &args.grpc)?,
            http: Endpoint::parse(HTTP_FLAG, &args.http)?,
            storage: Storage::Directory(directory),
            declared: args.config.clone(),
            insecure: args.insecure,
            dns_servers: args.dns_servers.clone(),
            heartbeat: args.heartbeat.max(Duration::from_millis(1)),
            lease: args.lease.max(Duration::from_millis(10)),
            session_key_age: args.session_key_age,
            session_timeout: args.session_timeout,
            metrics_per_backend: args.metrics_per_backend,
        })
    }
}

const GRPC_FLAG: &str = "--grpc";
const HTTP_FLAG: &str = "--http";

/// Why a control plane could not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The store cannot be used.
    #[error("{}{source}", path.as_ref().map(|p| format!("{}: ", p.display())).unwrap_or_default())]
    Store {
        /// Its file, unless it is in memory.
        path: Option<PathBuf>,
        /// Why.
        source: StoreError,
    },
    /// The declared state cannot be applied.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The pool `default` cannot have the sessions that it should.
    #[error(transparent)]
    SessionTimeout(#[from] SessionTimeoutError),
    /// The log filter cannot be read.
    #[error(transparent)]
    LogLevel(#[from] BadLogLevel),
    /// The system refused what every process needs.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    /// A part that should run for ever has ended.
    #[error("{0} ended unexpectedly; see the log, and start the control plane again")]
    Ended(&'static str),
}

impl RunError {
    /// What the process should exit with: 9 for an address in use, 78 for settings
    /// that a restart does not cure, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Listen(ListenError::Failed { cause, .. }) => exit_code(cause),
            Self::Listen(ListenError::Malformed { .. } | ListenError::Exposed { .. })
            | Self::DataDir(_)
            | Self::SessionTimeout(SessionTimeoutError::NoPool)
            | Self::Store {
                source:
                    StoreError::NewerSchema { .. }
                    | StoreError::NewerBuild { .. }
                    | StoreError::Damaged { .. },
                ..
            }
            | Self::Config(
                ConfigError::Unreadable(_)
                | ConfigError::Invalid { .. }
                | ConfigError::Refused {
                    source:
                        WriteError::Invalid(_)
                        | WriteError::Malformed(_)
                        | WriteError::NotFound(_)
                        | WriteError::AlreadyExists(_)
                        | WriteError::Precondition(_),
                    ..
                },
            )
            | Self::LogLevel(_) => 78,
            Self::SessionTimeout(SessionTimeoutError::Refused(_))
            | Self::Store { .. }
            | Self::Config(ConfigError::Refused { .. })
            | Self::System(_)
            | Self::Ended(_) => 1,
        }
    }
}

/// A control plane that runs.
#[derive(Debug)]
pub struct Running {
    grpc: Endpoint,
    http: Endpoint,
    context: Arc<Context>,
    /// Parts that run until they are stopped; each returns its name.
    parts: JoinSet<&'static str>,
    declared: Option<PathBuf>,
    /// Held for its lock.
    _data_dir: Option<DataDir>,
}

/// Starts a control plane. It runs until it is stopped, or dropped.
pub async fn start(config: Config) -> Result<Running, RunError> {
    config.grpc.check_exposure(GRPC_FLAG, config.insecure)?;
    config.http.check_exposure(HTTP_FLAG, config.insecure)?;
    let (data_dir, path) = match &config.storage {
        Storage::Memory => (None, None),
        Storage::Directory(directory) => {
            let data_dir = DataDir::open(directory)?;
            let path = data_dir.store_path();
            (Some(data_dir), Some(path))
        }
    };
    let grpc_listener = config.grpc.bind(GRPC_FLAG).await?;
    let http_listener = config.http.bind(HTTP_FLAG).await?;
    let grpc = grpc_listener.endpoint(&config.grpc);
    let http = http_listener.endpoint(&config.http);
    let events = Arc::new(EventLog::new());
    let made = path.clone().filter(|path| !path.exists());
    let registry = {
        let (file, events) = (path.clone(), Arc::clone(&events));
        // Repairing a large file after a crash takes a while, and blocks.
        tokio::task::spawn_blocking(move || open(file, events))
            .await
            .map_err(|_| RunError::Ended("loading the store"))?
            .map_err(|source| RunError::Store { path, source })?
    };
    // What a fresh store begins with is its first revision.
    let resumed = registry.revision() > 1;
    let (term, former) = (registry.term(), registry.former_proxies());
    let holders = registry.former_holders();
    let connected = former.clone().map(|former| former.proxies);
    let expected = if resumed { connected } else { Some(Vec::new()) };
    let config_file = match &config.declared {
        Some(path) => declared::apply_first(&registry, path, made.as_deref()).await?,
        None => ConfigFile::default(),
    };
    if let Some(ttl) = config.session_timeout {
        session_timeout::apply(&registry, ttl).await?;
    }
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let fleet = Fleet::new(registry.revisions(), Arc::clone(&events));
    let drains = Drains::new(resumed, former, config.lease);
    if let Some((proxies, until)) = drains.returning() {
        fleet.expect(proxies, until);
    }
    let context = Arc::new(Context {
        fleet: Arc::new(fleet),
        registry,
        statistics: Arc::new(Statistics::default()),
        checks: Arc::default(),
        resilience: Arc::new(Resilience::new(term, config.lease, expected)),
        leases: Arc::new(Leases::new(term, resumed, holders)),
        sources: Arc::default(),
        drains,
        rotation: Rotation::new(resumed),
        config_file,
        events,
        snapshots: Arc::new(Semaphore::new(grpc::SNAPSHOTS_MAX)),
        encoded: grpc::Encoded::default(),
        beats: grpc::Beats::new(config.heartbeat),
        http: http.clone(),
        server_id: uuid::Uuid::new_v4().to_string(),
        started: present(),
        heartbeat: config.heartbeat,
        lease: config.lease,
        session_key_age: config.session_key_age,
        metrics_per_backend: config.metrics_per_backend,
        stop,
        tracker,
    });
    let mut parts = JoinSet::new();
    let resolver = Arc::new(Resolver::new(&config.dns_servers));
    let (shared, registry) = (Arc::clone(&context), context.registry.clone());
    let names = Arc::clone(&resolver);
    let (checked, receiver) = mpsc::channel(resilience::CHECKED_MAX);
    parts.spawn(async move {
        let prober = Prober {
            checks: Arc::clone(&shared.checks),
            resilience: Arc::clone(&shared.resilience),
            checked,
            resolver: names,
        };
        probe::run(registry, prober, shared.stop.clone()).await;
        "the prober"
    });
    let shared = Arc::clone(&context);
    parts.spawn(async move {
        let registry = shared.registry.clone();
        leases::run(Arc::clone(&shared.leases), registry, shared.stop.clone()).await;
        "leases"
    });
    let shared = Arc::clone(&context);
    parts.spawn(async move {
        let (registry, events) = (shared.registry.clone(), Arc::clone(&shared.events));
        let judged = Arc::clone(&shared.resilience);
        let (fleet, stop) = (Arc::clone(&shared.fleet), shared.stop.clone());
        resilience::run(judged, registry, fleet, events, receiver, stop).await;
        "the judge of backends"
    });
    let shared = Arc::clone(&context);
    parts.spawn(async move {
        let (registry, events) = (shared.registry.clone(), Arc::clone(&shared.events));
        let (reports, stop) = (Arc::clone(&shared.sources), shared.stop.clone());
        discovery::run(registry, events, reports, resolver, stop).await;
        "discovery"
    });
    let (grpc_max, http_max) = connections::shares(process::descriptors_max());
    let shared = Arc::clone(&context);
    parts.spawn(async move {
        if let Err(error) = grpc::serve(grpc_listener, grpc_max, shared).await {
            error!(%error, "the gRPC server failed");
        }
        "the gRPC server"
    });
    let shared = Arc::clone(&context);
    parts.spawn(async move {
        http::serve(http_listener, http_max, shared).await;
        "the HTTP server"
    });
    let shared = Arc::clone(&context);
    parts.spawn(async move {
        tokio::join!(drain::run(&shared), drain::note_proxies(&shared));
        "drains"
    });
    let shared = Arc::clone(&context);
    parts.spawn(async move {
        session_keys::run(&shared).await;
        "session keys"
    });
    let shared = Arc::clone(&context);
    parts.spawn(async move {
        shared.stop.run_until_cancelled(shared.registry.keep_store_open()).await;
        "the keeper of the store"
    });
    let shared = Arc::clone(&context);
    parts.spawn(async move {
        tokio::join!(housekeeping::run(&shared), limit_events::run(&shared));
        "housekeeping"
    });
    info!(%grpc, %http, server = context.server_id, "control plane started");
    let declared = config.declared;
    Ok(Running { grpc, http, context, parts, declared, _data_dir: data_dir })
}

fn open(path: Option<PathBuf>, events: Arc<EventLog>) -> Result<Registry, StoreError> {
    let store: Box<dyn Store> = match path {
        None => Box::new(MemoryStore::new()),
        Some(path) => Box::new(RedbStore::open(&path)?),
    };
    Registry::start(store, events)
}

impl Running {
    /// Where gRPC clients connect.
    #[must_use]
    pub fn grpc(&self) -> &Endpoint {
        &self.grpc
    }

    /// Where health is asked for.
    #[must_use]
    pub fn http(&self) -> &Endpoint {
        &self.http
    }

    /// What a client on this machine is told: `http://IP:PORT`, or `unix:/PATH`.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.grpc {
            Endpoint::Tcp(address) => format!("http://{address}"),
            unix @ Endpoint::Unix(_) => unix.to_string(),
        }
    }

    /// What its services work on.
    #[cfg(test)]
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Reads the declared state again, if there is any. A file that cannot be applied leaves
    /// everything as it is; the log and the events say why.
    pub async fn reload(&self) {
        match &self.declared {
            Some(path) => declared::apply_again(&self.context, path).await,
            None => info!("there is nothing to read again, since no file was named with --config"),
        }
    }

    /// Waits for a part to end that should not, and says which.
    pub async fn ended(&mut self) -> RunError {
        match self.parts.join_next().await {
            Some(Ok(name)) => RunError::Ended(name),
            Some(Err(panic)) => {
                error!(%panic, "a part of the control plane failed");
                RunError::Ended("a part of the control plane")
            }
            None => RunError::Ended("the control plane"),
        }
    }

    /// Stops in order: what was accepted is stored, and the proxies are told. Returns
    /// whether everything ended within [`STOP_LIMIT`].
    pub async fn stop(mut self) -> bool {
        let mut parts = std::mem::take(&mut self.parts);
        let orderly = async {
            drain::note_once_more(&self.context).await;
            self.context.registry.stop().await;
            self.context.stop.cancel();
            while parts.join_next().await.is_some() {}
            self.context.tracker.close();
            self.context.tracker.wait().await;
        };
        let in_time = timeout(STOP_LIMIT, orderly).await.is_ok();
        if in_time {
            info!("stopped");
        } else {
            warn!(limit = ?STOP_LIMIT, "not everything ended in time; cutting it off");
        }
        for endpoint in [&self.grpc, &self.http] {
            if let Endpoint::Unix(path) = endpoint {
                std::fs::remove_file(path).ok();
            }
        }
        in_time
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.context.stop.cancel();
    }
}
