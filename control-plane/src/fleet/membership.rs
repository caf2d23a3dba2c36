//! A live proxy's place in the fleet, held by its stream.

use std::sync::{Arc, Mutex};

use lb_core::model::{ProxyId, Reason};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Entry, Fleet, Life, Progress, ProxyState, Step, locked};
use crate::events::EventType;

/// A live proxy's place in the fleet; dropping it loses the proxy, unless it said goodbye.
#[derive(Debug)]
pub struct Membership {
    pub(super) fleet: Arc<Fleet>,
    pub(super) id: ProxyId,
    pub(super) entry: Arc<Mutex<Entry>>,
    pub(super) replaced: CancellationToken,
    pub(super) consent: Arc<Notify>,
    pub(super) said_goodbye: bool,
}

impl Membership {
    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> &ProxyId {
        &self.id
    }

    /// Ends when another stream of the same proxy took this one's place.
    #[must_use]
    pub fn replaced(&self) -> &CancellationToken {
        &self.replaced
    }

    /// Tells when an operator consents to what the proxy refuses.
    #[must_use]
    pub fn consent(&self) -> &Arc<Notify> {
        &self.consent
    }

    /// The proxy was heard of, and has not got further.
    pub fn seen(&self) {
        self.with_entry(|entry| entry.last_seen = Instant::now());
    }

    /// The proxy says goodbye: when its stream ends, it is not lost.
    pub fn say_goodbye(&mut self) {
        self.seen();
        self.said_goodbye = true;
    }

    /// The proxy got further.
    pub fn advance(&self, progress: Progress, step: Step) {
        let revision = *self.fleet.revision.borrow();
        let news = self.with_entry(|entry| {
            if let Step::Answered { lag } = step {
                entry.last_seen = Instant::now();
                entry.lag = lag.unwrap_or(entry.lag);
            }
            if entry.progress == progress {
                return None;
            }
            let rejected_anew = entry.progress.rejections != progress.rejections
                || entry.progress.refusal != progress.refusal;
            // Nobody waits for something to be sent.
            let got_further = entry.progress.applied_revision != progress.applied_revision;
            entry.progress = progress;
            if entry.progress.applied_revision >= revision {
                entry.info.stale_since = None;
            }
            let state = entry.state(revision);
            let tell = match state {
                ProxyState::Rejected => rejected_anew,
                ProxyState::Synced => entry.told != Some(ProxyState::Synced),
                ProxyState::Behind | ProxyState::Lost | ProxyState::Stopped => false,
            };
            if tell {
                entry.told = Some(state);
            }
            (rejected_anew || got_further || tell)
                .then(|| tell.then(|| (state, entry.progress.clone())))
        });
        let Some(Some(news)) = news else { return };
        self.fleet.wake();
        match news {
            Some((ProxyState::Rejected, progress)) => {
                let reason = why_rejected(&progress);
                warn!(proxy = %self.id, reason.code, reason.message, "proxy refused a change");
                self.fleet.tell(EventType::ProxyRejected, &self.id, reason);
            }
            Some((_, progress)) => {
                info!(proxy = %self.id, revision = progress.applied_revision, "proxy in sync");
                self.fleet.tell(EventType::ProxySynced, &self.id, Reason::default());
            }
            None => {}
        }
    }

    /// Runs on this session's entry; `None` when another session took its place.
    fn with_entry<R>(&self, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        // It is replaced under this lock.
        let mut entry = locked(&self.entry);
        (!self.replaced.is_cancelled()).then(|| change(&mut entry))
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let at_revision = *self.fleet.revision.borrow();
        let at = Instant::now();
        let life =
            if self.said_goodbye { Life::Stopped { at } } else { Life::Lost { at, at_revision } };
        // Held until everybody was told, so that a proxy that comes back at once is told of after
        // this: the last word on one that is connected is not that it is lost.
        let entries = self.fleet.lock();
        let gone = self.with_entry(|entry| {
            entry.life = life;
            entry.progress.applied_revision
        });
        let Some(applied) = gone else { return };
        self.fleet.show_members(&entries);
        let (what, reason) = if self.said_goodbye {
            info!(proxy = %self.id, "proxy stopped");
            let message = "it was stopped in order, and serves nobody any more";
            (EventType::ProxyStopped, Reason::new("said_goodbye", message))
        } else {
            info!(proxy = %self.id, applied, "proxy lost");
            let message = format!("its stream ended; it had applied revision {applied}");
            (EventType::ProxyLost, Reason::new("stream_ended", message))
        };
        self.fleet.tell(what, &self.id, reason);
    }
}

fn why_rejected(progress: &Progress) -> Reason {
    match (&progress.refusal, &progress.rejections[..]) {
        (Some(refusal), _) => Reason::new("state_refused", refusal),
        (None, [first, more @ ..]) => {
            let also =
                if more.is_empty() { String::new() } else { format!(" (and {} more)", more.len()) };
            Reason::new(&first.code, format!("{}: {}{also}", first.key, first.message))
        }
        (None, []) => Reason::default(),
    }
}
