//! The state that proxies are given, and the ring of its latest changes.

use std::{
    collections::{HashSet, VecDeque},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Digest, Due, Held, Nonce, Object, ObjectSet, Sending};
use crate::model::{Key, Version};

/// Changed keys that the ring remembers: a proxy that was away for fewer changes
/// resumes with one merged delta, any other with a snapshot.
const RING_MAX: usize = 65_536;

/// What an object takes in a message besides its payload, roughly: kind, name and numbers.
const OBJECT_OVERHEAD: usize = 64;

/// The control plane's end of the protocol, common to all sessions.
#[derive(Debug)]
pub struct Publisher {
    version: Version,
    objects: ObjectSet,
    /// In order of revisions. A key may occur several times.
    ring: VecDeque<(u64, Key)>,
    /// Deltas can start at this revision or later.
    ring_start: u64,
    committed_unix_ms: u64,
    /// Counts the sessions ever opened, so that their nonces differ.
    sessions: AtomicU64,
}

impl Publisher {
    /// Publishes a state that was loaded from a store.
    #[must_use]
    pub fn new(version: Version, objects: ObjectSet) -> Self {
        let ring_start = version.revision;
        Self {
            version,
            objects,
            ring: VecDeque::new(),
            ring_start,
            committed_unix_ms: 0,
            sessions: AtomicU64::new(0),
        }
    }

    /// The nonce before the first of a new session.
    pub(super) fn first_nonce(&self) -> Nonce {
        Nonce(self.sessions.fetch_add(1, Ordering::Relaxed) << 32)
    }

    /// Takes over one committed change. Revisions must grow.
    pub fn commit(
        &mut self,
        revision: u64,
        upserts: Vec<Object>,
        deletes: Vec<Key>,
        committed_unix_ms: u64,
    ) {
        debug_assert!(revision > self.version.revision, "a commit must raise the revision");
        for object in upserts {
            self.ring.push_back((revision, object.key.clone()));
            self.objects.insert(object);
        }
        for key in deletes {
            self.objects.remove(&key);
            self.ring.push_back((revision, key));
        }
        self.version.revision = revision;
        self.committed_unix_ms = committed_unix_ms;
        while self.ring.len() > RING_MAX
            && let Some((dropped, _)) = self.ring.pop_front()
        {
            self.ring_start = dropped;
        }
    }

    /// The published version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The published digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.objects.digest()
    }

    /// The published objects.
    #[must_use]
    pub fn objects(&self) -> &ObjectSet {
        &self.objects
    }

    /// What has changed after `from`, the newest first and as often as it did; `None` when the ring
    /// does not reach back that far.
    #[must_use]
    pub fn changed_since(&self, from: u64) -> Option<impl Iterator<Item = &Key>> {
        let since = self.ring.iter().rev().take_while(move |(revision, _)| *revision > from);
        let is_known = from >= self.ring_start && from <= self.version.revision;
        is_known.then(|| since.map(|(_, key)| key))
    }

    /// All changes after `from` in one, or `None` when the ring does not reach back
    /// that far. The last value of each object wins.
    #[must_use]
    pub fn delta_since(&self, from: u64) -> Option<Delta> {
        let mut seen = HashSet::new();
        let (mut upserts, mut deletes) = (Vec::new(), Vec::new());
        for key in self.changed_since(from)? {
            if !seen.insert(key) {
                continue;
            }
            match self.objects.get(key) {
                Some(object) => upserts.push(object.clone()),
                None => deletes.push(key.clone()),
            }
        }
        Some(Delta {
            nonce: Nonce::default(),
            from_revision: from,
            to: self.version,
            upserts,
            deletes,
            digest: self.digest(),
            // Every write that emptied a pool had the operator's consent.
            allow_empty: true,
            committed_unix_ms: self.committed_unix_ms,
        })
    }

    /// Whether a delta of all changes after `from` can be made, and is no larger than so many
    /// bytes.
    pub(super) fn has_delta(&self, from: u64, bytes_max: usize) -> bool {
        let Some(changed) = self.changed_since(from) else { return false };
        let size = |key: &Key| {
            self.objects.get(key).map_or(0, |object| object.payload.len()) + OBJECT_OVERHEAD
        };
        // Keys that changed several times are told apart only where that decides.
        let once = || self.changed_since(from).into_iter().flatten().collect::<HashSet<_>>();
        changed.map(size).sum::<usize>() <= bytes_max
            || once().into_iter().map(size).sum::<usize>() <= bytes_max
    }

    /// The whole state for a proxy that holds `held`.
    #[must_use]
    pub fn full_state(&self, held: Option<Held>) -> FullState {
        FullState {
            nonce: Nonce::default(),
            version: self.version,
            objects: self.objects.iter().cloned().collect(),
            digest: self.digest(),
            allow_empty: self.may_empty(held),
            committed_unix_ms: self.committed_unix_ms,
        }
    }

    /// Whether the whole state may empty pools of a proxy that holds this. Within an epoch the
    /// state descends from the proxy's own, so whatever is gone was removed on purpose. Of another
    /// epoch's past nothing is known.
    pub(super) fn may_empty(&self, held: Option<Held>) -> bool {
        held.is_none_or(|held| held.version.epoch == self.version.epoch)
    }

    /// Makes what a session has just decided to send.
    ///
    /// # Panics
    ///
    /// If the state has changed since then so that no such delta can be made any more.
    #[must_use]
    pub fn transmission(&self, sending: Sending) -> Transmission {
        let Sending { nonce, due, allow_empty } = sending;
        match due {
            Due::Delta(from) => {
                let delta = self.delta_since(from).expect("a delta is due only if there is one");
                Transmission::Delta(Delta { nonce, allow_empty, ..delta })
            }
            Due::Snapshot => {
                Transmission::Snapshot(FullState { nonce, allow_empty, ..self.full_state(None) })
            }
        }
    }
}

