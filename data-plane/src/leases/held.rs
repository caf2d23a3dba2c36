//! One quantity on the control thread.

mod rate;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lb_core::{
    lease::{self, Applied, Grant, Holder, Quantity, Refused, Slots, Sort, Term, Wanted},
    resilience::concurrency::Sums,
};
use lb_proto::{convert, v1 as pb};

pub(super) use self::rate::HeldRate;
use super::{Cap, Line, RateLease, keys::HeldKeys};
use crate::live::BackendState;

/// A share without a lease is allowed for so long; longer than between two looks.
const SAFE_FOR: Duration = Duration::from_secs(1);
/// Between two looks if the process was stopped; much more than between others.
const STOOD_STILL: Duration = Duration::from_millis(750);

/// Before all who may be concerned look again at what has not changed: there may be many.
const AGAIN: Duration = Duration::from_millis(250);

/// What this proxy has of a quantity.
#[derive(Debug)]
pub(super) enum Held {
    Slots(HeldSlots),
    Rate(HeldRate),
    Keys(HeldKeys),
}

#[derive(Debug)]
pub(super) struct HeldSlots {
    number: u64,
    slots: Slots,
    pub(super) cap: Arc<Cap>,
    line: Arc<Line>,
    /// Requests that wait may go to any of so many backends.
    pub(super) waiting_among: u64,
    /// The slots of their pool, of those of a backend, if that has a bound, too.
    pub(super) pool: Option<Arc<Cap>>,
    /// What it bounds is bounded by other caps as much: then a slot is needed of those alone, and
    /// this only counts.
    is_implied: bool,
    /// Requests that were in progress when the limit was set, and are still.
    before: u64,
    /// Where those are.
    backends: Vec<Arc<BackendState>>,
    is_urgent: bool,
    /// The next report is wanted even if it says nothing new.
    spells_out: bool,
    wanted: Wanted,
    looked_at: Instant,
    /// What workers were allowed last, and until when.
    allowed: (u64, Instant),
    /// When those who wait were last told of all slots that are free.
    offered_at: Instant,
    /// What the last report said beside the lease.
    beside: Option<Beside>,
    /// Requests that are to end, and when the workers were last told to look for them.
    overdue: (u64, Instant),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Beside {
    waiting: u64,
    told: Option<(u64, Sums)>,
}

impl Held {
    /// Whether something should be reported before its time.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        match self {
            Self::Slots(held) => held.look(now),
            Self::Rate(_) | Self::Keys(_) => false,
        }
    }

    /// Whether its use changes from moment to moment.
    pub(super) fn is_busy(&self) -> bool {
        match self {
            Self::Slots(held) => held.slots.in_use() > 0 || held.line.waiting() > 0,
            Self::Rate(_) | Self::Keys(_) => false,
        }
    }

    /// Has requests end that hold slots which nobody counts any more; whether workers are to
    /// look for them.
    pub(super) fn ends_overdue(&mut self, now: Instant) -> bool {
        let Self::Slots(held) = self else { return false };
        let overdue = if held.is_lifted(now) { 0 } else { held.slots.overdue(now) };
        held.cap.set_overdue(overdue);
        let (before, told_at) = held.overdue;
        let is_told = overdue > before || (overdue > 0 && now >= told_at + AGAIN);
        held.overdue = (overdue, if is_told { now } else { told_at });
        is_told
    }

    /// What to send up; if `repeats`, only what is not what was sent last.
    pub(super) fn report(
        &mut self,
        quantity: &Quantity,
        repeats: bool,
        now: Instant,
        out: &mut Vec<pb::LeaseReport>,
    ) {
        match self {
            Self::Slots(held) => out.extend(held.report(quantity, repeats, now)),
            Self::Rate(held) => out.extend(held.report(quantity, repeats, now)),
            Self::Keys(held) => held.report(quantity, repeats, now, out),
        }
    }

    /// Its part in what a frame rests on.
    pub(super) fn rests_on(&self) -> u64 {
        match self {
            Self::Slots(held) => lease::rests_on(held.number, held.slots.holder().last_report()),
            Self::Rate(held) => lease::rests_on(held.number, held.share.holder().last_report()),
            Self::Keys(_) => 0,
        }
    }

    /// A frame that was sent at `sent_at` was understood by a control plane of this term.
    pub(super) fn renew(&mut self, term: Term, sent_at: Instant, now: Instant) {
        match self {
            Self::Slots(held) => {
                held.slots.renew(term, sent_at, now);
                held.publish(now);
            }
            Self::Rate(held) => {
                held.share.renew(term, sent_at, now);
                held.lease.publish(held.share.pace());
            }
            Self::Keys(_) => {}
        }
    }

    /// Takes in what the control plane says. Whether a report should follow at once.
    pub(super) fn hear(&mut self, wire: &pb::LeaseGrant, now: Instant) -> Result<bool, Refused> {
        let number = match self {
            Self::Slots(held) => held.number,
            Self::Rate(held) => held.number,
            Self::Keys(held) => held.number,
        };
        // It is for a former holder.
        if wire.holder != number {
            return Ok(false);
        }
        let grant = convert::lease_grant_from_wire(wire);
        let Applied { report_now } = match (&mut *self, grant) {
            (Self::Keys(held), grant) => held.hear(wire, grant, now)?,
            (Self::Slots(held), Some(grant)) => held.apply(&grant, now)?,
            (Self::Rate(held), Some(grant)) => held.apply(&grant, now)?,
            (held, None) => {
                held.spell_out();
                return Ok(true);
            }
        };
        if let Self::Slots(held) = self {
            held.is_urgent |= report_now;
        }
        Ok(report_now)
    }

    /// A report is wanted even if it says nothing new.
    fn spell_out(&mut self) {
        match self {
            Self::Slots(held) => held.spells_out = true,
            Self::Rate(held) => held.spells_out = true,
            Self::Keys(_) => {}
        }
    }

    /// Has workers follow all that was heard of keys.
    pub(super) fn publish_heard(&mut self) {
        if let Self::Keys(held) = self
            && held.is_stale
        {
            held.publish();
        }
    }

    /// Another process takes this one's place, and with it what may be used without a lease.
    pub(super) fn retire(&mut self, now: Instant) {
        match self {
            Self::Slots(held) => held.slots.retire(now),
            Self::Rate(held) => {
                held.share.retire(now);
                held.lease.publish(held.share.pace());
            }
            Self::Keys(held) => held.retire(now),
        }
    }

    /// What to remember for the next start of this proxy.
    pub(super) fn remembered(&self) -> (u64, u32) {
        match self {
            Self::Slots(held) => held.slots.holder().remembered(),
            Self::Rate(held) => held.share.holder().remembered(),
            Self::Keys(held) => (0, held.hot.proxies()),
        }
    }

    /// Is held no more: what it limits is not limited any more, or is gone. Whoever waits
    /// for what is gone waits for something else.
    pub(super) fn give_up(self, is_there: bool) {
        if let Self::Slots(held) = self {
            if is_there {
                held.cap.lift();
            } else {
                held.cap.close();
            }
            (0..held.line.waiting()).for_each(|_| held.line.freed());
        }
    }
}

