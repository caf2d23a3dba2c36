//! The embedded store on a disk that loses power.

use std::sync::{Arc, Mutex};

use super::{
    super::tests::{batch, behaves_like_a_store, object},
    *,
};

#[test]
fn it_behaves_like_a_store() {
    let directory = tempfile::tempdir().unwrap();
    behaves_like_a_store(&mut RedbStore::open(&directory.path().join("store")).unwrap());
}

#[test]
fn a_term_outlives_its_process_and_its_notes_are_of_no_use_in_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = RedbStore::open(&path).unwrap();
    store.begin_term(1_000).unwrap();
    store.remember_holders(&[]).unwrap();
    drop(store);
    let mut store = RedbStore::open(&path).unwrap();
    let contents = store.load().unwrap();
    assert_eq!((contents.term, contents.holders), (1_000, Some(Vec::new())));
    store.begin_term(1_001).unwrap();
    drop(store);
    let contents = RedbStore::open(&path).unwrap().load().unwrap();
    assert_eq!((contents.term, contents.holders), (1_001, None));
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = RedbStore::open(&path).unwrap();
    let transaction = store.database("written").unwrap().begin_write().unwrap();
    let next = u64::from(SCHEMA + 1).to_le_bytes();
    transaction.open_table(META).unwrap().insert("schema", next.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(store);
    let error = RedbStore::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 2, known: 1 }), "{error}");
}

/// A disk that has a write cache: what was written and not synced may be lost, in
/// part and in any order.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Platters>>);

#[derive(Debug, Default)]
struct Platters {
    seen: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(offset, data) => {
                let end = offset + data.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*offset..end].copy_from_slice(data);
            }
        }
    }
}

impl Disk {
    /// The disk after a power cut now: everything that was synced, and each later
    /// write with a chance of one half.
    fn after_a_power_cut(&self, rng: &mut fastrand::Rng) -> Self {
        let platters = self.0.lock().unwrap();
        let mut bytes = platters.synced.clone();
        for change in &platters.unsynced {
            if rng.bool() {
                change.apply(&mut bytes);
            }
        }
        Self(Arc::new(Mutex::new(Platters {
            seen: bytes.clone(),
            synced: bytes,
            unsynced: Vec::new(),
        })))
    }

