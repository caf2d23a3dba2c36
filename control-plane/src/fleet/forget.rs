//! Proxies that are gone and leave the list: after their time, or because somebody says so.

use lb_core::model::{ProxyId, Reason};
use lb_proto::document::missing;
use tracing::info;

use super::{Fleet, ProxyView, locked};
use crate::events::EventType;

/// Why a proxy cannot be forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// It is not listed.
    #[error("{0}")]
    Unknown(String),
    /// It serves.
    #[error(
        "proxy {0} is connected and cannot be forgotten; stop its process first (SIGTERM), and it \
         is no longer waited for"
    )]
    Connected(ProxyId),
}

impl Fleet {
    /// Forgets proxies that were lost or stopped long ago, and says which.
    pub fn forget_long_gone(&self) -> Vec<ProxyId> {
        let mut entries = self.lock();
        let long_gone: Vec<ProxyId> = entries
            .by_id
            .iter()
            .filter(|(_, entry)| locked(entry).life.is_long_over())
            .map(|(id, _)| id.clone())
            .collect();
        for id in &long_gone {
            entries.by_id.remove(id);
        }
        if !long_gone.is_empty() {
            self.show_members(&entries);
        }
        long_gone
    }

    /// Forgets a proxy that is not connected, and says what was known of it; with `dry_run` only
    /// the latter.
    pub fn forget(&self, id: &str, dry_run: bool) -> Result<ProxyView, ForgetError> {
        let mut entries = self.lock();
        let found = ProxyId::new(id).ok().and_then(|id| Some((entries.by_id.get(&id)?, id)));
        let Some((entry, id)) = found else {
            let ids: Vec<&str> = entries.by_id.keys().map(ProxyId::as_str).collect();
            return Err(ForgetError::Unknown(missing("proxy", id, &ids)));
        };
        let view = locked(entry).view(*self.revision.borrow());
        if view.state.is_connected() {
            return Err(ForgetError::Connected(id));
        }
        if !dry_run {
            entries.by_id.remove(&id);
            self.show_members(&entries);
            drop(entries);
            info!(proxy = %id, state = view.state.name(), "forgotten, as was asked for");
            let message = format!("it was {}, and is no longer waited for", view.state.name());
            self.tell(EventType::ProxyForgotten, &id, Reason::new("asked_for", message));
        }
        Ok(view)
    }
}
