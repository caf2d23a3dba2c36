//! `dev`: the whole load balancer on this machine, in one command.
//!
//! Everything is a real process, this executable again under another command: what is
//! learned by killing a proxy or stopping the control plane here is true elsewhere.
//!
//! ```text
//! lbctl dev --+-- control-plane
//!             +-- proxy-1, proxy-2, ...
//!             +-- backend-8001, ...        unless --backends names others
//! ```
//!
//! Children have process groups of their own, so that Ctrl-C reaches this process
//! alone, which stops them in order. Each holds the end of a pipe on its stdin and ends
//! when this process does, however that happens.

mod child;
mod data_dir;
mod household;
mod plan;
mod printer;
mod ready;
mod role;
mod setup;
mod trial;

use std::{path::Path, process::ExitCode, time::Duration};

use tokio::time::Instant;

pub(crate) use self::trial::Trial;
use self::{
    data_dir::DataDir,
    household::Household,
    plan::Plan,
    printer::Printer,
    role::{Listening, Role},
};
use crate::{
    args::{Dev, OutputFormat},
    client::Client,
    command::{Session, block_on},
    exit::{Exit, Failure},
    output::Screen,
    signal::{Hangup, HangupSignals, StopSignals},
};

/// For single calls to the own control plane.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs everything until it is told to stop.
pub(crate) fn run(args: &Dev) -> Result<ExitCode, Failure> {
    let plan = Plan::new(args, plan::probe)?;
    let data_dir = DataDir::open(args.data_dir.as_deref())?;
    block_on(develop(args, plan, data_dir.path()))
}

async fn develop(args: &Dev, plan: Plan, data_dir: &Path) -> Result<(), Failure> {
    let uncaught = |error| Failure::new(Exit::Failed, format!("cannot catch signals: {error}"));
    let mut signals = StopSignals::catch().map_err(uncaught)?;
    let mut hangups = HangupSignals::catch().map_err(uncaught)?;
    let printer = Printer::start();
    let household = Household::new(printer.clone());
    let terminal_gone = async {
        while hangups.next().await == Hangup::Reopen {
            household.reopen_logs();
        }
    };
    tokio::pin!(terminal_gone);
    let outcome = tokio::select! {
        started = start(args, plan, data_dir, &household, &printer) => match started {
            Ok(()) => {
                tokio::select! {
                    () = signals.next() => {}
                    () = printer.reader_gone() => {}
                    () = &mut terminal_gone => {}
                }
                Ok(())
            }
            Err(failure) => Err(failure),
        },
        () = signals.next() => Ok(()),
        () = &mut terminal_gone => Ok(()),
    };
    if outcome.is_ok() {
        printer.line("stopping; Ctrl-C again kills at once");
    }
    household.stop(&mut signals).await;
    printer.finish().await;
    outcome
}

/// Starts everything and returns when it serves.
async fn start(
    args: &Dev,
    plan: Plan,
    data_dir: &Path,
    household: &Household,
    printer: &Printer,
) -> Result<(), Failure> {
    let began = Instant::now();
    for note in &plan.notes {
        printer.line(note);
    }
    let control = Role::control_plane(plan.grpc, plan.http, data_dir, args);
    let control = household.admit(control).await?;
    let mut demos = Vec::new();
    for (number, port) in (1..).zip(plan.demo_ports) {
        demos.push(household.admit(Role::demo_backend(number, port)).await?);
    }
    let server = format!("http://{}", control.value("grpc"));
    let mut proxies: Vec<Listening> = Vec::new();
    for proxy in plan.proxies {
        let role = Role::proxy(proxy, &server, data_dir, args);
        proxies.push(household.admit(role).await?);
    }

    let client = Client::connect(&[server], CALL_TIMEOUT).await?;
    let session = Session { client, screen: Screen::new(OutputFormat::Table) };
    let demos: Vec<&str> = demos.iter().map(|demo| demo.value("backend")).collect();
    // A file says all that there is to say.
    if args.config.is_none() {
        setup::configure(&session.client, args, &demos).await?;
    }
    let problems = setup::await_serving(&session, proxies.len(), args.config.is_some()).await?;
    let outcome =
        ready::Outcome { problems, took: began.elapsed(), declared: args.config.is_some() };
    let block = ready::block(&session, &control, &proxies, &outcome).await?;
    printer.block(&block);
    Ok(())
}
