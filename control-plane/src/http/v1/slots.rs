//! What is answered of slots: who may have how many requests in progress.

use serde::Serialize;
use utoipa::ToSchema;

use crate::leases::{HolderView, LeaseView};

/// Who may have how many requests in progress.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SlotsObserved {
    /// Requests in progress over all proxies.
    in_use: u64,
    /// Requests that wait.
    waiting: u64,
    /// By proxy.
    proxies: Vec<SlotsShare>,
}

/// What one proxy has of them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SlotsShare {
    /// Nothing for a proxy that is not heard any more.
    proxy: Option<String>,
    /// Lent to it.
    granted: u64,
    /// In use, as it told last.
    in_use: u64,
    /// Requests that wait there.
    waiting: u64,
}

impl From<LeaseView> for SlotsObserved {
    fn from(view: LeaseView) -> Self {
        let share = |holder: HolderView| SlotsShare {
            proxy: holder.proxy.map(|proxy| proxy.to_string()),
            granted: holder.granted,
            in_use: holder.in_use,
            waiting: holder.waiting,
        };
        let proxies: Vec<SlotsShare> = view.holders.into_iter().map(share).collect();
        Self {
            in_use: proxies.iter().map(|share| share.in_use).sum(),
            waiting: proxies.iter().map(|share| share.waiting).sum(),
            proxies,
        }
    }
}
