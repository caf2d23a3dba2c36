//! The control plane as a process: runtime, logs, signals, exit codes.

use std::{
    fs,
    io::{Read, Write, stdin, stdout},
    process::ExitCode,
    time::Duration,
};

use lb_core::metrics::process::{Process, Sources};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};
use tracing::{info, warn};

use crate::{
    app::{Config, RunError, start},
    args::Args,
    telemetry,
};

/// The exit code after a second signal, or when something had to be cut off.
const FORCED: u8 = 3;
/// Name look-ups cannot be interrupted; the process does not wait for them.
const LEFT_BEHIND: Duration = Duration::from_millis(100);

/// Runs a control plane until it is told to stop by SIGTERM or SIGINT. Once it listens,
/// one line on standard output says where. Blocks; must not be called from within a
/// runtime.
pub fn run(args: Args) -> Result<ExitCode, RunError> {
    telemetry::init(&args.log_level, args.log_format)?;
    raise_descriptor_limit();
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = Builder::new_multi_thread().worker_threads(cores.max(2)).enable_all().build()?;
    let result = runtime.block_on(serve(args));
    runtime.shutdown_timeout(LEFT_BEHIND);
    result
}

async fn serve(args: Args) -> Result<ExitCode, RunError> {
    let mut signals = Signals::new()?;
    // Caught also when there is no file to read again: whoever sends it to every service, as tools
    // that rotate logs do, wants none of them ended.
    let mut hangup = signal(SignalKind::hangup())?;
    // Whatever the start waits for, the process can be stopped.
    let mut running = tokio::select! {
        running = start(Config::from_args(&args)?) => running?,
        name = signals.next() => {
            info!(signal = name, "stopping before the start was done");
            return Ok(ExitCode::SUCCESS);
        }
    };
    announce(&format!("listening grpc={} http={}", running.grpc(), running.http()));
    let parent = parent_gone(args.exit_with_parent);
    tokio::pin!(parent);
    loop {
        tokio::select! {
            name = signals.next() => {
                info!(signal = name, "stopping");
                break;
            }
            () = &mut parent => {
                info!("the parent process is gone; stopping");
                break;
            }
            _ = hangup.recv() => tokio::select! {
                () = running.reload() => {}
                name = signals.next() => {
                    info!(signal = name, "stopping");
                    break;
                }
            },
            error = running.ended() => {
                running.stop().await;
                return Err(error);
            }
        }
    }
    tokio::select! {
        in_time = running.stop() => {
            Ok(if in_time { ExitCode::SUCCESS } else { ExitCode::from(FORCED) })
        }
        name = signals.next() => {
            warn!(signal = name, "second signal; stopping at once");
            Ok(ExitCode::from(FORCED))
        }
    }
}

/// What the system knows about this process.
pub(crate) fn figures() -> Process {
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    Process::read(&Sources {
        process_stat: text("/proc/self/stat"),
        system_stat: text("/proc/stat"),
        ticks_per_second: rustix::param::clock_ticks_per_second(),
        page_bytes: rustix::param::page_size() as u64,
        // The one with which the directory is read is not counted.
        open_fds: fs::read_dir("/proc/self/fd")
            .map_or(0, |entries| (entries.count() as u64).saturating_sub(1)),
        max_fds: getrlimit(Resource::Nofile).current.unwrap_or_default(),
    })
}

/// How many descriptors it may have.
pub(crate) fn descriptors_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Takes as many descriptors as the system lets this process have: each proxy is a connection,
/// and a thousand of them are more than the usual soft limit.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit of open files stays at {:?}", limit.current);
    }
}

/// Prints a line. That nobody reads it is no reason to stop.
fn announce(line: &str) {
    let mut out = stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

/// Returns when standard input ends; never, unless that was asked for.
async fn parent_gone(asked: bool) {
    if !asked {
        return std::future::pending().await;
    }
    let (sender, ended) = oneshot::channel::<()>();
    // A thread of its own: a blocked read cannot be cancelled, and must not hold up the
    // end of the runtime.
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while matches!(stdin().read(&mut buffer), Ok(1..)) {}
        drop(sender);
    });
    ended.await.ok();
}

#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, std::io::Error> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
