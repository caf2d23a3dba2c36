//! Carries drains out: looks at what proxies have left, tells them to cut it when the time
//! is up, and removes backends of which that was wished.
//!
//! Nobody needs to wait for it: what is wished and how far it has come is stored with the
//! backend. Deadlines are measured by the monotonic clock. Only a control plane that was
//! restarted looks at the wall clock, once, to know how much of a drain's time is over.
//!
//! Which proxies there are is not stored. So for a while after a restart no drain ends for
//! want of proxies that have something left: they are on their way back.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lb_core::{
    drain::{self, Elapsed, Left, Step},
    model::{Backend, BackendId, Drain, Incarnation, Kind, ProxyId},
};
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::{
    clock::unix_ms,
    fleet::ProxyState,
    grpc::Context,
    registry::{DrainStep, Item, Stored, WriteError, WriteRequest},
};

/// Between looks at what is left: a part of the time between two reports.
const LOOK: Duration = Duration::from_millis(50);
/// After a restart proxies may take so many leases to come back.
const LEASES_TO_COME_BACK: u32 = 3;

/// The clocks of the drains that are under way.
#[derive(Debug)]
pub(crate) struct Drains {
    /// Until then proxies may be on their way back.
    complete_from: Instant,
    clocks: Mutex<BTreeMap<BackendId, Clock>>,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    incarnation: Incarnation,
    since_unix_ms: u64,
    /// When this process learned of the drain, and how much of its time was over then.
    seen: Instant,
    over: Duration,
    cutting_since: Option<Instant>,
}

/// How far a drain is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct DrainReport {
    /// Until what is left is cut.
    pub(crate) time_left: Duration,
    /// Whether proxies may still be on their way back after a restart.
    pub(crate) awaits_proxies: bool,
    /// In order of proxy ids.
    pub(crate) proxies: Vec<DrainShare>,
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
    /// It is not connected: what it has is unknown.
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
        let mut left = Left { unheard: u32::from(self.awaits_proxies), ..Left::default() };
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
    /// began.
    #[must_use]
    pub(crate) fn new(resumed: bool, lease: Duration) -> Self {
        let wait = if resumed { lease * LEASES_TO_COME_BACK } else { Duration::ZERO };
        Self { complete_from: Instant::now() + wait, clocks: Mutex::default() }
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

    fn forget_all_but(&self, drains: &[Stored<Backend>]) {
        self.lock().retain(|id, _| drains.iter().any(|stored| stored.value.id == *id));
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
        }
    }

    fn is_of(&self, backend: &Backend, drain: &Drain) -> bool {
        self.incarnation == backend.incarnation && self.since_unix_ms == drain.since_unix_ms
    }
}

/// What proxies have left of a backend; none if it does not drain. `revision` is that of
/// the backend.
pub(crate) fn report(context: &Context, backend: &Backend, revision: u64) -> Option<DrainReport> {
    let drain = backend.drain.as_ref()?;
    let elapsed = context.drains.elapsed(backend, drain);
    let proxies = context.fleet.list().into_iter().map(|view| {
        let (id, incarnation, proxy) = (&backend.id, backend.incarnation, &view.info.id);
        let left = context.statistics.leaving(id, incarnation, proxy, &view.info.instance);
        let word = match view.state {
            ProxyState::Lost => DrainWord::Lost,
            _ if left.applied_revision >= revision => DrainWord::Told,
            _ => DrainWord::Unheard,
        };
        let (requests, upgraded, cut) = (left.requests, left.upgraded, left.cut);
        DrainShare { proxy: view.info.id, word, requests, upgraded, cut }
    });
    Some(DrainReport {
        time_left: drain.timeout.saturating_sub(elapsed.running),
        awaits_proxies: Instant::now() < context.drains.complete_from,
        proxies: proxies.collect(),
    })
}

/// What proxies have left of every backend whose drain is not over.
pub(crate) fn reports(context: &Context) -> Vec<(Backend, DrainReport)> {
    let under_way = |stored: Stored<Backend>| {
        let report = report(context, &stored.value, stored.revision)?;
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
        let mut under_way = false;
        for stored in &drains {
            under_way |= look(context, stored).await;
        }
        tokio::select! {
            () = context.stop.cancelled() => return,
            changed = revisions.changed() => if changed.is_err() { return },
            () = sleep(LOOK), if under_way => {}
        }
    }
}

fn drains(context: &Context) -> Vec<Stored<Backend>> {
    context.registry.read(|view| {
        let all = view.catalog.backends().values();
        all.filter(|stored| stored.value.drain.is_some()).cloned().collect()
    })
}

/// Takes a drain a step further if it is time to. Whether it must be looked at again.
async fn look(context: &Context, stored: &Stored<Backend>) -> bool {
    let backend = &stored.value;
    let (Some(drain), Some(report)) = (&backend.drain, report(context, backend, stored.revision))
    else {
        return false;
    };
    let id = backend.id.to_string();
    let left = report.left();
    let item = match drain::next(drain, left, context.drains.elapsed(backend, drain)) {
        Step::Wait => return !drain.ended,
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
    match context.registry.write(request).await {
        Ok(written) => {
            debug!(backend = %backend.id, revision = written.revision, "drain went on");
        }
        Err(WriteError::RevisionConflict(_)) => {}
        // The registry takes no writes any more, and has said why.
        Err(error) => {
            debug!(backend = %backend.id, %error, "a drain waits");
            return false;
        }
    }
    true
}
