//! The registry: the desired state, changed by one writer.
//!
//! ```text
//!   gRPC, prober --commands--> writer thread --> Store (durable)
//!                                   |                then
//!                                   v
//!                     View (publisher + catalog)  --revision--> sessions, prober
//! ```
//!
//! All changes pass through one thread that takes commands in order, so rules are
//! checked against exactly the state that they change, and revisions are dense. Memory
//! follows the store: what readers and proxies see is durable. Readers share one
//! [`View`] under a read lock held for as long as it takes to copy what they need.

mod answers;
mod catalog;
mod commit;
mod counts;
mod discovered;
mod draining;
mod error;
mod leads;
mod newer;
mod news;
mod picks;
mod plan;
pub(crate) mod session_keys;
mod standing;
mod twins;
mod weights;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use lb_core::{
    model::{AdminState, BackendStatus, DrainWish, InstanceId, Key, Kind, PoolName, Resource},
    moment::Moment,
    sync::Publisher,
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::sleep,
};

use self::writer::Writer;
pub use self::{
    catalog::{Catalog, Stored},
    counts::WriteCounts,
    draining::DrainStep,
    error::WriteError,
    session_keys::{KeyRequest, KeyStep, KeysWritten},
};
use crate::{
    events::EventLog,
    store::{Present, Store, StoreError},
};

/// Commands that may wait for the writer. Beyond that, callers wait.
const COMMANDS_MAX: usize = 256;

/// The wait before a store that failed is opened again; doubled up to [`HEAL_MAX`], so that a
/// disk that is full for hours is not read through each second.
const HEAL_MIN: Duration = Duration::from_millis(500);
/// An operator who made room need not wait longer than this.
const HEAL_MAX: Duration = Duration::from_secs(10);

/// Stands in for the id of a backend that is to get one.
pub(crate) const UNASSIGNED: &str = "unassigned";

/// A cheap handle to the registry.
#[derive(Clone, Debug)]
pub struct Registry {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// The committed state. Both parts always agree.
#[derive(Debug)]
pub struct View {
    /// As proxies get it.
    pub publisher: Publisher,
    /// As people ask for it.
    pub catalog: Catalog,
    /// When the last change was committed.
    pub committed: Moment,
}

/// One request to change the desired state.
#[derive(Clone, Debug, Default)]
pub struct WriteRequest {
    /// What to do, all or nothing.
    pub items: Vec<Item>,
    /// Of the object, or for a batch of the store; 0 does not care.
    pub expected_revision: u64,
    /// Leave to remove over half of a pool's backends.
    pub force: bool,
    /// Check and answer, but store nothing.
    pub dry_run: bool,
    /// Whether this is an `Apply`: the guard against mass removal is for batches,
    /// because who names one object means it.
    pub batch: bool,
    /// Who asks.
    pub origin: Origin,
    /// A key under which a repetition finds the first answer, and the fingerprint of
    /// the request's content.
    pub idempotency: Option<(String, u128)>,
}

/// Who asks for a change.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Origin {
    /// People and their automation.
    #[default]
    Operator,
    /// The sources of pools.
    Discovery,
}

/// One change.
#[derive(Clone, Debug)]
pub enum Item {
    /// Add or change an object.
    Put {
        /// The whole object.
        resource: Box<Resource>,
        /// What must or must not be there before.
        mode: PutMode,
        /// The resource is a backend whose id is to be chosen.
        assign_id: bool,
    },
    /// Remove an object.
    Delete {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// Enable, disable or drain a backend.
    SetState {
        /// Which.
        id: String,
        /// What is wanted.
        state: AdminState,
        /// What is wanted of its drain.
        drain: DrainWish,
    },
    /// The drain of a backend has come further. Nothing, if it drains no more.
    Drain {
        /// Which.
        id: String,
        /// How far.
        step: DrainStep,
    },
}

/// What must or must not be there before a put.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PutMode {
    /// Either.
    #[default]
    Upsert,
    /// Must not be there.
    Create,
    /// Must be there.
    Replace,
}

/// What a start of the control plane is to know of the one before it, beside the state.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    /// Which proxies there are.
    Proxies(Present),
    /// To which processes something may be lent.
    Holders(Vec<InstanceId>),
    /// That the present term has a greater number.
    Term(u64),
}

/// A write that succeeded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Written {
    /// Of the store afterwards.
    pub revision: u64,
    /// Whether anything changed.
    pub changed: bool,
    /// The objects that were put, as stored.
    pub objects: Vec<Stored<Resource>>,
    /// What works and is hardly meant.
    pub warnings: Vec<String>,
}

