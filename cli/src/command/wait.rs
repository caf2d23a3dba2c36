//! `wait`: until something is true, or the time is up.
//!
//! The control plane says when something changed; only then is the state read again.
//! A second look now and then covers what has no event, such as a proxy that catches up
//! with a change, or a control plane that was restarted in between.

use std::{future::pending, time::Duration};

use lb_proto::v1 as pb;
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Streaming;

use super::{Session, backend, drain, get, progress, remedy};
use crate::{
    args::{Awaited, Target, WaitFor},
    client::Client,
    exit::{Exit, Failure},
    format,
    view::{BackendView, ProgressView, ProxyView},
};

/// How long to wait unless told otherwise.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// How often to look when nothing happened.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// Events come in bunches; one look is enough for those of one moment.
const BUNCH: Duration = Duration::from_millis(10);

/// Before following again, when the stream of events ended, and between two attempts to find a
/// control plane that is away.
pub(super) const RECONNECT: Duration = Duration::from_millis(200);

/// Whether a condition holds, in words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Look {
    /// It holds.
    Done(String),
    /// Not yet; how it is instead.
    NotYet(String),
}

/// What was waited for has come.
#[derive(Debug, Serialize)]
struct DoneView<'a> {
    done: bool,
    target: &'a str,
    message: &'a str,
}

/// Connects to a control plane, which may still be starting: who waits for proxies after a
/// restart need not wait for the control plane first.
pub(super) async fn connect(servers: &[String], timeout: Duration) -> Result<Client, Failure> {
    let deadline = Instant::now() + timeout;
    loop {
        match Client::connect(servers, timeout).await {
            Err(failure)
                if failure.exit == Exit::Unreachable && Instant::now() + RECONNECT < deadline =>
            {
                sleep(RECONNECT).await;
            }
            outcome => return outcome,
        }
    }
}

/// Waits as told on the command line.
pub(super) async fn run(session: &Session, args: WaitFor) -> Result<(), Failure> {
    if args.count.is_some() && args.target != Target::Proxies {
        return Err(Failure::new(Exit::Usage, "--count belongs to 'lbctl wait proxies'"));
    }
    if let Target::Revision(revision) = args.target {
        if args.condition.is_some() {
            let why = "revision/N takes no --for: it waits until every live proxy has applied it";
            return Err(Failure::new(Exit::Usage, why));
        }
        return wait_applied(session, revision).await;
    }
    let what = describe(&args);
    let client = &session.client;
    let deadline = Instant::now() + client.timeout();
    let outcome = match &args.target {
        Target::Backend(id) => {
            let condition = args.condition.unwrap_or(Awaited::Healthy);
            let known = matches!(
                condition,
                Awaited::Healthy | Awaited::Down | Awaited::Drained | Awaited::Removed
            );
            refuse_unless(known, "a backend", "healthy, down, drained or removed")?;
            let mut drained = false;
            until(client, deadline, async || {
                look_at_backend(session, id, condition, &mut drained).await
            })
            .await
        }
        Target::Pool(name) => {
            let known = matches!(args.condition, None | Some(Awaited::Healthy));
            refuse_unless(known, "a pool", "healthy")?;
            until(client, deadline, async || look_at_pool(session, name).await).await
        }
        Target::Proxy(id) => {
            let condition = args.condition.unwrap_or(Awaited::Synced);
            let known = matches!(condition, Awaited::Synced | Awaited::Lost | Awaited::Stopped);
            refuse_unless(known, "a proxy", "synced, lost or stopped")?;
            until(client, deadline, async || {
                let proxies = get::proxies(session).await?;
                Ok(look_at_proxy(&proxies, id, condition))
            })
            .await
        }
        Target::Proxies => {
            let known = matches!(args.condition, None | Some(Awaited::Synced));
            refuse_unless(known, "proxies", "synced")?;
            until(client, deadline, async || {
                Ok(look_at_proxies(
                    &get::proxies(session).await?,
                    args.count.map(|count| count as usize),
                ))
            })
            .await
        }
        Target::Revision(_) => unreachable!("handled above"),
    }?;
    match outcome {
        Look::Done(message) => {
            let target = name_of(&args.target);
            let view = DoneView { done: true, target: &target, message: &message };
            session.screen.answer(&view, || vec![target.clone()], || message.clone())
        }
        Look::NotYet(text) => Err(Failure::new(
            Exit::TimedOut,
            format!(
                "waited {} for {what}: {text}; look at it with {}, or wait longer with --timeout",
                format::duration(client.timeout()),
                next_look(&args.target),
            ),
        )),
    }
}