    fn change(&self, change: Change) {
        let mut platters = self.0.lock().unwrap();
        change.apply(&mut platters.seen);
        platters.unsynced.push(change);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let offset = usize::try_from(offset).unwrap();
        let platters = self.0.lock().unwrap();
        let end = offset + out.len();
        let bytes = platters.seen.get(offset..end).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), std::io::Error> {
        self.change(Change::Length(usize::try_from(length).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        let mut platters = self.0.lock().unwrap();
        let unsynced = std::mem::take(&mut platters.unsynced);
        for change in unsynced {
            change.apply(&mut platters.synced);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.change(Change::Write(usize::try_from(offset).unwrap(), data.to_vec()));
        Ok(())
    }
}

/// Checks that a store holds exactly the batches up to its revision.
fn assert_whole(contents: &Contents, names: &[String]) {
    let at = usize::try_from(contents.revision).unwrap();
    let mut expected = std::collections::BTreeMap::new();
    for (revision, name) in (1..).zip(&names[..at]) {
        expected.insert(Key::new("backend", name), object(name, revision));
    }
    let expected: Vec<Object> = expected.into_values().collect();
    let mut found = contents.objects.clone();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(found, expected, "at revision {at}");
}

#[test]
fn a_power_cut_loses_no_acknowledged_commit_and_shows_no_half_of_one() {
    for seed in 0..30 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut disk = Disk::default();
        let mut names: Vec<String> = Vec::new();
        let mut acknowledged = 0;
        for _life in 0..5 {
            let mut store = RedbStore::open_backend(disk.clone()).unwrap();
            let contents = store.load().unwrap();
            assert!(contents.revision >= acknowledged, "seed {seed}: a commit was lost");
            assert_whole(&contents, &names);
            names.truncate(usize::try_from(contents.revision).unwrap());
            let mut crash = None;
            for _ in 0..rng.usize(1..8) {
                let name = format!("b{}", rng.u8(0..5));
                names.push(name.clone());
                store.commit(&batch(names.len() as u64, &name)).unwrap();
                acknowledged = names.len() as u64;
                crash = Some(disk.after_a_power_cut(&mut rng));
            }
            disk = crash.unwrap();
        }
    }
}

#[test]
fn a_power_cut_in_the_middle_of_a_commit_leaves_the_state_before_or_after_it() {
    /// Cuts the power after so many changes of the storage.
    #[derive(Debug)]
    struct Cut {
        disk: Disk,
        changes_left: Mutex<u32>,
        wreck: Arc<Mutex<Option<Disk>>>,
        seed: u64,
    }
    impl Cut {
        fn count(&self) {
            let mut left = self.changes_left.lock().unwrap();
            if *left == 1 {
                let mut rng = fastrand::Rng::with_seed(self.seed);
                *self.wreck.lock().unwrap() = Some(self.disk.after_a_power_cut(&mut rng));
            }
            *left = left.saturating_sub(1);
        }
    }
    impl StorageBackend for Cut {
        fn len(&self) -> Result<u64, std::io::Error> {
            self.disk.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
            self.disk.read(offset, out)
        }
        fn set_len(&self, length: u64) -> Result<(), std::io::Error> {
            self.disk.set_len(length)?;
            self.count();
            Ok(())
        }
        fn sync_data(&self) -> Result<(), std::io::Error> {
            self.count();
            self.disk.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
            self.disk.write(offset, data)?;
            self.count();
            Ok(())
        }
    }

    let names: Vec<String> = (0..10).map(|number| format!("b{}", number % 4)).collect();
    for seed in 0..60 {
        let base = Disk::default();
        let mut store = RedbStore::open_backend(base.clone()).unwrap();
        store.load().unwrap();
        for revision in 1..=4 {
            store.commit(&batch(revision, &names[usize::try_from(revision).unwrap() - 1])).unwrap();
        }
        drop(store);
        let wreck = Arc::new(Mutex::new(None));
        let changes = fastrand::Rng::with_seed(seed).u32(1..80);
        let cut =
            Cut { disk: base, changes_left: Mutex::new(changes), wreck: Arc::clone(&wreck), seed };
        let mut store = RedbStore::open_backend(cut).unwrap();
        store.load().unwrap();
        let mut acknowledged = 4;
        for revision in 5..=10 {
            store.commit(&batch(revision, &names[usize::try_from(revision).unwrap() - 1])).unwrap();
            if wreck.lock().unwrap().is_none() {
                acknowledged = revision;
            }
        }
        let Some(disk) = wreck.lock().unwrap().take() else { continue };
        let contents = RedbStore::open_backend(disk).unwrap().load().unwrap();
        assert!(contents.revision >= acknowledged, "seed {seed}: a commit was lost");
        assert_whole(&contents, &names);
    }
}

#[test]
fn a_commit_that_fails_is_there_or_is_not_when_the_store_is_opened_again() {
    /// Refuses each change after so many, as a full disk does.
    #[derive(Debug)]
    struct Full {
        disk: Disk,
        changes_left: Mutex<u32>,
    }
    impl Full {
        fn take(&self) -> Result<(), std::io::Error> {
            let mut left = self.changes_left.lock().unwrap();
            *left = left.checked_sub(1).ok_or(ErrorKind::StorageFull)?;
            Ok(())
        }
    }
    impl StorageBackend for Full {
        fn len(&self) -> Result<u64, std::io::Error> {
            self.disk.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
            self.disk.read(offset, out)
        }
        fn set_len(&self, length: u64) -> Result<(), std::io::Error> {
            self.take()?;
            self.disk.set_len(length)
        }
        fn sync_data(&self) -> Result<(), std::io::Error> {
            self.take()?;
            self.disk.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
            self.take()?;
            self.disk.write(offset, data)
        }
    }

    let names: Vec<String> = (0..20).map(|number| format!("b{}", number % 4)).collect();
    let (mut with, mut without) = (0, 0);
    for changes in 1..60 {
        let disk = Disk::default();
        let mut store = RedbStore::open_backend(disk.clone()).unwrap();
        store.load().unwrap();
        store.commit(&batch(1, &names[0])).unwrap();
        drop(store);
        let full = Full { disk: disk.clone(), changes_left: Mutex::new(changes) };
        let Ok(mut store) = RedbStore::open_backend(full) else { continue };
        store.load().unwrap();
        let name = |revision: u64| &names[usize::try_from(revision).unwrap() - 1];
        let failed =
            (2..=20).find(|&revision| store.commit(&batch(revision, name(revision))).is_err());
        let Some(failed) = failed else { continue };
        drop(store);
        let mut store = RedbStore::open_backend(disk).unwrap();
        let contents = store.load().unwrap();
        assert_whole(&contents, &names);
        match failed - contents.revision {
            0 => with += 1,
            1 => without += 1,
            _ => panic!("after {changes} changes: {failed} failed, {} is there", contents.revision),
        }
        store.make_room().unwrap();
        let next = contents.revision + 1;
        store.commit(&batch(next, name(next))).unwrap();
        assert_whole(&store.load().unwrap(), &names);
    }
    assert!(with > 0 && without > 0, "both happen: {with} and {without}");
}

#[test]
fn a_file_that_is_gone_is_not_made_anew_when_it_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = RedbStore::open(&path).unwrap();
    store.load().unwrap();
    let moved = directory.path().join("moved");
    std::fs::rename(&path, &moved).unwrap();
    let error = store.reopen().unwrap_err();
    assert!(error.to_string().contains("opened again"), "{error}");
    assert!(store.load().is_err() && store.make_room().is_err() && !path.exists());
    std::fs::rename(&moved, &path).unwrap();
    store.reopen().unwrap();
    store.load().unwrap();
    store.commit(&batch(1, "a")).unwrap();
}

#[test]
fn a_file_that_is_no_store_any_more_is_damaged_and_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    behaves_like_a_store(&mut RedbStore::open(&path).unwrap());
    let whole = std::fs::read(&path).unwrap();
    let (cut, nonsense) = (whole[..whole.len() / 3].to_vec(), vec![b'x'; whole.len()]);
    for bytes in [cut, nonsense] {
        std::fs::write(&path, &bytes).unwrap();
        let error = RedbStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("restore it from a backup"), "{error}");
        let left = std::fs::metadata(&path).unwrap().len();
        assert_eq!(left, bytes.len() as u64, "it is still there to be examined");
    }
}
