//! The benchmark of the whole proxy: `lb-bench compare` puts it beside the proxies that
//! people use, `lb-bench gates` holds what a request costs to a saved baseline, `lb-bench fleet`
//! measures what many proxies and many backends cost the control plane, and `lb-bench keys` what
//! a million keys of a limit cost the proxy.
//!
//! | module | holds |
//! |---|---|
//! | [`args`] | the command line |
//! | [`compare`], [`measure`] | the interleaved rounds, and one measurement in them |
//! | [`ours`], [`peer`] | what is measured: this proxy, and the others |
//! | [`fleet`] | many proxies, many backends |
//! | [`keys`] | many keys of one limit |
//! | [`gates`], [`counts`], [`baseline`] | instructions and system calls of a request |
//! | [`procfs`], [`report`] | reading `/proc`, and the tables |
//! | [`backend`], [`pump`], [`load`] | our own small programs, run as hidden subcommands |
//!
//! Times on a shared machine vary by half from one minute to the next, so `compare` gives
//! ratios of neighbours in time; what must not get worse unnoticed is counted, not timed.

mod args;
mod backend;
mod baseline;
mod compare;
mod counts;
mod fleet;
mod gates;
mod keys;
mod load;
mod measure;
mod ours;
mod peer;
mod procfs;
mod pump;
mod report;
mod response;

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use clap::Parser as _;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::args::{Args, Subcommand};

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Subcommand::Compare(args) => block_on(interruptible(compare::run(args))),
        Subcommand::Gates(args) => block_on(interruptible(gates::run(args))),
        Subcommand::Fleet(args) => block_on(interruptible(fleet::run(args))),
        Subcommand::Keys(args) => block_on(interruptible(keys::run(args))),
        Subcommand::Backend(args) => within_parent(|| block_on(backend::run(args))),
        Subcommand::BytePump(args) => within_parent(|| pump::run(&args)),
        Subcommand::Load(args) => within_parent(|| block_on(load::run(args))),
        Subcommand::Bound { program, args } => within_parent(|| {
            let error = Command::new(&program).args(args).exec();
            Err(format!("cannot run {program}: {error}"))
        }),
    };
    outcome.unwrap_or_else(|why| {
        eprintln!("lb-bench: {why}");
        ExitCode::FAILURE
    })
}

fn block_on<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(work)
}

/// Ends on Ctrl-C and SIGTERM by dropping the work, which kills every child.
async fn interruptible(
    work: impl Future<Output = Result<ExitCode, String>>,
) -> Result<ExitCode, String> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| error.to_string())?;
    tokio::select! {
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
        _ = terminate.recv() => Err("terminated".to_owned()),
    }
}

/// Asks the kernel to end this process with its parent, however that ends; it stays so
/// across `exec`.
fn within_parent(work: impl FnOnce() -> Result<ExitCode, String>) -> Result<ExitCode, String> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| error.to_string())?;
    work()
}

/// Children inherit it. Where it cannot be raised, less is measured.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).ok();
}
