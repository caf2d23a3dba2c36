//! Proxies whose streams are refused: such a proxy serves by an old state for as long as that
//! lasts, and nobody would know.
//!
//! It tries again every few seconds, so that its attempts are counted, and told as an event only
//! when they begin, when the reason is another one, and now and then while they go on.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use lb_core::{model::Reason, moment::Moment};
use tokio::time::Instant;
use tracing::warn;

use super::Fleet;
use crate::{clock::present, events::EventType};

/// How long a refused proxy is listed after its last attempt: it tries again every 15 s at least,
/// and needs a few seconds for an attempt that nobody answers.
const REFUSED_FOR: Duration = Duration::from_secs(45);
/// Between two events about the same refusal.
const TOLD_EVERY: Duration = Duration::from_secs(600);
/// Refused proxies that are listed. What is refused beyond that is an attack, or a mistake of
/// which these tell enough.
const LISTED_MAX: usize = 100;

/// A stream that was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// As the proxy calls itself, unchecked; may be empty.
    pub id: String,
    /// Which start of it, unchecked.
    pub instance: String,
    /// Of its build, unchecked.
    pub build_version: String,
    /// Where it comes from; empty for a Unix socket.
    pub peer_address: String,
    /// Why, and what to do.
    pub reason: Reason,
}

/// A proxy that is refused at present.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    /// Its last attempt.
    pub refusal: Refusal,
    /// When it was refused first.
    pub since: Moment,
    /// When it was refused last.
    pub last: Moment,
    /// How often it was.
    pub attempts: u64,
}

#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// By id and instance: the one that has the id is not meant by what the other is told.
    by_process: BTreeMap<(String, String), Entry>,
}

#[derive(Debug)]
struct Entry {
    refused: Refused,
    seen: Instant,
    told: Instant,
}

/// Where a stream comes from, as people are told.
pub(super) fn told_address(peer_address: &str) -> String {
    if peer_address.is_empty() { "a Unix socket".to_owned() } else { peer_address.to_owned() }
}

impl Fleet {
    /// Notes that a proxy's stream was refused, and tells of it.
    pub fn refuse(&self, refusal: Refusal) {
        if !self.refusals().note(refusal.clone()) {
            return;
        }
        let Refusal { id, instance, peer_address, reason, .. } = refusal;
        let from = told_address(&peer_address);
        warn!(
            proxy = id,
            instance,
            from,
            reason.code,
            "a proxy is refused and hears of no change: {}",
            reason.message
        );
        let message = format!("instance {instance}, from {from}: {}", reason.message);
        let revision = *self.revision.borrow();
        let reason = Reason::new(&reason.code, message);
        self.events.record(EventType::ProxyRefused, "proxy", &id, revision, reason);
    }

    /// The proxies that are refused at present, in order of their ids.
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        let mut refusals = self.refusals();
        refusals.forget_old();
        refusals.by_process.values().map(|entry| entry.refused.clone()).collect()
    }

    /// A process of a proxy is welcome: what it was refused for is over.
    pub(super) fn forget_refusal(&self, id: &str, instance: &str) {
        let key = (id.to_owned(), instance.to_owned());
        self.refusals().by_process.remove(&key);
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refusals {
    /// Notes an attempt; whether it is to be told.
    fn note(&mut self, refusal: Refusal) -> bool {
        self.forget_old();
        let (now, present) = (Instant::now(), present());
        let key = (refusal.id.clone(), refusal.instance.clone());
        if let Some(entry) = self.by_process.get_mut(&key) {
            let is_news = entry.refused.refusal.reason != refusal.reason
                || now.duration_since(entry.told) >= TOLD_EVERY;
            if is_news {
                entry.told = now;
            }
            entry.seen = now;
            entry.refused.refusal = refusal;
            entry.refused.last = present;
            entry.refused.attempts += 1;
            return is_news;
        }
        if self.by_process.len() >= LISTED_MAX {
            return false;
        }
        let refused = Refused { refusal, since: present, last: present, attempts: 1 };
        self.by_process.insert(key, Entry { refused, seen: now, told: now });
        true
    }

    fn forget_old(&mut self) {
        self.by_process.retain(|_, entry| entry.seen.elapsed() < REFUSED_FOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(id: &str, why: &str) -> Refusal {
        Refusal {
            id: id.to_owned(),
            instance: "i".to_owned(),
            build_version: "0.1.0".to_owned(),
            peer_address: "127.0.0.1:5".to_owned(),
            reason: Reason::new("refused", why),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_is_told_when_it_is_the_first_or_another_or_after_a_while() {
        let mut refusals = Refusals::default();
        assert!(refusals.note(refusal("a", "in use")));
        for _ in 0..39 {
            tokio::time::advance(Duration::from_secs(15)).await;
            assert!(!refusals.note(refusal("a", "in use")));
        }
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(refusals.note(refusal("a", "in use")), "ten minutes later");
        assert!(refusals.note(refusal("a", "no common version")));
        assert!(refusals.note(refusal("b", "in use")));
        let attempts: Vec<u64> =
            refusals.by_process.values().map(|entry| entry.refused.attempts).collect();
        assert_eq!(attempts, [42, 1]);
        tokio::time::advance(REFUSED_FOR).await;
        refusals.forget_old();
        assert!(refusals.by_process.is_empty());
        assert!(refusals.note(refusal("a", "in use")), "it begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn names_without_end_fill_neither_the_memory_nor_the_log() {
        let mut refusals = Refusals::default();
        let names = (0..10 * LISTED_MAX).map(|number| refusal(&number.to_string(), "in use"));
        assert_eq!(names.filter(|one| refusals.note(one.clone())).count(), LISTED_MAX);
        assert_eq!(refusals.by_process.len(), LISTED_MAX);
    }
}