impl Registry {
    /// Loads the store and starts the writer. A fresh store gets the default pool,
    /// listener and route.
    pub fn start(store: Box<dyn Store>, events: Arc<EventLog>) -> Result<Self, StoreError> {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (writer, shared) = Writer::load(store, events)?;
        std::thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|error| StoreError::Failed { doing: "started", source: Box::new(error) })?;
        Ok(Self { commands, shared })
    }

    /// Changes the desired state.
    pub async fn write(&self, request: WriteRequest) -> Result<Written, WriteError> {
        self.ask(|reply| Command::Write { request, reply }).await?
    }

    /// Stores what was found out about backends, in one revision. What it says about
    /// backends that are gone, or about former lives of them, is dropped.
    pub async fn record(&self, statuses: Vec<BackendStatus>) -> Result<(), WriteError> {
        self.ask(|reply| Command::Record { statuses, reply }).await?
    }

    /// What the same write was answered before; nothing if it was not made.
    pub(crate) async fn answered(
        &self,
        key: String,
        fingerprint: u128,
    ) -> Result<Option<Written>, WriteError> {
        self.ask(|reply| Command::Answered { key, fingerprint, reply }).await?
    }

    /// Takes a step of the rotation of session keys; the revision at which the keys were last
    /// changed. Nothing is changed if the step was taken already.
    pub async fn step_keys(&self, request: KeyRequest) -> Result<KeysWritten, WriteError> {
        self.ask(|reply| Command::Keys { request, reply }).await?
    }

    /// Has something remembered for the next start, durably when this returns. Whether it could
    /// be: if not, the caller has to come again.
    #[must_use = "what could not be noted is lost, unless it is tried again"]
    pub(crate) async fn note(&self, note: Note) -> bool {
        self.ask(|reply| Command::Note { note, reply }).await.unwrap_or(false)
    }

    /// Has the writer do something, and waits for its answer.
    async fn ask<R>(
        &self,
        command: impl FnOnce(oneshot::Sender<R>) -> Command,
    ) -> Result<R, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| WriteError::Stopping)?;
        answer.await.map_err(|_| WriteError::Stopping)
    }

    /// The processes that may have had leases when the process before this one ended; nothing if
    /// that is not known.
    #[must_use]
    pub(crate) fn former_holders(&self) -> Option<Vec<InstanceId>> {
        self.shared.former_holders.clone()
    }

    /// The proxies that there were when the process before this one ended; nothing if that is not
    /// known.
    #[must_use]
    pub(crate) fn former_proxies(&self) -> Option<Present> {
        self.shared.former_proxies.clone()
    }

    /// Takes no more writes, and returns once the last accepted one is stored.
    pub async fn stop(&self) {
        // An error means that the writer is gone, which is what was asked for.
        self.ask(|reply| Command::Stop { reply }).await.ok();
    }

    /// Looks at the committed state. `look` must be short: it holds up the writer.
    pub fn read<R>(&self, look: impl FnOnce(&View) -> R) -> R {
        look(&self.shared.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The committed revision, to be waited on.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// The committed revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    /// The term of this process: above that of every process that used the store before it.
    /// It begins with the time in seconds, so that it rises over a restored backup too.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.shared.term
    }

    /// Whether writes are taken. False while the store fails, or while stopping.
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        !self.commands.is_closed() && self.shared.outage.borrow().is_none()
    }

    /// Why the store takes no writes now, to be waited on; nothing while it takes them.
    #[must_use]
    pub fn outages(&self) -> watch::Receiver<Option<String>> {
        self.shared.outage.subscribe()
    }

    /// Opens the store again after each failure, until it takes writes again; for ever.
    pub(crate) async fn keep_store_open(&self) {
        let mut outage = self.outages();
        // The sender is held here.
        while outage.wait_for(Option::is_some).await.is_ok() {
            let mut wait = HEAL_MIN;
            while self.shared.outage.borrow().is_some() {
                sleep(wait).await;
                if self.ask(|reply| Command::Heal { reply }).await.is_err() {
                    return;
                }
                wait = (wait * 2).min(HEAL_MAX);
            }
        }
    }

    /// What came of all writes since the process began.
    #[must_use]
    pub fn counts(&self) -> WriteCounts {
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Drops the counts of pools.
    pub(crate) fn forget_pools(&self, pools: &[PoolName]) {
        let mut counts = self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.transitions.retain(|(pool, _), _| !pools.contains(pool));
    }

    /// The pools and backends that changed since the last call; waits for one. For the
    /// prober alone. Safe to cancel.
    pub(crate) async fn touched(&self) -> BTreeSet<Key> {
        loop {
            // Registered before looking, so that a change in between is not missed.
            let notified = self.shared.touched.notify.notified();
            let keys = std::mem::take(&mut *self.shared.touched.lock());
            if !keys.is_empty() {
                return keys;
            }
            notified.await;
        }
    }
}

#[derive(Debug)]
enum Command {
    Write {
        request: WriteRequest,
        reply: oneshot::Sender<Result<Written, WriteError>>,
    },
    Record {
        statuses: Vec<BackendStatus>,
        reply: oneshot::Sender<Result<(), WriteError>>,
    },
    Answered {
        key: String,
        fingerprint: u128,
        reply: oneshot::Sender<Result<Option<Written>, WriteError>>,
    },
    Keys {
        request: KeyRequest,
        reply: oneshot::Sender<Result<KeysWritten, WriteError>>,
    },
    Note {
        note: Note,
        reply: oneshot::Sender<bool>,
    },
    Heal {
        reply: oneshot::Sender<()>,
    },
    Stop {
        reply: oneshot::Sender<()>,
    },
}

#[derive(Debug)]
struct Shared {
    view: RwLock<View>,
    revision: watch::Sender<u64>,
    /// Why the store takes no writes.
    outage: watch::Sender<Option<String>>,
    touched: Touched,
    counts: Mutex<WriteCounts>,
    term: u64,
    former_proxies: Option<Present>,
    former_holders: Option<Vec<InstanceId>>,
}

/// The names of what changed: bounded by what there is, however far the reader lags.
#[derive(Debug, Default)]
struct Touched {
    keys: Mutex<BTreeSet<Key>>,
    notify: Notify,
}

impl Touched {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
