//! Making the backends of one pool what its sources say.

use std::{collections::BTreeMap, time::Duration};

use lb_core::{
    discovery::{Answered, Changes, Leaving, Member, PATIENCE, Wait, changes, may_leave},
    model::{BackendId, Kind, PoolName, Resource, Source},
};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Discovery, LOOK, RETRY};
use crate::registry::{Item, Origin, PutMode, WriteError, WriteRequest};

impl Discovery {
    /// Adds what is new in one commit, and removes what is gone in another, once it may. What
    /// cannot be done yet is due again.
    pub(super) async fn settle(&mut self, pool: &PoolName) {
        self.due.remove(pool);
        let (_, mut wanted) = self.compare(pool);
        let puts = std::mem::take(&mut wanted.puts);
        self.report_skipped(pool, &wanted);
        if !puts.is_empty() {
            let items = puts.into_iter().map(|backend| Item::Put {
                resource: Box::new(Resource::Backend(backend)),
                mode: PutMode::Upsert,
                assign_id: false,
            });
            // What was added is looked at again at the revision that adds it.
            if !self.write(pool, items.collect()).await {
                return;
            }
        }
        let leaving = self.leaving(pool, &wanted);
        if !leaving.is_empty() {
            let items = leaving
                .into_iter()
                .map(|id| Item::Delete { kind: Kind::Backend, name: id.as_str().to_owned() });
            self.write(pool, items.collect()).await;
        }
    }

    fn sources(&self, pool: &PoolName) -> Vec<Source> {
        self.registry.read(|view| {
            let stored = view.catalog.pools().get(pool);
            stored.map(|stored| stored.value.sources.clone()).unwrap_or_default()
        })
    }

    fn compare(&self, pool: &PoolName) -> (Vec<Member>, Changes) {
        let sources = self.sources(pool);
        let answered: Vec<Answered<'_>> = sources
            .iter()
            .map(|source| {
                let followed = self.followed.get(&(pool.clone(), source.clone()));
                Answered { source, found: followed.and_then(|f| f.last.as_deref()) }
            })
            .collect();
        self.registry.read(|view| {
            let members: Vec<Member> = view
                .catalog
                .backends_of(Some(pool))
                .into_iter()
                .map(|stored| Member {
                    backend: stored.value.clone(),
                    health: view
                        .catalog
                        .status(&stored.value)
                        .map(|status| status.health)
                        .unwrap_or_default(),
                })
                .collect();
            let taken = |id: &BackendId| view.catalog.backends().contains_key(id);
            let changes = changes(pool, &answered, &members, taken);
            (members, changes)
        })
    }

    fn report_skipped(&self, pool: &PoolName, changes: &Changes) {
        for (of, source) in self.followed.keys() {
            if of == pool {
                let skipped = changes.skipped.iter().filter(|(by, _)| by == source);
                let skipped = skipped.map(|(_, why)| why.clone()).collect();
                self.reports.update(pool, source, |report| report.skipped = skipped);
            }
        }
    }

    /// Which of what is gone may be removed now.
    fn leaving(&mut self, pool: &PoolName, wanted: &Changes) -> Vec<BackendId> {
        // With what was just added, which has no verdict yet.
        let members = if wanted.gone.is_empty() { Vec::new() } else { self.compare(pool).0 };
        let (gone, staying): (Vec<&Member>, Vec<&Member>) =
            members.iter().partition(|member| wanted.gone.contains(&member.backend.id));
        let mut by_source: BTreeMap<&Source, Vec<BackendId>> = BTreeMap::new();
        for member in &gone {
            if let Some(source) = &member.backend.source {
                by_source.entry(source).or_default().push(member.backend.id.clone());
            }
        }
        let now = Instant::now();
        let silent = self.followed.iter().any(|((of, _), f)| of == pool && f.last.is_none());
        let has_sources = self.followed.keys().any(|(of, _)| of == pool);
        let (mut leaving, mut waits, mut orphans) = (Vec::new(), BTreeMap::new(), false);
        for (source, ids) in by_source {
            let count = ids.len();
            let key = (pool.clone(), source.clone());
            let wait = if let Some(followed) = self.followed.get_mut(&key) {
                let since = *followed.leaving_since.get_or_insert(now);
                let (pool_size, repeats) = (followed.pool_size, followed.repeats);
                let waited = now - since;
                may_leave(Leaving { count, pool_size, repeats, waited }, &gone, &staying)
            } else {
                // Of a source that was taken from the pool, by somebody who meant it. What
                // takes its place still comes first.
                orphans = true;
                let waited = now - *self.orphaned.entry(pool.clone()).or_insert(now);
                orphans_wait(has_sources, silent, waited, &gone, &staying)
            };
            match wait {
                None => leaving.extend(ids),
                Some(wait) => {
                    waits.insert(source.clone(), (count, wait));
                }
            }
        }
        if !orphans {
            self.orphaned.remove(pool);
        }
        self.note_waits(pool, &waits);
        leaving
    }

    fn note_waits(&mut self, pool: &PoolName, waits: &BTreeMap<Source, (usize, Wait)>) {
        for ((of, source), followed) in &mut self.followed {
            if of != pool {
                continue;
            }
            let wait = waits.get(source);
            if wait.is_none() {
                followed.leaving_since = None;
            }
            self.reports.update(pool, source, |report| {
                report.leaving = wait.map_or(0, |(count, _)| *count);
                report.waiting = wait.map_or("", |(_, wait)| sentence(*wait));
            });
        }
        if !waits.is_empty() {
            self.due.insert(pool.clone(), Instant::now() + LOOK);
        }
    }

    /// Whether it was stored; if not, the pool is due again: its sources need not tell anything
    /// new until then.
    async fn write(&mut self, pool: &PoolName, items: Vec<Item>) -> bool {
        // The guard against mass removal is ours here: it asks the source twice.
        let request = WriteRequest {
            items,
            batch: true,
            force: true,
            origin: Origin::Discovery,
            ..WriteRequest::default()
        };
        match self.registry.write(request).await {
            Ok(_) => {
                if self.unstored.remove(pool) {
                    info!(%pool, "what the sources told is stored again");
                }
                true
            }
            Err(WriteError::Stopping) => false,
            Err(error) => {
                // Once, and not at each of many attempts.
                if self.unstored.insert(pool.clone()) {
                    warn!(%pool, %error, "what the sources told could not be stored; it is tried again");
                }
                self.due.insert(pool.clone(), Instant::now() + RETRY);
                false
            }
        }
    }
}

fn orphans_wait(
    has_sources: bool,
    silent: bool,
    waited: Duration,
    gone: &[&Member],
    staying: &[&Member],
) -> Option<Wait> {
    if !has_sources {
        return None;
    }
    if silent && waited < PATIENCE {
        return Some(Wait::FirstChecks);
    }
    may_leave(Leaving { count: 0, pool_size: 0, repeats: 2, waited }, gone, staying)
}

fn sentence(wait: Wait) -> &'static str {
    match wait {
        Wait::Confirmation => {
            "they are over half of the pool: they go when the source answers the same once more"
        }
        Wait::FirstChecks => "what is new waits for its first check: they go after it",
        Wait::LastServing => {
            "nothing else of the pool can serve: they stay until something can; see what is wrong \
             with the others"
        }
    }
}