/// Looks now and after each event, until it is done or the time is up; then the last
/// look is returned.
pub(crate) async fn until(
    client: &Client,
    deadline: Instant,
    mut look: impl AsyncFnMut() -> Result<Look, Failure>,
) -> Result<Look, Failure> {
    // Followed before the first look, so that nothing falls in between.
    let mut events = follow(client).await;
    let mut last = look().await?;
    loop {
        if matches!(last, Look::Done(_)) {
            return Ok(last);
        }
        tokio::select! {
            () = sleep_until(deadline) => return Ok(last),
            lives = next_event(&mut events) => {
                sleep(if lives { BUNCH } else { RECONNECT }).await;
                if !lives {
                    events = None;
                }
            }
            () = sleep(SECOND_LOOK) => {}
        }
        if events.is_none() {
            events = follow(client).await;
        }
        match look().await {
            Ok(seen) => last = seen,
            // It was there a moment ago, and may be back in another.
            Err(failure) if failure.exit == Exit::Unreachable => {
                last = Look::NotYet(failure.message);
            }
            Err(failure) => return Err(failure),
        }
    }
}

async fn follow(client: &Client) -> Option<Streaming<pb::Event>> {
    client.call(client.fleet().watch(pb::WatchRequest { past: 0, ..Default::default() })).await.ok()
}

/// Whether the stream goes on; never completes without one.
async fn next_event(events: &mut Option<Streaming<pb::Event>>) -> bool {
    match events {
        Some(events) => matches!(events.message().await, Ok(Some(_))),
        None => pending().await,
    }
}

/// `drains` is whether it was seen draining before.
async fn look_at_backend(
    session: &Session,
    id: &str,
    condition: Awaited,
    drains: &mut bool,
) -> Result<Look, Failure> {
    match (backend::read(session, id).await?, condition) {
        // Whoever removed it when it was drained did not keep it until we looked.
        (None, Awaited::Drained) if *drains => {
            Ok(Look::Done(format!("{id} is drained and removed")))
        }
        (None, Awaited::Removed) => Ok(Look::Done(format!("{id} is removed"))),
        (None, _) => {
            // Names the ones that there are.
            let all = get::backends(session, "").await?;
            get::choose(all, Some(id), "backend", |view| &view.id)?;
            Ok(Look::NotYet(format!("{id} has just appeared")))
        }
        (Some(view), condition) => {
            *drains = view.drain.is_some();
            Ok(judge_backend(&view, condition))
        }
    }
}

fn judge_backend(view: &BackendView, condition: Awaited) -> Look {
    let text = format!("{} is {}: {}", view.id, view.state(), remedy::why(view));
    if condition == Awaited::Drained {
        return drain::judge(view).unwrap_or(Look::NotYet(text));
    }
    let done = match condition {
        // What the former check said is no word about this one.
        Awaited::Healthy if is_awaited(view) => return Look::NotYet(not_checked(view)),
        Awaited::Healthy => view.is_healthy(),
        Awaited::Down => view.health == "down",
        Awaited::Drained
        | Awaited::Removed
        | Awaited::Synced
        | Awaited::Lost
        | Awaited::Stopped => false,
    };
    if done { Look::Done(text) } else { Look::NotYet(text) }
}

fn is_awaited(view: &BackendView) -> bool {
    view.checks.as_ref().is_some_and(|checks| checks.awaited)
}

fn not_checked(view: &BackendView) -> String {
    format!("the check of {} was changed, and has not been made since", view.id)
}

async fn look_at_pool(session: &Session, name: &str) -> Result<Look, Failure> {
    get::object(session, "pool", name).await?;
    Ok(judge_pool(name, &get::backends(session, name).await?))
}

/// Healthy when every enabled backend is, and there is one.
pub(crate) fn judge_pool(name: &str, backends: &[BackendView]) -> Look {
    let wanted = || backends.iter().filter(|backend| backend.admin_state == "enabled");
    let missing: Vec<String> = wanted()
        .filter(|backend| !backend.is_healthy() || is_awaited(backend))
        .map(|backend| match is_awaited(backend) {
            true => not_checked(backend),
            false => format!("{} is {}: {}", backend.id, backend.state(), remedy::why(backend)),
        })
        .collect();
    match (wanted().count(), missing.as_slice()) {
        (0, _) => Look::NotYet(format!("pool {name} has no enabled backend")),
        (count, []) => Look::Done(format!(
            "pool {name} is healthy: {} up",
            format::count(count, "backend is", "backends are")
        )),
        (_, missing) => Look::NotYet(missing.join("; ")),
    }
}

