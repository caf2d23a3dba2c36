//! A worker's thread: its runtime, its accept loops, its mailbox.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::{
    io::unix::AsyncFd,
    net::TcpStream,
    runtime::{Builder, LocalOptions},
    sync::mpsc,
    task::spawn_local,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Accepted, CLOSED_AT_ONCE, Client, Fleet, Mail, Phase, Worker, now};
use crate::{http, listen::BACKLOG, live::Config, upstream::is_exhaustion};

/// Connections accepted in one go before other tasks get their turn.
const ACCEPT_BATCH: usize = 32;
/// How long accepting pauses when descriptors or memory have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often idle connections to backends are looked through, and the wall clock is read.
const SWEEP_PERIOD: Duration = Duration::from_millis(500);

/// Starts a worker's thread. `listeners` are its own sockets, each
/// with the number of its listener.
pub(crate) fn spawn(
    index: usize,
    fleet: Arc<Fleet>,
    mail: mpsc::UnboundedReceiver<Mail>,
    listeners: Vec<(usize, TcpListener)>,
    config: Arc<Config>,
) -> io::Result<thread::JoinHandle<()>> {
    fleet.running.fetch_add(1, Ordering::AcqRel);
    thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let ended = Ended(Arc::clone(&fleet));
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => runtime.block_on(run(index, fleet, mail, listeners, config)),
            Err(error) => {
                warn!(worker = index, %error, "the worker has no runtime and serves nothing")
            }
        }
        drop(ended);
    })
}

/// Says that the worker has ended, even if it panicked.
struct Ended(Arc<Fleet>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

async fn run(
    index: usize,
    fleet: Arc<Fleet>,
    mut mail: mpsc::UnboundedReceiver<Mail>,
    listeners: Vec<(usize, TcpListener)>,
    config: Arc<Config>,
) {
    let worker = Rc::new(Worker::new(index, config, Arc::clone(&fleet), fastrand::u64(..)));
    if let Some(lines) = &worker.access_log {
        spawn_local(Rc::clone(lines).drive());
    }
    let driven = Rc::clone(&worker);
    spawn_local(async move { driven.wheel.drive().await });
    let swept = Rc::clone(&worker);
    spawn_local(async move {
        let mut period = tokio::time::interval(SWEEP_PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let mut closing = swept.upstreams.sweep(now());
            swept.shard.set_idle(swept.upstreams.idle());
            swept.release_held(now());
            swept.look_at_clients();
            swept.dates.look();
            while !closing.is_empty() {
                closing.truncate(closing.len().saturating_sub(CLOSED_AT_ONCE));
                tokio::task::yield_now().await;
            }
        }
    });
    let accepting = CancellationToken::new();
    let mut acceptors = Vec::new();
    for (number, listener) in listeners {
        let worker = Rc::clone(&worker);
        let stop = accepting.clone();
        acceptors.push(spawn_local(async move {
            let listener = match watched(listener) {
                Ok(listener) => listener,
                Err(error) => {
                    warn!(worker = worker.index, %error, "a listener cannot be watched");
                    return;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = accept(&worker, &listener, number) => {}
            }
            if worker.is_stopping() {
                accept_rest(&worker, listener.get_ref(), number);
            }
        }));
    }
    while let Some(message) = mail.recv().await {
        match message {
            Mail::Config(config) => follow(&worker, config),
            Mail::Connection(accepted) => serve(&worker, accepted),
            Mail::Shed { stage, close, places } => worker.shed(stage, close, places),
            Mail::Drain => worker.phase.set(Phase::Draining),
            Mail::Retire => {
                worker.phase.set(Phase::Draining);
                accepting.cancel();
            }
            Mail::LookAgain => worker.wheel.wake_all(),
            Mail::MakeRoom => make_room(&worker),
            Mail::Stop => break,
            Mail::Abort => return,
        }
    }
    worker.phase.set(Phase::Stopping);
    accepting.cancel();
    for acceptor in acceptors {
        // One that panicked has said so.
        drop(acceptor.await);
    }
    worker.wheel.wake_all();
    // Late hand-overs of other workers are still served.
    let connections = &fleet.workers[index].connections.0;
    while connections.load(Ordering::Relaxed) > 0 {
        tokio::select! {
            message = mail.recv() => match message {
                Some(Mail::Connection(accepted)) => serve(&worker, accepted),
                Some(Mail::Abort) => return,
                Some(Mail::LookAgain) => worker.wheel.wake_all(),
                Some(Mail::MakeRoom) => make_room(&worker),
                // Changes go on: those who make them wait for this proxy too, and a drain may
                // have to cut what is still there.
                Some(Mail::Config(config)) => follow(&worker, config),
                Some(Mail::Shed { .. } | Mail::Drain | Mail::Retire | Mail::Stop) => {}
                None => break,
            },
            () = fleet.changed.notified() => {}
        }
    }
    // What was handed over until now is served no more, but counted down.
    mail.close();
    while let Ok(message) = mail.try_recv() {
        if let Mail::Connection(accepted) = message {
            worker.fleet.admission.leave(accepted.listener);
        }
    }
    worker.upstreams.clear();
}

/// Closes something for another worker.
fn make_room(worker: &Worker) {
    worker.make_room();
    worker.fleet.asked_for_room.store(false, Ordering::Relaxed);
}

/// Serves from this configuration from now on.
fn follow(worker: &Rc<Worker>, config: Arc<Config>) {
    let (serial, cuts) = (config.serial, config.cuts);
    *worker.config.borrow_mut() = Rc::new(config);
    let fleet = &worker.fleet;
    fleet.admission.look_again();
    if cuts {
        worker.wheel.wake_all();
    }
    fleet.workers[worker.index].applied.0.store(serial, Ordering::Release);
    fleet.changed.notify_waiters();
}

#[expect(
    deprecated,
    reason = "its replacement is an unsafe function; a TcpListener keeps its descriptor, which is all that it asks for"
)]
fn watched(listener: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    AsyncFd::new(listener)
}

