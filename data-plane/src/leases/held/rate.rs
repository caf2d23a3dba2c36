//! A share of a rate on the control thread.

use std::{sync::Arc, time::Instant};

use lb_core::lease::{Applied, Grant, Holder, Quantity, RateShare, Refused, Wanted};
use lb_proto::{convert, v1 as pb};

use super::{RateLease, burst, newly};

#[derive(Debug)]
pub(in super::super) struct HeldRate {
    pub(super) number: u64,
    pub(super) share: RateShare,
    pub(in super::super) lease: Arc<RateLease>,
    asked: u64,
    /// The next report is wanted even if it says nothing new.
    pub(super) spells_out: bool,
}

impl HeldRate {
    pub(in super::super) fn new(
        number: u64,
        holder: Holder,
        wanted: Wanted,
        workers: usize,
        now: Instant,
    ) -> Self {
        let share = RateShare::new(holder, burst(wanted), now);
        let lease = Arc::new(RateLease::new(share.pace(), workers));
        Self { number, share, lease, asked: 0, spells_out: false }
    }

    pub(in super::super) fn change(&mut self, wanted: Wanted, now: Instant) {
        self.share.set_burst(burst(wanted), now);
        self.lease.publish(self.share.pace());
    }

    pub(super) fn report(
        &mut self,
        quantity: &Quantity,
        repeats: bool,
        now: Instant,
    ) -> Option<pb::LeaseReport> {
        let asked = newly(self.lease.asked(), &mut self.asked);
        let report = match !std::mem::take(&mut self.spells_out) && repeats {
            true => self.share.news(asked, now)?,
            false => self.share.report(asked, now),
        };
        Some(convert::lease_report_to_wire(quantity, None, self.number, &report, 0))
    }

    pub(super) fn apply(&mut self, grant: &Grant, now: Instant) -> Result<Applied, Refused> {
        let applied = self.share.apply(grant, now)?;
        self.lease.publish(self.share.pace());
        Ok(applied)
    }
}
