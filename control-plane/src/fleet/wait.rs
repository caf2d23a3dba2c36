//! Waiting until a revision is applied everywhere.
//!
//! Whom to wait for follows from the fleet alone: every live proxy, and every proxy
//! that was lost at or after the revision, because it was live when the revision was
//! committed. A lost one that had not applied the revision is named as a laggard and
//! never counts as done: it may be serving traffic by the old state. One that said goodbye serves
//! none, and is not waited for. For a while after a restart of the control plane those are named
//! that were connected to the process before, and are not back.

use std::{sync::Arc, time::Duration};

use lb_core::{
    model::{Key, ProxyId},
    sync::Rejection,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{Entries, Entry, Fleet, Life, locked};

/// How far a revision got.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WaitProgress {
    /// Waited for.
    pub revision: u64,
    /// Proxies that must apply it.
    pub proxies: u32,
    /// Those that have.
    pub applied: u32,
    /// Nothing is left to wait for: all have, or one has refused.
    pub done: bool,
    /// Those that have not.
    pub laggards: Vec<Laggard>,
    /// What was refused of this revision, and by whom.
    pub rejections: Vec<(ProxyId, Rejection)>,
    /// Proxies that were lost before the revision and are not waited for, but may still serve an
    /// older one.
    pub lost: Vec<Laggard>,
}

/// A proxy that has not applied a revision.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Laggard {
    /// Which.
    pub proxy: ProxyId,
    /// What it has applied instead.
    pub applied_revision: u64,
    /// Whether it is not connected.
    pub lost: bool,
    /// Why it refuses the whole state, if it does. One that waits for backends of its pools is
    /// asked again by itself.
    pub refusal: Option<String>,
    /// Whether it was connected to the process before, and is not back: what it has applied is
    /// unknown.
    pub away: bool,
    /// When it was last heard of; of one that is away, when this process began.
    pub last_seen: Instant,
}

/// Proxies that were connected to the process before this one.
#[derive(Debug)]
pub(super) struct Returning {
    proxies: Vec<ProxyId>,
    since: Instant,
    /// Who is not back then is as good as lost.
    until: Instant,
}

/// One wait for one revision.
#[derive(Debug)]
pub struct Waiter {
    fleet: Arc<Fleet>,
    changes: watch::Receiver<u64>,
    revision: u64,
    started: Instant,
    deadline: Instant,
    last: Option<WaitProgress>,
}

