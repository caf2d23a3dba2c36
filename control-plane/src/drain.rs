//! Carries drains out: looks at what proxies have left, tells them to cut it when the time
//! is up, and removes backends of which that was wished.
//!
//! Nobody needs to wait for it: what is wished and how far it has come is stored with the
//! backend. Deadlines are measured by the monotonic clock. Only a control plane that was
//! restarted looks at the wall clock, once, to know how much of a drain's time is over.
//!
//! A step that is refused is told, and tried again when the state has changed, or after a
//! while.
//!
//! Which proxies are connected is noted in the store. After a restart no drain ends for want of
//! those that have something left and are on their way back: until they are all there, or a
//! while has passed.

mod note;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lb_core::{
    drain::{self, Elapsed, Left, Step},
    model::{Backend, BackendId, Drain, Incarnation, Kind, ProxyId, Reason},
};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

pub(crate) use self::note::{note_once_more, note_proxies};
use crate::{
    clock::unix_ms,
    events::EventType,
    fleet::{ProxyState, ProxyView},
    grpc::Context,
    registry::{DrainStep, Item, Stored, WriteError, WriteRequest},
    stats::Asked,
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
    /// Those that were connected before; all that there may be, if that is not known.
    former: Option<Vec<ProxyId>>,
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
    /// Why its last step was refused.
    held_up: Option<String>,
}

/// How far a drain is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct DrainReport {
    /// Until what is left is cut.
    pub(crate) time_left: Duration,
    /// Whether proxies may still be on their way back after a restart.
    pub(crate) awaits_proxies: bool,
    /// Why it does not go on although it could.
    pub(crate) held_up: Option<String>,
    /// In order of proxy ids.
    pub(crate) proxies: Vec<DrainShare>,
    /// Until its clients' sessions move on; nothing when there are none, or they have.
    pub(crate) sessions_left: Duration,
    /// Requests that sessions brought it lately.
    pub(crate) session_requests: u64,
}

/// What one proxy has left.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct DrainShare {
    /// Which.
    pub(crate) proxy: ProxyId,
    /// Whether its numbers are to be relied on.
    pub(crate) word: DrainWord,
    /// Requests, without upgraded connections.
    pub(crate) requests: u32,
    /// Upgraded connections.
    pub(crate) upgraded: u32,
    /// Requests and upgraded connections that it cut.
    pub(crate) cut: u32,
}

/// What a proxy's numbers are worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DrainWord {
    /// It has told them since it learned of the drain.
    Told,
    /// It has not told any since.
    Unheard,
    /// It has not been connected for a lease: what it has is unknown.
    Lost,
}

impl DrainWord {
    /// As it is spelled on the wire.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Unheard => "unheard",
            Self::Lost => "lost",
        }
    }
}

impl DrainReport {
    /// What is left over all proxies that are waited for.
    #[must_use]
    pub(crate) fn left(&self) -> Left {
        let mut left = Left {
            unheard: u32::from(self.awaits_proxies),
            keeps_sessions: !self.sessions_left.is_zero(),
            ..Left::default()
        };
        for share in &self.proxies {
            if share.word == DrainWord::Lost {
                continue;
            }
            left.requests += share.requests;
            left.upgraded += share.upgraded;
            left.unheard += u32::from(share.word == DrainWord::Unheard);
        }
        left
    }

    fn cut(&self) -> u32 {
        self.proxies.iter().map(|share| share.cut).sum()
    }
}

impl Drains {
    /// `resumed` tells whether there may be proxies that were connected before this process
    /// began, and `former` which, if that is known.
    #[must_use]
    pub(crate) fn new(resumed: bool, former: Option<Vec<ProxyId>>, lease: Duration) -> Self {
        let wait = if resumed { lease * LEASES_TO_COME_BACK } else { Duration::ZERO };
        Self { complete_from: Instant::now() + wait, former, clocks: Mutex::default() }
    }

    /// The proxies that may be on their way back after a restart, and until when; nothing if it
    /// is not known which.
    pub(crate) fn returning(&self) -> Option<(Vec<ProxyId>, Instant)> {
        let former = self.former.clone().filter(|_| Instant::now() < self.complete_from)?;
        Some((former, self.complete_from))
    }

    /// Whether proxies may still be on their way back after a restart, while it is known of these
    /// how they are.
    pub(crate) fn awaits_proxies(&self, known: &[ProxyId]) -> bool {
        let is_away = |id: &ProxyId| known.binary_search(id).is_err();
        Instant::now() < self.complete_from
            && self.former.as_ref().is_none_or(|former| former.iter().any(is_away))
    }

    /// The proxies that a process after this one would have to wait for, while these are live and
    /// those have said goodbye; nothing while that is not known.
    fn awaited_next(&self, live: &[ProxyId], stopped: &[ProxyId]) -> Option<Vec<ProxyId>> {
        let mut awaited = live.to_vec();
        if Instant::now() < self.complete_from {
            let is_away = |id: &&ProxyId| !stopped.contains(id);
            awaited.extend(self.former.as_ref()?.iter().filter(is_away).cloned());
        }
        awaited.sort_unstable();
        awaited.dedup();
        Some(awaited)
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
        self.lock().get(id)?.held_up.clone()
    }

