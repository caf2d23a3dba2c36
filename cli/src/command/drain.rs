//! `drain-backend`: begins a drain, which the control plane carries out, and shows how it
//! goes if that is asked for.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use lb_core::model::{Invalid, Route};
use tokio::time::Instant;

use super::{
    Session, backend, get,
    wait::{self, Look},
    write::{self, Change},
};
use crate::{
    args::DrainBackend,
    exit::{Exit, Failure},
    format, output,
    view::{BackendView, DrainView},
};

/// How much longer than its own time a drain may take until its end is told: proxies have
/// to cut what is left and to say so, and the control plane may just be coming back.
const END_GRACE: Duration = Duration::from_secs(30);

/// What is told to whoever breaks off watching a drain.
pub(super) fn interrupted(args: &DrainBackend) -> String {
    let id = &args.id;
    format!(
        "interrupted; a drain that has begun goes on in the control plane: 'lbctl describe \
         backend {id}' shows it, 'lbctl enable-backend {id}' ends it"
    )
}

/// `drain-backend`
pub(super) async fn run(session: &Session, args: DrainBackend) -> Result<(), Failure> {
    let DrainBackend { id, wait, remove, timeout, write: options } = args;
    warn_of_empty_pool(session, &id).await?;
    let expected = options.if_revision.unwrap_or(0);
    let line = format!("~ backend {id}  state draining");
    let change = Change::Drain { id: id.clone(), timeout, remove };
    let view = write::send(session, &options, change, expected).await?;
    write::report(session, &view, &[line])?;
    if options.dry_run {
        return Ok(());
    }
    if wait {
        return follow(session, &id).await;
    }
    if session.screen.is_for_people() {
        let then = if remove { ", and is then removed" } else { "" };
        output::print(&format!(
            "{id} gets nothing new and finishes what it has{then}   (lbctl wait backend/{id} \
             --for {})",
            if remove { "removed" } else { "drained" }
        ))?;
    }
    Ok(())
}

/// Whoever takes the last backend out should know what clients get from then on.
pub(super) async fn warn_of_empty_pool(session: &Session, id: &str) -> Result<(), Failure> {
    let Some(view) = backend::read(session, id).await? else { return Ok(()) };
    let others = get::backends(session, &view.pool).await?;
    if others.iter().any(|other| other.id != id && other.serves()) {
        return Ok(());
    }
    let (routes, pools) = (get::routes(session).await?, get::pools(session).await?);
    let fallbacks = pools.iter().filter_map(|pool| pool.fallback_pool.as_deref());
    if is_led_to(&view.pool, &routes, fallbacks) {
        output::note(&format!(
            "warning: pool {} has no other backend that serves: its requests are answered 503 \
             until there is one",
            view.pool
        ));
    }
    Ok(())
}

/// Whether requests may come to a pool. What this build cannot read may lead there.
fn is_led_to<'a>(
    pool: &str,
    routes: &[Result<Route, Invalid>],
    mut fallbacks: impl Iterator<Item = &'a str>,
) -> bool {
    let leads = |route: &Route| route.pools.iter().any(|(name, _)| name.as_str() == pool);
    routes.iter().any(|route| route.as_ref().map_or(true, leads)) || fallbacks.any(|to| to == pool)
}

/// Shows what is left until nothing is.
async fn follow(session: &Session, id: &str) -> Result<(), Failure> {
    let mut shown = Progress::new();
    let mut last: Option<DrainView> = None;
    let begun = read_drain(session, id, &mut last).await?;
    let time = last.as_ref().map_or(Duration::ZERO, |d| Duration::from_millis(d.time_left_ms));
    let deadline = Instant::now() + time + END_GRACE;
    let mut first = Some(begun);
    let outcome = wait::until(&session.client, deadline, async || {
        let look = match first.take() {
            Some(look) => look,
            None => read_drain(session, id, &mut last).await?,
        };
        if let Look::NotYet(text) = &look {
            let left = last.as_ref().map_or(0, |drain| drain.time_left_ms);
            shown.tell(text, Duration::from_millis(left));
        }
        Ok(look)
    })
    .await;
    shown.end();
    match outcome? {
        Look::Done(text) if session.screen.is_for_people() => output::print(&text),
        Look::Done(_) => Ok(()),
        Look::NotYet(text) => Err(Failure::new(
            Exit::TimedOut,
            format!(
                "the drain of {id} should be over and is not: {text}; the log of the control plane says more"
            ),
        )),
    }
}

