//! One proxy's share of a number of slots, of which a request holds one while it runs.

use std::time::{Duration, Instant};

use super::{Applied, Grant, Holder, OnLoss, Refused, Report, Term};

/// Of what was needed so long ago a third still counts.
const SMOOTHING: Duration = Duration::from_millis(150);

/// So much of a slot is not worth a whole one, which others would use.
const SPARED: f64 = 0.25;

/// The slots that one proxy may use, and those in use.
///
/// What it reports as its demand is the mean of what was in use and waited for lately, rounded up
/// unless it is hardly more. The most would keep slots for moments: of 40 slots that eight
/// proxies fight for, a sixth would be idle; and the mean since the last report would have a line
/// of a moment move slots that are idle by the time they come: a ninth.
#[derive(Clone, Debug)]
pub struct Slots {
    holder: Holder,
    in_use: u64,
    waiting: u64,
    /// What was in use or waited for since the last report, times nanoseconds.
    needed: u128,
    /// The mean of that, smoothed.
    smoothed: f64,
    counted_until: Instant,
    reported_at: Instant,
    /// The granter was told that requests wait, or is about to be.
    waiting_is_told: bool,
    /// So many of those in use nobody counted when a grant came at last: others may have been lent
    /// them.
    lost: u64,
}

impl Slots {
    /// Slots that are held by `holder`; none is in use.
    #[must_use]
    pub fn new(holder: Holder, now: Instant) -> Self {
        Self {
            holder,
            in_use: 0,
            waiting: 0,
            needed: 0,
            smoothed: 0.0,
            counted_until: now,
            reported_at: now,
            waiting_is_told: false,
            lost: 0,
        }
    }

    /// Goes on as `holder`, which has no lease, with what is in use: the process stood still, and
    /// others may have what it had.
    pub fn begin_anew(&mut self, holder: Holder, now: Instant) {
        if self.is_uncounted(now) {
            self.lost = self.in_use;
        }
        self.holder = holder;
    }

    /// Takes a slot, if there is a free one.
    pub fn take(&mut self, now: Instant) -> bool {
        let free = self.in_use < self.holder.usable(now);
        if free {
            self.count(now);
            self.in_use += 1;
        }
        free
    }

    /// Returns a slot. Whether others may be waiting for just this one, so that a report
    /// should be sent soon; several within a few milliseconds may share one.
    #[must_use = "others may be waiting for this slot"]
    pub fn give_back(&mut self, now: Instant) -> bool {
        debug_assert!(self.in_use > 0, "only what was taken is given back");
        self.count(now);
        let was_recalled = self.in_use > self.holder.usable(now);
        self.in_use = self.in_use.saturating_sub(1);
        was_recalled
    }

    /// Says how many slots are in use, where others take them ([`super::SharedSlots`]).
    pub fn set_in_use(&mut self, in_use: u64, now: Instant) {
        self.count(now);
        let ended = self.in_use.saturating_sub(in_use);
        self.in_use = in_use;
        self.lost = self.lost.saturating_sub(ended).min(self.beyond(now));
    }

    /// Changes how long a request may hold a slot beyond a lease.
    pub fn set_hold(&mut self, hold: Duration) {
        self.holder.set_hold(hold);
    }

    /// Gives its safe share up ([`Holder::retire`]).
    pub fn retire(&mut self, now: Instant) {
        self.holder.retire(now);
    }

    /// Changes what it does when no grant comes.
    pub fn set_on_loss(&mut self, on_loss: OnLoss) {
        self.holder.set_on_loss(on_loss);
    }

    /// Says how many requests wait for a slot. Whether the granter has not been told that
    /// any do, so that a report should be sent at once: nothing else gets them a slot.
    #[must_use = "nobody knows of the new need"]
    pub fn set_waiting(&mut self, waiting: u64, now: Instant) -> bool {
        self.count(now);
        self.waiting = waiting;
        let is_news = waiting > 0 && !self.waiting_is_told;
        self.waiting_is_told |= is_news;
        is_news
    }

    /// What to send up.
    pub fn report(&mut self, now: Instant) -> Report {
        let demand = self.demand(now);
        self.holder.report(demand, self.in_use, now)
    }

    /// What to send up if it is not what was sent last.
    pub fn news(&mut self, now: Instant) -> Option<Report> {
        let demand = self.demand(now);
        let repeats = self.holder.repeats(demand, self.in_use, now);
        (!repeats).then(|| self.holder.report(demand, self.in_use, now))
    }