/// Accepts whoever is connected already: with the socket, they would be closed by a reset. Who
/// came for a first request is answered.
fn accept_rest(worker: &Rc<Worker>, listener: &TcpListener, number: usize) {
    let fleet = &worker.fleet;
    for _ in 0..BACKLOG {
        if fleet.admission.is_full(number, connections_max(worker, number)) {
            return;
        }
        match accept_one(listener) {
            Ok((socket, peer)) => {
                fleet.admission.enter(number);
                fleet.workers[worker.index].connections.0.fetch_add(1, Ordering::Relaxed);
                serve(worker, Accepted { socket, peer, listener: number });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if is_exhaustion(&error) && !worker.make_room() => return,
            Err(_) => {}
        }
    }
}

async fn accept(worker: &Rc<Worker>, listener: &AsyncFd<TcpListener>, number: usize) {
    let fleet = &worker.fleet;
    let mut pausing = false;
    loop {
        let max = || connections_max(worker, number);
        if fleet.admission.is_full(number, max()) {
            debug!(worker = worker.index, "accepting waits: there are as many clients as allowed");
            fleet.admission.room(number, max).await;
        }
        let Ok(mut ready) = listener.readable().await else { return };
        let (mut tried, mut made_room) = (0, false);
        while tried < ACCEPT_BATCH {
            // The bound may have changed since it was waited for a client.
            if fleet.admission.is_full(number, max()) {
                break;
            }
            match ready.try_io(|listener| accept_one(listener.get_ref())) {
                Ok(Ok((socket, peer))) => {
                    if std::mem::take(&mut pausing) {
                        info!(worker = worker.index, "accepting goes on");
                    }
                    (tried, made_room) = (tried + 1, false);
                    let accepted = Accepted { socket, peer, listener: number };
                    fleet.admission.enter(number);
                    let slack = worker.hand_over_slack();
                    hand_over(worker, accepted, fleet.enter_calmest(worker.index, slack));
                }
                Ok(Err(error)) if !is_exhaustion(&error) => {
                    tried += 1;
                    debug!(%error, "a client left early");
                }
                Ok(Err(error)) => {
                    // Once: where that does not help it is not this process that has too many.
                    if !std::mem::replace(&mut made_room, true) && worker.free_descriptors() {
                        continue;
                    }
                    if !std::mem::replace(&mut pausing, true) {
                        warn!(
                            worker = worker.index,
                            %error,
                            "accepting pauses until what it takes is free again"
                        );
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    break;
                }
                Err(_would_block) => break,
            }
        }
        if tried == ACCEPT_BATCH {
            // To wait for a listener at which there is more is no pause.
            tokio::task::yield_now().await;
        }
    }
}

/// How many connections the listener may have, 0 for no bound of its own.
fn connections_max(worker: &Worker, listener: usize) -> u32 {
    let config = worker.config();
    config.listeners[listener].as_ref().map_or(0, |config| config.listener.connections_max)
}

/// Gives a connection to the worker that was chosen for it, or serves it here.
fn hand_over(worker: &Rc<Worker>, accepted: Accepted, other: usize) {
    let fleet = &worker.fleet;
    if other == worker.index {
        return serve(worker, accepted);
    }
    if let Err(unsent) = fleet.workers[other].mail.send(Mail::Connection(accepted)) {
        // That worker has ended: the proxy is stopping.
        fleet.workers[other].connections.0.fetch_sub(1, Ordering::Relaxed);
        if let Mail::Connection(accepted) = unsent.0 {
            fleet.workers[worker.index].connections.0.fetch_add(1, Ordering::Relaxed);
            serve(worker, accepted);
        }
    }
}

fn accept_one(listener: &TcpListener) -> io::Result<(OwnedFd, SocketAddr)> {
    let (socket, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((socket, peer.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))))
}

/// Serves a connection, which was counted when it was accepted, in a task of its own.
fn serve(worker: &Rc<Worker>, accepted: Accepted) {
    worker.shard.count_opened();
    let Accepted { socket, peer, listener } = accepted;
    let mut counted = Counted { worker: Rc::clone(worker), listener, client: None };
    let stream = match TcpStream::from_std(socket.into()) {
        Ok(stream) => stream,
        Err(error) => {
            warn!(%error, "a connection cannot be watched and is closed");
            return;
        }
    };
    let config = worker.config();
    let client_max = config.listeners[listener]
        .as_ref()
        .map_or(0, |config| config.listener.connections_per_client_max);
    if client_max > 0 {
        let client = Client::new(listener, peer.ip());
        if worker.fleet.admission.enter_client(client, client_max) {
            counted.client = Some(client);
        } else {
            let worker = Rc::clone(worker);
            spawn_local(async move {
                http::turn_away(worker, stream, peer, listener).await;
                drop(counted);
            });
            return;
        }
    }
    let worker = Rc::clone(worker);
    spawn_local(async move {
        http::serve(worker, stream, peer, listener).await;
        drop(counted);
    });
}

/// Counts a connection down, even if its task panicked.
struct Counted {
    worker: Rc<Worker>,
    listener: usize,
    client: Option<Client>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Self { worker, listener, client } = self;
        worker.shard.count_closed();
        let fleet = &worker.fleet;
        if let Some(client) = client.take() {
            fleet.admission.leave_client(client);
        }
        let left = fleet.workers[worker.index].connections.0.fetch_sub(1, Ordering::Relaxed) - 1;
        fleet.admission.leave(*listener);
        if left == 0 && worker.is_stopping() {
            fleet.changed.notify_waiters();
        }
    }
}
