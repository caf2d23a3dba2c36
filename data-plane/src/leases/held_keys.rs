//! The keys of one limit on the control thread.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use lb_core::{
    lease::{Applied, Grant, KeyGranter, Quantity, Refused, Wanted},
    limit::{HotKeys, Table},
};
use lb_proto::{convert, v1 as pb};

use super::{
    KeyLease,
    held::{burst, newly},
    rate::{HotPace, KeyPaces},
};

#[derive(Debug)]
pub(super) struct HeldKeys {
    pub(super) number: u64,
    hot: HotKeys,
    pub(super) lease: Arc<KeyLease>,
    /// Of the keys that are hot, and what was counted of it already.
    asked: HashMap<u64, (HotPace, u64)>,
    /// Workers have not been told the latest.
    pub(super) is_stale: bool,
}

impl HeldKeys {
    pub(super) fn new(
        number: u64,
        wanted: Wanted,
        proxies: u32,
        table: Table,
        now: Instant,
    ) -> Self {
        let keys_max = KeyGranter::<()>::KEYS_MAX;
        let hot = HotKeys::new(wanted.amount, burst(wanted), proxies, keys_max, now);
        let lease = Arc::new(KeyLease::new(table, hot.cold()));
        Self { number, hot, lease, asked: HashMap::new(), is_stale: false }
    }

    pub(super) fn change(&mut self, wanted: Wanted, now: Instant) {
        self.lease.table().fit(wanted.amount, burst(wanted));
        self.hot.set_limit(wanted.amount, burst(wanted), now);
        self.publish();
    }

    /// Another process has this one's place.
    pub(super) fn retire(&mut self, now: Instant) {
        self.hot.retire(now);
        self.publish();
    }

    /// How many proxies share the limit, as far as is known.
    pub(super) fn proxies(&self) -> u32 {
        self.hot.proxies()
    }

    pub(super) fn report(
        &mut self,
        quantity: &Quantity,
        now: Instant,
        out: &mut Vec<pb::LeaseReport>,
    ) {
        for key in self.lease.take_refused() {
            self.hot.open(key, now);
        }
        for (&key, (pace, counted)) in &mut self.asked {
            let asked = pace.asked.load(Relaxed);
            self.hot.count(key, newly(asked, counted));
        }
        for key in self.hot.close(now) {
            self.lease.table().forget(key);
        }
        // That it is there, and serves this limit.
        out.push(pb::LeaseReport {
            quantity: Some(convert::quantity_to_wire(quantity)),
            holder: self.number,
            ..pb::LeaseReport::default()
        });
        for (key, report) in self.hot.reports(now) {
            out.push(convert::lease_report_to_wire(quantity, Some(key), self.number, &report, 0));
        }
        self.publish();
    }

    pub(super) fn hear(
        &mut self,
        wire: &pb::LeaseGrant,
        grant: Option<Grant>,
        now: Instant,
    ) -> Result<Applied, Refused> {
        let applied = match (wire.key, grant) {
            (Some(key), Some(grant)) => self.hot.apply(key, &grant, now)?,
            (Some(key), None) => {
                self.hot.open(key, now);
                Applied { report_now: false }
            }
            (None, _) => {
                if !self.hot.set_proxies(wire.proxies, now) {
                    return Ok(Applied { report_now: false });
                }
                Applied { report_now: false }
            }
        };
        // Once for all that a message says.
        self.is_stale = true;
        Ok(applied)
    }

    pub(super) fn publish(&mut self) {
        self.is_stale = false;
        let mut asked = std::mem::take(&mut self.asked);
        for (key, pace) in self.hot.paces() {
            let known = asked.remove(&key);
            let (counter, counted) =
                known.map(|(hot, counted)| (hot.asked, counted)).unwrap_or_default();
            self.asked.insert(key, (HotPace { pace, asked: counter }, counted));
        }
        let hot = self.asked.iter().map(|(&key, (pace, _))| (key, pace.clone())).collect();
        self.lease.publish(KeyPaces { cold: self.hot.cold(), hot });
    }
}
