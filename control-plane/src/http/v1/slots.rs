//! What is answered of slots: who may have how many requests in progress.

use lb_core::stats::whole_us;
use serde::Serialize;
use utoipa::ToSchema;

use crate::leases::{AdaptiveView, HolderView, LeaseView};

/// Who may have how many requests in progress.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SlotsObserved {
    /// Requests in progress over all proxies.
    in_use: u64,
    /// Requests that wait.
    waiting: u64,
    /// By proxy.
    proxies: Vec<SlotsShare>,
    /// Only of a pool with adaptive concurrency.
    #[serde(skip_serializing_if = "Option::is_none")]
    adaptive: Option<AdaptiveObserved>,
}

/// How the limit of a pool with adaptive concurrency is, and why.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AdaptiveObserved {
    /// Requests that may wait for backends at once, over all proxies.
    limit: u64,
    /// Requests that hold a slot without waiting for a backend: their answer has begun, or their
    /// client is still sending.
    aside: u64,
    /// `measuring`, `rising`, `resting`, `falling`, `unused`, `highest`, `lowest`,
    /// `starting` or `resuming`.
    state: &'static str,
    /// The same for people.
    reason: &'static str,
    /// The time of an answer without a queue, in microseconds; null before it was measured.
    unqueued_us: Option<u64>,
    /// The time of an answer in the last round, in microseconds; null before there was one.
    answer_us: Option<u64>,
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
            adaptive: view.adaptive.map(AdaptiveObserved::from),
        }
    }
}

impl From<AdaptiveView> for AdaptiveObserved {
    fn from(view: AdaptiveView) -> Self {
        Self {
            limit: view.limit,
            aside: view.aside,
            state: view.state,
            reason: view.reason,
            unqueued_us: view.unqueued.map(whole_us),
            answer_us: view.time.map(whole_us),
        }
    }
}
