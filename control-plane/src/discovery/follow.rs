//! The life of one source: ask, tell, wait.

use std::{sync::Arc, time::Duration};

use lb_core::{
    discovery::Found,
    model::{PoolName, Reason, Source},
};
use tokio::{sync::mpsc, time::sleep};

use super::{Resolver, dns, file, pause, resolver::Answer};

/// Between two looks at a file.
const FILE_PERIOD: Duration = Duration::from_secs(1);
/// Backends of one source; more are a mistake that would cost every proxy.
pub(super) const FOUND_MAX: usize = 1000;

/// What a source said.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) pool: PoolName,
    pub(super) source: Source,
    /// Nothing if it failed; with a failure beside it, it may not be all.
    pub(super) found: Option<Vec<Found>>,
    pub(super) failure: Option<Reason>,
    /// Until it is asked again.
    pub(super) next: Duration,
}

/// Follows a source until it is dropped.
pub(super) async fn run(
    pool: PoolName,
    source: Source,
    resolver: Arc<Resolver>,
    tell: mpsc::Sender<Told>,
) {
    let mut failures = 0;
    loop {
        let (found, failure, ttl) = match bounded(ask(&source, &resolver).await) {
            Ok(answer) => (Some(answer.found), answer.incomplete, answer.ttl),
            Err(failure) => (None, Some(failure), Duration::ZERO),
        };
        failures = if failure.is_some() { failures + 1 } else { 0 };
        let next = match (&source, failures) {
            (Source::File { .. }, _) => FILE_PERIOD,
            (_, 0) => ttl,
            (_, failures) => pause(failures),
        };
        let (pool, source) = (pool.clone(), source.clone());
        if tell.send(Told { pool, source, found, failure, next }).await.is_err() {
            return;
        }
        sleep(next).await;
    }
}

async fn ask(source: &Source, resolver: &Resolver) -> Result<Answer<Found>, Reason> {
    match source {
        Source::Dns { name, port } => dns::addresses(resolver, name, *port).await,
        Source::Srv { name } => dns::services(resolver, name).await,
        Source::File { path } => {
            let path = Arc::clone(path);
            let read = tokio::task::spawn_blocking(move || file::read(&path));
            let found = read.await.unwrap_or_else(|error| {
                Err(Reason::new("source_unreadable", format!("reading it failed: {error}")))
            })?;
            Ok(Answer { found, ttl: FILE_PERIOD, incomplete: None })
        }
    }
}

fn bounded(answer: Result<Answer<Found>, Reason>) -> Result<Answer<Found>, Reason> {
    let answer = answer?;
    if answer.found.len() > FOUND_MAX {
        return Err(Reason::new(
            "source_too_large",
            format!("it tells {} backends; at most {FOUND_MAX} are taken", answer.found.len()),
        ));
    }
    Ok(answer)
}
