//! A proxy from start to stop: what is started in which order, and who ends whom.

use std::{
    io,
    net::TcpListener,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
    thread,
    time::Duration,
};

use lb_core::{
    model::{InstanceId, ListenerName, ProxyId},
    sync::Subscriber,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, watch},
    task::AbortHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    access_log::AccessLog,
    admin,
    args::Args,
    error::RunError,
    last_good::{Kept, LastGood},
    leases::{self, Shelf},
    live::{Compiler, Config, Padded},
    memory::Memory,
    metrics::Metrics,
    open::Opened,
    overload::Watch,
    process, retry_budget,
    seal::Seal,
    serving::Serving,
    stats::{Shard, report::Reporter},
    status::Status,
    stop::{self, Signals},
    sync::{self, Follower, Parts},
    takeover::{self, Estate},
    telemetry,
    worker::{self, Admission, Fleet, Mail, WorkerHandle},
};

/// How long the end waits for the control plane to hear of it.
const GOODBYE_FOR: Duration = Duration::from_millis(500);

/// Runs a proxy until a signal ends it. Blocks, and must not be called from within a
/// runtime.
pub fn run(args: Args) -> Result<ExitCode, RunError> {
    telemetry::init(&args.log_level, args.log_format)?;
    let descriptors = process::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(args, descriptors));
    // Whoever writes the access log may be stuck for ever; nobody waits for it.
    runtime.shutdown_background();
    ended
}

