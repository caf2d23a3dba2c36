//! The proxy's end of the protocol.

use std::{collections::HashSet, sync::Arc};

use super::{Answer, Delta, Digest, FullState, Nonce, Object, ObjectSet, judge::Judgement};
use crate::model::{Invalid, Key, Resource, Snapshot, Version};

/// Turns an object's payload into a checked value.
pub type Decode = fn(&Object) -> Result<Resource, Invalid>;

/// What a proxy holds: the state as sent, objects that it refused included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Held {
    /// Its name.
    pub version: Version,
    /// Its digest.
    pub digest: Digest,
}

/// An object that keeps its former value, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejection {
    /// Which object.
    pub key: Key,
    /// Of the refused value.
    pub revision: u64,
    /// Machine-readable, such as `unknown_algorithm`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// Why a whole message was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// It does not follow on what is held: send a snapshot.
    Resync,
    /// It would empty a pool that can serve now.
    WouldEmpty,
}

/// What became of a message.
#[derive(Debug)]
pub enum Outcome {
    /// Compile and apply this, then say so with [`Subscriber::answer`].
    Apply(Update),
    /// Send this; nothing changed.
    Refuse(Answer),
}

/// A new state to be applied.
#[derive(Clone, Debug)]
pub struct Update {
    /// Of the message that brought it.
    pub nonce: Nonce,
    /// What to serve from.
    pub snapshot: Arc<Snapshot>,
}

/// Holds the state as sent, and the consistent whole of what is valid in it.
#[derive(Debug)]
pub struct Subscriber {
    decode: Decode,
    version: Option<Version>,
    objects: ObjectSet,
    judgement: Judgement,
}

impl Subscriber {
    /// Holds nothing yet.
    #[must_use]
    pub fn new(decode: Decode) -> Self {
        Self { decode, version: None, objects: ObjectSet::new(), judgement: Judgement::default() }
    }

    /// Holds what was kept on disk; see [`Self::objects`] and [`Self::fallbacks`].
    #[must_use]
    pub fn restored(
        decode: Decode,
        version: Version,
        objects: Vec<Object>,
        fallbacks: Vec<Object>,
    ) -> Self {
        let objects: ObjectSet = objects.into_iter().collect();
        let judgement = Judgement::restored(decode, &objects, fallbacks);
        Self { decode, version: Some(version), objects, judgement }
    }

    /// What is held.
    #[must_use]
    pub fn held(&self) -> Option<Held> {
        self.version.map(|version| Held { version, digest: self.objects.digest() })
    }

    /// The objects as sent.
    #[must_use]
    pub fn objects(&self) -> &ObjectSet {
        &self.objects
    }

    /// The values in use of objects whose newest value was refused.
    pub fn fallbacks(&self) -> impl Iterator<Item = &Object> {
        self.judgement.fallbacks.values()
    }

