//! The one thread that changes the state.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use lb_core::{
    model::{
        BackendStatus, Health, HostMatch, Key, Kind, Listener, ListenerName, PathMatch, Pool,
        PoolName, Resource, Route, RouteName, RoutePools, Version,
    },
    moment::Moment,
    sync::{ObjectSet, Publisher},
};
use lb_proto::convert;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{
    Catalog, Command, KeyRequest, KeysWritten, Shared, Touched, View, WriteCounts, WriteError,
    WriteRequest, Written, answers::Answers, commit::Change, leads, newer::unreadable, news::News,
    plan::plan, session_keys, twins, weights,
};
use crate::{
    clock::{present, unix_ms},
    events::{EventLog, EventType},
    store::{Answered, Store, StoreError},
};

/// Owns the store.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) store: Box<dyn Store>,
    pub(super) shared: Arc<Shared>,
    pub(super) events: Arc<EventLog>,
    pub(super) next_backend_number: u64,
    pub(super) answers: Answers,
    /// A change whose commit failed, and of which is not known whether it is in the store.
    pub(super) in_doubt: Option<Change>,
    /// The term of this process, until it is stored.
    unstored_term: Option<u64>,
}

impl Writer {
    /// Reads everything from the store.
    pub(super) fn load(
        mut store: Box<dyn Store>,
        events: Arc<EventLog>,
    ) -> Result<(Self, Arc<Shared>), StoreError> {
        let contents = store.load()?;
        // The time is kept to, so that terms rise over a restored backup too.
        let term = (unix_ms() / 1000).max(contents.term.saturating_add(1));
        let mut catalog = Catalog::default();
        for object in &contents.objects {
            let resource = convert::decode_object(object)
                .map_err(|invalid| unreadable(object, &invalid, contents.written_by.as_deref()))?;
            if let Resource::Route(route) = &resource {
                warn_of_no_match(route);
            }
            catalog.put(resource, object.revision);
        }
        let version = Version { epoch: contents.epoch, revision: contents.revision };
        let objects: ObjectSet = contents.objects.into_iter().collect();
        info!(%version, objects = objects.len(), "store loaded");
        let view = View {
            publisher: Publisher::new(version, objects),
            catalog,
            committed: Moment::recalled(contents.committed_unix_ms, present()),
        };
        let shared = Arc::new(Shared {
            view: RwLock::new(view),
            revision: watch::Sender::new(contents.revision),
            outage: watch::Sender::new(None),
            touched: Touched::default(),
            counts: Mutex::default(),
            term,
            former_proxies: contents.proxies,
            former_holders: contents.holders,
        });
        let mut writer = Self {
            store,
            shared: Arc::clone(&shared),
            events,
            next_backend_number: contents.next_backend_number,
            answers: Answers::new(contents.answers),
            in_doubt: None,
            unstored_term: Some(term),
        };
        // A store that cannot be written now is served all the same.
        if let Err(failure) = writer.begin_term() {
            writer.after(failure).ok();
        }
        if contents.revision == 0 {
            let number = writer.next_backend_number;
            writer.commit(default_objects(), Vec::new(), number, None)?;
        }
        Ok((writer, shared))
    }

