//! What an operator has said about a rotation, and how much this process can know.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lb_core::affinity::{KeyId, rotation::Consent};
use tokio::{sync::Notify, time::Instant};

use crate::fleet::LOST_FOR;

/// What an operator has said about the rotation at hand, and since when this process can know
/// of all proxies. What was said is forgotten at a restart: then it is said again.
#[derive(Debug)]
pub(crate) struct Rotation {
    /// Before this there may be proxies that were lost before the process began.
    complete_from: Instant,
    said: Mutex<Option<(KeyId, Consent)>>,
    news: Notify,
}

impl Rotation {
    /// `resumed` tells whether there may be proxies that were connected before this process
    /// began.
    pub(crate) fn new(resumed: bool) -> Self {
        let wait = if resumed { LOST_FOR } else { Duration::ZERO };
        let complete_from = Instant::now() + wait;
        Self { complete_from, said: Mutex::default(), news: Notify::new() }
    }

    /// An operator wants this key to sign.
    pub(crate) fn ask(&self, key: KeyId, consent: Consent) {
        let mut said = self.lock();
        let former = said.filter(|(former, _)| *former == key);
        *said = Some((key, former.map_or(consent, |(_, former)| former.max(consent))));
        drop(said);
        self.news.notify_one();
    }

    /// Waits until somebody has asked.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Whether others may be lost than those that are known.
    pub(super) fn may_be_more(&self) -> bool {
        Instant::now() < self.complete_from
    }

    pub(super) fn consent(&self, key: KeyId) -> Consent {
        let said = *self.lock();
        said.filter(|(former, _)| *former == key).map(|(_, consent)| consent).unwrap_or_default()
    }

    /// For how long the key does not sign by itself, because nobody can know of all proxies.
    pub(crate) fn unsure_for(&self, key: KeyId) -> Duration {
        match self.consent(key) {
            Consent::None => self.complete_from.saturating_duration_since(Instant::now()),
            Consent::Asked | Consent::Forced => Duration::ZERO,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(KeyId, Consent)>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_said_of_one_key_holds_for_no_other() {
        let rotation = Rotation::new(false);
        rotation.ask(KeyId(1), Consent::Forced);
        rotation.ask(KeyId(1), Consent::Asked);
        assert_eq!(rotation.consent(KeyId(1)), Consent::Forced);
        assert_eq!(rotation.consent(KeyId(2)), Consent::None);
        rotation.ask(KeyId(2), Consent::Asked);
        assert_eq!(rotation.consent(KeyId(2)), Consent::Asked);
        assert_eq!(rotation.consent(KeyId(1)), Consent::None);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restart_a_day_passes_until_all_can_be_known() {
        assert!(!Rotation::new(false).may_be_more());
        let rotation = Rotation::new(true);
        assert_eq!(rotation.unsure_for(KeyId(1)), LOST_FOR);
        tokio::time::advance(LOST_FOR / 2).await;
        assert!(rotation.may_be_more());
        assert_eq!(rotation.unsure_for(KeyId(1)), LOST_FOR / 2);
        rotation.ask(KeyId(1), Consent::Asked);
        assert_eq!(rotation.unsure_for(KeyId(1)), Duration::ZERO);
        tokio::time::advance(LOST_FOR / 2).await;
        assert!(!rotation.may_be_more());
    }
}
