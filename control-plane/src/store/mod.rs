//! Where the desired state is kept.
//!
//! The trait is blocking and called from the registry's writer thread alone. The
//! embedded store blocks anyway (a commit ends in `fsync`), one thread that waits for
//! it holds up no other task, and with a single caller there is nothing to lock. A
//! shared store such as etcd fits behind it too: its client runs on the runtime, and
//! the writer thread waits for the answer.
//!
//! It is shaped for such a store. A [`Batch`] is one transaction that names the
//! revision it was planned at, so a commit *is* a compare-and-swap, and a second
//! control plane that lost the race plans again. The same batch is what a watch
//! delivers to the other replicas. Leases decide who probes; with the embedded store
//! the lock on the data directory is that lease.

#[cfg(test)]
pub(crate) mod faulty;
mod memory;
mod redb;

use std::fmt;

use lb_core::{
    model::{Epoch, InstanceId, Key, ProxyId, Version},
    sync::Object,
};

pub use self::{memory::MemoryStore, redb::RedbStore};

/// How many idempotency keys are remembered.
pub const ANSWERS_MAX: usize = 1000;

/// Keeps the desired state over restarts.
pub trait Store: fmt::Debug + Send {
    /// Everything that was committed. Called before anything else, and after [`Self::reopen`].
    fn load(&mut self) -> Result<Contents, StoreError>;

    /// Stores a batch durably and whole, or not at all. Once this returns `Ok`, the
    /// batch survives the loss of power.
    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError>;

    /// Gives up what is open and opens the storage anew, after anything has failed. A commit that
    /// failed may be found to be there: the caller loads it again, and compares.
    fn reopen(&mut self) -> Result<(), StoreError>;

    /// Makes sure that there is room for the next commits, by writing as much and freeing it.
    fn make_room(&mut self) -> Result<(), StoreError>;

    /// Begins a term, which must be above [`Contents::term`]. Durable once this returns `Ok`, so
    /// that what one process hands out in its term is never taken for what another does, whatever
    /// the wall clock says. What was noted in the term before is of no use any more.
    fn begin_term(&mut self, term: u64) -> Result<(), StoreError>;

    /// Gives the present term a greater number. What was noted in it is kept.
    fn raise_term(&mut self, term: u64) -> Result<(), StoreError>;

    /// Remembers which proxies there are in the present term, in place of what was remembered
    /// before. No part of the state, and without a revision.
    fn remember_proxies(&mut self, present: &Present) -> Result<(), StoreError>;

    /// Remembers to which processes something may be lent in the present term, in the same way.
    fn remember_holders(&mut self, holders: &[InstanceId]) -> Result<(), StoreError>;
}

/// What a store holds.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Names the store.
    pub epoch: Epoch,
    /// Of the last commit, 0 in a fresh store.
    pub revision: u64,
    /// The number of the next backend that is added without an id.
    pub next_backend_number: u64,
    /// When the last commit was made.
    pub committed_unix_ms: u64,
    /// The number of the last term, 0 if there was none.
    pub term: u64,
    /// In no particular order.
    pub objects: Vec<Object>,
    /// What writes with an idempotency key were answered, oldest first.
    pub answers: Vec<Answered>,
    /// The proxies that there were at the end of the last term; nothing if nobody noted it.
    pub proxies: Option<Present>,
    /// The processes that may have had leases at the end of the last term; nothing if nobody
    /// noted it.
    pub holders: Option<Vec<InstanceId>>,
    /// The version of the build that used the store before this process; nothing if that did
    /// not note it.
    pub written_by: Option<String>,
}

/// The proxies that there are at some time.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Present {
    /// Those that are connected, or may be on their way back.
    pub proxies: Vec<ProxyId>,
    /// The processes that may have something in flight, those among them that were taken over. A
    /// build that knew only of proxies has noted none.
    pub processes: Vec<(ProxyId, InstanceId)>,
}

/// One change of the state.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Batch {
    /// The revision that the batch was planned at; another one is a conflict.
    pub expected_revision: u64,
    /// The revision afterwards. The same one when only `answered` is stored.
    pub revision: u64,
    /// New and changed objects.
    pub upserts: Vec<Object>,
    /// Removed objects.
    pub deletes: Vec<Key>,
    /// See [`Contents::next_backend_number`].
    pub next_backend_number: u64,
    /// See [`Contents::committed_unix_ms`].
    pub committed_unix_ms: u64,
    /// Remembered with the change, so that a repetition finds both or neither.
    pub answered: Option<Answered>,
}

/// What a write with an idempotency key was answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answered {
    /// Chosen by the client.
    pub key: String,
    /// Over the content of the request.
    pub fingerprint: u128,
    /// Of the store after the write.
    pub revision: u64,
    /// Whether the write changed anything.
    pub changed: bool,
    /// The objects that were put.
    pub objects: Vec<Key>,
}

