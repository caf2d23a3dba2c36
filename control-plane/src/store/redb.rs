//! The embedded store: one redb file.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | name | number, the epoch, the version of the build that was started last, or a term and the proxies that were connected in it, or the processes with leases |
//! | `objects` | (kind, name) | (revision, payload) |
//! | `answers` | sequence | what a write with an idempotency key was answered |
//!
//! One batch is one transaction, durable when it returns. redb writes new pages
//! beside the old ones and then one checksummed root, so after a crash the file holds
//! the last commit or the one before it, never a mixture; a test with a storage that
//! loses what was not synced holds it to that.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::ErrorKind,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use lb_core::{
    model::{Epoch, InstanceId, Invalid, Key, ProxyId},
    sync::Object,
};
use redb::{
    Builder, Database, Durability, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition, WriteTransaction,
};
use tracing::warn;

use super::{ANSWERS_MAX, Answered, Batch, Contents, Present, Store, StoreError};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const OBJECTS: TableDefinition<'_, (&str, &str), (u64, &[u8])> = TableDefinition::new("objects");
/// (key, fingerprint, revision, changed, objects as lines of "KIND NAME").
const ANSWERS: TableDefinition<'_, u64, (&str, u128, u64, bool, &str)> =
    TableDefinition::new("answers");

/// Names of notes, which count in one term.
const PROXIES: &str = "proxies";
const PROCESSES: &str = "processes";
const HOLDERS: &str = "holders";
const NOTES: [&str; 3] = [PROXIES, PROCESSES, HOLDERS];

/// The layout that this build writes. Version 1 is the first; whoever raises this adds
/// the step that leads there to `open`.
const SCHEMA: u32 = 1;
/// The state of the largest fleet fits in; redb's own default is a gigabyte.
const CACHE_BYTES: usize = 64 << 20;
/// What [`RedbStore::make_room`] makes sure of: a status takes less than a page of 4 KiB, and an
/// object some pages with the branches above it.
const ROOM: usize = 64 << 10;

/// Keeps the state in one file.
#[derive(Debug)]
pub struct RedbStore {
    /// Nothing between two tries to open it again.
    database: Option<Database>,
    path: Option<PathBuf>,
    revision: u64,
    next_answer: u64,
    term: u64,
}

impl RedbStore {
    /// Opens the file, and creates it when it is not there. It holds secrets, and is for this
    /// user alone.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if path.metadata().is_ok_and(|found| found.len() == 0) {
            // Nobody wrote to it, or a crash of the machine has taken what was written.
            warn!(
                store = %path.display(),
                "the store is a file of 0 bytes, and is taken for a new one; if it was not meant \
                 to be empty, stop this process, put a copy back, or apply an export ('lbctl \
                 apply -f FILE')"
            );
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        file.and_then(|file| file.set_permissions(Permissions::from_mode(0o600)))
            .map_err(failed("opened"))?;
        let database =
            Builder::new().set_cache_size(CACHE_BYTES).create(path).map_err(failed("opened"))?;
        let opened = Self::with_database(database)?;
        Ok(Self { path: Some(path.to_owned()), ..opened })
    }

    /// Opens a store over any storage. It cannot be opened again after a failure.
    pub fn open_backend(backend: impl StorageBackend) -> Result<Self, StoreError> {
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
            .map_err(failed("opened"))?;
        Self::with_database(database)
    }

    fn with_database(database: Database) -> Result<Self, StoreError> {
        let doing = "opened";
        let mut transaction = database.begin_write().map_err(failed(doing))?;
        transaction.set_durability(Durability::Immediate).map_err(failed(doing))?;
        let fresh = {
            let mut meta = transaction.open_table(META).map_err(failed(doing))?;
            transaction.open_table(OBJECTS).map_err(failed(doing))?;
            transaction.open_table(ANSWERS).map_err(failed(doing))?;
            let found = meta
                .get("schema")
                .map_err(failed(doing))?
                .map(|value| number(value.value(), "the schema version"))
                .transpose()?;
            match found.map(u32::try_from) {
                None => {
                    let epoch = uuid::Uuid::new_v4().into_bytes();
                    meta.insert("epoch", epoch.as_slice()).map_err(failed(doing))?;
                    for (name, value) in
                        [("schema", u64::from(SCHEMA)), ("revision", 0), ("next_backend", 1)]
                    {
                        meta.insert(name, value.to_le_bytes().as_slice()).map_err(failed(doing))?;
                    }
                    true
                }
                Some(Ok(SCHEMA)) => false,
                Some(found) => {
                    let found = found.unwrap_or(u32::MAX);
                    return Err(StoreError::NewerSchema { found, known: SCHEMA });
                }
            }
        };
        if fresh {
            transaction.commit().map_err(failed(doing))?;
        } else {
            transaction.abort().map_err(failed(doing))?;
        }
        let database = Some(database);
        Ok(Self { database, path: None, revision: 0, next_answer: 0, term: 0 })
    }

    fn database(&self, doing: &'static str) -> Result<&Database, StoreError> {
        let source = || "it could not be opened again yet".into();
        self.database.as_ref().ok_or_else(|| StoreError::Failed { doing, source: source() })
    }

    /// Begins a transaction that is durable once it is committed.
    fn write(&self) -> Result<WriteTransaction, StoreError> {
        let doing = "written";
        let mut transaction = self.database(doing)?.begin_write().map_err(failed(doing))?;
        transaction.set_durability(Durability::Immediate).map_err(failed(doing))?;
        Ok(transaction)
    }
}

