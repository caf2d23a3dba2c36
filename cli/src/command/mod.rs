//! The commands, one module per group.

mod adopt;
mod apply;
mod backend;
mod check;
mod checks;
mod control_plane;
mod data_plane;
mod declared;
mod describe;
mod drain;
mod explain;
mod explain_route;
mod fallback;
mod get;
mod judgement;
mod limit;
mod listener;
mod manpages;
mod object_table;
mod pool;
mod progress;
mod proxy;
mod remedy;
mod resilience;
mod route;
mod session;
mod setting;
mod stats;
mod status;
mod test_algorithms;
pub(crate) mod wait;
mod watch;
mod write;

#[cfg(test)]
pub(crate) use self::judgement::Facts as StatusFacts;
pub(crate) use self::{
    backend::{BackendChange, change as change_backend},
    describe::{
        backend_page as describe_backend, pool_page as describe_pool, proxy_page as describe_proxy,
    },
    get::{backend_table, names_of, pool_table, proxy_table},
    judgement::remedy_at_backend,
    status::{StatusView, page as status_page, read as read_status},
    watch::EventView,
};

use std::{future::Future, io, process::ExitCode, time::Duration};

use crate::{
    args::{Cli, Command, Global, OutputFormat},
    client::Client,
    completion, demo_backend, dev,
    exit::{Exit, Failure},
    output::Screen,
    signal::StopSignals,
    top,
};

/// How long a command may take unless it is told.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// What whoever interrupts a command is told.
const INTERRUPTED: &str = "interrupted";

/// What the commands that ask a control plane share.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) screen: Screen,
}

/// Runs a command to its end.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let global = cli.global;
    match cli.command {
        // Files are checked here and need nobody.
        Command::Validate(args) => declared::validate(&args, &global),
        Command::Schema => declared::schema(),
        Command::Top(args) => top::run(&args, &global),
        Command::Explain(args) => explain::run(&args, &global).map(|()| ExitCode::SUCCESS),
        // These three have runtimes of their own.
        Command::ControlPlane(args) => control_plane::run(args),
        Command::DataPlane(args) => data_plane::run(args),
        Command::DemoBackend(args) => demo_backend::run(&args),
        Command::Dev(args) => dev::run(&args),
        Command::TestAlgorithms(args) => test_algorithms::run(&args, &global),
        Command::Completions(args) => completion::script(args.shell),
        Command::Manpages(args) => manpages::run(&args),
        command => {
            let interrupted = match &command {
                Command::DrainBackend(args) => drain::interrupted(args),
                // It has no other end.
                Command::Watch(_) => String::new(),
                _ => INTERRUPTED.to_owned(),
            };
            block_on(unless_interrupted(ask(command, global), &interrupted))
        }
    }
}

