//! A proxy from start to stop: what is opened in which order, and who ends whom.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    process::ExitCode,
    sync::{Arc, atomic::AtomicUsize},
    thread,
    time::Duration,
};

use lb_core::{
    model::{InstanceId, ListenerName, ProxyId},
    sync::Subscriber,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc, watch},
};
use tracing::{info, warn};

use crate::{
    access_log::AccessLog,
    admin,
    args::{Args, Listen},
    data_dir::DataDir,
    error::RunError,
    last_good::LastGood,
    listen,
    live::{Compiler, Config, Padded},
    process,
    stats::{Shard, report::Reporter},
    status::Status,
    sync::{self, Follower, Introduction, Parts},
    telemetry,
    worker::{self, Admission, Fleet, Mail, WorkerHandle},
};

/// Where `/livez` is unless told otherwise.
const ADMIN_PORT: u16 = 9500;
/// How long the end waits for the last lines of the access log.
const LAST_LINES_FOR: Duration = Duration::from_secs(1);

/// Runs a proxy until a signal ends it. Blocks, and must not be called from within a
/// runtime.
pub fn run(args: Args) -> Result<ExitCode, RunError> {
    telemetry::init(&args.log_level, args.log_format)?;
    let descriptors = process::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(args, descriptors))
}

/// Everything that was opened before the first worker runs.
struct Opened {
    data_dir: DataDir,
    id: ProxyId,
    listens: Vec<(Listen, Vec<TcpListener>)>,
    admin: tokio::net::TcpListener,
    workers: usize,
}

async fn serve(args: Args, descriptors: usize) -> Result<ExitCode, RunError> {
    // Signals first: one that comes during the start must not be lost.
    let mut signals = Signals::new()?;
    let hangups = signal(SignalKind::hangup())?;
    let control_planes = args
        .control_plane
        .iter()
        .map(|url| sync::endpoint(url).map_err(RunError::Usage))
        .collect::<Result<Vec<_>, _>>()?;
    let mut opened = open(&args)?;
    let names: Vec<ListenerName> =
        opened.listens.iter().map(|(listen, _)| listen.name.clone()).collect();

    let last_good = LastGood::new(opened.data_dir.path());
    let subscriber =
        last_good.load().unwrap_or_else(|| Subscriber::new(lb_proto::convert::decode_object));
    let mut compiler = Compiler::new(opened.workers, names.clone());
    let held = subscriber.held();
    let config = Arc::new(match held {
        Some(held) => compiler.compile(subscriber.snapshot(), Some(held.version)),
        None => Config::empty(&names),
    });
    let status = Arc::new(Status::default());
    status.applied(config.version);
    if let Some(held) = held {
        status.lost(crate::clock::unix_ms());
        info!(version = %held.version, "serving from the kept configuration until a control plane answers");
    }

    let (access_log, log_writer) = open_access_log(&args, &opened.id, &names)?.unzip();
    let fleet = start_workers(&mut opened, &args, descriptors, access_log.clone(), &config)?;
    announce(&opened)?;
    let (config_sender, config_receiver) = watch::channel(config);
    let (connected_sender, connected_receiver) = watch::channel(None);
    let instance = InstanceId::new(&uuid::Uuid::new_v4().to_string())
        .map_err(|invalid| RunError::Usage(invalid.to_string()))?;
    let reporter =
        Reporter::new(opened.id.clone(), instance.clone(), Arc::clone(&fleet), config_receiver);
    let follower = Follower::new(Parts {
        introduction: introduction(&opened, instance),
        control_planes,
        subscriber,
        compiler,
        fleet: Arc::clone(&fleet),
        status: Arc::clone(&status),
        config: config_sender,
        connected: connected_sender,
    });
    let encoded = follower.encoded();
    let parent = args.exit_with_parent.then(parent_gone);

    // These end with the runtime, when this function returns.
    tokio::spawn(sync::save(last_good, encoded));
    tokio::spawn(follower.run());
    tokio::spawn(reporter.run(connected_receiver));
    tokio::spawn(admin::serve(opened.admin, Arc::clone(&status)));
    tokio::spawn(reopen_on_hangup(hangups, access_log.clone()));
    let ended = tokio::select! {
        () = signals.next() => Ok(stop(&args, &fleet, &status, &mut signals).await),
        () = wait_for(parent.as_deref()) => {
            warn!("the parent process is gone; stopping at once");
            Ok(ExitCode::SUCCESS)
        }
        () = fleet.ended() => {
            Err(RunError::System(io::Error::other("all workers have ended unexpectedly")))
        }
    };
    if let (Some(log), Some(writer)) = (access_log, log_writer) {
        log.close();
        let written = tokio::task::spawn_blocking(|| writer.join());
        if tokio::time::timeout(LAST_LINES_FOR, written).await.is_err() {
            warn!("the last lines of the access log could not be written in time");
        }
    }
    ended
}