/// What a session sends.
#[derive(Clone, Debug)]
pub enum Transmission {
    /// What changed.
    Delta(Delta),
    /// Everything.
    Snapshot(FullState),
}

/// All changes between two revisions, merged.
#[derive(Clone, Debug)]
pub struct Delta {
    /// To be repeated in the answer.
    pub nonce: Nonce,
    /// What the receiver must hold.
    pub from_revision: u64,
    /// What it then holds.
    pub to: Version,
    /// New and changed objects.
    pub upserts: Vec<Object>,
    /// Removed objects.
    pub deletes: Vec<Key>,
    /// Of the whole state afterwards.
    pub digest: Digest,
    /// Leave to empty a pool.
    pub allow_empty: bool,
    /// When the newest change was committed.
    pub committed_unix_ms: u64,
}

/// A whole state.
#[derive(Clone, Debug)]
pub struct FullState {
    /// To be repeated in the answer.
    pub nonce: Nonce,
    /// Its name.
    pub version: Version,
    /// All objects, in order of their keys.
    pub objects: Vec<Object>,
    /// Over all objects.
    pub digest: Digest,
    /// Leave to empty a pool.
    pub allow_empty: bool,
    /// When the newest change was committed.
    pub committed_unix_ms: u64,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::Epoch;

    fn object(name: &str, revision: u64) -> Object {
        Object { key: Key::new("backend", name), revision, payload: Bytes::from_static(b"v") }
    }

    fn publisher() -> Publisher {
        Publisher::new(Version { epoch: Epoch([1; 16]), revision: 10 }, ObjectSet::new())
    }

    #[test]
    fn a_merged_delta_names_each_object_once() {
        let mut publisher = publisher();
        publisher.commit(11, vec![object("a", 11)], vec![], 0);
        publisher.commit(12, vec![object("a", 12), object("b", 12)], vec![], 0);
        publisher.commit(13, vec![], vec![Key::new("backend", "b")], 0);
        let delta = publisher.delta_since(10).unwrap();
        assert_eq!(delta.upserts, [object("a", 12)]);
        assert_eq!(delta.deletes, [Key::new("backend", "b")]);
        assert!(publisher.delta_since(13).unwrap().upserts.is_empty());
    }

    #[test]
    fn a_proxy_from_before_the_ring_needs_a_snapshot() {
        let mut publisher = publisher();
        assert!(publisher.delta_since(9).is_none());
        for revision in 11..11 + RING_MAX as u64 + 5 {
            publisher.commit(revision, vec![object("a", revision)], vec![], 0);
        }
        assert!(publisher.delta_since(10).is_none());
        assert!(publisher.delta_since(14).is_none());
        assert!(publisher.delta_since(15).is_some());
    }
}
