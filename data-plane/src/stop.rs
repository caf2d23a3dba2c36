//! How a proxy ends: in order when it is asked to, at once when it is asked again.

use std::{
    io::{self, Read as _},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};
use tracing::{info, warn};

use crate::{
    access_log::AccessLog,
    args::Args,
    status::Status,
    worker::{Fleet, Mail},
};

/// How long workers may take to drop everything.
const ABORT_FOR: Duration = Duration::from_millis(500);
/// How long the end waits for the last lines of the access log.
const LAST_LINES_FOR: Duration = Duration::from_secs(1);

/// Stops in order: not ready, still accepting; then no longer; then gone.
pub(crate) async fn stop(
    args: &Args,
    fleet: &Fleet,
    status: &Status,
    signals: &mut Signals,
) -> ExitCode {
    info!(accept_grace = ?args.accept_grace, drain_timeout = ?args.drain_timeout, "stopping");
    status.drain();
    fleet.tell(|| Mail::Drain);
    end(args, fleet, signals).await
}

/// Ends when another process accepts on the same sockets.
pub(crate) async fn retire(args: &Args, fleet: &Fleet, signals: &mut Signals) -> ExitCode {
    info!(
        accept_grace = ?args.accept_grace,
        drain_timeout = ?args.drain_timeout,
        "a new process has taken over; this one ends with its connections"
    );
    end(args, fleet, signals).await
}

/// Lets clients hear that they shall go, then closes what is idle, and waits for the rest.
async fn end(args: &Args, fleet: &Fleet, signals: &mut Signals) -> ExitCode {
    let graceful = async {
        tokio::time::sleep(args.accept_grace).await;
        fleet.tell(|| Mail::Stop);
        tokio::time::timeout(args.drain_timeout, fleet.ended()).await.is_ok()
    };
    tokio::select! {
        clean = graceful => {
            if clean {
                info!("stopped");
                return ExitCode::SUCCESS;
            }
            warn!("stopped with requests still in flight");
        }
        () = signals.next() => warn!("a second signal: stopping at once"),
    }
    // What is cut off now still gets its line in the access log.
    fleet.tell(|| Mail::Abort);
    if tokio::time::timeout(ABORT_FOR, fleet.ended()).await.is_err() {
        warn!("workers do not end; the process does");
    }
    ExitCode::from(3)
}

/// Waits a moment for the last lines of the access log.
pub(crate) async fn finish_log(log: &AccessLog, writer: thread::JoinHandle<()>) {
    log.close();
    let written = tokio::task::spawn_blocking(|| writer.join());
    if tokio::time::timeout(LAST_LINES_FOR, written).await.is_err() {
        warn!("the last lines of the access log could not be written in time");
    }
}

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// SIGHUP means to open the access log anew, and never to end.
pub(crate) async fn reopen_on_hangup(mut hangups: Signal, access_log: Option<Arc<AccessLog>>) {
    while hangups.recv().await.is_some() {
        match &access_log {
            Some(log) => log.reopen(),
            None => info!("SIGHUP: there is no access log to be opened anew"),
        }
    }
}

/// Told when standard input ends: the parent holds its other end.
pub(crate) fn parent_gone() -> Arc<Notify> {
    let gone = Arc::new(Notify::new());
    let told = Arc::clone(&gone);
    thread::spawn(move || {
        // An error is an end, too.
        drop(io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink()));
        told.notify_one();
    });
    gone
}

pub(crate) async fn wait_for(event: Option<&Notify>) {
    match event {
        Some(event) => event.notified().await,
        None => std::future::pending().await,
    }
}