    /// See [`Holder::renew`].
    pub fn renew(&mut self, term: Term, sent_at: Instant, now: Instant) {
        self.holder.renew(term, sent_at, now);
    }

    /// The mean until now, and at least one if any was needed since the last call. What is above a
    /// whole number by less than [`SPARED`] waits, until that makes it more.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a conversion of floats saturates"
    )]
    fn demand(&mut self, now: Instant) -> u64 {
        self.count(now);
        let elapsed = now.saturating_duration_since(self.reported_at);
        let current = self.in_use + self.waiting;
        let demand = if elapsed.is_zero() {
            current
        } else {
            let mean = self.needed as f64 / elapsed.as_nanos() as f64;
            let kept = (-elapsed.as_secs_f64() / SMOOTHING.as_secs_f64()).exp();
            self.smoothed = mean + (self.smoothed - mean) * kept;
            (self.smoothed - SPARED).ceil() as u64
        };
        let least = u64::from(self.needed > 0 || current > 0);
        self.needed = 0;
        self.reported_at = now;
        self.waiting_is_told = self.waiting > 0;
        demand.max(least)
    }

    fn count(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.counted_until).as_nanos();
        self.needed += u128::from(self.in_use + self.waiting) * elapsed;
        self.counted_until = now.max(self.counted_until);
    }

    /// Takes a grant in. More may be in use than it allows; they finish, and no new ones
    /// begin before.
    pub fn apply(&mut self, grant: &Grant, now: Instant) -> Result<Applied, Refused> {
        let lost = if self.is_uncounted(now) { self.beyond(now).max(self.lost) } else { self.lost };
        let applied = self.holder.apply(grant, now)?;
        self.lost = lost.min(self.beyond(now));
        Ok(applied)
    }

    /// Slots in use.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        self.in_use
    }

    /// Slots that could be taken at `now`.
    #[must_use]
    pub fn free(&self, now: Instant) -> u64 {
        self.holder.usable(now).saturating_sub(self.in_use)
    }

    /// How many of those in use nobody counts any more, because no grant came for
    /// `lease + hold`: as many are to be ended, or the fleet's bound is off by them. When a grant
    /// comes after that, those of them that it does not allow.
    /// 0 while the control plane answers, however long requests take.
    #[must_use]
    pub fn overdue(&self, now: Instant) -> u64 {
        let beyond = self.beyond(now);
        match (self.is_uncounted(now), self.holder.is_leased(now)) {
            (true, _) => beyond,
            (false, true) => self.lost.min(beyond),
            (false, false) => 0,
        }
    }

    /// In use, and not allowed.
    fn beyond(&self, now: Instant) -> u64 {
        self.in_use.saturating_sub(self.holder.usable(now))
    }

    fn is_uncounted(&self, now: Instant) -> bool {
        now >= self.holder.ends_at() && !self.holder.keeps()
    }

    /// The lease behind it.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.holder
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::epoch;
    use crate::lease::Terms;

    #[test]
    fn a_process_that_was_taken_over_begins_nothing_and_ends_what_it_has_in_time() {
        let now = epoch();
        let mut slots = slots(now, 3);
        assert!(slots.take(now));
        let alone = now + Terms::LEASE + Terms::slots(HOLD).counted_for();
        assert!(slots.take(alone), "its safe share");
        slots.retire(alone);
        assert!(!slots.take(alone));
        assert_eq!((slots.report(alone).holds, slots.report(alone).safe), (0, 0));
        let ends = alone + HOLD;
        assert_eq!(slots.overdue(ends - Duration::from_millis(1)), 0, "it has begun just now");
        assert_eq!(slots.overdue(ends), 2, "the other process may have two by then");
        let answers = slots.report(ends).seq;
        slots.apply(&grant(2, answers, 3), ends).unwrap();
        assert!(slots.take(ends), "what is lent to it");
        assert_eq!(slots.overdue(ends), 0);
    }

    const HOLD: Duration = Duration::from_secs(5);

    fn grant(id: u64, answers: u64, amount: u64) -> Grant {
        Grant {
            term: Term(1),
            id,
            answers,
            lease: Terms::LEASE,
            amount,
            safe: 2,
            carried: false,
            proxies: NonZeroU32::new(2),
        }
    }

    fn slots(now: Instant, amount: u64) -> Slots {
        let mut slots =
            Slots::new(Holder::new(Terms::slots(HOLD), OnLoss::SafeShare, 0, 1, now), now);
        let answers = slots.report(now).seq;
        slots.apply(&grant(1, answers, amount), now).unwrap();
        slots
    }

    #[test]
    fn a_recalled_slot_is_reported_when_it_comes_back() {
        let now = epoch();
        let mut slots = slots(now, 2);
        assert!(slots.take(now) && slots.take(now) && !slots.take(now));
        let answers = slots.report(now).seq;
        let applied = slots.apply(&grant(2, answers, 1), now).unwrap();
        assert!(applied.report_now);
        assert_eq!(slots.report(now).in_use, 2);
        assert!(slots.give_back(now), "the recalled one");
        assert!(!slots.take(now));
        assert!(!slots.give_back(now), "one of its own");
    }

    #[test]
    fn without_the_control_plane_slots_go_down_before_they_go_up() {
        let now = epoch();
        for (lease, between) in [(9, 2), (1, 1), (0, 0)] {
            let mut slots = slots(now, lease);
            let taken = (0..lease).filter(|_| slots.take(now)).count() as u64;
            assert_eq!(taken, lease);
            let ended = now + Terms::LEASE;
            assert_eq!(slots.holder().usable(ended), between);
            // Others may have a lease that ends a second later, and be busy for 5 s more.
            let all_ended = ended + Terms::slots(HOLD).counted_for();
            assert!(all_ended > ended + Terms::LEASE + HOLD);
            assert_eq!(slots.holder().usable(all_ended - Duration::from_millis(1)), between);
            assert_eq!(slots.holder().usable(all_ended), 2);
            assert_eq!(slots.overdue(ended + HOLD - Duration::from_millis(1)), 0);
            assert_eq!(slots.overdue(ended + HOLD), lease.saturating_sub(2));
        }
    }

    #[test]
    fn what_nobody_counted_any_more_ends_unless_it_is_lent_again() {
        let now = epoch();
        let lost = Terms::LEASE + HOLD;
        let moment = Duration::from_millis(1);
        // One that was merely cut off keeps what its safe share of two allows.
        for (stood_still, lent, ended) in [
            (lost, 1, [2, 1]),
            (lost, 3, [0, 0]),
            (lost - moment, 1, [0, 0]),
            (lost * 9, 0, [3, 1]),
        ] {
            for (is_anew, overdue) in [true, false].into_iter().zip(ended) {
                let mut slots = slots(now, 3);
                slots.set_in_use(3, now);
                let goes_on = now + stood_still;
                let what = format!("{lent} lent after {stood_still:?}, anew: {is_anew}");
                if is_anew {
                    let holder = Holder::new(Terms::slots(HOLD), OnLoss::SafeShare, 0, 1, goes_on);
                    slots.begin_anew(holder, goes_on);
                    slots.set_in_use(3, goes_on);
                    assert_eq!(slots.overdue(goes_on), 0, "{what}: that is for others to say");
                }
                let answers = slots.report(goes_on).seq;
                slots.apply(&grant(2, answers, lent), goes_on).unwrap();
                assert_eq!(slots.overdue(goes_on), overdue, "{what}");
                slots.set_in_use(3 - overdue, goes_on);
                let later = goes_on + moment;
                let answers = slots.report(later).seq;
                slots.apply(&grant(3, answers, 0), later).unwrap();
                assert_eq!(slots.overdue(later), 0, "{what}: what is left is counted");
            }
        }
    }

    #[test]
    fn fewer_slots_than_proxies_are_one_for_each_that_hears_nobody() {
        let now = epoch();
        let ended = now + Terms::LEASE;
        let alone = ended + Terms::LEASE / 4;
        for (of, proxies, least) in [(2, 3, 1), (2, 2, 0), (3, 2, 0)] {
            for lease in [0, 1, 2] {
                let holder = Holder::new(Terms::slots(HOLD), OnLoss::OneEach { of }, 0, 1, now);
                let mut slots = Slots::new(holder, now);
                let answers = slots.report(now).seq;
                let among = NonZeroU32::new(proxies);
                let grant = Grant { safe: 0, proxies: among, ..grant(1, answers, lease) };
                slots.apply(&grant, now).unwrap();
                slots.set_in_use(lease, now);
                let what = format!("{lease} of {of} among {proxies}");
                let usable = |at: Instant| slots.holder().usable(at);
                let moment = Duration::from_millis(1);
                assert_eq!(usable(ended - moment), lease, "{what}");
                assert_eq!([usable(ended), usable(alone - moment)], [0, 0], "a late message");
                assert_eq!([usable(alone), usable(ended + 10 * HOLD)], [least; 2], "{what}");
                assert_eq!(slots.overdue(ended + HOLD), lease.saturating_sub(least), "{what}");
                // What it may begin before it is answered is told; it is no share.
                let report = slots.report(ended);
                assert_eq!((report.holds, report.safe), (least, 0), "{what}");
                slots.retire(alone);
                assert_eq!(slots.holder().usable(alone), 0, "{what}: another process has it");
            }
        }
    }

    #[test]
    fn a_process_that_begins_without_a_control_plane_waits_for_the_one_before() {
        let now = epoch();
        let ended = now + Terms::slots(HOLD).counted_for();
        for (proxies, least) in [(8, 1), (2, 0), (1, 0)] {
            let one_each = OnLoss::OneEach { of: 2 };
            let holder = Holder::new(Terms::slots(HOLD), one_each, 0, proxies, now);
            assert_eq!(holder.usable(ended - Duration::from_millis(1)), 0);
            assert_eq!(holder.usable(ended), least, "of two among {proxies}");
        }
    }

    #[test]
    fn a_bound_that_need_not_be_exact_stays_where_it_was() {
        let now = epoch();
        let keep = |safe| Holder::new(Terms::slots(HOLD), OnLoss::Keep, safe, 1, now);
        assert_eq!(keep(4).usable(now), 4, "what it remembers, at once");
        assert_eq!(keep(0).usable(now), 1);
        for (lease, kept) in [(9, 9), (1, 2), (0, 2)] {
            let mut slots = Slots::new(keep(0), now);
            let answers = slots.report(now).seq;
            slots.apply(&grant(1, answers, lease), now).unwrap();
            assert_eq!(slots.holder().usable(now), lease);
            let ended = now + Terms::LEASE;
            assert_eq!(slots.holder().usable(ended), kept);
            assert_eq!(slots.holder().usable(ended + 10 * HOLD), kept);
            assert_eq!(slots.report(ended).holds, kept);
            slots.set_in_use(100, ended);
            assert_eq!(slots.overdue(ended + 10 * HOLD), 0, "nothing is cut");
        }
    }

    #[test]
    fn that_requests_wait_is_told_at_once_and_then_in_the_mean() {
        let now = epoch();
        let at = |ms| now + Duration::from_millis(ms);
        let mut slots = slots(now, 0);
        assert!(!slots.take(now));
        assert!(slots.set_waiting(1, now));
        assert!(!slots.set_waiting(2, now));
        assert_eq!(slots.report(now).demand, 2);
        assert!(!slots.set_waiting(10, at(50)));
        assert_eq!(slots.report(at(100)).demand, 3, "half of the way from none to 6");
        for (ms, demand) in [(200, 7), (300, 8), (400, 9), (1000, 10)] {
            assert_eq!(slots.report(at(ms)).demand, demand, "{ms} ms");
        }
        assert!(!slots.set_waiting(0, at(1001)));
        for (ms, demand) in [(1100, 5), (1200, 3), (1300, 2), (1400, 1), (1500, 1), (1600, 0)] {
            assert_eq!(slots.report(at(ms)).demand, demand, "{ms} ms");
        }
        assert!(slots.set_waiting(1, at(1600)));
        assert_eq!(slots.report(at(1610)).demand, 1, "any is worth one");
    }

    #[test]
    fn a_little_more_than_a_whole_number_waits() {
        let now = epoch();
        for (waits_ms, demand) in [(0, 2), (20, 2), (30, 3)] {
            let mut slots = slots(now, 2);
            assert!(slots.take(now) && slots.take(now));
            let mut told = 0;
            for period in 1..=20_u64 {
                let at = |ms: u64| now + Duration::from_millis(100 * (period - 1) + ms);
                let first = slots.set_waiting(u64::from(waits_ms > 0), at(0));
                assert!(!first || waits_ms > 0, "nobody waits");
                assert!(!slots.set_waiting(0, at(waits_ms)));
                told = slots.report(at(100)).demand;
            }
            assert_eq!(told, demand, "one more for {waits_ms} of 100 ms");
        }
    }
}
