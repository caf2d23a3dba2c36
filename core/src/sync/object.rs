//! Objects as they are stored, hashed and sent, and sets of them.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::model::Key;

/// One object of the state. The payload is opaque here: it is never decoded and
/// encoded again on the way, so its hash means the same to everybody.
#[derive(Clone, Eq, PartialEq)]
pub struct Object {
    /// Kind and name.
    pub key: Key,
    /// Of the last change.
    pub revision: u64,
    /// The encoded value.
    pub payload: Bytes,
}

impl Object {
    /// XXH3-128 over kind, NUL, name, NUL, revision (little endian), payload.
    #[must_use]
    pub fn hash(&self) -> Digest {
        let mut hasher = Xxh3::new();
        hasher.update(self.key.kind.as_bytes());
        hasher.update(&[0]);
        hasher.update(self.key.name.as_bytes());
        hasher.update(&[0]);
        hasher.update(&self.revision.to_le_bytes());
        hasher.update(&self.payload);
        Digest(hasher.digest128())
    }
}

impl fmt::Debug for Object {
    /// Without the payload, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({} @{}, {} bytes)", self.key, self.revision, self.payload.len())
    }
}

/// The XOR of the hashes of all objects of a state: one change updates it in O(1),
/// and the order of changes does not matter.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct Digest(pub u128);

impl Digest {
    /// Adds an object that was not there, or takes out one that was.
    #[must_use]
    pub fn toggled(self, hash: Self) -> Self {
        Self(self.0 ^ hash.0)
    }

    /// The form on the wire: 16 bytes, little endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// Reads the form on the wire.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(u128::from_le_bytes(bytes)))
    }
}

impl fmt::Display for Digest {
    /// The first eight digits: enough for people to compare two.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 96)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A set of objects with its digest, in order of their keys.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ObjectSet {
    objects: BTreeMap<Key, Object>,
    digest: Digest,
}

impl ObjectSet {
    /// An empty set, whose digest is zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an object in, in place of an earlier one of the same key.
    pub fn insert(&mut self, object: Object) -> Option<Object> {
        self.digest = self.digest.toggled(object.hash());
        let former = self.objects.insert(object.key.clone(), object);
        if let Some(former) = &former {
            self.digest = self.digest.toggled(former.hash());
        }
        former
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: &Key) -> Option<Object> {
        let former = self.objects.remove(key)?;
        self.digest = self.digest.toggled(former.hash());
        Some(former)
    }

    /// One object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key)
    }

    /// All objects in order of their keys.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Object> {
        self.objects.values()
    }

    /// Over all objects.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What the digest would be after these changes, none of which may name the
    /// same key twice.
    #[must_use]
    pub fn digest_after(&self, upserts: &[Object], deletes: &[Key]) -> Digest {
        let former = |key: &Key| self.objects.get(key).map(Object::hash);
        let removed = upserts.iter().map(|object| &object.key).chain(deletes).filter_map(former);
        let added = upserts.iter().map(Object::hash);
        removed.chain(added).fold(self.digest, Digest::toggled)
    }

    /// How many objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

impl FromIterator<Object> for ObjectSet {
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        let mut set = Self::new();
        for object in objects {
            set.insert(object);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(name: u8, revision: u64, payload: &[u8]) -> Object {
        Object {
            key: Key::new("backend", &format!("b{name}")),
            revision,
            payload: Bytes::copy_from_slice(payload),
        }
    }

    #[test]
    fn every_part_of_an_object_is_hashed() {
        let base = object(1, 1, b"x");
        let mut other_kind = base.clone();
        other_kind.key = Key::new("pool", "b1");
        for changed in [object(2, 1, b"x"), object(1, 2, b"x"), object(1, 1, b"y"), other_kind] {
            assert_ne!(base.hash(), changed.hash());
        }
    }

    proptest! {
        #[test]
        fn the_digest_depends_on_the_content_alone(
            changes in prop::collection::vec((0u8..8, any::<Option<u16>>()), 0..60)
        ) {
            let mut set = ObjectSet::new();
            for (step, (name, payload)) in (1u64..).zip(changes) {
                let key = Key::new("backend", &format!("b{name}"));
                match payload {
                    Some(payload) => {
                        let new = object(name, step, &payload.to_le_bytes());
                        let foretold = set.digest_after(std::slice::from_ref(&new), &[]);
                        set.insert(new);
                        prop_assert_eq!(set.digest(), foretold);
                    }
                    None => {
                        let foretold = set.digest_after(&[], std::slice::from_ref(&key));
                        set.remove(&key);
                        prop_assert_eq!(set.digest(), foretold);
                    }
                }
                let again: ObjectSet = set.iter().rev_cloned().collect();
                prop_assert_eq!(again.digest(), set.digest());
            }
        }
    }

    trait RevCloned {
        fn rev_cloned(self) -> std::vec::IntoIter<Object>;
    }
    impl<'a, I: Iterator<Item = &'a Object>> RevCloned for I {
        fn rev_cloned(self) -> std::vec::IntoIter<Object> {
            let mut objects: Vec<Object> = self.cloned().collect();
            objects.reverse();
            objects.into_iter()
        }
    }
}
