//! The proxies: who is connected, what each has applied, and who is lost.
//!
//! A proxy is live while its stream is. When the stream ends or its lease runs out, the
//! proxy is listed as *lost* for a day, with what it had applied last: it may well be
//! serving traffic from that, and somebody should know. One that said goodbye serves nobody:
//! it is listed as *stopped* for an hour, and nobody waits for it.
//!
//! Sessions write their progress here and everybody else reads; a change wakes those
//! who wait for a revision to be applied.

mod adopt;
mod forget;
mod membership;
mod refusals;
mod sent;
mod view;
mod wait;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use lb_core::{
    model::{InstanceId, ProxyId, Reason},
    moment::Moment,
    sync::{Digest, Rejection},
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::refusals::Refusals;
pub use self::{
    forget::ForgetError,
    membership::Membership,
    refusals::{Refusal, Refused},
    sent::{Sent, Transmissions},
    view::{ProxyState, ProxyView},
    wait::{Laggard, WaitProgress, Waiter},
};
use crate::{
    clock::present,
    events::{EventLog, EventType},
};

/// How long a lost proxy is listed.
pub const LOST_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long a proxy that said goodbye is listed: so that whoever looks for it finds out.
pub const STOPPED_FOR: Duration = Duration::from_secs(3600);

/// All proxies that are or were connected.
#[derive(Debug)]
pub struct Fleet {
    entries: Mutex<Entries>,
    /// Counts changes of anything that a wait depends on.
    changes: watch::Sender<u64>,
    /// The live proxies in order of their ids.
    live: watch::Sender<Arc<[ProxyId]>>,
    /// Of the registry.
    revision: watch::Receiver<u64>,
    events: Arc<EventLog>,
    sent: Sent,
    refusals: Mutex<Refusals>,
    /// Those that may be on their way back after a restart of the control plane.
    returning: OnceLock<wait::Returning>,
}

#[derive(Debug, Default)]
struct Entries {
    /// Each behind a lock of its own, so that its session need neither search it nor hold up
    /// the others.
    by_id: BTreeMap<ProxyId, Arc<Mutex<Entry>>>,
    sessions: u64,
}

#[derive(Debug)]
struct Entry {
    info: ProxyInfo,
    life: Life,
    connected: Moment,
    last_seen: Instant,
    progress: Progress,
    lag: Duration,
    /// What was last told about it as an event.
    told: Option<ProxyState>,
    replaced: CancellationToken,
    /// An operator consents to what its process refuses.
    consent: Arc<Notify>,
}

#[derive(Clone, Copy, Debug)]
enum Life {
    Live,
    Lost {
        at: Instant,
        /// Of the registry: later ones are nothing that this proxy could have applied.
        at_revision: u64,
    },
    /// It said goodbye.
    Stopped {
        at: Instant,
    },
}

/// What a proxy says of itself when it connects.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProxyInfo {
    /// Survives restarts.
    pub id: ProxyId,
    /// New for each start.
    pub instance: InstanceId,
    /// The instance that this one takes over from; empty for none.
    pub replaces: String,
    /// Of its build.
    pub build_version: String,
    /// Listener names and addresses.
    pub listen_addresses: Vec<(String, String)>,
    /// Where its own health and metrics are; may be empty.
    pub admin_address: String,
    /// Where its stream comes from; empty for a Unix socket.
    pub peer_address: String,
    /// Whether that is another machine than this one, as far as addresses tell.
    pub elsewhere: bool,
    /// Threads that serve traffic.
    pub workers: u32,
    /// Whether it writes a line for each request.
    pub writes_access_log: bool,
    /// none, disk or live.
    pub held_source: &'static str,
    /// Since when it serves a state that it could not confirm.
    pub stale_since: Option<Moment>,
}

