//! One quantity on the control thread, by what workers may do and what is sent up.

use std::{
    num::NonZeroU32,
    task::{Context, Waker},
};

use lb_core::{
    lease::QuantityKind,
    model::{BackendId, Incarnation, PoolName},
};

use super::*;
use crate::{
    leases::{PoolCaps, Waiter},
    live::{CountedBy, Identity, Trouble},
    worker::now,
};

const HOLD: Duration = Duration::from_secs(2);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn quantity() -> Quantity {
    Quantity { kind: QuantityKind::Backend, name: "backend1".into(), incarnation: 1 }
}

fn ten_slots() -> Wanted {
    Wanted { amount: 10, sort: Sort::Slots { hold: HOLD, adaptive: None } }
}

fn backend() -> Arc<BackendState> {
    let identity = Identity {
        id: BackendId::new("backend1").unwrap(),
        incarnation: Incarnation(1),
        address: "127.0.0.1:1".parse().unwrap(),
    };
    let (pool, trouble) = (PoolName::default_pool(), Arc::new(Trouble::new()));
    Arc::new(BackendState::new(identity, pool, 1, Box::new([]), 1, &trouble))
}

/// The slots of one backend, and what belongs to them.
struct Slotted {
    held: Held,
    cap: Arc<Cap>,
    line: Arc<Line>,
    start: Instant,
    reports: u64,
    grants: u64,
}

impl Slotted {
    fn new(backends: &[Arc<BackendState>]) -> Self {
        Self::remembering(0, backends)
    }

    fn remembering(safe: u64, backends: &[Arc<BackendState>]) -> Self {
        let start = now();
        let line = Arc::new(Line::new(Arc::default()));
        line.set_length(9);
        let cap = Arc::new(Cap::new(quantity(), Arc::default(), 1, start));
        let holder = Holder::new(ten_slots().terms(), ten_slots().on_loss(), safe, 1, start);
        let held =
            HeldSlots::new((7, holder), ten_slots(), Arc::clone(&cap), &line, backends, start);
        Self { held: Held::Slots(held), cap, line, start, reports: 0, grants: 0 }
    }

    fn at(&self, after: u64) -> Instant {
        self.start + ms(after)
    }

    fn slots(&mut self) -> &mut HeldSlots {
        let Held::Slots(held) = &mut self.held else { unreachable!("it holds slots") };
        held
    }

    /// Looks often enough until then.
    fn look_until(&mut self, from: u64, to: u64) {
        (from..=to).step_by(100).for_each(|after| _ = self.held.look(self.at(after)));
    }

    fn report(&mut self, after: u64, repeats: bool) -> Option<pb::LeaseReport> {
        let mut reports = Vec::new();
        self.held.report(&quantity(), repeats, self.at(after), &mut reports);
        self.reports += reports.len() as u64;
        reports.pop()
    }

    /// Answers the latest report.
    fn grant(&mut self, amount: u64, safe: u64) -> pb::LeaseGrant {
        self.grants += 1;
        let grant = Grant {
            term: Term(1),
            id: self.grants,
            answers: self.reports,
            lease: ms(1000),
            amount,
            safe,
            carried: false,
            proxies: NonZeroU32::new(3),
        };
        convert::lease_grant_to_wire(&quantity(), None, self.slots().number, &grant)
    }

    /// Is lent so much, by a report that is answered at once.
    fn lend(&mut self, after: u64, amount: u64, safe: u64) {
        self.report(after, false).unwrap();
        let grant = self.grant(amount, safe);
        self.held.hear(&grant, self.at(after)).unwrap();
    }

    /// As requests take them.
    fn caps(&self) -> Arc<PoolCaps> {
        let backends = Box::new([Some(Arc::clone(&self.cap))]);
        Arc::new(PoolCaps::new(Arc::clone(&self.line), None, backends, false))
    }

    fn free(&self, after: u64) -> u64 {
        self.cap.slots().free(self.at(after))
    }
}

