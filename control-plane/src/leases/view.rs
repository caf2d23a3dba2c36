//! Who holds how much, for people.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lb_core::{
    lease::{Quantity, QuantityKind},
    model::ProxyId,
};

use super::{
    Leases, State,
    account::{Account, Lender},
};
use crate::clock::now;

/// One quantity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LeaseView {
    /// By proxy. A proxy that takes over from another is listed twice for a while.
    pub(crate) holders: Vec<HolderView>,
    /// How the number of slots is found out, if it is.
    pub(crate) adaptive: Option<AdaptiveView>,
}

/// A limit that is found out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct AdaptiveView {
    /// Requests that may wait for backends at once.
    pub(crate) limit: u64,
    /// Requests that hold a slot and do not wait for a backend.
    pub(crate) aside: u64,
    /// What the limit does, for programs.
    pub(crate) state: &'static str,
    /// The same, for people.
    pub(crate) reason: &'static str,
    /// The time of an answer without a queue, once it was measured.
    pub(crate) unqueued: Option<Duration>,
    /// The time of an answer in the last round, once there was one.
    pub(crate) time: Option<Duration>,
}

/// What one process of a proxy has of a quantity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct HolderView {
    /// Which; nothing if its process is not heard any more, so that the rest of its lease
    /// is waited for.
    pub(crate) proxy: Option<ProxyId>,
    /// Lent to it last.
    pub(crate) granted: u64,
    /// In use by it, as it told last.
    pub(crate) in_use: u64,
    /// Requests that wait there.
    pub(crate) waiting: u64,
}

impl AdaptiveView {
    /// How much longer answers took in the last round than without a queue.
    pub(crate) fn queueing(&self) -> Duration {
        self.time.unwrap_or_default().saturating_sub(self.unqueued.unwrap_or_default())
    }
}

impl Leases {
    /// Who holds how much of something; nothing if it is not lent.
    pub(crate) fn view(
        &self,
        kind: QuantityKind,
        name: &str,
        incarnation: u64,
    ) -> Option<LeaseView> {
        let quantity = Quantity { kind, name: name.into(), incarnation };
        let state = self.lock();
        let account = state.accounts.get(&quantity).filter(|account| account.is_wanted)?;
        Some(state.view(account))
    }

    /// How the limits of pools are that are found out.
    pub(crate) fn adaptive(&self) -> Vec<(Arc<str>, AdaptiveView)> {
        let now = now();
        let state = self.lock();
        let accounts = state.accounts.iter().filter(|(_, account)| account.is_wanted);
        accounts
            .filter_map(|(quantity, account)| {
                Some((Arc::clone(&quantity.name), adaptive(account, now)?))
            })
            .collect()
    }
}

impl State {
    fn view(&self, account: &Account) -> LeaseView {
        let mut holders = Vec::new();
        if let Lender::Whole(granter) = &account.lender {
            for (holder, report, granted) in granter.holders() {
                holders.push(HolderView {
                    proxy: self.contacts.proxy(&holder.instance).cloned(),
                    granted,
                    in_use: report.in_use,
                    waiting: account.waiting.get(holder).copied().unwrap_or_default(),
                });
            }
        }
        holders.sort_by(|a, b| a.proxy.cmp(&b.proxy));
        LeaseView { holders, adaptive: adaptive(account, now()) }
    }
}

fn adaptive(account: &Account, now: Instant) -> Option<AdaptiveView> {
    let (Some(adaptive), Lender::Whole(granter)) = (&account.adaptive, &account.lender) else {
        return None;
    };
    let (limit, slots) = (adaptive.limit(), adaptive.slots(now));
    let (state, reason) = match (granter.carries(now), account.is_new) {
        (true, true) => ("starting", "it holds from when all proxies have reported"),
        (true, false) => {
            ("resuming", "proxies keep what they had before the control plane was started")
        }
        (false, _) => (limit.course().name(), limit.course().reason()),
    };
    Some(AdaptiveView {
        limit: limit.limit().into(),
        aside: slots.saturating_sub(limit.limit().into()),
        state,
        reason,
        unqueued: limit.unqueued(),
        time: limit.time(),
    })
}