async fn serve(args: Args, descriptors: usize) -> Result<ExitCode, RunError> {
    // Signals first: one that comes during the start must not be lost.
    let mut signals = Signals::new()?;
    let hangups = signal(SignalKind::hangup())?;
    let control_planes = args
        .control_plane
        .iter()
        .map(|url| sync::ControlPlane::parse(url).map_err(RunError::Usage))
        .collect::<Result<Vec<_>, _>>()?;
    let mut opened = Opened::new(&args)?;
    let names: Vec<ListenerName> =
        opened.listens.iter().map(|(listen, _)| listen.name.clone()).collect();

    let directory = opened.data_dir.path();
    let seal_key = args.seal_key.clone().unwrap_or_else(|| directory.join("seal-key"));
    let last_good = LastGood::new(directory, Seal::open(&seal_key)?);
    let (subscriber, proxies) = match last_good.load() {
        Some(Kept { held, proxies }) => (held, proxies),
        None => (Subscriber::new(lb_proto::convert::decode_object), None),
    };
    let shelf = Shelf::new(opened.data_dir.path());
    let mut compiler =
        Compiler::with_limit_keys(opened.workers, names.clone(), args.limit_keys as usize);
    let leases = compiler.leases();
    leases.remember(shelf.load());
    if args.expose_lb_api {
        compiler.expose_management();
    }
    let held = subscriber.held();
    let config = Arc::new(match held {
        Some(held) => compiler.compile(subscriber.snapshot(), Some(held.version)),
        None => Config::empty(&names),
    });
    let status = Arc::new(Status::default());
    if let Some(proxies) = proxies {
        status.told_proxies(proxies);
    }
    status.applied(config.version);
    if let Some(held) = held {
        status.lost(crate::clock::present());
        info!(version = %held.version, "serving from the kept configuration until a control plane answers");
    }

    let instance = InstanceId::new(&uuid::Uuid::new_v4().to_string())
        .map_err(|invalid| RunError::Usage(invalid.to_string()))?;
    let estate = Arc::new(Mutex::new(Some(opened.estate(&instance)?)));
    let (access_log, log_writer) = open_access_log(&args, &opened.id, &names)?.unzip();
    let memory = Memory::new(args.max_memory);
    // Before anybody is served: a take-over that is refused changes nothing.
    Watch::check(&memory)?;
    let bounds = Bounds { descriptors, memory: memory.usage().limit };
    let fleet = start_workers(&mut opened, &args, bounds, access_log.clone(), &config)?;
    let watch = Watch::new(memory, Arc::clone(&fleet), Arc::clone(&status));
    let introduction = opened.introduction(instance.clone(), access_log.is_some());
    if let Some((old, _)) = opened.old.take() {
        let relieved = tokio::task::spawn_blocking(move || takeover::relieve(&old)).await;
        if let Ok(Err(error)) = relieved {
            warn!(%error, "the old process has not said that it retires; it may go on accepting");
        }
    }
    opened.announce()?;
    let (config_sender, config_receiver) = watch::channel(config);
    let (connected_sender, connected_receiver) = watch::channel(None);
    let metrics = Arc::new(Metrics {
        status: Arc::clone(&status),
        fleet: Arc::clone(&fleet),
        config: config_receiver.clone(),
        ledger: compiler.ledger(),
        per_backend: args.metrics_per_backend,
    });
    let applied = config_receiver.clone();
    let budgeted = config_receiver.clone();
    let keeper = leases::run(
        Arc::clone(&leases),
        opened.id.clone(),
        instance.clone(),
        shelf.clone(),
        connected_receiver.clone(),
        Arc::clone(&fleet),
    );
    let reporter = Reporter::new(
        opened.id.clone(),
        instance,
        Arc::clone(&fleet),
        config_receiver,
        compiler.trouble(),
        Arc::clone(&status),
    );
    let last_report = reporter.last();
    let serving = Arc::new(Serving::new(subscriber, compiler, Arc::clone(&fleet), config_sender));
    let held = serving.held();
    let leaving = CancellationToken::new();
    let follower = Follower::new(Parts {
        introduction,
        control_planes,
        serving: Arc::clone(&serving),
        status: Arc::clone(&status),
        connected: connected_sender.clone(),
        leaving: leaving.clone(),
    });
    let mut successors =
        offer(&opened, &estate, last_good.clone(), Arc::clone(&held), Arc::clone(&status));
    let parent = args.exit_with_parent.then(stop::parent_gone);

    // These end with the runtime, when this function returns.
    spawn(
        "keeps the configuration on disk",
        last_good.clone().keep(held, Arc::clone(&status), applied),
    );
    spawn("takes failing backends out by itself", serving.watch());
    spawn("watches its memory and connections", watch.run());
    let left = CancellationToken::new();
    let has_left = left.clone().drop_guard();
    let reporting = follower.reporting();
    let following = spawn("follows the control plane", async {
        follower.run().await;
        drop(has_left);
    });
    spawn("reports statistics", reporter.run(connected_receiver));
    spawn("renews its shares of limits", keeper);
    spawn("counts retries", retry_budget::run(budgeted, Arc::clone(&status)));
    opened.admin.set_nonblocking(true)?;
    let admin = tokio::net::TcpListener::from_std(opened.admin)?;
    let admin = admin::serve(admin, metrics, admin::connections_max(descriptors));
    let admin = tokio::spawn(admin);
    tokio::spawn(stop::reopen_on_hangup(hangups, access_log.clone()));
    let ended = tokio::select! {
        () = signals.next() => {
            // Nobody can take over from now on, and addresses are closed when they should be.
            drop(take(&estate));
            drop(successors);
            let code = stop::stop(&args, &fleet, &status, &mut signals).await;
            leases.leave().await;
            last_report.told().await;
            leaving.cancel();
            // What it does not hear in time it finds out by itself.
            timeout(GOODBYE_FOR, left.cancelled()).await.ok();
            Ok(code)
        }
        Some(successor) = successors.recv() => {
            // The new process follows and answers for this proxy; what is counted here is
            // still reported.
            following.abort();
            spawn("reports what it has left", reporting.keep());
            admin.abort();
            fleet.tell(|| Mail::Retire);
            drop(take(&estate));
            // What is kept on disk is the new process's from now on.
            last_good.end();
            shelf.end();
            leases.retire();
            successor.retired.send(()).ok();
            let code = stop::retire(&args, &fleet, &mut signals).await;
            leases.leave().await;
            // A drain that has cut connections here waits for what became of them.
            last_report.told().await;
            Ok(code)
        }
        () = stop::wait_for(parent.as_deref()) => {
            warn!("the parent process is gone; stopping at once");
            Ok(ExitCode::SUCCESS)
        }
        () = fleet.any_ended() => Err(RunError::System(io::Error::other(
            "a worker has ended unexpectedly; the log says why. Start the proxy again",
        ))),
    };
    if let (Some(log), Some(writer)) = (access_log, log_writer) {
        stop::finish_log(&log, writer).await;
    }
    drop(connected_sender);
    ended
}