fn look_at_proxy(proxies: &[ProxyView], id: &str, condition: Awaited) -> Look {
    match proxies.iter().find(|proxy| proxy.id == id) {
        None => Look::NotYet(format!("{id} has never connected")),
        Some(proxy) => {
            let text = format!("{id} is {} at revision {}", proxy.state, proxy.applied_revision);
            let done = match condition {
                // However it went.
                Awaited::Lost => !proxy.is_connected(),
                condition => proxy.state == condition.name(),
            };
            if done { Look::Done(text) } else { Look::NotYet(text) }
        }
    }
}

/// Done when `count` proxies are in sync, or without one, all that are connected.
fn look_at_proxies(proxies: &[ProxyView], count: Option<usize>) -> Look {
    let synced = proxies.iter().filter(|proxy| proxy.state == "synced").count();
    let connected = proxies.iter().filter(|proxy| proxy.is_connected()).count();
    let wanted = count.unwrap_or_else(|| connected.max(1));
    let text = format!("{synced}/{wanted} proxies are in sync");
    if synced >= wanted {
        return Look::Done(text);
    }
    let others: Vec<String> = proxies
        .iter()
        .filter(|proxy| proxy.state != "synced" && !proxy.is_stopped())
        .map(|proxy| format!("{} is {}", proxy.id, proxy.state))
        .collect();
    if others.is_empty() {
        Look::NotYet(text)
    } else {
        Look::NotYet(format!("{text}; {}", others.join(", ")))
    }
}

async fn wait_applied(session: &Session, revision: u64) -> Result<(), Failure> {
    let timeout = session.client.timeout();
    let progress = applied(&session.client, revision, timeout).await?;
    if let Some(failure) = progress::failure(&progress, timeout) {
        return Err(failure);
    }
    session.screen.answer(
        &progress,
        || vec![format!("revision/{revision}")],
        || progress::applied(&progress),
    )
}

/// Waits until every live proxy has applied a revision, one has refused it, or the time
/// is up; tells how far it got.
pub(crate) async fn applied(
    client: &Client,
    revision: u64,
    timeout: Duration,
) -> Result<ProgressView, Failure> {
    let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    let request = pb::WaitAppliedRequest { revision, timeout_ms };
    let mut stream = client.call(client.fleet().wait_applied(request)).await?;
    // The server keeps the time; this is for one that stopped answering.
    let deadline = Instant::now() + timeout + Duration::from_secs(2);
    let mut last: Option<ProgressView> = None;
    loop {
        tokio::select! {
            message = stream.message() => match message {
                Ok(Some(progress)) => last = Some(progress.into()),
                Ok(None) => break,
                Err(status) => return Err(client.failure(&status)),
            },
            () = sleep_until(deadline) => break,
        }
    }
    last.ok_or_else(|| client.failure(&tonic::Status::deadline_exceeded("")))
}

fn refuse_unless(known: bool, target: &str, conditions: &str) -> Result<(), Failure> {
    if known {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, format!("{target} can be waited on --for {conditions}")))
}

fn describe(args: &WaitFor) -> String {
    let to_be = |default: Awaited| args.condition.unwrap_or(default).name();
    match &args.target {
        Target::Backend(id) => format!("{id} to be {}", to_be(Awaited::Healthy)),
        Target::Pool(name) => format!("pool {name} to be healthy"),
        Target::Proxy(id) => format!("{id} to be {}", to_be(Awaited::Synced)),
        Target::Proxies => "the proxies to be in sync".to_owned(),
        Target::Revision(revision) => format!("revision {revision} to be applied"),
    }
}

/// As it is typed.
fn name_of(target: &Target) -> String {
    match target {
        Target::Backend(id) => format!("backend/{id}"),
        Target::Pool(name) => format!("pool/{name}"),
        Target::Proxy(id) => format!("proxy/{id}"),
        Target::Proxies => "proxies".to_owned(),
        Target::Revision(revision) => format!("revision/{revision}"),
    }
}

fn next_look(target: &Target) -> String {
    match target {
        Target::Backend(id) => format!("'lbctl describe backend {id}'"),
        Target::Pool(name) => format!("'lbctl describe pool {name}'"),
        Target::Proxy(id) => format!("'lbctl describe proxy {id}'"),
        Target::Proxies | Target::Revision(_) => "'lbctl get proxies'".to_owned(),
    }
}

#[cfg(test)]
mod tests;