impl HeldSlots {
    pub(super) fn new(
        (number, holder): (u64, Holder),
        wanted: Wanted,
        cap: Arc<Cap>,
        line: &Arc<Line>,
        backends: &[Arc<BackendState>],
        now: Instant,
    ) -> Self {
        let before = in_flight(backends);
        Self {
            number,
            slots: Slots::new(holder, now),
            cap,
            line: Arc::clone(line),
            waiting_among: 1,
            pool: None,
            is_implied: false,
            before,
            backends: if before > 0 { backends.to_vec() } else { Vec::new() },
            is_urgent: true,
            spells_out: false,
            looked_at: now,
            wanted,
            allowed: (0, now),
            offered_at: now,
            beside: None,
            overdue: (0, now),
        }
    }

    pub(super) fn change(
        &mut self,
        wanted: Wanted,
        line: &Arc<Line>,
        backends: &[Arc<BackendState>],
    ) {
        self.slots.set_hold(wanted.terms().hold);
        self.slots.set_on_loss(wanted.on_loss());
        self.wanted = wanted;
        self.line = Arc::clone(line);
        if self.before > 0 {
            let known = |state: &&Arc<BackendState>| {
                self.backends.iter().any(|known| known.identity == state.identity)
            };
            let new: Vec<_> = backends.iter().filter(|state| !known(state)).cloned().collect();
            self.backends.extend(new);
        }
    }

    /// Sees what is in use, and lets workers use what they may.
    fn look(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(std::mem::replace(&mut self.looked_at, now));
        if since > STOOD_STILL {
            self.begin_anew(now);
        }
        let taken = self.cap.slots().taken();
        if self.before > 0 {
            self.before = self.before.min(in_flight(&self.backends).saturating_sub(taken));
            if self.before == 0 {
                self.backends.clear();
            }
        }
        self.slots.set_in_use(taken + self.before, now);
        self.is_urgent |= self.slots.set_waiting(self.waiting(now), now);
        self.is_urgent |= self.cap.was_returned();
        self.publish(now);
        self.is_urgent
    }

