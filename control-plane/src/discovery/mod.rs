//! Discovery: pools whose backends are found and not added by hand.
//!
//! ```text
//!   name servers, files --> follow (one task per source) --Told--> Discovery --> Registry
//!                                                                     ^              |
//!                                                                     +--revisions---+
//! ```
//!
//! One task owns all that is known about the sources. It compares with the registry
//! whenever a source has answered and whenever the registry has changed, so that a new
//! source, a verdict that was waited for and a command of an operator are all seen. What
//! the comparison means is decided in `lb_core::discovery`. A pool of which something is
//! still to be done, since it waits or could not be stored, is looked at again after a while.

mod dns;
mod file;
mod follow;
mod pool;
mod report;
mod resolver;
mod retry;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use lb_core::{
    discovery::Found,
    model::{Address, PoolName, Reason, Source},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use self::follow::{FOUND_MAX, Told};
pub(crate) use self::{
    report::{SourceReport, Sources},
    resolver::Resolver,
    retry::pause,
};
use crate::{
    clock::present,
    events::{EventLog, EventType},
    registry::Registry,
};

/// Answers that may wait to be looked at; beyond that, their sources wait.
const TOLD_MAX: usize = 64;
/// Between looks at removals that wait.
const LOOK: Duration = Duration::from_secs(1);
/// Between attempts to store what the sources told.
const RETRY: Duration = Duration::from_secs(5);

/// Follows the sources of all pools until it is told to stop.
pub(crate) async fn run(
    registry: Registry,
    events: Arc<EventLog>,
    reports: Arc<Sources>,
    resolver: Arc<Resolver>,
    stop: CancellationToken,
) {
    let (tell, mut told) = mpsc::channel(TOLD_MAX);
    let mut revisions = registry.revisions();
    let tracker = TaskTracker::new();
    let mut discovery = Discovery {
        registry,
        events,
        reports,
        resolver,
        tell,
        stop: stop.clone(),
        tracker,
        followed: BTreeMap::new(),
        orphaned: BTreeMap::new(),
        due: BTreeMap::new(),
        unstored: BTreeSet::new(),
    };
    revisions.mark_changed();
    loop {
        let due = discovery.due.values().min().copied();
        tokio::select! {
            () = stop.cancelled() => break,
            changed = revisions.changed() => {
                if changed.is_err() {
                    break;
                }
                discovery.follow();
                discovery.settle_all().await;
            }
            Some(told) = told.recv() => {
                let pool = told.pool.clone();
                if discovery.take(told) {
                    discovery.settle(&pool).await;
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                discovery.settle_due().await;
            }
        }
    }
    discovery.tracker.close();
    discovery.tracker.wait().await;
}

#[derive(Debug)]
struct Discovery {
    registry: Registry,
    events: Arc<EventLog>,
    reports: Arc<Sources>,
    resolver: Arc<Resolver>,
    tell: mpsc::Sender<Told>,
    stop: CancellationToken,
    tracker: TaskTracker,
    followed: BTreeMap<(PoolName, Source), Followed>,
    /// Pools with backends of sources that they do not have any more, since when.
    orphaned: BTreeMap<PoolName, Instant>,
    /// Pools of which something is still to be done, and when they are looked at again.
    due: BTreeMap<PoolName, Instant>,
    /// Pools whose sources told what could not be stored.
    unstored: BTreeSet<PoolName>,
}

/// One source.
#[derive(Debug)]
struct Followed {
    task: CancellationToken,
    /// Its last answer; nothing if there was none.
    last: Option<Vec<Found>>,
    /// How often in a row it told these addresses.
    repeats: u32,
    /// Backends of the pool when it told these addresses first.
    pool_size: usize,
    /// Since when backends of it are left out.
    leaving_since: Option<Instant>,
    is_failing: bool,
}

impl Discovery {
    /// Makes the tasks what the pools of the registry want.
    fn follow(&mut self) {
        let wanted: BTreeSet<(PoolName, Source)> = self.registry.read(|view| {
            let pools = view.catalog.pools().values().map(|stored| &stored.value);
            let pairs = pools.flat_map(|pool| {
                pool.sources.iter().map(|source| (pool.name.clone(), source.clone()))
            });
            pairs.collect()
        });
        let unwanted = self.followed.extract_if(.., |pair, _| !wanted.contains(pair));
        for ((pool, source), followed) in unwanted {
            followed.task.cancel();
            self.reports.forget(&pool, &source);
        }
        for (pool, source) in wanted {
            if self.followed.contains_key(&(pool.clone(), source.clone())) {
                continue;
            }
            let task = self.stop.child_token();
            let (resolver, tell) = (Arc::clone(&self.resolver), self.tell.clone());
            let run = follow::run(pool.clone(), source.clone(), resolver, tell);
            let until = task.clone();
            self.tracker.spawn(async move { until.run_until_cancelled(run).await });
            let followed = Followed {
                task,
                last: None,
                repeats: 0,
                pool_size: 0,
                leaving_since: None,
                is_failing: false,
            };
            self.followed.insert((pool, source), followed);
        }
    }

    /// Notes what a source told. Returns whether a comparison could have something to do.
    fn take(&mut self, told: Told) -> bool {
        let Told { pool, source, found, failure, next } = told;
        let pair = (pool, source);
        // An answer may come after its source was taken from the pool.
        if !self.followed.contains_key(&pair) {
            return false;
        }
        let now_owned = self.owned(&pair);
        let Some(followed) = self.followed.get_mut(&pair) else { return false };
        let (pool, source) = &pair;
        self.reports.update(pool, source, |report| {
            let now = present();
            report.next = Some(now.after(next));
            if let Some(found) = &found {
                report.answered = Some(now);
                report.found = found.len();
            }
            match &failure {
                None => report.failing_since = None,
                Some(reason) => {
                    report.failing_since.get_or_insert(now);
                    report.failure = reason.clone();
                }
            }
        });
        let was_failing = std::mem::replace(&mut followed.is_failing, failure.is_some());
        let changed = match (found, &failure) {
            (None, _) => false,
            (Some(found), None) => followed.hear(found, now_owned.pool_size),
            // Half an answer removes nothing, and adds up to the bound of a whole one.
            (Some(found), Some(_)) => {
                let mut known = followed.last.take().unwrap_or(now_owned.found);
                let before = known.len();
                for one in found {
                    if known.len() < FOUND_MAX
                        && known.iter().all(|other| other.address != one.address)
                    {
                        known.push(one);
                    }
                }
                let grown = known.len() > before;
                followed.last = Some(known);
                grown
            }
        };
        self.tell_failure(pool, source, was_failing, failure);
        changed
    }

    /// What the registry holds of a source, in case that is all there is to go by.
    fn owned(&self, (pool, source): &(PoolName, Source)) -> Owned {
        self.registry.read(|view| {
            let members = view.catalog.backends_of(Some(pool));
            let owned = members.iter().map(|stored| &stored.value);
            let owned = owned.filter(|backend| backend.source.as_ref() == Some(source));
            let found = owned.map(|backend| Found {
                weight: Some(backend.weight),
                ..Found::new(backend.address.clone())
            });
            Owned { found: found.collect(), pool_size: members.len() }
        })
    }

    fn tell_failure(
        &self,
        pool: &PoolName,
        source: &Source,
        was_failing: bool,
        failure: Option<Reason>,
    ) {
        let revision = self.registry.revision();
        match failure {
            Some(reason) if !was_failing => {
                warn!(%pool, %source, reason.message, "a source fails; its last backends are kept");
                let message = format!("{source}: {}; its last backends are kept", reason.message);
                let reason = Reason::new(&reason.code, message);
                self.events.record(
                    EventType::SourceFailed,
                    "pool",
                    pool.as_str(),
                    revision,
                    reason,
                );
            }
            None if was_failing => {
                info!(%pool, %source, "a source answers again");
                let reason = Reason::new("source_answers", format!("{source} answers again"));
                let what = EventType::SourceRecovered;
                self.events.record(what, "pool", pool.as_str(), revision, reason);
            }
            _ => {}
        }
    }

    async fn settle_all(&mut self) {
        let pools: BTreeSet<PoolName> = self.registry.read(|view| {
            let of_sources = self.followed.keys().map(|(pool, _)| pool);
            let backends = view.catalog.followed().map(|stored| &stored.value);
            let discovered = backends.filter(|backend| backend.source.is_some());
            of_sources.chain(discovered.map(|backend| &backend.pool)).cloned().collect()
        });
        self.due.retain(|pool, _| pools.contains(pool));
        self.orphaned.retain(|pool, _| pools.contains(pool));
        for pool in pools {
            self.settle(&pool).await;
        }
    }

    async fn settle_due(&mut self) {
        let now = Instant::now();
        let due = self.due.iter().filter(|(_, at)| **at <= now).map(|(pool, _)| pool.clone());
        for pool in due.collect::<Vec<_>>() {
            self.settle(&pool).await;
        }
    }
}

/// What the registry holds of a source.
struct Owned {
    found: Vec<Found>,
    /// Of its pool, with backends of other sources and of nobody's.
    pool_size: usize,
}

impl Followed {
    /// Takes a whole answer. Returns whether it says something new, or confirms what was
    /// said only once.
    fn hear(&mut self, found: Vec<Found>, pool_size: usize) -> bool {
        let addresses = |found: &[Found]| -> BTreeSet<Address> {
            found.iter().map(|one| one.address.clone()).collect()
        };
        let same = self.last.as_deref().is_some_and(|last| addresses(last) == addresses(&found));
        let identical = self.last.as_ref() == Some(&found);
        if same {
            self.repeats = self.repeats.saturating_add(1);
        } else {
            (self.repeats, self.pool_size) = (1, pool_size);
        }
        self.last = Some(found);
        !identical || self.repeats == 2
    }
}