/// SIGHUP means to open the access log anew, and never to end.
async fn reopen_on_hangup(mut hangups: Signal, access_log: Option<Arc<AccessLog>>) {
    while hangups.recv().await.is_some() {
        match &access_log {
            Some(log) => log.reopen(),
            None => info!("SIGHUP: there is no access log to be opened anew"),
        }
    }
}

fn open(args: &Args) -> Result<Opened, RunError> {
    let bad = |invalid: lb_core::model::Invalid| RunError::Usage(format!("--id: {invalid}"));
    let wanted = args.id.as_deref().map(ProxyId::new).transpose().map_err(bad)?;
    let workers = match args.workers {
        Some(workers) => usize::from(workers),
        None => thread::available_parallelism().map_or(1, usize::from),
    };
    // The addresses before the directory: a taken port is the likelier mistake.
    let default = Listen {
        name: ListenerName::default_listener(),
        address: SocketAddr::new(args.host, args.port),
    };
    let mut listens: Vec<(Listen, Vec<TcpListener>)> = Vec::new();
    for (listen, flag) in std::iter::once((&default, "--port"))
        .chain(args.listen.iter().map(|listen| (listen, "--listen")))
    {
        if listens.iter().any(|(other, _)| other.name == listen.name) {
            return Err(RunError::Usage(format!(
                "listener {} is given twice; --host and --port are those of `default`",
                listen.name
            )));
        }
        let (address, sockets) = listen::for_workers(listen.address, workers, flag)?;
        listens.push((Listen { name: listen.name.clone(), address }, sockets));
    }
    let admin = open_admin(args.admin)?;
    let path = match &args.data_dir {
        Some(path) => path.clone(),
        None => DataDir::default_path(wanted.as_ref())?,
    };
    let data_dir = DataDir::open(path)?;
    let id = data_dir.id(wanted)?;
    Ok(Opened { data_dir, id, listens, admin, workers })
}

fn open_admin(wanted: Option<SocketAddr>) -> Result<tokio::net::TcpListener, RunError> {
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let address = wanted.unwrap_or_else(|| loopback(ADMIN_PORT));
    let bound = match listen::for_workers(address, 1, "--admin") {
        // Several proxies on one machine are no mistake.
        Err(RunError::AddressInUse { .. }) if wanted.is_none() => {
            listen::for_workers(loopback(0), 1, "--admin")
        }
        bound => bound,
    };
    let (_, mut sockets) = bound?;
    let socket = sockets.pop().ok_or_else(|| io::Error::other("no admin socket"))?;
    Ok(tokio::net::TcpListener::from_std(socket)?)
}

/// An open access log, and the thread that writes it.
type OpenLog = (Arc<AccessLog>, thread::JoinHandle<()>);

