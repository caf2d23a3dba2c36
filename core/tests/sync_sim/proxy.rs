//! One proxy, its disk, and what must hold after everything that happens to it.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use fastrand::Rng;
use lb_core::{
    model::Version,
    sync::{
        Answer, Decode, Digest, Held, Object, ObjectSet, Outcome, Subscriber, Transmission, Update,
    },
};

use crate::{oracle::Oracle, store::random_payload};

pub(crate) struct Proxy {
    decode: Decode,
    pub(crate) subscriber: Subscriber,
    oracle: Oracle,
    /// Counts starts of the process.
    pub(crate) process: u32,
    /// The connection that it believes to have.
    pub(crate) connection: Option<usize>,
    /// What it holds was changed behind its back.
    pub(crate) corrupt: bool,
    last: Option<Version>,
    /// The newest copy last.
    disk: [Option<Copy>; 2],
}

#[derive(Clone)]
struct Copy {
    version: Version,
    objects: ObjectSet,
    fallbacks: Vec<Object>,
    corrupt: bool,
}

impl Proxy {
    pub(crate) fn new(decode: Decode) -> Self {
        Self {
            decode,
            subscriber: Subscriber::new(decode),
            oracle: Oracle::new(decode),
            process: 0,
            connection: None,
            corrupt: false,
            last: None,
            disk: [None, None],
        }
    }

    /// Starts again: from the newest copy, from the one before, or from nothing.
    pub(crate) fn restart(&mut self, rng: &mut Rng) -> Result<(), String> {
        self.process += 1;
        self.connection = None;
        self.last = None;
        let copy = match rng.u8(..10) {
            0..6 => self.disk[1].clone(),
            6..9 => self.disk[0].clone(),
            _ => None,
        };
        match copy {
            Some(copy) => {
                let served = Arc::clone(self.subscriber.snapshot());
                let held = self.subscriber.held();
                let fallbacks: Vec<Object> = self.subscriber.fallbacks().cloned().collect();
                self.load(copy);
                if self.subscriber.held() == held
                    && self.subscriber.fallbacks().eq(&fallbacks)
                    && *self.subscriber.snapshot() != served
                {
                    return Err("serves otherwise after a restart with the same state".to_owned());
                }
            }
            None => {
                self.disk = [None, None];
                self.subscriber = Subscriber::new(self.decode);
                self.oracle = Oracle::new(self.decode);
                self.corrupt = false;
            }
        }
        Ok(())
    }

    /// Swaps a payload behind its back.
    pub(crate) fn corrupt(&mut self, rng: &mut Rng) {
        let objects = self.subscriber.objects();
        let (Some(held), false) = (self.subscriber.held(), objects.is_empty()) else { return };
        let mut victim = objects.iter().nth(rng.usize(..objects.len())).expect("in range").clone();
        victim.payload = Bytes::from(random_payload(rng, &victim.key.kind));
        let mut objects = objects.clone();
        objects.insert(victim);
        let corrupt = self.corrupt || objects.digest() != held.digest;
        let fallbacks = self.subscriber.fallbacks().cloned().collect();
        let copy = Copy { version: held.version, objects, fallbacks, corrupt };
        if rng.bool() {
            self.disk[1] = Some(copy.clone());
        }
        self.load(copy);
    }

    fn load(&mut self, copy: Copy) {
        let objects = copy.objects.iter().cloned().collect();
        self.oracle = Oracle::restored(self.decode, &copy.objects, &copy.fallbacks);
        self.subscriber = Subscriber::restored(self.decode, copy.version, objects, copy.fallbacks);
        self.corrupt = copy.corrupt;
    }

    /// Takes what the control plane sent: `Ok` is to be applied, `Err` to be sent.
    pub(crate) fn take(
        &mut self,
        transmission: Transmission,
        history: &HashMap<Version, Digest>,
        rng: &mut Rng,
    ) -> Result<Result<Update, Answer>, String> {
        let held = self.subscriber.held();
        let served = Arc::clone(self.subscriber.snapshot());
        let ready = self.oracle.ready_pools();
        let (to, allow_empty) = match &transmission {
            Transmission::Delta(delta) => (delta.to, delta.allow_empty),
            Transmission::Snapshot(state) => (state.version, state.allow_empty),
        };
        // Only what must be refused may be.
        let sound = match &transmission {
            Transmission::Delta(delta) => {
                let from = Version { epoch: to.epoch, revision: delta.from_revision };
                !self.corrupt && held.is_some_and(|held| held.version == from)
            }
            Transmission::Snapshot(state) => {
                let silences = || {
                    let mut oracle = self.oracle.clone();
                    oracle.hold(&state.objects.iter().cloned().collect());
                    !ready.is_subset(&oracle.ready_pools())
                };
                match held.filter(|held| held.version.epoch == to.epoch) {
                    Some(held) => allow_empty && held.version.revision <= to.revision,
                    None => allow_empty || !silences(),
                }
            }
        };
        let outcome = match transmission {
            Transmission::Delta(delta) => self.subscriber.on_delta(delta),
            Transmission::Snapshot(state) => self.subscriber.on_snapshot(state),
        };
        let update = match outcome {
            Outcome::Apply(update) => update,
            Outcome::Refuse(answer) => {
                if self.subscriber.held() != held
                    || !Arc::ptr_eq(self.subscriber.snapshot(), &served)
                {
                    return Err("a refused message changed something".to_owned());
                }
                if sound {
                    return Err(format!("refused for no reason: {:?}", answer.refused));
                }
                return Ok(Err(answer));
            }
        };
        let digest = self.subscriber.objects().digest();
        if self.subscriber.held() != Some(Held { version: to, digest }) {
            return Err(format!("applied {to}, but holds {:?}", self.subscriber.held()));
        }
        if history.get(&to) != Some(&digest) {
            return Err(format!("holds {digest} at {to}, not {:?}", history.get(&to)));
        }
        self.corrupt = false;
        self.oracle.hold(self.subscriber.objects());
        let other_epoch = held.is_some_and(|held| held.version.epoch != to.epoch);
        if other_epoch && !ready.is_subset(&self.oracle.ready_pools()) {
            return Err(format!("the other store {to} silenced one of the pools {ready:?}"));
        }
        let fallbacks = self.oracle.fallbacks();
        let copy = Copy {
            version: to,
            objects: self.subscriber.objects().clone(),
            fallbacks,
            corrupt: false,
        };
        // A disk may lag behind by one state.
        if rng.u8(..8) > 0 {
            self.disk.swap(0, 1);
            self.disk[1] = Some(copy);
        }
        self.check(history)?;
        Ok(Ok(update))
    }

    /// What must hold at any time.
    pub(crate) fn check(&mut self, history: &HashMap<Version, Digest>) -> Result<(), String> {
        let Some(held) = self.subscriber.held() else { return Ok(()) };
        if let Some(last) = self.last
            && last.epoch == held.version.epoch
            && last.revision > held.version.revision
        {
            return Err(format!("went back from {last} to {}", held.version));
        }
        self.last = Some(held.version);
        if !self.corrupt && history.get(&held.version) != Some(&held.digest) {
            return Err(format!("holds {} with the digest {}", held.version, held.digest));
        }
        self.oracle.check(&self.subscriber)
    }
}
