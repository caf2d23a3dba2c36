//! Carries drains out: looks at what proxies have left, tells them to cut it when the time
//! is up, and removes backends of which that was wished.
//!
//! Nobody needs to wait for it: what is wished and how far it has come is stored with the
//! backend. Deadlines are measured by the monotonic clock. Only a control plane that was
//! restarted looks at the wall clock, once, to know how much of a drain's time is over.
//!
//! A step that is refused is told, and tried again when the state has changed, or after a
//! while, however often other drains are looked at.
//!
//! Which proxies are connected is noted in the store, and which processes may have something in
//! flight, those among them that were taken over. After a restart no drain ends for want of
//! those that have something left and are on their way back: until they are all there, or a
//! while has passed.

mod former;
mod note;
mod report;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lb_core::{
    drain::{self, Elapsed, Step},
    model::{Backend, BackendId, Drain, Incarnation, InstanceId, Kind, ProxyId, Reason},
};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use self::{
    former::Former,
    report::{Round, report_of},
};
pub(crate) use self::{
    note::{note_once_more, note_proxies},
    report::{DrainReport, DrainShare, report, reports},
};
use crate::{
    clock::unix_ms,
    events::EventType,
    fleet::{ProxyState, ProxyView},
    grpc::Context,
    registry::{DrainStep, Item, Stored, WriteError, WriteRequest},
    store::Present,
};

/// Between looks at what is left: a part of the time between two reports.
const LOOK: Duration = Duration::from_millis(50);
/// Between attempts at a step that was refused, unless the state changes before.
const RETRY: Duration = Duration::from_secs(5);
/// After a restart proxies may take so many leases to come back.
const LEASES_TO_COME_BACK: u32 = 3;

/// The clocks of the drains that are under way.
#[derive(Debug)]
pub(crate) struct Drains {
    /// Until then proxies may be on their way back.
    complete_from: Instant,
    /// Those that there were before; all that there may be, if that is not known.
    former: Option<Former>,
    clocks: Mutex<BTreeMap<BackendId, Clock>>,
}

#[derive(Clone, Debug)]
struct Clock {
    incarnation: Incarnation,
    since_unix_ms: u64,
    /// When this process learned of the drain, and how much of its time was over then.
    seen: Instant,
    over: Duration,
    cutting_since: Option<Instant>,
    held_up: Option<HeldUp>,
}

/// A step that was refused.
#[derive(Clone, Debug)]
struct HeldUp {
    why: String,
    /// Of the state that it was refused in.
    revision: u64,
    /// When it is tried again in the same state.
    until: Instant,
}

impl Drains {
    /// `resumed` tells whether there may be proxies that were connected before this process
    /// began, and `former` which, if that is known.
    #[must_use]
    pub(crate) fn new(resumed: bool, former: Option<Present>, lease: Duration) -> Self {
        let wait = if resumed { lease * LEASES_TO_COME_BACK } else { Duration::ZERO };
        let former = former.map(Former::new);
        Self { complete_from: Instant::now() + wait, former, clocks: Mutex::default() }
    }

    /// The proxies that may be on their way back after a restart, and until when; nothing if it
    /// is not known which.
    pub(crate) fn returning(&self) -> Option<(Vec<ProxyId>, Instant)> {
        let former = self.former.as_ref().filter(|_| Instant::now() < self.complete_from)?;
        Some((former.proxies().to_vec(), self.complete_from))
    }

    /// Whether proxies may still be on their way back after a restart, while it is known of these
    /// how they are.
    pub(crate) fn awaits_proxies(&self, known: &[ProxyId]) -> bool {
        let is_away = |id: &ProxyId| known.binary_search(id).is_err();
        Instant::now() < self.complete_from
            && self.former.as_ref().is_none_or(|former| former.proxies().iter().any(is_away))
    }