/// Why a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Somebody else has committed since the batch was planned.
    #[error("the store is at revision {actual}, not at {expected}: somebody else writes to it")]
    Conflict {
        /// What the batch was planned at.
        expected: u64,
        /// Where the store is.
        actual: u64,
    },
    /// The store was written by a newer build.
    #[error(
        "the store has schema version {found}, and this build knows versions up to {known}; \
         start the newer build again, or restore a backup made before the upgrade"
    )]
    NewerSchema {
        /// In the store.
        found: u32,
        /// The newest that this build reads.
        known: u32,
    },
    /// Something in the store is from a newer build.
    #[error(
        "the store was written by a newer build{written_by} than this one ({ours}): {what}; start \
         the newer build again, or restore a backup made before the upgrade"
    )]
    NewerBuild {
        /// What, and where.
        what: String,
        /// The version of that build in brackets, if it is known.
        written_by: String,
        /// The version of this build.
        ours: &'static str,
    },
    /// The storage was replaced while it was in use.
    #[error(
        "the store was opened again and is at {found}, where this control plane holds {held}: \
         it was replaced meanwhile; restart the control plane to serve what is in it now"
    )]
    Replaced {
        /// What is there now.
        found: Version,
        /// What this process holds.
        held: Version,
    },
    /// A commit failed, and the store cannot be opened to see whether it holds it.
    #[error(
        "{source}; whether this write is in the store is only seen when it can be opened \
         again: look before you repeat it, or repeat it with the same idempotency key"
    )]
    InDoubt {
        /// How the commit failed.
        source: Box<Self>,
    },
    /// Something in the store cannot be read.
    #[error(
        "the store is damaged: {what}; restore it from a backup, or move it away to start empty"
    )]
    Damaged {
        /// What, and where.
        what: String,
    },
    /// The storage itself failed.
    #[error(
        "the store failed while it was {doing}: {source}; see whether its disk is full, \
         read-only or failing"
    )]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// What the storage said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;

    use super::*;

    /// An object of revision `revision`.
    pub(crate) fn object(name: &str, revision: u64) -> Object {
        let payload = Bytes::from(format!("{name}@{revision}"));
        Object { key: Key::new("backend", name), revision, payload }
    }

    /// A change of one object.
    pub(crate) fn batch(revision: u64, name: &str) -> Batch {
        Batch {
            expected_revision: revision - 1,
            revision,
            upserts: vec![object(name, revision)],
            next_backend_number: revision,
            committed_unix_ms: 1000 + revision,
            ..Batch::default()
        }
    }

    /// The rules that hold for every store.
    pub(crate) fn behaves_like_a_store(store: &mut dyn Store) {
        let proxies: Vec<ProxyId> = ["p1", "p2"].map(|id| ProxyId::new(id).unwrap()).into();
        let processes = ["i1", "i2"].map(|id| (proxies[0].clone(), InstanceId::new(id).unwrap()));
        let present = Present { proxies, processes: processes.into() };
        assert_eq!(store.load().unwrap().proxies, None);
        assert_eq!(store.load().unwrap().term, 0);
        store.begin_term(5).unwrap();
        assert_eq!(store.load().unwrap().term, 5);
        store.remember_proxies(&Present::default()).unwrap();
        assert_eq!(store.load().unwrap().proxies, Some(Present::default()));
        store.remember_proxies(&present).unwrap();
        assert_eq!(store.load().unwrap().proxies.as_ref(), Some(&present));
        assert_eq!(store.load().unwrap().holders, None);
        let holders: Vec<InstanceId> = ["i1", "i2"].map(|id| InstanceId::new(id).unwrap()).into();
        store.remember_holders(&holders).unwrap();
        store.raise_term(6).unwrap();
        let raised = store.load().unwrap();
        assert_eq!((raised.term, raised.proxies), (6, Some(present)), "it is the same term");
        assert_eq!(raised.holders.as_ref(), Some(&holders));
        store.remember_holders(&holders).unwrap();
        assert_eq!(store.load().unwrap().holders, Some(holders));
        store.begin_term(7).unwrap();
        assert_eq!(store.load().unwrap().proxies, None, "who was there in this term is not known");
        assert_eq!(store.load().unwrap().holders, None);
        let fresh = store.load().unwrap();
        assert_eq!((fresh.revision, fresh.next_backend_number), (0, 1));
        assert!(fresh.objects.is_empty() && fresh.answers.is_empty());

        store.commit(&batch(1, "a")).unwrap();
        store.commit(&batch(2, "b")).unwrap();
        let late = store.commit(&batch(2, "c"));
        assert!(matches!(late, Err(StoreError::Conflict { expected: 1, actual: 2 })), "{late:?}");

        let answered = Answered {
            key: "once".to_owned(),
            fingerprint: u128::MAX - 1,
            revision: 3,
            changed: true,
            objects: vec![Key::new("backend", "b")],
        };
        let removal = Batch {
            deletes: vec![Key::new("backend", "a")],
            upserts: vec![object("b", 3)],
            answered: Some(answered.clone()),
            ..batch(3, "b")
        };
        store.commit(&removal).unwrap();

        let contents = store.load().unwrap();
        assert_eq!(contents.epoch, fresh.epoch);
        assert_eq!((contents.revision, contents.committed_unix_ms), (3, 1003));
        assert_eq!(contents.objects, [object("b", 3)]);
        assert_eq!(contents.answers, std::slice::from_ref(&answered));
        assert_eq!(contents.written_by.as_deref(), Some(env!("CARGO_PKG_VERSION")));
        store.reopen().unwrap();
        store.make_room().unwrap();
        let again = store.load().unwrap();
        assert_eq!((again.epoch, again.revision), (contents.epoch, 3));
        assert_eq!((again.objects, again.answers), (contents.objects, contents.answers));

        for number in 0..ANSWERS_MAX {
            let answered = Answered { key: format!("key{number}"), ..answered.clone() };
            let only = Batch {
                expected_revision: 3,
                revision: 3,
                upserts: vec![],
                answered: Some(answered),
                ..batch(3, "b")
            };
            store.commit(&only).unwrap();
        }
        let answers = store.load().unwrap().answers;
        assert_eq!(answers.len(), ANSWERS_MAX);
        assert_eq!(answers[0].key, "key0", "the oldest goes first");
    }
}