/// How far a proxy got.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Sent last.
    pub sent_revision: u64,
    /// Applied on all workers.
    pub applied_revision: u64,
    /// Over what it holds.
    pub digest: Option<Digest>,
    /// Objects that keep their former value.
    pub rejections: Vec<Rejection>,
    /// Why it refused the whole state.
    pub refusal: Option<String>,
    /// It would take the state if an operator consented: see [`Fleet::adopt`].
    pub awaits_consent: bool,
    /// The revision of this store that it holds, if that is later than the store's own: an older
    /// copy of the store was put back.
    pub ahead_revision: Option<u64>,
    /// How often digests did not agree.
    pub divergences: u64,
    /// Snapshots sent in this session.
    pub snapshots_sent: u64,
    /// Deltas sent in this session.
    pub deltas_sent: u64,
}

/// What made a proxy's progress known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Something was sent to it.
    Sent,
    /// It answered.
    Answered {
        /// From commit to ACK, if it was an ACK.
        lag: Option<Duration>,
    },
}

/// The process that a proxy's last stream was of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Which start of the proxy.
    pub instance: InstanceId,
    /// It took over from another process, which may still finish what it has.
    pub took_over: bool,
    /// Whether the stream is open.
    pub is_live: bool,
}

/// Another live proxy has the id.
#[derive(Debug, thiserror::Error)]
#[error(
    "the proxy id {id} is in use by another live proxy (instance {instance}, connected from \
     {from}); give each proxy an id and a data directory of its own with --id and --data-dir, or \
     stop the other one"
)]
pub struct IdTaken {
    /// Asked for.
    pub id: ProxyId,
    /// Who has it.
    pub instance: InstanceId,
    /// Where its stream comes from. Nothing that changes from attempt to attempt is told, so that
    /// whoever is refused can tell a new problem from the old one.
    pub from: String,
}

impl Fleet {
    /// An empty fleet of the registry whose revisions these are.
    #[must_use]
    pub fn new(revision: watch::Receiver<u64>, events: Arc<EventLog>) -> Self {
        Self {
            entries: Mutex::default(),
            changes: watch::Sender::new(0),
            live: watch::Sender::new(Arc::from([])),
            revision,
            events,
            sent: Sent::default(),
            refusals: Mutex::default(),
            returning: OnceLock::new(),
        }
    }

    /// What was sent to all proxies.
    #[must_use]
    pub fn sent(&self) -> &Sent {
        &self.sent
    }

    /// How many streams of proxies were opened.
    #[must_use]
    pub fn streams_opened(&self) -> u64 {
        self.lock().sessions
    }

    /// Lists a proxy as live until the membership is dropped. A second live one of the
    /// same id is refused, unless it is the same process on a new stream, or it says
    /// that it takes over.
    pub fn join(self: &Arc<Self>, info: ProxyInfo) -> Result<Membership, IdTaken> {
        let mut entries = self.lock();
        let former = entries.by_id.get(&info.id).cloned();
        let former = former.as_ref().map(|entry| locked(entry));
        let takes_over =
            former.as_ref().is_some_and(|other| other.info.instance.as_str() == info.replaces);
        if let Some(other) = former
            && matches!(other.life, Life::Live)
        {
            let theirs = other.info.instance.as_str();
            if theirs != info.instance.as_str() && theirs != info.replaces {
                return Err(IdTaken {
                    id: info.id,
                    instance: other.info.instance.clone(),
                    from: refusals::told_address(&other.info.peer_address),
                });
            }
            other.replaced.cancel();
        }
        entries.sessions += 1;
        let id = info.id.clone();
        let what = if takes_over { "proxy taken over by a new process" } else { "proxy connected" };
        info!(proxy = %id, instance = %info.instance, held = info.held_source, "{what}");
        let replaced = CancellationToken::new();
        let consent = Arc::new(Notify::new());
        let entry = Entry {
            info,
            life: Life::Live,
            connected: present(),
            last_seen: Instant::now(),
            progress: Progress::default(),
            lag: Duration::ZERO,
            told: None,
            replaced: replaced.clone(),
            consent: Arc::clone(&consent),
        };
        let entry = Arc::new(Mutex::new(entry));
        entries.by_id.insert(id.clone(), Arc::clone(&entry));
        self.show_members(&entries);
        drop(entries);
        self.forget_refusal(id.as_str(), locked(&entry).info.instance.as_str());
        let reason = match takes_over {
            true => Reason::new("took_over", "a new process has taken its sockets over"),
            false => Reason::default(),
        };
        self.tell(EventType::ProxyConnected, &id, reason);
        Ok(Membership {
            fleet: Arc::clone(self),
            id,
            entry,
            replaced,
            consent,
            said_goodbye: false,
        })
    }

