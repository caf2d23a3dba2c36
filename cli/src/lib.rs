//! `lbctl`: operates the load balancer, and is a whole installation in one binary.
//!
//! | module | does |
//! |---|---|
//! | `args` | the command line, by clap |
//! | `client` | finds a control plane, calls it, turns gRPC errors into sentences |
//! | `command` | one module per group of commands |
//! | `completion` | what a shell may offer while a command is typed |
//! | `view` | what the control plane answers, as numbers with units and stable names |
//! | `output` | tables for people, JSON and YAML for programs |
//! | `top` | the fleet on a screen that keeps itself up to date |
//! | `dev` | the whole balancer on one machine, as real processes |
//! | `demo_backend` | a small HTTP server to balance |
//!
//! Data goes to stdout, everything else to stderr. A change counts as done when the
//! proxies say so, and every failure names the next step; its kind is in the exit
//! code ([`exit::Exit`]).

mod args;
mod client;
mod clock;
mod command;
mod completion;
mod demo_backend;
mod dev;
pub mod exit;
mod format;
mod output;
mod signal;
mod top;
mod view;

use std::process::ExitCode;

use clap::Parser as _;

use self::{args::Cli, exit::Exit};

/// Runs the command line of this process.
///
/// Both planes build runtimes of their own, so this must not be called from within
/// one.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(answered) = completion::answer() {
        return answered;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors; clap knows which is which.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Success };
            if let Some(message) = args::below_zero(&error) {
                return exit::report(&exit::Failure::new(exit, message));
            }
            return match error.print() {
                Ok(()) => exit.into(),
                Err(error) => exit::report(&error.into()),
            };
        }
    };
    match command::run(cli) {
        Ok(code) => code,
        Err(failure) => exit::report(&failure),
    }
}
