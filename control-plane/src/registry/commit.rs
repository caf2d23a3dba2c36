//! Commits, and what becomes of one that fails.
//!
//! A commit that fails is in doubt: the store may hold it all the same, say if only the last
//! sync failed. So the store is opened again and compared with what this process holds. It is
//! the state before the change, and the write is refused; or the state after it, and the
//! write has happened; or anything else, and then it is not the store that was opened first,
//! and nothing is written to it. Until one of them is known, nothing else is written.
//!
//! ```text
//!   works --a commit fails--> opened again, has room ------------------> works
//!                         \                         (heal, again and again)
//!                          `--> outage: no writes --------------------->/
//! ```

use std::{error::Error as _, sync::PoisonError};

use lb_core::{
    model::{Key, Reason, Resource, Version},
    sync::{Object, ObjectSet},
};
use lb_proto::convert;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::{Note, news::News, picks, writer::Writer};
use crate::{
    clock::{present, told},
    events::EventType,
    registry::answers::Answers,
    store::{Answered, Batch, Contents, StoreError},
};

/// One change of the state, as it is stored and as it is shown.
#[derive(Debug)]
pub(super) struct Change {
    upserts: Vec<Resource>,
    batch: Batch,
}

impl Writer {
    /// Stores a change, then shows it.
    pub(super) fn commit(
        &mut self,
        upserts: Vec<Resource>,
        deletes: Vec<Key>,
        next_backend_number: u64,
        answered: Option<Answered>,
    ) -> Result<(), StoreError> {
        let expected_revision = *self.shared.revision.borrow();
        let changed = !upserts.is_empty() || !deletes.is_empty();
        let revision = expected_revision + u64::from(changed);
        let objects = upserts
            .iter()
            .map(|r| Object { key: r.key(), revision, payload: convert::encode(r) })
            .collect();
        let batch = Batch {
            expected_revision,
            revision,
            upserts: objects,
            deletes,
            next_backend_number,
            committed_unix_ms: told(present()),
            answered,
        };
        if let Some(why) = &*self.shared.outage.borrow() {
            return Err(StoreError::Failed { doing: "written", source: why.clone().into() });
        }
        let change = Change { upserts, batch };
        let began = Instant::now();
        if let Err(failure) = self.store.commit(&change.batch) {
            self.in_doubt = Some(change);
            return self.after(failure);
        }
        let took = began.elapsed().as_micros();
        self.counts().commits.record(u64::try_from(took).unwrap_or(u64::MAX));
        self.show(change);
        Ok(())
    }

    /// Stores what is no part of the state. Whether it could be; if not, it is for the caller to
    /// come again, since nobody else will.
    pub(super) fn note(&mut self, note: &Note) -> bool {
        if self.shared.outage.borrow().is_some() {
            return false;
        }
        let noted = match note {
            Note::Proxies(present) => self.store.remember_proxies(present),
            Note::Holders(holders) => self.store.remember_holders(holders),
            Note::Term(term) => self.store.raise_term(*term),
        };
        let Err(failure) = noted else { return true };
        debug!(error = %failure, ?note, "it could not be noted");
        self.after(failure).ok();
        false
    }

    /// Finds out what became of a commit that failed. Nothing is wrong if it is in the store.
    pub(super) fn after(&mut self, failure: StoreError) -> Result<(), StoreError> {
        self.counts().store_failures += 1;
        error!(error = %failure, "the store failed; it is opened again, until it takes writes");
        self.shared.outage.send_replace(Some(cause(&failure)));
        self.events.record(
            EventType::StoreFailed,
            "store",
            "store",
            *self.shared.revision.borrow(),
            Reason::new("store_failed", failure.to_string()),
        );
        match self.heal() {
            Some(true) => Ok(()),
            Some(false) => Err(failure),
            None => Err(StoreError::InDoubt { source: Box::new(failure) }),
        }
    }