    /// After the process stood still it knows as little as one that has just begun: no control
    /// plane was heard because nobody listened, and others may have what it had.
    fn begin_anew(&mut self, now: Instant) {
        let former = self.slots.holder();
        let ((safe, proxies), is_retired) = (former.remembered(), former.is_retired());
        let holder = Holder::new(self.wanted.terms(), self.wanted.on_loss(), safe, proxies, now);
        self.slots.begin_anew(holder, now);
        if is_retired {
            self.slots.retire(now);
        }
        // Unlike the numbers of all other holders, and seen to be this one's by the lower half.
        self.number += 1 << 32;
        self.is_urgent = true;
    }

    fn report(
        &mut self,
        quantity: &Quantity,
        repeats: bool,
        now: Instant,
    ) -> Option<pb::LeaseReport> {
        self.is_urgent = false;
        let beside = Beside { waiting: self.waiting(now), told: self.told() };
        let same = self.beside.replace(beside) == Some(beside);
        let report = match !std::mem::take(&mut self.spells_out) && repeats && same {
            true => self.slots.news(now)?,
            false => self.slots.report(now),
        };
        let Beside { waiting, told } = beside;
        let mut wire = convert::lease_report_to_wire(quantity, None, self.number, &report, waiting);
        if let Some((aside, sums)) = told {
            convert::add_sums_to_wire(aside, &sums, &mut wire);
        }
        Some(wire)
    }

    /// What is told of a pool with adaptive concurrency.
    fn told(&self) -> Option<(u64, Sums)> {
        let Sort::Slots { adaptive: Some(_), .. } = self.wanted.sort else { return None };
        let answers = self.cap.answers.as_ref()?;
        // What was there before the limit is not known to wait for a backend.
        Some((answers.aside() + self.before, answers.sums()))
    }

    /// Requests that could use a slot if there were one. A slot of a backend is of no use without
    /// one of its pool, and would be idle here while another proxy has that.
    fn waiting(&self, now: Instant) -> u64 {
        let waiting = self.line.waiting().div_ceil(self.waiting_among.max(1));
        self.pool.as_ref().map_or(waiting, |pool| waiting.min(pool.slots().free(now)))
    }

    fn apply(&mut self, grant: &Grant, now: Instant) -> Result<Applied, Refused> {
        let applied = self.slots.apply(grant, now)?;
        self.publish(now);
        Ok(applied)
    }

    /// Whether other caps bound as much as this one.
    pub(super) fn set_implied(&mut self, is_implied: bool, now: Instant) {
        self.is_implied = is_implied;
        self.publish(now);
    }

    /// Whether other caps alone bound it. Without a control plane proxies may have more of those
    /// than there is ([`lb_core::lease::OnLoss::OneEach`]), and it counts for itself.
    fn is_lifted(&self, now: Instant) -> bool {
        self.is_implied && self.slots.holder().is_leased(now)
    }

    fn publish(&mut self, now: Instant) {
        if self.is_lifted(now) {
            self.cap.lift_to(self.wanted.amount);
            return;
        }
        let stages = self.slots.holder().stages();
        let until = if now < stages.lease_until {
            stages.lease_until
        } else if now < stages.safe_from {
            stages.safe_from.min(now + SAFE_FOR)
        } else {
            now + SAFE_FOR
        };
        let usable = self.slots.holder().usable(now);
        self.cap.set_lacks_lease(usable == 0 && now >= stages.lease_until);
        let allowed = usable.saturating_sub(self.before);
        self.cap.allow(allowed, until);
        let (before, valid_until) = std::mem::replace(&mut self.allowed, (allowed, until));
        let new = if now < valid_until { allowed.saturating_sub(before) } else { allowed };
        self.offer(new, now);
    }

    /// Tells those who wait of so many `new` slots: a worker that gives one back tells of that
    /// itself. Of all that are free they are told now and then only, because most of those are
    /// of no use to them: the backend is down, or its pool has no room.
    fn offer(&mut self, mut new: u64, now: Instant) {
        if now >= self.offered_at + AGAIN {
            self.offered_at = now;
            new = u64::MAX;
        }
        if new > 0 {
            (0..new.min(self.cap.free()).min(self.line.waiting())).for_each(|_| self.line.freed());
        }
    }
}

/// What was counted since the last time. Requests that were taken back after they had been
/// reported make up for later ones.
pub(super) fn newly(counted: u64, before: &mut u64) -> u64 {
    let new = counted.saturating_sub(*before);
    *before += new;
    new
}

pub(super) fn burst(wanted: Wanted) -> u32 {
    match wanted.sort {
        Sort::Rate { burst } | Sort::RateByKey { burst } => burst,
        Sort::Slots { .. } => 0,
    }
}

fn in_flight(backends: &[Arc<BackendState>]) -> u64 {
    backends.iter().map(|state| u64::from(state.in_flight())).sum()
}

#[cfg(test)]
mod rate_tests;
#[cfg(test)]
mod tests;
