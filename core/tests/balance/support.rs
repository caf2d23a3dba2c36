//! A proxy as pickers see it.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::AtomicU64,
};

use lb_core::{
    balance::{Candidate, HashKey, Loads, Phase, PickContext, Picker},
    model::Algorithm,
};

/// A picker with the state that belongs to it.
pub(crate) struct Proxy {
    picker: Picker,
    cursor: AtomicU64,
    rng: fastrand::Rng,
}

impl Proxy {
    pub(crate) fn new(picker: Picker, phase: Phase) -> Self {
        let cursor = AtomicU64::new(picker.start(phase));
        Self { picker, cursor, rng: fastrand::Rng::with_seed(u64::from(phase.index)) }
    }

    /// Picks for some client, with nothing in flight.
    pub(crate) fn pick(&mut self) -> u32 {
        self.pick_for(Ipv4Addr::LOCALHOST.into(), &Idle, &[]).expect("a backend")
    }

    pub(crate) fn pick_for(
        &mut self,
        client: IpAddr,
        loads: &impl Loads,
        excluded: &[u32],
    ) -> Option<u32> {
        self.pick_by(HashKey::Client(client), loads, excluded)
    }

    pub(crate) fn pick_by(
        &mut self,
        key: HashKey<'_>,
        loads: &impl Loads,
        excluded: &[u32],
    ) -> Option<u32> {
        self.picker.pick(&mut PickContext {
            key,
            cursor: &self.cursor,
            loads,
            rng: &mut self.rng,
            excluded,
        })
    }
}

/// Nothing is in flight.
pub(crate) struct Idle;

impl Loads for Idle {
    fn in_flight(&self, _slot: u32) -> u32 {
        0
    }
}

/// A picker over `backend0`, `backend1`, ... in slots 0, 1, ...
pub(crate) fn picker(algorithm: Algorithm, weights: &[u16]) -> Picker {
    let ids: Vec<_> = (0..weights.len()).map(|i| format!("backend{i}")).collect();
    let candidates: Vec<_> = (0..)
        .zip(&ids)
        .zip(weights)
        .map(|((slot, id), &weight)| Candidate { slot, id, weight })
        .collect();
    Picker::build(algorithm, &candidates)
}