async fn ask(command: Command, global: Global) -> Result<(), Failure> {
    if global.output == OutputFormat::Toml && !matches!(command, Command::Export(_)) {
        return Err(Failure::new(Exit::Usage, "-o toml is for 'lbctl export'; use -o json here"));
    }
    if let Command::Check(args) = command {
        // It looks for the control plane itself: not finding it is one of its answers.
        return check::run(&args, &global).await;
    }
    let timeout = match &command {
        Command::Wait(_) => wait::TIMEOUT,
        _ => TIMEOUT,
    };
    let timeout = match &command {
        // Its time is not the command's: the control plane carries it out.
        Command::DrainBackend(_) => timeout,
        _ => global.timeout.unwrap_or(timeout),
    };
    let client = match &command {
        Command::Wait(_) => wait::connect(&global.server, timeout).await?,
        _ => Client::connect(&global.server, timeout).await?,
    };
    let session = Session { client, screen: Screen::new(global.output) };
    match command {
        Command::Status => status::run(&session).await,
        Command::Stats => stats::run(&session).await,
        Command::Get(args) => get::run(&session, args).await,
        Command::Describe(args) => describe::run(&session, args).await,
        Command::Watch(args) => watch::run(&session, &args, &global).await,
        Command::Wait(args) => wait::run(&session, args).await,
        Command::AddBackend(args) => backend::add(&session, args).await,
        Command::SetBackend(args) => backend::set(&session, args).await,
        Command::EnableBackend(args) => backend::enable(&session, args).await,
        Command::DisableBackend(args) => backend::disable(&session, args).await,
        Command::DrainBackend(args) => drain::run(&session, args).await,
        Command::RemoveBackend(args) => backend::remove(&session, args).await,
        Command::AddPool(args) => pool::add(&session, args).await,
        Command::SetPool(args) => pool::set(&session, args).await,
        Command::RemovePool(args) => pool::remove(&session, args).await,
        Command::SetAlgorithm(args) => pool::set_algorithm(&session, args).await,
        Command::AdoptStore(args) => adopt::run(&session, args).await,
        Command::RotateSessionKeys(args) => session::rotate(&session, &args).await,
        Command::ForgetProxy(args) => proxy::forget(&session, args).await,
        Command::AddListener(args) => listener::add(&session, args).await,
        Command::SetListener(args) => listener::change(&session, args).await,
        Command::RemoveListener(args) => listener::remove(&session, args).await,
        Command::AddRoute(args) => route::add(&session, args).await,
        Command::SetRoute(args) => route::change(&session, args).await,
        Command::RemoveRoute(args) => route::remove(&session, args).await,
        Command::AddLimit(args) => limit::add(&session, args).await,
        Command::SetLimit(args) => limit::change(&session, args).await,
        Command::RemoveLimit(args) => limit::remove(&session, args).await,
        Command::ExplainRoute(args) => explain_route::run(&session, args).await,
        Command::Apply(args) => apply::apply(&session, &args).await,
        Command::Diff(args) => apply::diff(&session, &args).await,
        Command::Export(args) => declared::export(&session, &args).await,
        Command::ControlPlane(_)
        | Command::DataPlane(_)
        | Command::DemoBackend(_)
        | Command::Dev(_)
        | Command::Validate(_)
        | Command::Schema
        | Command::Check(_)
        | Command::Top(_)
        | Command::Explain(_)
        | Command::TestAlgorithms(_)
        | Command::Completions(_)
        | Command::Manpages(_) => unreachable!("run() keeps them to itself"),
    }
}

/// Runs a future on a runtime of one thread.
pub(crate) fn block_on(
    future: impl Future<Output = Result<(), Failure>>,
) -> Result<ExitCode, Failure> {
    let runtime = runtime()?;
    runtime.block_on(future).map(|()| ExitCode::SUCCESS)
}

/// A runtime of one thread.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("cannot start the runtime: {error}; are file descriptors left (ulimit -n)?"),
        )
    })
}

/// Runs a command unless it is interrupted, which is all that is told then.
pub(crate) async fn until_interrupted(
    future: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    unless_interrupted(future, INTERRUPTED).await
}

/// A change that was sent may be made although nobody waits for the answer any more:
/// `interrupted` tells so where it matters.
async fn unless_interrupted(
    future: impl Future<Output = Result<(), Failure>>,
    interrupted: &str,
) -> Result<(), Failure> {
    let mut signals = StopSignals::catch()
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot catch signals: {error}")))?;
    tokio::select! {
        result = future => result,
        () = signals.next() => Err(Failure::new(Exit::Interrupted, interrupted)),
    }
}

/// For the planes, whose errors know their own exit codes.
fn plane_failed(error: &dyn std::error::Error, exit_code: u8) -> ExitCode {
    use io::Write as _;

    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(source) = cause {
        let source_text = source.to_string();
        // Some messages contain their cause already.
        if !text.contains(&source_text) {
            text += &format!(": {source_text}");
        }
        cause = source.source();
    }
    // Nothing is left to be done when stderr is gone, too.
    drop(writeln!(io::stderr(), "{text}"));
    ExitCode::from(exit_code)
}