async fn read_drain(
    session: &Session,
    id: &str,
    last: &mut Option<DrainView>,
) -> Result<Look, Failure> {
    let Some(view) = backend::read(session, id).await? else {
        // While it was cutting, the number was that of what was known to be left.
        let how = last.as_ref().map_or_else(String::new, |drain| format!(": {}", drain.outcome()));
        return Ok(Look::Done(format!("{id} is drained and removed{how}")));
    };
    let look = judge(&view);
    *last = view.drain;
    match look {
        Some(look) => Ok(look),
        None => Err(Failure::new(
            Exit::Conflict,
            format!(
                "the drain of {id} was ended by somebody else: it is {} again",
                view.admin_state
            ),
        )),
    }
}

/// Nothing for a backend that does not drain.
pub(super) fn judge(view: &BackendView) -> Option<Look> {
    let drain = view.drain.as_ref()?;
    let id = &view.id;
    if let Some(why) = &drain.held_up {
        return Some(Look::NotYet(format!("the drain of {id} cannot go on: {why}")));
    }
    if !drain.drained {
        return Some(Look::NotYet(format!("{id} is draining; left: {}", drain.left())));
    }
    if drain.remove {
        return Some(Look::NotYet(format!("{id} is drained and about to be removed")));
    }
    let lost: Vec<&str> = drain
        .proxies
        .iter()
        .filter(|proxy| proxy.state == "lost")
        .map(|proxy| proxy.proxy_id.as_str())
        .collect();
    let unknown = if lost.is_empty() {
        String::new()
    } else {
        format!("; what {} had is unknown", lost.join(", "))
    };
    Some(Look::Done(format!("{id} is drained: {}{unknown}", drain.outcome())))
}

/// One line that is refreshed on a terminal, else one line for each change.
#[derive(Debug)]
struct Progress {
    terminal: bool,
    told: String,
}

impl Progress {
    fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), told: String::new() }
    }

    fn tell(&mut self, text: &str, left: Duration) {
        if self.terminal {
            // Nobody is there to be told when stderr is gone.
            drop(write!(io::stderr(), "\r\x1b[2K{text}   ({} left)", format::duration(left)));
        } else if self.told != text {
            output::note(text);
            text.clone_into(&mut self.told);
        }
    }

    fn end(&self) {
        if self.terminal {
            drop(write!(io::stderr(), "\r\x1b[2K"));
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_core::model::{HostMatch, ListenerName, PathMatch, PoolName, RouteName, RoutePools};

    use super::*;

    #[test]
    fn only_a_pool_that_requests_may_come_to_is_missed() {
        let route = Route {
            name: RouteName::new("r").unwrap(),
            listener: ListenerName::default_listener(),
            host: HostMatch::Any,
            path: PathMatch::Prefix("/".into()),
            pools: RoutePools::one(PoolName::default_pool()),
        };
        let newer = Err(Invalid::value("route.host", "of a newer control plane".to_owned()));
        let none = std::iter::empty;
        assert!(is_led_to("default", &[Ok(route.clone())], none()));
        assert!(!is_led_to("green", &[Ok(route.clone())], none()));
        assert!(is_led_to("green", &[Ok(route)], ["green"].into_iter()));
        assert!(is_led_to("green", &[newer], none()));
    }
}