    /// Opens the store again after a failure, and takes writes if it has room for them. Whether
    /// it holds the change that was in doubt; nothing while that is not known.
    pub(super) fn heal(&mut self) -> Option<bool> {
        if self.shared.outage.borrow().is_none() {
            return Some(false);
        }
        let held = self.settle();
        let room = match &held {
            Ok(_) => self.store.make_room().and_then(|()| self.begin_term()),
            Err(_) => Ok(()),
        };
        match held.as_ref().err().or_else(|| room.as_ref().err()) {
            None => {
                self.shared.outage.send_replace(None);
                info!("the store takes writes again");
                self.events.record(
                    EventType::StoreRecovered,
                    "store",
                    "store",
                    *self.shared.revision.borrow(),
                    Reason::new("store_recovered", "the store takes writes again"),
                );
            }
            Some(error) => {
                let why = cause(error);
                let is_news = self.shared.outage.borrow().as_ref() != Some(&why);
                if is_news {
                    warn!(%error, "the store still takes no writes");
                    self.shared.outage.send_replace(Some(why));
                }
            }
        }
        held.ok()
    }

    /// Opens the store again and takes over what it holds. Whether the change in doubt is in it.
    fn settle(&mut self) -> Result<bool, StoreError> {
        self.store.reopen()?;
        let contents = self.store.load()?;
        let batch = self.in_doubt.as_ref().map(|change| &change.batch);
        let stored = {
            let view = self.shared.view.read().unwrap_or_else(PoisonError::into_inner);
            holds(&contents, view.publisher.version(), view.publisher.objects(), batch)?
        };
        if let Some(change) = self.in_doubt.take().filter(|_| stored) {
            info!(revision = change.batch.revision, "a write that was in doubt is stored");
            self.show(change);
        }
        self.answers = Answers::new(contents.answers);
        Ok(stored)
    }

    /// Shows a change that is stored.
    fn show(&mut self, change: Change) {
        let Change { upserts, batch } = change;
        self.next_backend_number = batch.next_backend_number;
        if let Some(answered) = batch.answered {
            self.answers.insert(answered);
        }
        let revision = batch.revision;
        if revision == batch.expected_revision {
            return;
        }
        // What is judged is judged outside of the lock that keeps all readers out: only this task
        // changes the view.
        let (mut news, panics) = {
            let view = self.shared.view.read().unwrap_or_else(PoisonError::into_inner);
            self.count_transitions(&view.catalog, &upserts);
            let news = News::of(&view.catalog, &upserts, &batch.deletes);
            (news, picks::panics(&view.catalog, &upserts, &batch.deletes))
        };
        {
            let mut view = self.shared.view.write().unwrap_or_else(PoisonError::into_inner);
            for resource in upserts {
                view.catalog.put(resource, revision);
            }
            for key in &batch.deletes {
                view.catalog.remove(key);
            }
            let committed_unix_ms = batch.committed_unix_ms;
            view.publisher.commit(revision, batch.upserts, batch.deletes, committed_unix_ms);
            view.committed = present();
        }
        {
            let view = self.shared.view.read().unwrap_or_else(PoisonError::into_inner);
            news.extend(picks::news(&panics, &view.catalog));
        }
        self.shared.revision.send_replace(revision);
        self.tell(news, revision);
    }
}

/// What the storage said, without what was being done.
fn cause(failure: &StoreError) -> String {
    failure.source().map_or_else(|| failure.to_string(), ToString::to_string)
}

/// Whether a store holds a change that was to be made to a state. An error if it holds neither
/// the state before the change nor the one after it.
fn holds(
    contents: &Contents,
    version: Version,
    before: &ObjectSet,
    change: Option<&Batch>,
) -> Result<bool, StoreError> {
    let found: ObjectSet = contents.objects.iter().cloned().collect();
    let is = |revision: u64, objects: &ObjectSet| {
        contents.epoch == version.epoch
            && contents.revision == revision
            && found.digest() == objects.digest()
    };
    if let Some(batch) = change {
        let mut after = before.clone();
        for object in &batch.upserts {
            after.insert(object.clone());
        }
        for key in &batch.deletes {
            after.remove(key);
        }
        // A change of nothing but an answer has no revision of its own.
        let is_answered = batch.answered.as_ref().is_none_or(|a| contents.answers.contains(a));
        if is(batch.revision, &after) && is_answered {
            return Ok(true);
        }
    }
    if is(version.revision, before) {
        return Ok(false);
    }
    let found = Version { epoch: contents.epoch, revision: contents.revision };
    Err(StoreError::Replaced { found, held: version })
}

#[cfg(test)]
mod tests;
