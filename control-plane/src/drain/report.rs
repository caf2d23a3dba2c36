//! What proxies have left of the work of backends that drain.

use std::{collections::BTreeSet, time::Duration};

use lb_core::{
    drain::Left,
    model::{Backend, ProxyId},
};
use tokio::time::Instant;

use crate::{
    fleet::{ProxyState, ProxyView},
    grpc::Context,
    registry::Stored,
    stats::{Asked, Leaving},
};

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

    pub(super) fn cut(&self) -> u32 {
        self.proxies.iter().map(|share| share.cut).sum()
    }
}

/// What proxies have left of a backend; none if it does not drain. `revision` is that of
/// the backend.
pub(crate) fn report(context: &Context, backend: &Backend, revision: u64) -> Option<DrainReport> {
    backend.drain.as_ref()?;
    report_of(context, &context.fleet.list(), backend, revision)
}

/// The same, of proxies that were listed for several backends.
pub(super) fn report_of(
    context: &Context,
    proxies: &[ProxyView],
    backend: &Backend,
    revision: u64,
) -> Option<DrainReport> {
    let drain = backend.drain.as_ref()?;
    // Before anything else, and by the same list: who comes back in between is waited for once
    // more, and never taken for one that is there and has nothing left.
    let awaits_proxies = context.drains.awaits(proxies, context);
    let elapsed = context.drains.elapsed(backend, drain);
    let since = context.drains.seen(&backend.id).unwrap_or_else(Instant::now);
    let leaving = |proxy: &ProxyId, present, ended| {
        let asked = Asked { proxy, present, ended, since, lease: context.lease };
        context.statistics.leaving(&backend.id, backend.incarnation, asked)
    };
    let share = |proxy: &ProxyId, word, left: Leaving| {
        let Leaving { requests, upgraded, cut, .. } = left;
        DrainShare { proxy: proxy.clone(), word, requests, upgraded, cut }
    };
    let shares = proxies.iter().map(|view| {
        let proxy = &view.info.id;
        // It ended what it had before it said goodbye.
        let has_stopped = view.state == ProxyState::Stopped;
        // One whose stream has just ended is on its way back, or about to be replaced.
        let is_gone = view.state == ProxyState::Lost && view.last_seen >= context.lease;
        let left = leaving(proxy, Some(&view.info.instance), has_stopped || is_gone);
        // Processes that it had taken over may be there still.
        let is_empty = left.requests == 0 && left.upgraded == 0;
        let word = match () {
            () if is_gone && is_empty && !left.unheard => DrainWord::Lost,
            () if (has_stopped || is_gone) && !left.unheard => DrainWord::Told,
            // Both: its statistics are of when it followed the drain, and what it follows is
            // this store. Revisions of another one say nothing here.
            () if left.applied_revision.min(view.progress.applied_revision) >= revision
                && !left.unheard =>
            {
                DrainWord::Told
            }
            () => DrainWord::Unheard,
        };
        share(proxy, word, left)
    });
    // Those that do not follow, because their last process has ended while another one goes on.
    let heard = context.statistics.processes(context.lease).into_iter().map(|(proxy, _)| proxy);
    let is_listed =
        |proxy: &ProxyId| proxies.binary_search_by(|view| view.info.id.cmp(proxy)).is_ok();
    let unlisted: BTreeSet<ProxyId> = heard.filter(|proxy| !is_listed(proxy)).collect();
    let unlisted = unlisted.iter().map(|proxy| {
        let left = leaving(proxy, None, false);
        let word = if left.unheard { DrainWord::Unheard } else { DrainWord::Told };
        share(proxy, word, left)
    });
    let mut shares: Vec<DrainShare> = shares.chain(unlisted).collect();
    shares.sort_by(|a, b| a.proxy.cmp(&b.proxy));
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
        awaits_proxies,
        held_up: context.drains.held_up(&backend.id),
        proxies: shares,
    })
}

/// What proxies have left of every backend whose drain is not over.
pub(crate) fn reports(context: &Context) -> Vec<(Backend, DrainReport)> {
    let proxies = context.fleet.list();
    let under_way = |stored: Stored<Backend>| {
        let report = report_of(context, &proxies, &stored.value, stored.revision)?;
        Some((stored.value, report))
    };
    let drains = super::drains(context).into_iter();
    drains
        .filter(|stored| stored.value.drain.is_some_and(|drain| !drain.ended))
        .filter_map(under_way)
        .collect()
}