impl Store for RedbStore {
    fn load(&mut self) -> Result<Contents, StoreError> {
        let doing = "read";
        let transaction = self.database(doing)?.begin_read().map_err(failed(doing))?;
        let meta = transaction.open_table(META).map_err(failed(doing))?;
        let bytes = |name: &str| -> Result<Option<Vec<u8>>, StoreError> {
            Ok(meta.get(name).map_err(failed(doing))?.map(|value| value.value().to_vec()))
        };
        let count = |name: &'static str| -> Result<u64, StoreError> {
            bytes(name)?.map_or(Ok(0), |value| number(&value, name))
        };
        let epoch = bytes("epoch")?
            .and_then(|bytes| Epoch::from_slice(&bytes))
            .ok_or_else(|| StoreError::Damaged { what: "the epoch is missing".to_owned() })?;

        let table = transaction.open_table(OBJECTS).map_err(failed(doing))?;
        let mut objects = Vec::new();
        for entry in table.iter().map_err(failed(doing))? {
            let (key, value) = entry.map_err(failed(doing))?;
            let ((kind, name), (revision, payload)) = (key.value(), value.value());
            let payload = Bytes::copy_from_slice(payload);
            objects.push(Object { key: Key::new(kind, name), revision, payload });
        }

        let table = transaction.open_table(ANSWERS).map_err(failed(doing))?;
        let mut answers = Vec::new();
        for entry in table.iter().map_err(failed(doing))? {
            let (sequence, value) = entry.map_err(failed(doing))?;
            self.next_answer = sequence.value() + 1;
            let (key, fingerprint, revision, changed, objects) = value.value();
            answers.push(Answered {
                key: key.to_owned(),
                fingerprint,
                revision,
                changed,
                objects: keys_of(objects),
            });
        }

