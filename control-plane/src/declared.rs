//! The file of declared state that a control plane is started with.
//!
//! It is applied at every start, before anything is served, and again when the process is
//! told to read it again. What it names becomes what it says, also if somebody changed it
//! since; what it does not name stays. Nothing is written when nothing differs, so
//! restarts leave no trace.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use lb_core::model::{Kind, Reason, Resource};
use lb_proto::document::{self, Action, Change, Declaration, Problems, Source, Unreadable};
use tracing::{error, info};

use crate::{
    clock::unix_ms,
    events::EventType,
    grpc::Context,
    registry::{Catalog, Item, PutMode, Registry, WriteError, WriteRequest},
};

/// How often the file is compared again when the state changed meanwhile, say because of
/// a verdict about a backend.
const ATTEMPTS_MAX: u32 = 20;

/// Why a file of declared state was not applied. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read.
    #[error("--config: {0}")]
    Unreadable(#[from] Unreadable),
    /// It has faults.
    #[error("--config {} is not valid, nothing of it was applied:\n{problems}", path.display())]
    Invalid {
        /// The file or directory.
        path: PathBuf,
        /// All of them.
        problems: Problems,
    },
    /// The registry refused it.
    #[error("--config {} was refused, nothing of it was applied: {source}", path.display())]
    Refused {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: WriteError,
    },
}

/// Reads the file and makes the state what it declares; tells what it does not name.
pub(crate) async fn apply(registry: &Registry, path: &Path) -> Result<Undeclared, ConfigError> {
    let sources = load(path).await?;
    let refused = |source| ConfigError::Refused { path: path.to_owned(), source };
    let mut attempt = 1;
    loop {
        let (revision, current) =
            registry.read(|view| (view.publisher.version().revision, objects(&view.catalog)));
        let known = |kind: Kind, name: &str| {
            current.iter().any(|object| object.kind() == kind && object.name() == name)
        };
        let declared = Declaration::read(&sources, known)
            .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })?;
        let changes = document::changes(&declared, &current, false);
        match write(registry, revision, &changes).await {
            Ok(revision) => {
                tell(path, revision, &changes);
                let undeclared = Undeclared::of(path, &declared, &current);
                undeclared.tell();
                return Ok(undeclared);
            }
            Err(WriteError::RevisionConflict(_)) if attempt < ATTEMPTS_MAX => attempt += 1,
            Err(error) => return Err(refused(error)),
        }
    }
}

/// The same at the start of a control plane. A store that was `made` for this process goes away
/// with it if the file cannot be applied: nothing was begun.
pub(crate) async fn apply_first(
    registry: &Registry,
    path: &Path,
    made: Option<&Path>,
) -> Result<ConfigFile, ConfigError> {
    let applied = apply(registry, path).await;
    if let (Err(_), Some(store)) = (&applied, made) {
        registry.stop().await;
        // It is in nobody's way if it stays.
        fs::remove_file(store).ok();
    }
    let undeclared = Mutex::new(Some(applied?));
    Ok(ConfigFile { undeclared, ..ConfigFile::default() })
}

/// How the file stands to what is in force.
#[derive(Debug, Default)]
pub(crate) struct ConfigFile {
    /// It was refused when it was read again, until one is applied.
    refused: Mutex<Option<RefusedFile>>,
    undeclared: Mutex<Option<Undeclared>>,
}

/// Objects that are there and that the file did not name when it was last applied.
#[derive(Clone, Debug)]
pub(crate) struct Undeclared {
    pub(crate) path: String,
    /// In the order of their kinds and names.
    pub(crate) objects: Vec<(Kind, String)>,
}

impl Undeclared {
    /// What `lbctl apply --prune` would remove.
    fn of(path: &Path, declared: &Declaration, current: &[Resource]) -> Self {
        let changes = document::changes(declared, current, true).into_iter();
        let gone = changes.filter(|change| change.action == Action::Removed);
        let objects = gone.map(|change| (change.kind, change.name)).collect();
        Self { path: path.display().to_string(), objects }
    }

    fn tell(&self) {
        let Self { path, objects } = self;
        if objects.is_empty() {
            return;
        }
        let first = self.names().take(UNDECLARED_TOLD).collect::<Vec<_>>().join(", ");
        info!(
            file = %path,
            objects = objects.len(),
            first,
            "not in the configuration file, and they go on serving: 'lbctl apply --prune -f {path}' \
             removes them"
        );
    }

