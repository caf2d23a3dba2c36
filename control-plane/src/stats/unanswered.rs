//! Backends that have requests in progress and answer none.
//!
//! A health check may pass all the while: it asks for another page. A failure is counted when a
//! request ends, which may take a request timeout of half a minute.

use std::time::Duration;

use lb_core::model::{BackendId, Incarnation};
use tokio::time::Instant;

use super::{Statistics, total};

/// What waits for an answer of one backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unanswered {
    /// Requests whose response has not begun, over all proxies. Upgraded connections are none.
    pub requests: u32,
    /// For how long the backend has begun no response while there were such requests; by the
    /// reports, so it is late by a period of these.
    pub silent: Duration,
}

impl Statistics {
    /// What waits for an answer of one backend, if anything does.
    #[must_use]
    pub fn unanswered(&self, id: &BackendId, incarnation: Incarnation) -> Option<Unanswered> {
        let (key, now) = ((id.clone(), incarnation), Instant::now());
        let sums = self.lock();
        let waiting = || sums.proxies.iter().flat_map(|known| known.unanswered(&key, now));
        let since = waiting().map(|(_, since)| since).min()?;
        // Whatever was answered through one proxy was answered.
        let answered = sums.backends.get(&key).and_then(|backend| backend.answered);
        Some(Unanswered {
            requests: total(waiting().map(|(requests, _)| requests)),
            silent: now.saturating_duration_since(answered.map_or(since, |at| at.max(since))),
        })
    }
}