    /// The same of the proxies that are listed, or whether processes of them may be on their way
    /// back that were taken over and have something left.
    fn awaits(&self, proxies: &[ProxyView], context: &Context) -> bool {
        if Instant::now() >= self.complete_from {
            return false;
        }
        let is_known = |view: &&ProxyView| view.state != ProxyState::Lost;
        let known: Vec<ProxyId> =
            proxies.iter().filter(is_known).map(|view| view.info.id.clone()).collect();
        self.awaits_proxies(&known) || !self.away(proxies, context).is_empty()
    }

    /// Processes of these proxies that may be on their way back after a restart, if it is known
    /// which there were.
    fn away(&self, proxies: &[ProxyView], context: &Context) -> Vec<(ProxyId, InstanceId)> {
        let Some(former) = &self.former else { return Vec::new() };
        former.away(proxies, |id, process| context.statistics.has_told(id, process))
    }

    /// The proxies that a process after this one would have to wait for, while these are there and
    /// those have said goodbye; nothing while that is not known.
    fn awaited_next(
        &self,
        mut present: Present,
        stopped: &[ProxyId],
        proxies: &[ProxyView],
        context: &Context,
    ) -> Option<Present> {
        if Instant::now() < self.complete_from {
            let former = self.former.as_ref()?;
            let is_away = |id: &&ProxyId| !stopped.contains(id);
            present.proxies.extend(former.proxies().iter().filter(is_away).cloned());
            present.processes.extend(self.away(proxies, context));
        }
        present.proxies.sort_unstable();
        present.proxies.dedup();
        present.processes.sort_unstable();
        present.processes.dedup();
        Some(present)
    }

    fn elapsed(&self, backend: &Backend, drain: &Drain) -> Elapsed {
        let now = Instant::now();
        let mut clocks = self.lock();
        let clock = clocks
            .entry(backend.id.clone())
            .and_modify(|clock| {
                if !clock.is_of(backend, drain) {
                    *clock = Clock::new(backend, drain, now);
                }
            })
            .or_insert_with(|| Clock::new(backend, drain, now));
        if drain.cutting {
            clock.cutting_since.get_or_insert(now);
        }
        Elapsed {
            running: clock.over + now.duration_since(clock.seen),
            cutting: clock.cutting_since.map_or(Duration::ZERO, |since| now.duration_since(since)),
        }
    }

    /// When this process learned of a drain.
    fn seen(&self, id: &BackendId) -> Option<Instant> {
        self.lock().get(id).map(|clock| clock.seen)
    }

    /// Why the last step of a drain was refused.
    fn held_up(&self, id: &BackendId) -> Option<String> {
        self.lock().get(id)?.held_up.as_ref().map(|held_up| held_up.why.clone())
    }

    /// How long a step is not tried again that was refused in the state of this revision.
    fn rests(&self, id: &BackendId, revision: u64) -> Option<Duration> {
        let clocks = self.lock();
        let held_up = clocks.get(id)?.held_up.as_ref().filter(|it| it.revision == revision)?;
        Some(held_up.until.duration_since(Instant::now())).filter(|rest| !rest.is_zero())
    }

    /// Notes that a step was taken, or is needed no more.
    fn goes_on(&self, id: &BackendId) {
        if let Some(clock) = self.lock().get_mut(id) {
            clock.held_up = None;
        }
    }

    /// Notes that a step was refused in the state of this revision; returns whether that is news.
    fn is_refused(&self, id: &BackendId, why: &str, revision: u64) -> bool {
        let mut clocks = self.lock();
        let Some(clock) = clocks.get_mut(id) else { return false };
        let is_news = clock.held_up.as_ref().is_none_or(|before| before.why != why);
        let until = Instant::now() + RETRY;
        clock.held_up = Some(HeldUp { why: why.to_owned(), revision, until });
        is_news
    }