    /// As `kind/name`.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.objects.iter().map(|(kind, name)| format!("{kind}/{name}"))
    }
}

/// Of so many undeclared objects the names are told.
pub(crate) const UNDECLARED_TOLD: usize = 10;

/// Which file was refused, why, and when last.
#[derive(Clone, Debug)]
pub(crate) struct RefusedFile {
    pub(crate) path: String,
    pub(crate) reason: Reason,
    pub(crate) since_unix_ms: u64,
}

impl ConfigFile {
    /// The file whose newest content is not in force.
    pub(crate) fn refused(&self) -> Option<RefusedFile> {
        lock(&self.refused).clone()
    }

    /// What it does not name, as far as that is there still.
    pub(crate) fn undeclared(&self, catalog: &Catalog) -> Option<Undeclared> {
        let mut undeclared = lock(&self.undeclared).clone()?;
        undeclared.objects.retain(|(kind, name)| catalog.find(*kind, name).is_some());
        (!undeclared.objects.is_empty()).then_some(undeclared)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same for a running control plane: a file that cannot be applied leaves everything
/// as it is, which the log, the events and the refusal say.
pub(crate) async fn apply_again(context: &Context, path: &Path) {
    let Context { registry, events, config_file, .. } = context;
    let applied = apply(registry, path).await;
    if let Ok(undeclared) = &applied {
        *lock(&config_file.undeclared) = Some(undeclared.clone());
    }
    // A log has a line for each event, and an event one line.
    let failure = applied.err().map(|failure| one_line(&failure.to_string()));
    *lock(&config_file.refused) = failure.as_ref().map(|failure| RefusedFile {
        path: path.display().to_string(),
        reason: Reason::new("bad_configuration", failure.clone()),
        since_unix_ms: unix_ms(),
    });
    if let Some(failure) = failure {
        error!(%failure, "the configuration file was not applied; everything stays as it is");
        let name = path.display().to_string();
        let reason = Reason::new("bad_configuration", failure);
        events.record(EventType::ConfigRejected, "config", &name, registry.revision(), reason);
    }
}

/// Faults that are told one a line, in a row.
fn one_line(text: &str) -> String {
    text.replace(":\n", ": ").replace('\n', "; ")
}

async fn load(path: &Path) -> Result<Vec<Source>, ConfigError> {
    let owned = path.to_owned();
    let loaded = tokio::task::spawn_blocking(move || document::load(&owned)).await;
    let lost = |_| Unreadable { path: path.to_owned(), why: "reading it was cut off".to_owned() };
    Ok(loaded.map_err(lost)??)
}

async fn write(registry: &Registry, revision: u64, changes: &[Change]) -> Result<u64, WriteError> {
    let items: Vec<Item> = changes
        .iter()
        .filter(|change| change.is_needed())
        .filter_map(|change| {
            let resource = Box::new(change.resource.clone()?);
            Some(Item::Put { resource, mode: PutMode::Upsert, assign_id: change.without_id })
        })
        .collect();
    if items.is_empty() {
        return Ok(revision);
    }
    // A file removes nothing; a backend that leaves a pool for another is named with both.
    let request = WriteRequest {
        items,
        expected_revision: revision,
        force: true,
        batch: true,
        ..WriteRequest::default()
    };
    registry.write(request).await.map(|written| written.revision)
}

fn tell(path: &Path, revision: u64, changes: &[Change]) {
    for change in changes {
        let (kind, name, details) = (change.kind, &change.name, change.details());
        match change.action {
            Action::Created => info!(%kind, name, details, "added, as the configuration declares"),
            Action::Changed => {
                info!(%kind, name, details, "set to what the configuration declares")
            }
            Action::Unchanged | Action::Removed => {}
        }
    }
    let count = |action| changes.iter().filter(|change| change.action == action).count();
    info!(
        file = %path.display(),
        revision,
        created = count(Action::Created),
        changed = count(Action::Changed),
        unchanged = count(Action::Unchanged),
        "configuration applied"
    );
}

/// All objects that can be declared.
pub(crate) fn objects(catalog: &Catalog) -> Vec<Resource> {
    let kinds = document::DECLARED_KINDS.into_iter();
    kinds
        .flat_map(|kind| {
            let names = catalog.names(kind);
            names.into_iter().filter_map(move |name| catalog.find(kind, name))
        })
        .map(|stored| stored.value)
        .collect()
}
