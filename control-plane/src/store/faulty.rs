//! A store that fails as it is told to: for tests of what becomes of work whose write failed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use lb_core::model::{Epoch, InstanceId};

use super::{Batch, Contents, MemoryStore, Present, Store, StoreError};

/// What happens to the next call of the storage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// A commit is not stored.
    Commit,
    /// A commit is stored, and fails all the same.
    Late,
    /// What is no part of the state is not stored.
    Note,
    /// A term is not stored.
    Term,
    /// It cannot be opened again.
    Reopen,
    /// It has no room.
    Room,
    /// It is another one when it is opened again.
    Replaced,
}

/// A store with faults, each of which happens once.
#[derive(Clone, Debug)]
pub(crate) struct Faulty {
    store: Arc<Mutex<MemoryStore>>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

impl Faulty {
    pub(crate) fn new() -> Self {
        Self { store: Arc::default(), faults: Arc::default() }
    }

    /// What it holds in spite of its faults.
    pub(crate) fn held(&self) -> Contents {
        self.store.lock().unwrap().load().unwrap()
    }

    /// Whether every fault has happened.
    pub(crate) fn has_met_all(&self) -> bool {
        self.faults.lock().unwrap().is_empty()
    }

    /// These happen next, in this order.
    pub(crate) fn will(&self, faults: &[Fault]) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// Whether this comes next; then it is over.
    fn meets(&self, fault: Fault) -> bool {
        self.faults.lock().unwrap().pop_front_if(|next| *next == fault).is_some()
    }

    fn try_unless(&self, fault: Fault, why: &'static str) -> Result<(), StoreError> {
        let failed = || StoreError::Failed { doing: "written", source: why.into() };
        if self.meets(fault) { Err(failed()) } else { Ok(()) }
    }
}

impl Store for Faulty {
    fn load(&mut self) -> Result<Contents, StoreError> {
        let contents = self.store.lock().unwrap().load()?;
        let epoch = if self.meets(Fault::Replaced) { Epoch([9; 16]) } else { contents.epoch };
        Ok(Contents { epoch, ..contents })
    }
    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.try_unless(Fault::Commit, "disk full")?;
        self.store.lock().unwrap().commit(batch)?;
        self.try_unless(Fault::Late, "sync failed")
    }
    fn reopen(&mut self) -> Result<(), StoreError> {
        self.try_unless(Fault::Reopen, "no disk")
    }
    fn make_room(&mut self) -> Result<(), StoreError> {
        self.try_unless(Fault::Room, "no room")
    }
    fn begin_term(&mut self, term: u64) -> Result<(), StoreError> {
        self.try_unless(Fault::Term, "disk full")?;
        self.store.lock().unwrap().begin_term(term)
    }
    fn raise_term(&mut self, term: u64) -> Result<(), StoreError> {
        self.try_unless(Fault::Term, "disk full")?;
        self.store.lock().unwrap().raise_term(term)
    }
    fn remember_proxies(&mut self, present: &Present) -> Result<(), StoreError> {
        self.try_unless(Fault::Note, "disk full")?;
        self.store.lock().unwrap().remember_proxies(present)
    }
    fn remember_holders(&mut self, holders: &[InstanceId]) -> Result<(), StoreError> {
        self.try_unless(Fault::Note, "disk full")?;
        self.store.lock().unwrap().remember_holders(holders)
    }
}
