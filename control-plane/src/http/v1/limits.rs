//! What is observed of limits.

use lb_core::{limit::MICROS, model::Limit};
use serde::Serialize;
use utoipa::ToSchema;

use crate::grpc::Context;

/// What a limit came to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LimitObserved {
    /// Requests that passed, since the control plane started.
    admitted: u64,
    /// Requests that it refused; with `shadow`: that it would have refused.
    refused: u64,
    /// Requests that passed per second, over the last seconds.
    admitted_rate: f64,
    /// Requests that did not per second, over the last seconds.
    refused_rate: f64,
    /// Keys that were forgotten before their bucket was full again.
    forgiven_keys: u64,
    /// What each proxy has of it.
    proxies: Vec<LimitShareObserved>,
}

/// What one proxy has of a limit.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LimitShareObserved {
    proxy: String,
    /// `leased`; `own` with scope proxy; `even_share` of a limit by key; `safe_share` while it does not hear the control plane;
    /// `unknown` when it has not told lately.
    basis: &'static str,
    /// Requests per second that it may let pass; of a limit by key, of each key that is not hot.
    rate: f64,
    /// Keys of which more than an even share is lent.
    hot_keys: u32,
    admitted: u64,
    refused: u64,
}

/// What a limit came to, and what each proxy has of it.
pub(super) fn observed(context: &Context, limit: &Limit) -> LimitObserved {
    let (totals, proxies) = context.statistics.limit(&limit.name, limit.incarnation);
    let proxies = proxies.into_iter().map(|(proxy, totals)| {
        let share = totals.share.unwrap_or_default();
        LimitShareObserved {
            proxy: proxy.to_string(),
            basis: share.basis.name(),
            rate: share.rate as f64 / MICROS as f64,
            hot_keys: share.hot_keys,
            admitted: totals.counts.admitted,
            refused: totals.counts.refused,
        }
    });
    LimitObserved {
        admitted: totals.counts.admitted,
        refused: totals.counts.refused,
        admitted_rate: totals.admitted_rate,
        refused_rate: totals.refused_rate,
        forgiven_keys: totals.counts.forgiven,
        proxies: proxies.collect(),
    }
}
