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
    stats::{Asked, Leaving, total},
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
            left.requests = left.requests.saturating_add(share.requests);
            left.upgraded = left.upgraded.saturating_add(share.upgraded);
            left.unheard += u32::from(share.word == DrainWord::Unheard);
        }
        left
    }

    pub(super) fn cut(&self) -> u32 {
        total(self.proxies.iter().map(|share| share.cut))
    }
}

/// What is the same for all backends that are looked at together.
#[derive(Debug)]
pub(super) struct Round {
    /// In order of their ids.
    proxies: Vec<ProxyView>,
    /// Those that do not follow, because their last process has ended while another one goes on.
    unlisted: BTreeSet<ProxyId>,
    /// Whether proxies may still be on their way back after a restart.
    awaits_proxies: bool,
}

impl Round {
    /// What is the case now.
    pub(super) fn new(context: &Context) -> Self {
        let proxies = context.fleet.list();
        // Before anything else, and by the same list: who comes back in between is waited for once
        // more, and never taken for one that is there and has nothing left.
        let awaits_proxies = context.drains.awaits(&proxies, context);
        let is_listed =
            |proxy: &ProxyId| proxies.binary_search_by(|view| view.info.id.cmp(proxy)).is_ok();
        let heard = context.statistics.processes(context.lease).into_iter();
        let unlisted = heard.map(|(proxy, _)| proxy).filter(|proxy| !is_listed(proxy)).collect();
        Self { proxies, unlisted, awaits_proxies }
    }
}

/// What has become of the process of a proxy that follows the control plane, or did last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Present {
    /// It follows, or its stream has just ended: it is on its way back, or about to be replaced.
    Follows,
    /// It ended what it had before it said goodbye.
    Stopped,
    /// It has been lost for a lease.
    Gone,
}

impl Present {
    fn of(view: &ProxyView, lease: Duration) -> Self {
        match view.state {
            ProxyState::Stopped => Self::Stopped,
            ProxyState::Lost if view.last_seen >= lease => Self::Gone,
            _ => Self::Follows,
        }
    }
}

/// What proxies have left of a backend; none if it does not drain. `revision` is that of
/// the backend.
pub(crate) fn report(context: &Context, backend: &Backend, revision: u64) -> Option<DrainReport> {
    backend.drain.as_ref()?;
    report_of(context, &Round::new(context), backend, revision)
}

/// The same, of one of several backends.
pub(super) fn report_of(
    context: &Context,
    round: &Round,
    backend: &Backend,
    revision: u64,
) -> Option<DrainReport> {
    let drain = backend.drain.as_ref()?;
    let elapsed = context.drains.elapsed(backend, drain);
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
        awaits_proxies: round.awaits_proxies,
        held_up: context.drains.held_up(&backend.id),
        proxies: shares(context, round, backend, revision),
    })
}

fn shares(
    context: &Context,
    Round { proxies, unlisted, .. }: &Round,
    backend: &Backend,
    revision: u64,
) -> Vec<DrainShare> {
    let since = context.drains.seen(&backend.id).unwrap_or_else(Instant::now);
    let lease = context.lease;
    let listed = proxies.iter().map(|view| {
        let ended = Present::of(view, lease) != Present::Follows;
        Asked { proxy: &view.info.id, present: Some(&view.info.instance), ended, since, lease }
    });
    let unlisted =
        unlisted.iter().map(|proxy| Asked { proxy, present: None, ended: false, since, lease });
    let asked: Vec<Asked<'_>> = listed.chain(unlisted).collect();
    let left = context.statistics.leaving(&backend.id, backend.incarnation, asked.iter().copied());
    // None of those that are not listed.
    let views = proxies.iter().map(Some).chain(std::iter::repeat(None));
    let shares = asked.iter().zip(left).zip(views).map(|((asked, left), view)| {
        let word = match view {
            Some(view) => word(view, left, revision, lease),
            None if left.unheard => DrainWord::Unheard,
            None => DrainWord::Told,
        };
        let Leaving { requests, upgraded, cut, .. } = left;
        DrainShare { proxy: asked.proxy.clone(), word, requests, upgraded, cut }
    });
    let mut shares: Vec<DrainShare> = shares.collect();
    shares.sort_by(|a, b| a.proxy.cmp(&b.proxy));
    shares
}

/// What the numbers of a proxy are worth that is listed.
fn word(view: &ProxyView, left: Leaving, revision: u64, lease: Duration) -> DrainWord {
    match Present::of(view, lease) {
        // Processes that it had taken over may be there still.
        _ if left.unheard => DrainWord::Unheard,
        Present::Gone if left.requests == 0 && left.upgraded == 0 => DrainWord::Lost,
        Present::Gone | Present::Stopped => DrainWord::Told,
        // Both: its statistics are of when it followed the drain, and what it follows is this
        // store. Revisions of another one say nothing here.
        Present::Follows
            if left.applied_revision.min(view.progress.applied_revision) >= revision =>
        {
            DrainWord::Told
        }
        Present::Follows => DrainWord::Unheard,
    }
}

/// What proxies have left of every backend whose drain is not over.
pub(crate) fn reports(context: &Context) -> Vec<(Backend, DrainReport)> {
    let drains = super::drains(context).into_iter();
    let under_way = drains.filter(|stored| stored.value.drain.is_some_and(|drain| !drain.ended));
    let mut round = None;
    let report = |stored: Stored<Backend>| {
        let round = round.get_or_insert_with(|| Round::new(context));
        let report = report_of(context, round, &stored.value, stored.revision)?;
        Some((stored.value, report))
    };
    under_way.filter_map(report).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(word: DrainWord) -> DrainShare {
        let proxy = ProxyId::new("p").unwrap();
        DrainShare { proxy, word, requests: u32::MAX, upgraded: u32::MAX, cut: u32::MAX }
    }

    #[test]
    fn sums_of_what_is_told_end_at_the_greatest_number() {
        let report = DrainReport {
            time_left: Duration::ZERO,
            awaits_proxies: false,
            held_up: None,
            proxies: [DrainWord::Told, DrainWord::Unheard, DrainWord::Lost].map(share).into(),
            sessions_left: Duration::ZERO,
            session_requests: 0,
        };
        let (requests, upgraded) = (u32::MAX, u32::MAX);
        let left = Left { requests, upgraded, unheard: 1, keeps_sessions: false };
        assert_eq!(report.left(), left);
        assert_eq!(report.cut(), u32::MAX);
    }
}