impl Waiter {
    /// Begins to wait, for at most `limit`.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>, revision: u64, limit: Duration) -> Self {
        let changes = fleet.changes.subscribe();
        let started = Instant::now();
        Self { fleet, changes, revision, started, deadline: started + limit, last: None }
    }

    /// Since the wait began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The next progress: at once the first time, then whenever there is any. `None`
    /// after the last one: all done, or the time is up. Safe to cancel.
    pub async fn next(&mut self) -> Option<WaitProgress> {
        if self.last.as_ref().is_some_and(|last| last.done) {
            return None;
        }
        loop {
            // Marked as seen before looking, so that a change in between wakes again.
            self.changes.borrow_and_update();
            let progress = self.fleet.progress(self.revision);
            if self.last.as_ref().is_none_or(|last| last.is_outdated_by(&progress)) {
                self.last = Some(progress.clone());
                return Some(progress);
            }
            let given_up = self.fleet.returning_until().filter(|until| *until < self.deadline);
            match timeout_at(given_up.unwrap_or(self.deadline), self.changes.changed()).await {
                Ok(Ok(())) => {}
                // Whoever was on its way back is not waited for any longer.
                Err(_) if given_up.is_some() => {}
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }

    /// Waits to the end; what there is when the time is up.
    pub async fn finish(&mut self) -> WaitProgress {
        while self.next().await.is_some() {}
        self.fleet.progress(self.revision)
    }
}

impl WaitProgress {
    fn is_outdated_by(&self, newer: &Self) -> bool {
        let missing =
            |progress: &Self| progress.laggards.iter().filter(|l| l.lost || l.away).count();
        (self.proxies, self.applied, self.done) != (newer.proxies, newer.applied, newer.done)
            || missing(self) != missing(newer)
    }
}

impl Fleet {
    /// Says which proxies were connected before this process began, and until when they may be
    /// on their way back. They serve by the state that they have; a wait that did not count them
    /// would say *applied* of what they know nothing of.
    pub fn expect(&self, proxies: Vec<ProxyId>, until: Instant) {
        let returning = Returning { proxies, since: Instant::now(), until };
        // There is one time before this process.
        drop(self.returning.set(returning));
    }

    /// How far a revision got by now.
    #[must_use]
    pub fn progress(&self, revision: u64) -> WaitProgress {
        let mut progress = WaitProgress {
            revision,
            proxies: 0,
            applied: 0,
            done: false,
            laggards: Vec::new(),
            rejections: Vec::new(),
            lost: Vec::new(),
        };
        let entries = self.lock();
        for (id, since) in self.away(&entries) {
            progress.proxies += 1;
            progress.laggards.push(Laggard {
                proxy: id.clone(),
                applied_revision: 0,
                lost: false,
                refusal: None,
                away: true,
                last_seen: since,
            });
        }
        for (id, entry) in &entries.by_id {
            let entry = locked(entry);
            if !entry.must_apply(revision) {
                if matches!(entry.life, Life::Lost { .. })
                    && entry.progress.applied_revision < revision
                {
                    progress.lost.push(Laggard::of(id, &entry));
                }
                continue;
            }
            progress.proxies += 1;
            progress
                .rejections
                .extend(entry.rejections_of(revision).map(|rejection| (id.clone(), rejection)));
            if entry.progress.applied_revision >= revision {
                progress.applied += 1;
            } else {
                progress.laggards.push(Laggard::of(id, &entry));
            }
        }
        progress.done = progress.applied == progress.proxies || !progress.rejections.is_empty();
        progress
    }

    /// Proxies that may be on their way back after a restart, and since when they are waited for.
    fn away<'a>(&'a self, entries: &'a Entries) -> impl Iterator<Item = (&'a ProxyId, Instant)> {
        let returning = self.returning.get().filter(|it| Instant::now() < it.until);
        returning.into_iter().flat_map(|returning| {
            let proxies = returning.proxies.iter();
            let away = proxies.filter(|id| !entries.by_id.contains_key(*id));
            away.map(|id| (id, returning.since))
        })
    }

    /// Until when proxies may be on their way back; nothing once they are, or that has passed.
    fn returning_until(&self) -> Option<Instant> {
        self.away(&self.lock()).next()?;
        self.returning.get().map(|returning| returning.until)
    }

    /// Every proxy that has not applied a revision, also one that was lost before: it may be
    /// serving traffic by what it had then. Those that were lost long ago are forgotten, and those
    /// that said goodbye serve nobody.
    #[must_use]
    pub fn lacking(&self, revision: u64) -> Vec<Laggard> {
        let entries = self.lock();
        let lacking = entries.by_id.iter().filter_map(|(id, entry)| {
            let entry = locked(entry);
            let lacks = entry.progress.applied_revision < revision
                && !matches!(entry.life, Life::Stopped { .. });
            lacks.then(|| Laggard::of(id, &entry))
        });
        lacking.collect()
    }
}

impl Laggard {
    /// As it is spelled on the wire.
    #[must_use]
    pub fn state(&self) -> &'static str {
        if self.away {
            return "away";
        }
        match (self.lost, &self.refusal) {
            (true, _) => "lost",
            (false, Some(_)) => "rejected",
            (false, None) => "behind",
        }
    }

    fn of(id: &ProxyId, entry: &Entry) -> Self {
        Self {
            proxy: id.clone(),
            applied_revision: entry.progress.applied_revision,
            lost: matches!(entry.life, Life::Lost { .. }),
            refusal: entry.progress.refusal.clone().filter(|_| matches!(entry.life, Life::Live)),
            away: false,
            last_seen: entry.last_seen,
        }
    }
}

impl Entry {
    fn must_apply(&self, revision: u64) -> bool {
        match self.life {
            Life::Live => true,
            Life::Lost { at_revision, .. } => at_revision >= revision,
            Life::Stopped { .. } => false,
        }
    }

    /// What of this very revision was refused; what was refused before stays refused and
    /// is no answer to this wait. Nor is the refusal of a store in which pools cannot serve yet:
    /// the proxy is asked again, and takes it once they can.
    fn rejections_of(&self, revision: u64) -> impl Iterator<Item = Rejection> {
        let of_this = self.progress.rejections.iter().filter(move |r| r.revision == revision);
        let whole = self.progress.refusal.as_ref().filter(|_| {
            matches!(self.life, Life::Live)
                && !self.progress.awaits_consent
                && self.progress.applied_revision < revision
        });
        of_this.cloned().chain(whole.map(move |refusal| Rejection {
            key: Key::new("state", ""),
            revision,
            code: "state_refused".to_owned(),
            message: refusal.clone(),
        }))
    }
}