        // What another term left says nothing: a build that noted nothing may have come since.
        let term = count("term")?;
        let noted = |name| Ok(bytes(name)?.and_then(|noted| lines_in(&noted, term)));
        let proxies = noted(PROXIES)?.and_then(|lines| all(&lines, ProxyId::new));
        let processes = noted(PROCESSES)?.and_then(|lines| all(&lines, process));
        let proxies = proxies.map(|proxies| {
            // A build that knew only of proxies notes no processes.
            Present { proxies, processes: processes.unwrap_or_default() }
        });
        let holders = noted(HOLDERS)?.and_then(|lines| all(&lines, InstanceId::new));
        self.revision = count("revision")?;
        Ok(Contents {
            epoch,
            revision: self.revision,
            next_backend_number: count("next_backend")?,
            committed_unix_ms: count("committed_unix_ms")?,
            term,
            objects,
            answers,
            proxies,
            holders,
            written_by: bytes("build")?.and_then(|build| String::from_utf8(build).ok()),
        })
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let doing = "written";
        if batch.expected_revision != self.revision {
            return Err(StoreError::Conflict {
                expected: batch.expected_revision,
                actual: self.revision,
            });
        }
        let transaction = self.write()?;
        {
            let mut objects = transaction.open_table(OBJECTS).map_err(failed(doing))?;
            for object in &batch.upserts {
                let key = (&*object.key.kind, &*object.key.name);
                objects.insert(key, (object.revision, &*object.payload)).map_err(failed(doing))?;
            }
            for key in &batch.deletes {
                objects.remove((&*key.kind, &*key.name)).map_err(failed(doing))?;
            }
            let mut meta = transaction.open_table(META).map_err(failed(doing))?;
            for (name, value) in [
                ("revision", batch.revision),
                ("next_backend", batch.next_backend_number),
                ("committed_unix_ms", batch.committed_unix_ms),
            ] {
                meta.insert(name, value.to_le_bytes().as_slice()).map_err(failed(doing))?;
            }
            if let Some(answered) = &batch.answered {
                let mut answers = transaction.open_table(ANSWERS).map_err(failed(doing))?;
                let lines = lines_of(&answered.objects);
                let value = (
                    answered.key.as_str(),
                    answered.fingerprint,
                    answered.revision,
                    answered.changed,
                    lines.as_str(),
                );
                answers.insert(self.next_answer, value).map_err(failed(doing))?;
                if let Some(oldest) = self.next_answer.checked_sub(ANSWERS_MAX as u64) {
                    answers.remove(oldest).map_err(failed(doing))?;
                }
            }
        }
        transaction.commit().map_err(failed(doing))?;
        self.revision = batch.revision;
        self.next_answer += u64::from(batch.answered.is_some());
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        let doing = "opened again";
        let Some(path) = &self.path else {
            let source = "it is in no file".into();
            return Err(StoreError::Failed { doing, source });
        };
        self.database = None;
        let file = File::open(path).map_err(failed(doing))?;
        // After a sync that failed, what is in the page cache need not be on the disk. A file
        // system that cannot drop it is read as it is.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).ok();
        // Never made anew: a file that is gone is no empty store.
        let database = Builder::new().set_cache_size(CACHE_BYTES).open(path);
        self.database = Some(database.map_err(failed(doing))?);
        Ok(())
    }

    fn make_room(&mut self) -> Result<(), StoreError> {
        let doing = "written";
        let transaction = self.write()?;
        {
            let mut meta = transaction.open_table(META).map_err(failed(doing))?;
            meta.insert("room", vec![0; ROOM].as_slice()).map_err(failed(doing))?;
        }
        transaction.commit().map_err(failed(doing))?;
        let transaction = self.write()?;
        {
            let mut meta = transaction.open_table(META).map_err(failed(doing))?;
            meta.remove("room").map_err(failed(doing))?;
        }
        transaction.commit().map_err(failed(doing))
    }

    fn begin_term(&mut self, term: u64) -> Result<(), StoreError> {
        self.store_term(term, &[])
    }

    fn raise_term(&mut self, term: u64) -> Result<(), StoreError> {
        self.store_term(term, &NOTES)
    }

    fn remember_proxies(&mut self, present: &Present) -> Result<(), StoreError> {
        let proxies: Vec<&str> = present.proxies.iter().map(ProxyId::as_str).collect();
        let processes = present.processes.iter();
        let processes: Vec<String> =
            processes.map(|(proxy, instance)| format!("{proxy} {instance}")).collect();
        self.note(&[(PROXIES, proxies.join("\n")), (PROCESSES, processes.join("\n"))])
    }

    fn remember_holders(&mut self, holders: &[InstanceId]) -> Result<(), StoreError> {
        let lines: Vec<&str> = holders.iter().map(InstanceId::as_str).collect();
        self.note(&[(HOLDERS, lines.join("\n"))])
    }
}