    /// All proxies, in order of their ids.
    #[must_use]
    pub fn list(&self) -> Vec<ProxyView> {
        let revision = *self.revision.borrow();
        self.lock().by_id.values().map(|entry| locked(entry).view(revision)).collect()
    }

    /// The ids of all of which it is known how they are: they are live, or said goodbye. In
    /// order.
    #[must_use]
    pub fn accounted_for(&self) -> Vec<ProxyId> {
        let entries = self.lock();
        let known = entries.by_id.iter().filter(|(_, entry)| locked(entry).life.is_known());
        known.map(|(id, _)| id.clone()).collect()
    }

    /// The process that a proxy's last stream was of; `None` if it was never connected.
    #[must_use]
    pub fn member(&self, id: &ProxyId) -> Option<Member> {
        let entry = Arc::clone(self.lock().by_id.get(id)?);
        let entry = locked(&entry);
        Some(Member {
            instance: entry.info.instance.clone(),
            took_over: !entry.info.replaces.is_empty(),
            is_live: matches!(entry.life, Life::Live),
        })
    }

    /// The ids of the live proxies, in order. They are handed out, and not lent: whoever looked
    /// again while it held a loan would wait for a change that waits for that loan to end.
    #[must_use]
    pub fn live(&self) -> Arc<[ProxyId]> {
        Arc::clone(&self.live.borrow())
    }

    /// Tells when proxies come and go.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Arc<[ProxyId]>> {
        self.live.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show_members(&self, entries: &Entries) {
        let live =
            entries.by_id.iter().filter(|(_, entry)| matches!(locked(entry).life, Life::Live));
        self.live.send_replace(live.map(|(id, _)| id.clone()).collect());
        self.wake();
    }

    fn wake(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn tell(&self, what: EventType, id: &ProxyId, reason: Reason) {
        let revision = *self.revision.borrow();
        self.events.record(what, "proxy", id.as_str(), revision, reason);
    }
}

fn locked(entry: &Mutex<Entry>) -> MutexGuard<'_, Entry> {
    entry.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Life {
    /// Whether it is known what it does: serve, or nothing.
    fn is_known(self) -> bool {
        !matches!(self, Self::Lost { .. })
    }

    /// Whether nobody looks for it any more.
    fn is_long_over(self) -> bool {
        match self {
            Self::Live => false,
            Self::Lost { at, .. } => at.elapsed() >= LOST_FOR,
            Self::Stopped { at } => at.elapsed() >= STOPPED_FOR,
        }
    }
}

impl Entry {
    fn view(&self, revision: u64) -> ProxyView {
        ProxyView {
            info: self.info.clone(),
            state: self.state(revision),
            progress: self.progress.clone(),
            connected: self.connected,
            last_seen: self.last_seen.elapsed(),
            lag: self.lag,
        }
    }

    fn state(&self, revision: u64) -> ProxyState {
        if matches!(self.life, Life::Lost { .. }) {
            ProxyState::Lost
        } else if matches!(self.life, Life::Stopped { .. }) {
            ProxyState::Stopped
        } else if self.progress.refusal.is_some() || !self.progress.rejections.is_empty() {
            ProxyState::Rejected
        } else if self.progress.applied_revision >= revision {
            ProxyState::Synced
        } else {
            ProxyState::Behind
        }
    }
}