fn has_turn(waiter: &Waiter) -> bool {
    waiter.poll_turn(&Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn slots_that_are_lent_end_by_themselves_and_the_safe_share_follows_when_all_leases_have_ended() {
    let mut slotted = Slotted::new(&[]);
    slotted.lend(0, 2, 3);
    assert_eq!((slotted.free(0), slotted.free(900), slotted.free(1000)), (2, 2, 0));
    slotted.look_until(100, 1000);
    assert_eq!(slotted.free(1000), 2, "no more than the lease was");
    // A lease, what is held beyond it, and the margins for clocks.
    let others_end = 1000 + u64::try_from(ten_slots().terms().counted_for().as_millis()).unwrap();
    slotted.look_until(1100, others_end - 1);
    // Slots are counted in steps of time.
    assert_eq!((slotted.free(others_end - 100), slotted.free(others_end)), (2, 0));
    slotted.held.look(slotted.at(others_end + 1));
    assert_eq!(slotted.free(others_end + 1), 3);
    // Not beyond the moment when this thread should have looked again.
    assert_eq!(slotted.free(others_end + 1 + 1064), 0);
}

#[test]
fn a_smaller_safe_share_takes_the_place_of_a_lease_at_once() {
    let mut slotted = Slotted::new(&[]);
    slotted.lend(0, 5, 1);
    slotted.look_until(100, 1000);
    assert_eq!(slotted.free(1000), 1);
}

#[test]
fn without_a_lease_the_remembered_safe_share_is_used_once_nobody_can_have_it() {
    let mut slotted = Slotted::remembering(4, &[]);
    let others_end = u64::try_from(ten_slots().terms().counted_for().as_millis()).unwrap();
    slotted.look_until(0, others_end - 1);
    assert_eq!(slotted.free(others_end - 1), 0);
    slotted.held.look(slotted.at(others_end + 1));
    assert_eq!(slotted.free(others_end + 1), 4);
    assert_eq!(slotted.held.remembered(), (4, 1));
    slotted.lend(others_end + 2, 5, 2);
    assert_eq!(slotted.held.remembered(), (2, 3), "what was lent last");
}

#[test]
fn a_grant_is_taken_once_in_order_and_only_by_the_holder_that_asked() {
    let mut slotted = Slotted::new(&[]);
    slotted.report(0, false);
    let (first, second) = (slotted.grant(5, 0), slotted.grant(3, 0));
    let at = slotted.start;
    assert!(slotted.held.hear(&second, at).is_ok());
    assert_eq!(slotted.held.hear(&first, at), Err(Refused::Stale { id: 1, applied: 2 }));
    let strange = pb::LeaseGrant { holder: 8, id: 9, ..first.clone() };
    assert_eq!(slotted.held.hear(&strange, at), Ok(false));
    slotted.report(0, true);
    assert_eq!(slotted.report(0, true), None, "nothing new");
    let none = pb::LeaseGrant { id: 0, ..second };
    assert_eq!(slotted.held.hear(&none, at), Ok(true), "it lends nothing, and asks for a report");
    assert!(slotted.report(0, true).is_some() && slotted.report(0, true).is_none());
    assert_eq!(slotted.free(0), 3);
    slotted.slots().is_urgent = false;
    let smaller = slotted.grant(2, 0);
    assert_eq!(slotted.held.hear(&smaller, at), Ok(true), "others wait for what is returned");
    assert!(slotted.slots().is_urgent);
    let late = slotted.grant(9, 0);
    assert_eq!(slotted.held.hear(&late, slotted.at(1000)), Err(Refused::Ended));
}

#[test]
fn after_the_process_stood_still_it_has_nothing_and_is_another_holder() {
    let mut slotted = Slotted::new(&[]);
    slotted.lend(0, 5, 2);
    let before = slotted.grant(5, 2);
    slotted.held.look(slotted.at(750));
    assert_eq!(slotted.free(750), 5, "a busy machine is not a stopped one");
    assert!(slotted.held.look(slotted.at(1501)), "and that is said at once");
    assert_eq!(slotted.free(1501), 0);
    assert_eq!(slotted.held.hear(&before, slotted.at(1501)), Ok(false), "it was the former's");
    let report = slotted.report(1501, false).unwrap();
    assert_eq!((report.holder, report.sequence, report.holds), (7 + (1 << 32), 1, 0));
    slotted.reports = 1;
    slotted.held.retire(slotted.at(1501));
    slotted.held.look(slotted.at(3000));
    assert!(slotted.slots().slots.holder().is_retired(), "another process has its place still");
    assert_eq!(slotted.held.remembered(), (2, 3));
}

#[test]
fn a_frame_that_was_understood_prolongs_what_is_lent() {
    let mut slotted = Slotted::new(&[]);
    slotted.lend(0, 5, 0);
    slotted.held.look(slotted.at(500));
    slotted.held.renew(Term(1), slotted.at(400), slotted.at(500));
    assert_eq!((slotted.free(1300), slotted.free(1400)), (5, 0));
    slotted.held.look(slotted.at(900));
    slotted.held.renew(Term(2), slotted.at(800), slotted.at(900));
    assert_eq!(slotted.free(1400), 0, "what another control plane lends is not this");
}

#[test]
fn what_was_in_progress_before_the_limit_takes_slots_until_it_ends() {
    let backend = backend();
    (0..2).for_each(|_| backend.enter(CountedBy::All));
    let mut slotted = Slotted::new(&[Arc::clone(&backend)]);
    slotted.held.look(slotted.at(0));
    assert_eq!(slotted.report(0, false).unwrap().in_use, 2);
    let grant = slotted.grant(5, 0);
    slotted.held.hear(&grant, slotted.at(0)).unwrap();
    assert_eq!(slotted.free(0), 3);
    // One that has its slot in a moment is none of them.
    backend.enter(CountedBy::All);
    slotted.held.look(slotted.at(5));
    assert_eq!((slotted.free(5), slotted.slots().slots.in_use()), (3, 2));
    backend.leave(CountedBy::All);
    // Nor one that is counted itself.
    assert!(slotted.cap.slots().take(slotted.at(0)));
    backend.enter(CountedBy::All);
    slotted.held.look(slotted.at(10));
    assert_eq!((slotted.free(10), slotted.slots().slots.in_use()), (2, 3));
    (0..2).for_each(|_| backend.leave(CountedBy::All));
    slotted.held.look(slotted.at(20));
    assert_eq!((slotted.free(20), slotted.slots().slots.in_use()), (4, 1));
    backend.enter(CountedBy::All);
    slotted.held.look(slotted.at(30));
    assert_eq!(slotted.slots().slots.in_use(), 1, "none comes to be of those later");
}

#[test]
fn a_line_asks_for_slots_and_each_of_several_backends_for_its_part() {
    let mut slotted = Slotted::new(&[]);
    slotted.slots().waiting_among = 2;
    slotted.lend(0, 0, 0);
    assert!(!slotted.held.look(slotted.at(0)) && !slotted.held.is_busy());
    let waiters: Vec<_> = (0..3).map(|_| slotted.line.join(slotted.start).unwrap()).collect();
    assert!(slotted.held.look(slotted.at(10)), "nothing else gets them a slot");
    assert!(slotted.held.is_busy());
    let report = slotted.report(10, true).unwrap();
    assert_eq!((report.waiting, report.demand > 0), (2, true));
    assert!(!slotted.held.look(slotted.at(20)), "that was said");
    drop(waiters);
    slotted.held.look(slotted.at(30));
    assert_eq!(slotted.report(30, true).map(|report| report.waiting), Some(0));
    slotted.report(600, false);
    assert!(slotted.report(1001, true).is_some(), "without a lease all is said");
}

#[test]
fn what_has_not_changed_is_not_said_again_and_what_stands_beside_it_counts() {
    let mut slotted = Slotted::new(&[]);
    slotted.lend(0, 2, 0);
    slotted.held.look(slotted.at(50));
    slotted.report(50, false).unwrap();
    assert_eq!(slotted.report(60, true), None);
    let waiter = slotted.line.join(slotted.start).unwrap();
    assert!(slotted.report(70, true).is_some());
    drop(waiter);
    let rests_on = slotted.held.rests_on();
    slotted.report(80, false).unwrap();
    assert_ne!(rests_on, slotted.held.rests_on());
}

#[test]
fn new_slots_go_to_as_many_of_those_who_wait_and_all_are_offered_again_now_and_then() {
    let mut slotted = Slotted::new(&[]);
    let waiters: Vec<_> = (0..4).map(|_| slotted.line.join(slotted.start).unwrap()).collect();
    let turns = || waiters.iter().filter(|waiter| has_turn(waiter)).count();
    let nobody_can_use_it = || {
        while turns() > 0 {
            waiters.iter().for_each(Waiter::pass_on);
        }
    };
    assert_eq!(turns(), 1, "the first may look");
    nobody_can_use_it();
    slotted.lend(0, 2, 0);
    assert_eq!(turns(), 2);
    nobody_can_use_it();
    slotted.held.look(slotted.at(100));
    assert_eq!(turns(), 0, "they are not told of the same again");
    slotted.held.look(slotted.at(250));
    assert_eq!(turns(), 2, "but of all that are free, in case that somebody can use them now");
    slotted.lend(300, 2, 2);
    slotted.look_until(350, 1250);
    nobody_can_use_it();
    slotted.held.look(slotted.at(1301));
    assert_eq!(turns(), 2, "what is there without the lease is new");
}

#[test]
fn requests_whose_slots_nobody_counts_are_to_end_and_workers_are_told_now_and_then() {
    let mut slotted = Slotted::new(&[]);
    slotted.lend(0, 2, 0);
    let permit = slotted.caps().take(0, slotted.start).unwrap();
    slotted.held.look(slotted.at(0));
    assert!(slotted.held.is_busy());
    slotted.look_until(0, 2900);
    assert!(!slotted.held.ends_overdue(slotted.at(2900)), "a request may take so long");
    slotted.look_until(3000, 3100);
    assert!(slotted.held.ends_overdue(slotted.at(3100)));
    assert!(!slotted.held.ends_overdue(slotted.at(3300)));
    assert!(slotted.held.ends_overdue(slotted.at(3350)));
    assert!(permit.is_overdue(Duration::ZERO));
    drop(permit);
    slotted.held.look(slotted.at(3400));
    assert!(!slotted.held.ends_overdue(slotted.at(3700)));
}

#[test]
fn what_a_limit_held_back_goes_on_when_it_is_gone() {
    let mut slotted = Slotted::new(&[]);
    let Slotted { cap, line, start, .. } = &slotted;
    let (cap, line, start) = (Arc::clone(cap), Arc::clone(line), *start);
    let waiters: Vec<_> = (0..3).map(|_| line.join(start).unwrap()).collect();
    waiters.iter().for_each(Waiter::pass_on);
    slotted.lend(0, 1, 0);
    slotted.held.give_up(true);
    assert!((0..9).all(|_| cap.slots().take(start)));
    assert!(waiters.iter().all(has_turn));

    let mut gone = Slotted::new(&[]);
    gone.lend(0, 5, 0);
    let cap = Arc::clone(&gone.cap);
    gone.held.give_up(false);
    assert!(!cap.slots().take(gone.start), "what it was of is gone, too");
}

#[test]
fn a_slot_that_was_recalled_is_given_back_at_once() {
    let mut slotted = Slotted::new(&[]);
    slotted.lend(0, 1, 0);
    let permit = slotted.caps().take(0, slotted.start).unwrap();
    slotted.lend(10, 0, 0);
    slotted.report(20, false);
    assert!(!slotted.held.look(slotted.at(30)));
    drop(permit);
    assert!(slotted.held.look(slotted.at(40)), "others wait for it");
}

#[test]
fn requests_of_before_are_looked_for_at_backends_that_come_later_too() {
    let first = backend();
    (0..2).for_each(|_| first.enter(CountedBy::All));
    let mut slotted = Slotted::new(&[Arc::clone(&first)]);
    let line = Arc::clone(&slotted.line);
    let other = Identity { incarnation: Incarnation(2), ..first.identity.clone() };
    let (pool, trouble) = (PoolName::default_pool(), Arc::new(Trouble::new()));
    let second = Arc::new(BackendState::new(other, pool, 2, Box::new([]), 1, &trouble));
    second.enter(CountedBy::All);
    slotted.slots().change(ten_slots(), &line, &[Arc::clone(&first), second]);
    (0..2).for_each(|_| first.leave(CountedBy::All));
    slotted.held.look(slotted.at(10));
    assert_eq!(slotted.slots().slots.in_use(), 1);
}

#[test]
fn a_change_of_the_configuration_keeps_what_is_held() {
    let mut slotted = Slotted::new(&[]);
    slotted.lend(0, 5, 3);
    let longer = Wanted { amount: 10, sort: Sort::Slots { hold: 2 * HOLD, adaptive: None } };
    let other = Arc::new(Line::new(Arc::default()));
    slotted.slots().change(longer, &other, &[]);
    assert_eq!(slotted.free(0), 5);
    let stages = slotted.slots().slots.holder().stages();
    assert_eq!(stages.safe_from, stages.lease_until + longer.terms().counted_for());
    let later = slotted.at(10);
    slotted.slots().begin_anew(later);
    let stages = slotted.slots().slots.holder().stages();
    assert_eq!(stages.safe_from, stages.lease_until + longer.terms().counted_for());
    assert!(Arc::ptr_eq(&slotted.slots().line, &other));
}
