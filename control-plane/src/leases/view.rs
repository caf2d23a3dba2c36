//! Who holds how much, for people.

use lb_core::{
    lease::{Quantity, QuantityKind},
    model::ProxyId,
};

use super::{
    Leases, State,
    account::{Account, Lender},
};

/// One quantity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LeaseView {
    /// By proxy. A proxy that takes over from another is listed twice for a while.
    pub(crate) holders: Vec<HolderView>,
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
        LeaseView { holders }
    }
}