    /// Takes commands until it is told to stop, or nobody is left to send any.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut stopping = Vec::new();
        while let Some(command) = commands.blocking_recv() {
            // A caller that is gone does not need the answer.
            match command {
                Command::Write { request, reply } => {
                    let dry_run = request.dry_run;
                    let outcome = self.write(request);
                    self.counts().note(&outcome, dry_run);
                    reply.send(outcome).ok();
                }
                Command::Record { statuses, reply } => {
                    reply.send(self.record(statuses)).ok();
                }
                Command::Answered { key, fingerprint, reply } => {
                    reply.send(self.answered(&key, fingerprint)).ok();
                }
                Command::Keys { request, reply } => {
                    reply.send(self.step_keys(request)).ok();
                }
                Command::Note { note, reply } => {
                    reply.send(self.note(&note)).ok();
                }
                Command::Heal { reply } => {
                    self.heal();
                    reply.send(()).ok();
                }
                Command::Stop { reply } => {
                    commands.close();
                    stopping.push(reply);
                }
            }
        }
        // The store is closed before anybody is told, so that it can be opened again.
        drop(self);
        stopping.into_iter().for_each(|reply| {
            reply.send(()).ok();
        });
    }

    fn write(&mut self, request: WriteRequest) -> Result<Written, WriteError> {
        if let Some((key, fingerprint)) = &request.idempotency
            && let Some(written) = self.answered(key, *fingerprint)?
        {
            return Ok(written);
        }
        let (dry_run, idempotency) = (request.dry_run, request.idempotency.clone());
        let (revision, plan, mut warnings, idle) = {
            let view = self.shared.view.read().unwrap_or_else(PoisonError::into_inner);
            let revision = view.publisher.version().revision;
            let (catalog, number) = (&view.catalog, self.next_backend_number);
            let mut plan = plan(catalog, revision, number, unix_ms(), request)?;
            let now_s = unix_ms() / 1000;
            let keys = session_keys::needed(catalog, &plan.upserts, &plan.deletes, now_s)?;
            plan.upserts.extend(keys.map(Resource::SessionKeys));
            let mut warnings = session_keys::warnings(catalog, &plan.upserts, &plan.deletes);
            warnings.extend(twins::warnings(catalog, &plan.upserts, &plan.deletes));
            let mut idle = leads::warnings(catalog, &plan.upserts, &plan.deletes);
            idle.extend(weights::warnings(catalog, &plan.upserts, &plan.deletes));
            (revision, plan, warnings, idle)
        };
        let changed = plan.changes_anything();
        if !dry_run {
            for warning in &warnings {
                warn!(warning, "a write that is hardly meant");
            }
        }
        // They are of interest to whoever makes the change.
        warnings.extend(idle);
        if dry_run {
            return Ok(Written { revision, changed, objects: plan.put, warnings });
        }
        let after = revision + u64::from(changed);
        let answered = idempotency.map(|(key, fingerprint)| Answered {
            key,
            fingerprint,
            revision: after,
            changed,
            objects: plan.put.iter().map(|stored| stored.value.key()).collect(),
        });
        if changed || answered.is_some() {
            self.commit(plan.upserts, plan.deletes, plan.next_backend_number, answered)?;
        }
        Ok(Written { revision: after, changed, objects: plan.put, warnings })
    }

    fn answered(&self, key: &str, fingerprint: u128) -> Result<Option<Written>, WriteError> {
        let answered = self.answers.get(key);
        answered.map(|answered| self.repeat(answered, fingerprint)).transpose()
    }

    /// The answer that the same write got before. Objects that were changed since are
    /// given as they are now.
    fn repeat(&self, answered: &Answered, fingerprint: u128) -> Result<Written, WriteError> {
        if answered.fingerprint != fingerprint {
            return Err(WriteError::Malformed(format!(
                "the idempotency key {:?} was used before for another write, at revision {}; \
                 use a new key for each write",
                answered.key, answered.revision
            )));
        }
        let view = self.shared.view.read().unwrap_or_else(PoisonError::into_inner);
        let find = |key: &Key| view.catalog.find(key.known_kind()?, &key.name);
        Ok(Written {
            revision: answered.revision,
            changed: answered.changed,
            objects: answered.objects.iter().filter_map(find).collect(),
            warnings: Vec::new(),
        })
    }

    fn record(&mut self, statuses: Vec<BackendStatus>) -> Result<(), WriteError> {
        let upserts: Vec<Resource> = {
            let view = self.shared.view.read().unwrap_or_else(PoisonError::into_inner);
            let concerns = |status: &BackendStatus| {
                view.catalog.backends().get(&status.backend).is_some_and(|stored| {
                    stored.value.incarnation == status.incarnation
                        && view.catalog.status(&stored.value) != Some(status)
                })
            };
            statuses.into_iter().filter(concerns).map(Resource::Status).collect()
        };
        if upserts.is_empty() {
            return Ok(());
        }
        self.commit(upserts, Vec::new(), self.next_backend_number, None).map_err(WriteError::Store)
    }

    fn step_keys(&mut self, request: KeyRequest) -> Result<KeysWritten, WriteError> {
        let KeyRequest { step, expected_revision, idempotency } = request;
        if let Some((key, fingerprint)) = &idempotency
            && let Some(Written { revision, .. }) = self.answered(key, *fingerprint)?
        {
            return Ok(KeysWritten { revision, repeated: true });
        }
        let (keys, revision) = {
            let view = self.shared.view.read().unwrap_or_else(PoisonError::into_inner);
            let revision = view.catalog.session_keys().map_or(0, |stored| stored.revision);
            let keys = session_keys::after(&view.catalog, step, unix_ms() / 1000)?;
            if expected_revision != 0 && expected_revision != revision {
                return Err(session_keys::changed_since(expected_revision, revision));
            }
            (keys, revision)
        };
        let changed = keys.is_some();
        let revision = if changed { *self.shared.revision.borrow() + 1 } else { revision };
        // Of secrets nothing is answered but that they were made.
        let answered = idempotency.map(|(key, fingerprint)| Answered {
            key,
            fingerprint,
            revision,
            changed,
            objects: Vec::new(),
        });
        if changed || answered.is_some() {
            let upserts = keys.map(Resource::SessionKeys).into_iter().collect();
            self.commit(upserts, Vec::new(), self.next_backend_number, answered)?;
        }
        Ok(KeysWritten { revision, repeated: false })
    }

    /// Stores the term of this process, unless it is stored.
    pub(super) fn begin_term(&mut self) -> Result<(), StoreError> {
        if let Some(term) = self.unstored_term {
            self.store.begin_term(term)?;
            self.unstored_term = None;
        }
        Ok(())
    }

    /// Compares verdicts with the catalog before them.
    pub(super) fn count_transitions(&self, before: &Catalog, upserts: &[Resource]) {
        for resource in upserts {
            let Resource::Status(status) = resource else { continue };
            let Some(backend) = before.backends().get(&status.backend) else { continue };
            let former = before.status(&backend.value).map_or(Health::Unknown, |s| s.health);
            if former != status.health {
                let key = (backend.value.pool.clone(), status.health.name());
                *self.counts().transitions.entry(key).or_default() += 1;
            }
        }
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, WriteCounts> {
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, news: Vec<News>, revision: u64) {
        let objects = news.iter().filter(|news| news.is_about_an_object());
        if let Some(first) = objects.clone().next() {
            // One line, however large the batch: the events name each object.
            let (objects, what) = (objects.count(), &first.reason.message);
            info!(revision, objects, object = %first.key, what, "registry changed");
        }
        let mut touched = false;
        for news in news {
            let News { what, key, kind, reason } = &news;
            match what {
                EventType::BackendUp => info!(backend = %key.name, reason.message, "backend up"),
                EventType::BackendDown => {
                    warn!(backend = %key.name, reason.code, reason.message, "backend down");
                }
                EventType::DrainStarted => {
                    info!(backend = %key.name, reason.message, "drain started");
                }
                EventType::DrainDeadline => {
                    warn!(backend = %key.name, reason.code, reason.message, "drain deadline");
                }
                EventType::Drained => info!(backend = %key.name, reason.message, "drained"),
                EventType::SessionKeysChanged => {
                    info!(reason.code, reason.message, "session keys changed");
                }
                what if what.is_a_loss() => {
                    warn!(backend = %key.name, reason.code, reason.message, "{}", what.name());
                }
                what if what.is_of_a_standing() => {
                    info!(backend = %key.name, reason.code, reason.message, "{}", what.name());
                }
                _ => {}
            }
            if news.is_about_an_object() && matches!(kind, Kind::Pool | Kind::Backend) {
                self.shared.touched.lock().insert(key.clone());
                touched = true;
            }
            self.events.record(*what, kind.name(), &key.name, revision, reason.clone());
        }
        if touched {
            self.shared.touched.notify.notify_one();
        }
    }
}

/// Former builds took routes that match nothing: said once, when they are loaded.
fn warn_of_no_match(route: &Route) {
    if route.host.has_port() {
        warn!(
            route = %route.name,
            host = %route.host,
            "this route matches nothing, since its host has a port; set its host without it"
        );
    }
    if let Some(unmatched) = route.path.unmatched() {
        warn!(
            route = %route.name,
            path = %route.path,
            "this route matches nothing, since its path has {}; set its path without it",
            unmatched.name()
        );
    }
}

/// What a fresh store holds, so that adding a backend is all that is left to do.
fn default_objects() -> Vec<Resource> {
    let route = Route {
        name: RouteName::default_route(),
        listener: ListenerName::default_listener(),
        host: HostMatch::Any,
        path: PathMatch::Prefix("/".into()),
        pools: RoutePools::one(PoolName::default_pool()),
    };
    vec![
        Resource::Pool(Pool::new(PoolName::default_pool())),
        Resource::Listener(Listener::new(ListenerName::default_listener())),
        Resource::Route(route),
    ]
}
