//! Proxies that hold another store's state, and an operator who has them take this one's.

use lb_core::model::ProxyId;
use tracing::info;

use super::{Fleet, Life, locked};

impl Fleet {
    /// Has proxies take the state of this store that refuse it because pools which they can serve
    /// now are silent there: all of them, or one. Which do; nothing if there is no such proxy.
    pub fn adopt(&self, only: Option<&ProxyId>) -> Option<Vec<ProxyId>> {
        let entries = self.lock();
        if only.is_some_and(|id| !entries.by_id.contains_key(id)) {
            return None;
        }
        let mut adopting = Vec::new();
        for (id, entry) in &entries.by_id {
            let mut entry = locked(entry);
            let is_meant = only.is_none_or(|only| only == id);
            if !is_meant || !entry.progress.awaits_consent || !matches!(entry.life, Life::Live) {
                continue;
            }
            info!(proxy = %id, "it is to take the state of this store, as an operator wants");
            // What it has refused is no answer any more to whoever waits.
            (entry.progress.refusal, entry.progress.awaits_consent) = (None, false);
            entry.consent.notify_one();
            adopting.push(id.clone());
        }
        Some(adopting)
    }
}