    /// What is served from.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.judgement.snapshot
    }

    /// What stands refused.
    pub fn rejections(&self) -> impl Iterator<Item = &Rejection> {
        self.judgement.rejections()
    }

    /// Takes changes. They must follow on what is held.
    pub fn on_delta(&mut self, delta: Delta) -> Outcome {
        let from = Version { epoch: delta.to.epoch, revision: delta.from_revision };
        if self.version != Some(from) || delta.to.revision < delta.from_revision {
            let held = self.version.map_or_else(|| "nothing".to_owned(), |held| held.to_string());
            let message = format!("a delta from {from} does not follow on {held}");
            return self.refuse(delta.nonce, Refusal::Resync, message);
        }
        let mut keys = HashSet::new();
        let named = delta.upserts.iter().map(|object| &object.key).chain(&delta.deletes);
        if let Some(key) = named.into_iter().find(|key| !keys.insert(*key)) {
            let message = format!("the delta to {} names {key} twice", delta.to);
            return self.refuse(delta.nonce, Refusal::Resync, message);
        }
        let digest = self.objects.digest_after(&delta.upserts, &delta.deletes);
        if digest != delta.digest {
            let message =
                format!("after {} the digest would be {digest}, not {}", delta.to, delta.digest);
            return self.refuse(delta.nonce, Refusal::Resync, message);
        }
        let judgement = self.judge(delta.upserts.iter().collect(), &delta.deletes);
        let served = self.snapshot();
        if !delta.allow_empty
            && let Some(pool) = served.first_emptied_by(&judgement.snapshot)
        {
            let message = format!("{} would leave pool {pool} without a backend", delta.to);
            return self.refuse(delta.nonce, Refusal::WouldEmpty, message);
        }
        for object in delta.upserts {
            self.objects.insert(object);
        }
        for key in &delta.deletes {
            self.objects.remove(key);
        }
        self.adopt(delta.nonce, delta.to, judgement)
    }

    /// Takes a whole state.
    pub fn on_snapshot(&mut self, state: FullState) -> Outcome {
        let count = state.objects.len();
        let objects: ObjectSet = state.objects.into_iter().collect();
        if objects.digest() != state.digest || objects.len() != count {
            let message = format!(
                "the digest of the snapshot {} is {}, not {}",
                state.version,
                objects.digest(),
                state.digest
            );
            return self.refuse(state.nonce, Refusal::Resync, message);
        }
        let same_epoch = self.version.filter(|held| held.epoch == state.version.epoch);
        if let Some(held) = same_epoch.filter(|held| held.revision > state.version.revision) {
            let message =
                format!("the snapshot {} is older than {held}, which is held", state.version);
            return self.refuse(state.nonce, Refusal::Resync, message);
        }
        let gone = self.objects.iter().filter(|held| objects.get(&held.key).is_none());
        let deletes: Vec<Key> = gone.map(|held| held.key.clone()).collect();
        let judgement = self.judge(objects.iter().collect(), &deletes);
        if !state.allow_empty
            && let Some(message) = self.why_not(&judgement.snapshot, state.version)
        {
            return self.refuse(state.nonce, Refusal::WouldEmpty, message);
        }
        self.objects = objects;
        self.adopt(state.nonce, state.version, judgement)
    }

    /// Why a whole state must not replace what is served, unless somebody wants it.
    fn why_not(&self, next: &Snapshot, version: Version) -> Option<String> {
        let served = self.snapshot();
        if self.version.is_some_and(|held| held.epoch == version.epoch) {
            let pool = served.first_emptied_by(next)?;
            return Some(format!(
                "the snapshot {version} would leave pool {pool} without a backend"
            ));
        }
        // Another store: a pool that merely *cannot serve* there (its backends were
        // not checked yet) must not replace one that can.
        let pool = served.first_silenced_by(next)?;
        Some(format!(
            "the snapshot {version} would leave pool {pool} without a backend that can serve, and \
             it comes from another store than what is held; add the pool's backends to the new \
             store, or, if what the pool had is not wanted any more, have the state taken as it is \
             with 'lbctl adopt-store'"
        ))
    }

    /// Compares a heartbeat with what is held; a different digest of the same
    /// version is answered with a request to start over.
    #[must_use]
    pub fn on_heartbeat(&self, theirs: Held) -> Option<Answer> {
        let ours = self.held()?;
        if ours.version != theirs.version || ours.digest == theirs.digest {
            return None;
        }
        let message = format!(
            "at {} the digest here is {}, there {}",
            ours.version, ours.digest, theirs.digest
        );
        Some(self.refusal(Nonce::default(), Refusal::Resync, message))
    }

    /// What to send once everything that is valid has been applied.
    #[must_use]
    pub fn answer(&self, nonce: Nonce) -> Answer {
        Answer {
            nonce,
            held: self.held(),
            rejections: self.judgement.rejections().cloned().collect(),
            refused: None,
        }
    }

    fn refuse(&self, nonce: Nonce, refusal: Refusal, message: String) -> Outcome {
        Outcome::Refuse(self.refusal(nonce, refusal, message))
    }

    fn refusal(&self, nonce: Nonce, refusal: Refusal, message: String) -> Answer {
        Answer { refused: Some((refusal, message)), ..self.answer(nonce) }
    }

    fn judge(&self, upserts: Vec<&Object>, deletes: &[Key]) -> Judgement {
        self.judgement.after(self.decode, &self.objects, upserts, deletes)
    }

    fn adopt(&mut self, nonce: Nonce, version: Version, judgement: Judgement) -> Outcome {
        self.version = Some(version);
        self.judgement = judgement;
        Outcome::Apply(Update { nonce, snapshot: Arc::clone(self.snapshot()) })
    }
}

#[cfg(test)]
mod tests;