/// Runs a task beside the workers for as long as the runtime lives. Should it panic, then
/// requests are served on, since whatever made it panic may be the same everywhere and a fleet
/// that ends serves nobody: but the log says what the proxy `does` no more.
fn spawn(does: &'static str, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    let task = tokio::spawn(task);
    let handle = task.abort_handle();
    tokio::spawn(async move {
        if task.await.is_err_and(|ended| ended.is_panic()) {
            error!(
                "a part of this proxy has failed (the message before says where): it serves on, but \
                 no longer {does}. Restart it; what it said is a defect to be reported"
            );
        }
    });
    handle
}

/// Lets a later process take over. A proxy that cannot offer it serves all the same.
fn offer(
    opened: &Opened,
    estate: &Arc<Mutex<Option<Estate>>>,
    last_good: LastGood,
    held: Arc<Mutex<Subscriber>>,
    status: Arc<Status>,
) -> mpsc::Receiver<takeover::Successor> {
    let (sender, successors) = mpsc::channel(1);
    // The new process begins with what this one serves now.
    let keep_newest = move || {
        if let Err(error) = last_good.save(&held, status.proxies_told()) {
            warn!(%error, "the newest configuration cannot be kept for the new process");
        }
    };
    let offered = takeover::offer(opened.data_dir.path(), Arc::clone(estate), keep_newest, sender);
    if let Err(error) = offered {
        warn!(%error, "no process can take over from this one; restarts will interrupt clients");
    }
    successors
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
            "--access-log: {} cannot be written: {error}. Choose another file, - or off",
            args.access_log
        ))
    })
}

/// What the process may use.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    descriptors: usize,
    /// In bytes; 0 for no bound.
    memory: u64,
}

fn start_workers(
    opened: &mut Opened,
    args: &Args,
    bounds: Bounds,
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
        args.max_connections.map_or(bounds.descriptors / 5 * 4, |max| max as usize).max(1);
    let fleet = Arc::new(Fleet {
        workers: handles.into(),
        changed: Notify::new(),
        asked_for_room: Default::default(),
        running: AtomicUsize::new(0),
        admission: Admission::new(connections_max, opened.listens.len()),
        pipes_max: (bounds.descriptors / 128).clamp(1, 2048),
        replays_max: worker::replays_max(bounds.memory, opened.workers),
        access_log,
    });
    // Inherited sockets may be more than there are workers.
    let mut sockets: Vec<(usize, usize, TcpListener)> = Vec::new();
    for (number, (_, own)) in opened.listens.iter_mut().enumerate() {
        sockets.extend(own.drain(..).enumerate().map(|(at, socket)| (at, number, socket)));
    }
    for (index, mail) in mails.into_iter().enumerate() {
        let own = |at: usize| at % opened.workers == index;
        let listeners = sockets.extract_if(.., |(at, ..)| own(*at));
        let listeners = listeners.map(|(_, number, socket)| (number, socket)).collect();
        // Detached: workers say themselves when they have ended.
        drop(worker::spawn(index, Arc::clone(&fleet), mail, listeners, Arc::clone(config))?);
    }
    Ok(fleet)
}

fn take(estate: &Mutex<Option<Estate>>) -> Option<Estate> {
    estate.lock().unwrap_or_else(PoisonError::into_inner).take()
}
