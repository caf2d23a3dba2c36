//! A limit by key on the control thread: an even share of every key, and leases of those that
//! need more.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
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

/// What this proxy has of the keys of a limit.
#[derive(Debug)]
pub(super) struct HeldKeys {
    pub(super) number: u64,
    pub(super) hot: HotKeys,
    pub(super) lease: Arc<KeyLease>,
    /// Of the keys that are hot, and what was counted of it already.
    asked: HashMap<u64, (HotPace, u64)>,
    /// When it was last said that it is there.
    said_at: Option<Instant>,
    /// Workers have not been told the latest.
    pub(super) is_stale: bool,
}

/// Before it is said again that this proxy serves a limit by key.
const SAID_AGAIN: Duration = Duration::from_secs(1);

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
        Self { number, hot, lease, asked: HashMap::new(), said_at: None, is_stale: false }
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

    pub(super) fn report(
        &mut self,
        quantity: &Quantity,
        repeats: bool,
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
        if !repeats || self.said_at.is_none_or(|at| now >= at + SAID_AGAIN) {
            self.said_at = Some(now);
            out.push(pb::LeaseReport {
                quantity: Some(convert::quantity_to_wire(quantity)),
                holder: self.number,
                ..pb::LeaseReport::default()
            });
        }
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

#[cfg(test)]
mod tests;
