//! A store that forgets everything when the process ends: for tests, and for trying
//! things out.

use std::collections::{BTreeMap, VecDeque};

use lb_core::{
    model::{Epoch, InstanceId, Key},
    sync::Object,
};

use super::{ANSWERS_MAX, Answered, Batch, Contents, Present, Store, StoreError};

/// Holds the state in memory.
#[derive(Debug)]
pub struct MemoryStore {
    epoch: Epoch,
    revision: u64,
    next_backend_number: u64,
    committed_unix_ms: u64,
    term: u64,
    objects: BTreeMap<Key, Object>,
    answers: VecDeque<Answered>,
    proxies: Option<Present>,
    holders: Option<Vec<InstanceId>>,
}

impl MemoryStore {
    /// An empty store with an epoch of its own.
    #[must_use]
    pub fn new() -> Self {
        Self {
            epoch: Epoch(uuid::Uuid::new_v4().into_bytes()),
            revision: 0,
            next_backend_number: 1,
            committed_unix_ms: 0,
            term: 0,
            objects: BTreeMap::new(),
            answers: VecDeque::new(),
            proxies: None,
            holders: None,
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Contents, StoreError> {
        Ok(Contents {
            epoch: self.epoch,
            revision: self.revision,
            next_backend_number: self.next_backend_number,
            committed_unix_ms: self.committed_unix_ms,
            term: self.term,
            objects: self.objects.values().cloned().collect(),
            answers: self.answers.iter().cloned().collect(),
            proxies: self.proxies.clone(),
            holders: self.holders.clone(),
            written_by: Some(env!("CARGO_PKG_VERSION").to_owned()),
        })
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if batch.expected_revision != self.revision {
            return Err(StoreError::Conflict {
                expected: batch.expected_revision,
                actual: self.revision,
            });
        }
        for object in &batch.upserts {
            self.objects.insert(object.key.clone(), object.clone());
        }
        for key in &batch.deletes {
            self.objects.remove(key);
        }
        self.answers.extend(batch.answered.clone());
        while self.answers.len() > ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.revision = batch.revision;
        self.next_backend_number = batch.next_backend_number;
        self.committed_unix_ms = batch.committed_unix_ms;
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn make_room(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn begin_term(&mut self, term: u64) -> Result<(), StoreError> {
        (self.term, self.proxies, self.holders) = (term, None, None);
        Ok(())
    }

    fn raise_term(&mut self, term: u64) -> Result<(), StoreError> {
        self.term = term;
        Ok(())
    }

    fn remember_proxies(&mut self, present: &Present) -> Result<(), StoreError> {
        self.proxies = Some(present.clone());
        Ok(())
    }

    fn remember_holders(&mut self, holders: &[InstanceId]) -> Result<(), StoreError> {
        self.holders = Some(holders.to_vec());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_behaves_like_a_store() {
        super::super::tests::behaves_like_a_store(&mut MemoryStore::new());
    }
}
