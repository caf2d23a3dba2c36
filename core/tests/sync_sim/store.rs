//! What the control plane keeps over restarts, and the writes that change it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use fastrand::Rng;
use lb_core::{
    model::{Epoch, Key, Version},
    sync::{Digest, Object, ObjectSet},
};

pub(crate) struct Store {
    pub(crate) version: Version,
    pub(crate) objects: ObjectSet,
    /// The digest of every version that ever was.
    pub(crate) history: HashMap<Version, Digest>,
}

/// One committed transaction.
pub(crate) struct Commit {
    pub(crate) upserts: Vec<Object>,
    pub(crate) deletes: Vec<Key>,
}

impl Store {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let mut store = Self {
            version: Version { epoch: Epoch([0; 16]), revision: 0 },
            objects: ObjectSet::new(),
            history: HashMap::new(),
        };
        store.recreate(rng);
        store
    }

    /// The store was lost: another epoch, which counts from the beginning.
    pub(crate) fn recreate(&mut self, rng: &mut Rng) {
        let epoch = Epoch(rng.u128(..).to_le_bytes());
        self.version = Version { epoch, revision: rng.u64(1..5) };
        self.objects = ObjectSet::new();
        self.history.insert(self.version, Digest::default());
    }

    /// One to three random changes. They need not make sense: pools vanish from
    /// under their backends, and a status may be of any life of its backend.
    pub(crate) fn write(&mut self, rng: &mut Rng) -> Commit {
        let mut changes = BTreeMap::new();
        for _ in 0..rng.usize(1..4) {
            let key = random_key(rng);
            let payload = (rng.u8(..10) > 1).then(|| random_payload(rng, &key.kind));
            changes.insert(key, payload);
        }
        self.commit(changes)
    }

    /// Gives every pool a backend that serves, whatever build the proxy is of.
    pub(crate) fn settle(&mut self) -> Commit {
        let mut changes = BTreeMap::new();
        for pool in 0..POOLS {
            changes.insert(Key::new("pool", &format!("p{pool}")), Some("ok 0".to_owned()));
            let backend = format!("b{pool}");
            changes.insert(Key::new("backend", &backend), Some(format!("ok p{pool} 1 9 1")));
            changes.insert(Key::new("status", &backend), Some("ok 9 1".to_owned()));
        }
        self.commit(changes)
    }

    fn commit(&mut self, changes: BTreeMap<Key, Option<String>>) -> Commit {
        self.version.revision += 1;
        let revision = self.version.revision;
        let mut commit = Commit { upserts: Vec::new(), deletes: Vec::new() };
        for (key, payload) in changes {
            match payload {
                Some(payload) => {
                    let object = Object { key, revision, payload: Bytes::from(payload) };
                    self.objects.insert(object.clone());
                    commit.upserts.push(object);
                }
                None => {
                    self.objects.remove(&key);
                    commit.deletes.push(key);
                }
            }
        }
        self.history.insert(self.version, self.objects.digest());
        commit
    }
}

const POOLS: u32 = 3;

fn random_key(rng: &mut Rng) -> Key {
    let (kind, letter, names) = match rng.u8(..20) {
        0..4 => ("pool", 'p', POOLS),
        4..9 => ("backend", 'b', 5),
        9..14 => ("status", 'b', 5),
        14..16 => ("listener", 'l', 2),
        16..18 => ("route", 'r', 3),
        18 => ("limit", 'm', 3),
        _ => ("certificate", 'x', 1),
    };
    Key::new(kind, &format!("{letter}{}", rng.u32(..names)))
}

/// A value of this kind that somebody may understand.
pub(crate) fn random_payload(rng: &mut Rng, kind: &str) -> String {
    let mark = match rng.u8(..20) {
        0..3 => "future",
        3 => "broken",
        _ => "ok",
    };
    let pool = rng.u32(..POOLS);
    let life = rng.u32(1..3);
    let fields = match kind {
        "pool" => format!("{}", rng.u8(..4)),
        "backend" => format!("p{pool} {} {life} {}", rng.u32(..4), u8::from(rng.u8(..5) > 0)),
        "status" => format!("{life} {}", u8::from(rng.u8(..4) > 0)),
        "listener" => format!("{}", rng.u32(1..1000)),
        "route" => format!("l{} p{pool} /{}", rng.u32(..2), rng.u32(..10)),
        "limit" if rng.bool() => format!("p{pool} {}", rng.u32(1..100)),
        "limit" => format!("r{} {}", rng.u32(..3), rng.u32(1..100)),
        _ => String::new(),
    };
    format!("{mark} {fields}")
}