    fn forget_all_but(&self, drains: &[Stored<Backend>]) {
        let kept: HashSet<&BackendId> = drains.iter().map(|stored| &stored.value.id).collect();
        self.lock().retain(|id, _| kept.contains(id));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BackendId, Clock>> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock {
    fn new(backend: &Backend, drain: &Drain, now: Instant) -> Self {
        let over = Duration::from_millis(unix_ms().saturating_sub(drain.since_unix_ms));
        Self {
            incarnation: backend.incarnation,
            since_unix_ms: drain.since_unix_ms,
            seen: now,
            over: over.min(drain.timeout),
            cutting_since: None,
            held_up: None,
        }
    }

    fn is_of(&self, backend: &Backend, drain: &Drain) -> bool {
        self.incarnation == backend.incarnation && self.since_unix_ms == drain.since_unix_ms
    }
}

/// Looks after all drains until the context is stopped.
pub(crate) async fn run(context: &Context) {
    let mut revisions = context.registry.revisions();
    loop {
        revisions.mark_unchanged();
        let drains = drains(context);
        context.drains.forget_all_but(&drains);
        let mut again: Option<Duration> = None;
        // Once for all, and anew after a step: meanwhile proxies may have come.
        let mut round = None;
        // What has ended stays as it is until somebody changes the backend.
        let is_open = |stored: &&Stored<Backend>| {
            stored.value.drain.is_some_and(|drain| !drain.ended || drain.remove)
        };
        for stored in drains.iter().filter(is_open) {
            let current = round.get_or_insert_with(|| Round::new(context));
            let (wait, has_written) = look(context, current, stored).await;
            if has_written {
                round = None;
            }
            again = wait.map(|wait| again.map_or(wait, |again| again.min(wait))).or(again);
        }
        tokio::select! {
            () = context.stop.cancelled() => return,
            changed = revisions.changed() => if changed.is_err() { return },
            () = sleep(again.unwrap_or(RETRY)), if again.is_some() => {}
        }
    }
}

fn drains(context: &Context) -> Vec<Stored<Backend>> {
    context.registry.read(|view| {
        let followed = view.catalog.followed();
        followed.filter(|stored| stored.value.drain.is_some()).cloned().collect()
    })
}

/// Takes a drain a step further if it is time to. After which time it must be looked at
/// again, if it must, and whether it tried to take a step, which takes a while.
async fn look(
    context: &Context,
    round: &Round,
    stored: &Stored<Backend>,
) -> (Option<Duration>, bool) {
    let backend = &stored.value;
    let revision = context.registry.revision();
    if let Some(rest) = context.drains.rests(&backend.id, revision) {
        return (Some(rest), false);
    }
    let report = report_of(context, round, backend, stored.revision);
    let (Some(drain), Some(report)) = (&backend.drain, report) else { return (None, false) };
    let id = backend.id.to_string();
    let left = report.left();
    let item = match drain::next(drain, left, context.drains.elapsed(backend, drain)) {
        Step::Wait => return ((!drain.ended).then_some(LOOK), false),
        Step::Cut => Item::Drain { id, step: DrainStep::Cutting { left: left.known() } },
        Step::End => Item::Drain { id, step: DrainStep::Ended { cut: report.cut() } },
        Step::Remove => Item::Delete { kind: Kind::Backend, name: id },
    };
    // Somebody who has enabled it meanwhile is not overruled.
    let request = WriteRequest {
        items: vec![item],
        expected_revision: stored.revision,
        ..WriteRequest::default()
    };
    let again = match context.registry.write(request).await {
        Ok(written) => {
            debug!(backend = %backend.id, revision = written.revision, "drain went on");
            context.drains.goes_on(&backend.id);
            Some(LOOK)
        }
        // Somebody was faster, and may have removed it.
        Err(WriteError::RevisionConflict(_) | WriteError::NotFound(_)) => Some(LOOK),
        Err(WriteError::Stopping) => None,
        Err(error) => {
            let why = error.to_string();
            if context.drains.is_refused(&backend.id, &why, revision) {
                warn!(backend = %backend.id, why, "a drain cannot go on; it is tried again");
                let (what, revision) = (EventType::DrainHeldUp, stored.revision);
                let reason = Reason::new("write_refused", why);
                context.events.record(what, "backend", backend.id.as_str(), revision, reason);
            }
            Some(RETRY)
        }
    };
    (again, true)
}