impl RedbStore {
    /// Stores the number of the present term, in which these notes go on to count.
    fn store_term(&mut self, term: u64, kept: &[&str]) -> Result<(), StoreError> {
        let doing = "written";
        let transaction = self.write()?;
        {
            let mut meta = transaction.open_table(META).map_err(failed(doing))?;
            meta.insert("term", term.to_le_bytes().as_slice()).map_err(failed(doing))?;
            let build = env!("CARGO_PKG_VERSION").as_bytes();
            meta.insert("build", build).map_err(failed(doing))?;
            for name in kept {
                let noted = meta.get(*name).map_err(failed(doing))?;
                let lines = noted.and_then(|noted| lines_in(noted.value(), self.term));
                if let Some(lines) = lines {
                    let noted = note_of(term, &lines);
                    meta.insert(*name, noted.as_slice()).map_err(failed(doing))?;
                }
            }
        }
        transaction.commit().map_err(failed(doing))?;
        self.term = term;
        Ok(())
    }

    /// Keeps lists of the present term.
    fn note(&self, lists: &[(&str, String)]) -> Result<(), StoreError> {
        let doing = "written";
        let transaction = self.write()?;
        {
            let mut meta = transaction.open_table(META).map_err(failed(doing))?;
            for (name, lines) in lists {
                let noted = note_of(self.term, lines);
                meta.insert(*name, noted.as_slice()).map_err(failed(doing))?;
            }
        }
        transaction.commit().map_err(failed(doing))
    }
}

fn failed<E: Into<redb::Error>>(doing: &'static str) -> impl Fn(E) -> StoreError {
    move |error| match error.into() {
        // No restart cures these, unlike a disk that is full or away.
        redb::Error::Corrupted(what) => StoreError::Damaged { what },
        redb::Error::Io(error)
            if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            StoreError::Damaged { what: error.to_string() }
        }
        error => StoreError::Failed { doing, source: Box::new(error) },
    }
}

fn number(bytes: &[u8], what: &str) -> Result<u64, StoreError> {
    let bytes = bytes.try_into().map_err(|_| StoreError::Damaged {
        what: format!("{what} has {} bytes instead of 8", bytes.len()),
    })?;
    Ok(u64::from_le_bytes(bytes))
}

/// Lines that count in a term.
fn note_of(term: u64, lines: &str) -> Vec<u8> {
    [&term.to_le_bytes()[..], lines.as_bytes()].concat()
}

/// What was noted in a term, one a line; nothing if it was another term.
fn lines_in(noted: &[u8], term: u64) -> Option<String> {
    let (of, lines) = noted.split_first_chunk()?;
    let lines = str::from_utf8(lines).ok().filter(|_| u64::from_le_bytes(*of) == term)?;
    Some(lines.to_owned())
}

/// One of each line, unless one of them is none.
fn all<T, E>(lines: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<Vec<T>> {
    lines.lines().map(|line| parse(line).ok()).collect()
}

/// A process of a proxy: neither name holds a space.
fn process(line: &str) -> Result<(ProxyId, InstanceId), Option<Invalid>> {
    let (proxy, instance) = line.split_once(' ').ok_or(None)?;
    Ok((ProxyId::new(proxy)?, InstanceId::new(instance)?))
}

/// Kinds and names hold neither spaces nor line ends.
fn lines_of(keys: &[Key]) -> String {
    keys.iter().map(Key::to_string).collect::<Vec<_>>().join("\n")
}

fn keys_of(lines: &str) -> Vec<Key> {
    let pairs = lines.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(kind, name)| Key::new(kind, name)).collect()
}

#[cfg(test)]
mod tests;