fn open_access_log(
    args: &Args,
    id: &ProxyId,
    names: &[ListenerName],
) -> Result<Option<OpenLog>, RunError> {
    AccessLog::open(&args.access_log, id, names).map_err(|error| {
        RunError::Usage(format!(
            "--access-log: {:?} cannot be written: {error}. Choose another file, - or off",
            args.access_log
        ))
    })
}

fn start_workers(
    opened: &mut Opened,
    args: &Args,
    descriptors: usize,
    access_log: Option<Arc<AccessLog>>,
    config: &Arc<Config>,
) -> Result<Arc<Fleet>, RunError> {
    let (handles, mails): (Vec<_>, Vec<_>) = (0..opened.workers)
        .map(|_| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let handle = WorkerHandle {
                mail: sender,
                shard: Arc::new(Shard::default()),
                applied: Padded::default(),
                connections: Padded::default(),
            };
            (handle, receiver)
        })
        .unzip();
    let connections_max =
        args.max_connections.map_or(descriptors / 5 * 4, |max| max as usize).max(1);
    let fleet = Arc::new(Fleet {
        workers: handles.into(),
        changed: Notify::new(),
        running: AtomicUsize::new(0),
        admission: Admission::new(connections_max, opened.listens.len()),
        pipes_max: (descriptors / 128).clamp(1, 2048),
        access_log,
    });
    for (index, mail) in mails.into_iter().enumerate() {
        let sockets = opened.listens.iter_mut().filter_map(|(_, sockets)| sockets.pop()).collect();
        // Detached: workers say themselves when they have ended.
        drop(worker::spawn(index, Arc::clone(&fleet), mail, sockets, Arc::clone(config))?);
    }
    Ok(fleet)
}

/// One line on stdout, for whoever started this and let it choose its ports.
fn announce(opened: &Opened) -> Result<(), RunError> {
    let mut line = format!("listening id={}", opened.id);
    for (listen, _) in &opened.listens {
        line.push_str(&format!(" {}={}", listen.name, listen.address));
    }
    line.push_str(&format!(" admin={}\n", opened.admin.local_addr()?));
    let mut stdout = io::stdout();
    // Nobody may be reading.
    drop(stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()));
    info!("{}", line.trim_end());
    Ok(())
}

fn introduction(opened: &Opened, instance: InstanceId) -> Introduction {
    let addresses = opened.listens.iter();
    Introduction {
        id: opened.id.clone(),
        instance,
        listen_addresses: addresses
            .map(|(listen, _)| (listen.name.to_string(), listen.address.to_string()))
            .collect(),
        admin_address: opened.admin.local_addr().map(|a| a.to_string()).unwrap_or_default(),
        workers: opened.workers,
    }
}

/// Stops in order: not ready, still accepting; then no longer; then gone.
async fn stop(args: &Args, fleet: &Fleet, status: &Status, signals: &mut Signals) -> ExitCode {
    info!(accept_grace = ?args.accept_grace, drain_timeout = ?args.drain_timeout, "stopping");
    status.drain();
    fleet.tell(|| Mail::Drain);
    let graceful = async {
        tokio::time::sleep(args.accept_grace).await;
        fleet.tell(|| Mail::Stop);
        tokio::time::timeout(args.drain_timeout, fleet.ended()).await.is_ok()
    };
    tokio::select! {
        clean = graceful => {
            if clean {
                info!("stopped");
                ExitCode::SUCCESS
            } else {
                warn!("stopped with requests still in flight");
                ExitCode::from(3)
            }
        }
        () = signals.next() => {
            warn!("a second signal: stopping at once");
            ExitCode::from(3)
        }
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Told when standard input ends: the parent holds its other end.
fn parent_gone() -> Arc<Notify> {
    let gone = Arc::new(Notify::new());
    let told = Arc::clone(&gone);
    thread::spawn(move || {
        // An error is an end, too.
        drop(io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink()));
        told.notify_one();
    });
    gone
}

async fn wait_for(event: Option<&Notify>) {
    match event {
        Some(event) => event.notified().await,
        None => std::future::pending().await,
    }
}