    /// Notes whether a step was refused, and why; returns whether that is news.
    fn note(&self, id: &BackendId, why: Option<String>) -> bool {
        let mut clocks = self.lock();
        let Some(clock) = clocks.get_mut(id) else { return false };
        let is_news = clock.held_up != why;
        clock.held_up = why;
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

/// What proxies have left of a backend; none if it does not drain. `revision` is that of
/// the backend.
pub(crate) fn report(context: &Context, backend: &Backend, revision: u64) -> Option<DrainReport> {
    backend.drain.as_ref()?;
    report_of(context, &context.fleet.list(), backend, revision)
}

/// The same, of proxies that were listed for several backends.
fn report_of(
    context: &Context,
    proxies: &[ProxyView],
    backend: &Backend,
    revision: u64,
) -> Option<DrainReport> {
    let drain = backend.drain.as_ref()?;
    let elapsed = context.drains.elapsed(backend, drain);
    let since = context.drains.seen(&backend.id).unwrap_or_else(Instant::now);
    let proxies = proxies.iter().map(|view| {
        let (id, incarnation, proxy) = (&backend.id, backend.incarnation, &view.info.id);
        let (present, lease) = (&view.info.instance, context.lease);
        let asked = Asked { proxy, present, since, lease };
        let left = context.statistics.leaving(id, incarnation, asked);
        let (requests, upgraded, cut) = (left.requests, left.upgraded, left.cut);
        if view.state == ProxyState::Stopped {
            // It ended what it had before it said goodbye.
            let word = DrainWord::Told;
            return DrainShare { proxy: view.info.id.clone(), word, requests: 0, upgraded: 0, cut };
        }
        // One whose stream has just ended is on its way back, or about to be replaced.
        let is_gone = view.state == ProxyState::Lost && view.last_seen >= context.lease;
        let word = match () {
            () if is_gone => DrainWord::Lost,
            // Both: its statistics are of when it followed the drain, and what it follows is
            // this store. Revisions of another one say nothing here.
            () if left.applied_revision.min(view.progress.applied_revision) >= revision
                && !left.unheard =>
            {
                DrainWord::Told
            }
            () => DrainWord::Unheard,
        };
        DrainShare { proxy: view.info.id.clone(), word, requests, upgraded, cut }
    });
    let keeps_sessions = context.registry.read(|view| {
        let pool = view.catalog.pools().get(&backend.pool);
        pool.is_some_and(|stored| stored.value.affinity.cookie().is_some())
    });
    let sessions_for = if keeps_sessions { drain.sessions_for() } else { Duration::ZERO };
    let over = drain.cutting || drain.ended;
    Some(DrainReport {
        sessions_left: if over {
            Duration::ZERO
        } else {
            sessions_for.saturating_sub(elapsed.running)
        },
        session_requests: context.statistics.session_requests(&backend.id, backend.incarnation),
        time_left: drain.timeout.saturating_sub(elapsed.running),
        awaits_proxies: context.drains.awaits_proxies(&context.fleet.accounted_for()),
        held_up: context.drains.held_up(&backend.id),
        proxies: proxies.collect(),
    })
}

/// What proxies have left of every backend whose drain is not over.
pub(crate) fn reports(context: &Context) -> Vec<(Backend, DrainReport)> {
    let proxies = context.fleet.list();
    let under_way = |stored: Stored<Backend>| {
        let report = report_of(context, &proxies, &stored.value, stored.revision)?;
        Some((stored.value, report))
    };
    let drains = drains(context).into_iter();
    drains
        .filter(|stored| stored.value.drain.is_some_and(|drain| !drain.ended))
        .filter_map(under_way)
        .collect()
}

/// Looks after all drains until the context is stopped.
pub(crate) async fn run(context: &Context) {
    let mut revisions = context.registry.revisions();
    loop {
        revisions.mark_unchanged();
        let drains = drains(context);
        context.drains.forget_all_but(&drains);
        let mut again: Option<Duration> = None;
        // Listed once for all, and anew after a step: meanwhile proxies may have come.
        let mut proxies = None;
        // What has ended stays as it is until somebody changes the backend.
        let is_open = |stored: &&Stored<Backend>| {
            stored.value.drain.is_some_and(|drain| !drain.ended || drain.remove)
        };
        for stored in drains.iter().filter(is_open) {
            let listed = proxies.get_or_insert_with(|| context.fleet.list());
            let (wait, has_written) = look(context, listed, stored).await;
            if has_written {
                proxies = None;
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
        let all = view.catalog.backends().values();
        all.filter(|stored| stored.value.drain.is_some()).cloned().collect()
    })
}

/// Takes a drain a step further if it is time to. After which time it must be looked at
/// again, if it must, and whether it tried to take a step, which takes a while.
async fn look(
    context: &Context,
    proxies: &[ProxyView],
    stored: &Stored<Backend>,
) -> (Option<Duration>, bool) {
    let backend = &stored.value;
    let report = report_of(context, proxies, backend, stored.revision);
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
            context.drains.note(&backend.id, None);
            Some(LOOK)
        }
        Err(WriteError::RevisionConflict(_)) => Some(LOOK),
        Err(WriteError::Stopping) => None,
        Err(error) => {
            let why = error.to_string();
            if context.drains.note(&backend.id, Some(why.clone())) {
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
