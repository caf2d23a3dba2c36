//! A granter and its holders, message by message.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::epoch;

mod frames;
mod restart;

const HOLD: Duration = Duration::from_secs(5);
const TERMS: Terms = Terms::slots(HOLD);
const TICK: Duration = Duration::from_millis(100);

struct Pair {
    now: Instant,
    granter: Granter<usize>,
    holders: Vec<Holder>,
}

impl Pair {
    fn new(quantity: u64, holders: usize) -> Self {
        let now = epoch();
        let holder = || Holder::new(TERMS, OnLoss::SafeShare, 0, 1, now);
        Self {
            now,
            granter: Granter::new(Term(1), quantity, TERMS, Former::None, now),
            holders: (0..holders).map(|_| holder()).collect(),
        }
    }

    /// All report, hear, and apply, at once.
    fn round(&mut self, demands: &[u64]) -> Vec<u64> {
        let idle: Vec<_> = demands.iter().map(|&demand| (demand, 0)).collect();
        self.round_in_use(&idle)
    }

    /// The same, each with what it asks for and what it has in use.
    fn round_in_use(&mut self, needs: &[(u64, u64)]) -> Vec<u64> {
        self.now += TICK;
        let holders = self.holders.iter_mut().zip(needs).enumerate();
        for (index, (holder, &(demand, in_use))) in holders {
            let report = holder.report(demand, in_use, self.now);
            self.granter.hear(&index, &report, self.now);
        }
        for (index, grant) in self.granter.grant(self.now) {
            self.holders[index].apply(&grant, self.now).unwrap();
        }
        self.usable()
    }

    fn usable(&self) -> Vec<u64> {
        self.holders.iter().map(|holder| holder.usable(self.now)).collect()
    }
}

#[test]
fn what_is_to_move_is_returned_before_it_is_lent() {
    let mut pair = Pair::new(10, 2);
    assert_eq!(pair.round(&[10, 0]), [10, 0]);
    assert_eq!(pair.round(&[10, 10]), [5, 0], "the first still counts for what it had");
    assert_eq!(pair.round(&[10, 10]), [5, 5]);
}

#[test]
fn a_return_is_urgent_and_so_is_a_need_that_is_not_met() {
    let mut pair = Pair::new(10, 2);
    pair.round(&[10, 0]);
    let (now, granter) = (pair.now, &mut pair.granter);
    let needs = pair.holders[1].report(3, 0, now);
    assert_eq!(granter.hear(&1, &needs, now), Heard::Urgent);
    assert_eq!(granter.hear(&1, &needs, now), Heard::Stale);
    let grants = granter.grant(now);
    let (_, shrunk) = grants.iter().find(|(to, _)| *to == 0).unwrap();
    assert_eq!((shrunk.amount, shrunk.answers), (7, 1), "unasked, for the report before");
    assert!(pair.holders[0].apply(shrunk, now).unwrap().report_now);
    let returns = pair.holders[0].report(10, 0, now);
    assert_eq!(granter.hear(&0, &returns, now), Heard::Urgent);
    let steady = pair.holders[0].report(10, 0, now);
    assert_eq!(granter.hear(&0, &steady, now), Heard::Noted);
}

#[test]
fn a_grant_counts_from_the_report_that_it_answers() {
    let mut pair = Pair::new(10, 1);
    let sent = pair.now;
    let report = pair.holders[0].report(10, 0, sent);
    let heard = sent + Duration::from_millis(700);
    pair.granter.hear(&0, &report, heard);
    let (_, grant) = pair.granter.grant(heard)[0];
    let holder = &mut pair.holders[0];
    assert_eq!(holder.clone().apply(&grant, sent + Terms::LEASE), Err(Refused::Ended));
    holder.apply(&grant, heard).unwrap();
    let last = sent + Terms::LEASE - Duration::from_nanos(1);
    assert_eq!((holder.usable(last), holder.is_leased(last)), (10, true));
    assert!(!holder.is_leased(sent + Terms::LEASE));
    // For the granter it lasts longer.
    let counted_until = heard + TERMS.counted_for();
    assert_eq!(pair.granter.counted(counted_until - Duration::from_nanos(1)), 10);
    assert_eq!(pair.granter.counted(counted_until), 0);
}

#[test]
fn grants_that_must_not_be_applied_say_why() {
    let mut pair = Pair::new(10, 1);
    pair.round(&[1]);
    let holder = &mut pair.holders[0];
    let answers = holder.report(1, 0, pair.now).seq;
    let good = Grant {
        term: Term(1),
        id: 9,
        answers,
        lease: Terms::LEASE,
        amount: 3,
        safe: 3,
        carried: false,
        proxies: None,
    };
    let mut apply = |grant| holder.apply(&grant, pair.now);
    assert_eq!(apply(Grant { answers: 99, ..good }), Err(Refused::Unknown { answers: 99 }));
    assert!(apply(good).is_ok());
    assert_eq!(apply(good), Err(Refused::Stale { id: 9, applied: 9 }));
    let older = Grant { id: 8, ..good };
    assert_eq!(apply(older), Err(Refused::Stale { id: 8, applied: 9 }));
    assert!(apply(Grant { term: Term(2), id: 1, ..good }).is_ok());
    let fenced = Refused::Fenced { of: Term(1), known: Term(2) };
    assert_eq!(apply(Grant { id: 10, ..good }), Err(fenced));
}

/// A cap that is set while there is more in progress than it allows.
#[test]
fn nothing_begins_while_more_is_in_use_than_may() {
    let mut pair = Pair::new(10, 2);
    let mut say = |in_use: [u64; 2]| pair.round_in_use(&in_use.map(|in_use| (10, in_use)));
    assert_eq!(say([0, 0]), [5, 5]);
    // Those of the second began before it knew of the cap.
    say([5, 50]);
    for _ in 0..20 {
        assert_eq!(say([5, 50])[0], 0);
    }
    say([0, 5]);
    assert_eq!(say([0, 5]), [5, 5]);
}

#[test]
fn a_granter_that_was_followed_hears_of_it() {
    let mut pair = Pair::new(10, 1);
    pair.round(&[1]);
    let report = Report { term: Term(7), ..pair.holders[0].report(1, 0, pair.now) };
    assert_eq!(pair.granter.hear(&0, &report, pair.now), Heard::Outranked(Term(7)));
}

#[test]
fn safe_shares_add_up_to_the_quantity_while_proxies_join() {
    let mut pair = Pair::new(12, 2);
    let safe = |pair: &Pair| -> Vec<u64> {
        pair.holders.iter().map(|holder| holder.remembered().0).collect()
    };
    pair.round(&[1, 1]);
    assert_eq!(safe(&pair), [6, 6]);
    pair.holders.push(Holder::new(TERMS, OnLoss::SafeShare, 0, 1, pair.now));
    pair.round(&[1, 1, 1]);
    assert_eq!(safe(&pair), [4, 4, 0], "the others have not said that they gave theirs up");
    pair.round(&[1, 1, 1]);
    assert_eq!(safe(&pair), [4, 4, 4]);
}

#[test]
fn a_smaller_quantity_takes_effect_with_the_next_grants() {
    let mut pair = Pair::new(10, 2);
    pair.round(&[9, 9]);
    pair.granter.set_quantity(4);
    assert_eq!(pair.round(&[9, 9]), [2, 2]);
}

#[test]
fn a_grant_that_was_never_confirmed_is_counted_until_it_has_ended() {
    let mut pair = Pair::new(10, 2);
    let sent_at = pair.now;
    let mut moved_at = None;
    for round in 0..80 {
        pair.now += TICK;
        // The first reports, and gets no answer: it may have all that was granted first.
        let demand = if round == 0 { 10 } else { 0 };
        let report = pair.holders[0].report(demand, 0, pair.now);
        pair.granter.hear(&0, &report, pair.now);
        let report = pair.holders[1].report(10 - demand, 0, pair.now);
        pair.granter.hear(&1, &report, pair.now);
        for (to, grant) in pair.granter.grant(pair.now) {
            if to == 1 {
                pair.holders[1].apply(&grant, pair.now).unwrap();
            }
        }
        if moved_at.is_none() && pair.holders[1].usable(pair.now) == 10 {
            moved_at = Some(pair.now - sent_at);
        }
    }
    let moved_at = moved_at.expect("what has ended is lent again");
    assert!(moved_at >= TERMS.counted_for(), "{moved_at:?}");
    assert!(moved_at <= TERMS.counted_for() + 3 * TICK, "{moved_at:?}");
}

/// A message may be late by more than the time after which its sender is forgotten.
#[test]
fn what_a_holder_had_before_it_was_forgotten_it_is_not_lent_anew() {
    let mut pair = Pair::new(10, 2);
    pair.holders.iter_mut().for_each(|holder| holder.set_on_loss(OnLoss::Nothing));
    for _ in 0..4 {
        pair.round(&[10, 10]);
    }
    assert_eq!(pair.usable(), [5, 5]);
    let late = pair.holders[0].report(10, 0, pair.now);
    let forgotten = pair.now + TERMS.counted_for() + TICK;
    while pair.now < forgotten {
        pair.now += TICK;
        let report = pair.holders[1].report(10, 0, pair.now);
        pair.granter.hear(&1, &report, pair.now);
        for (_, grant) in pair.granter.grant(pair.now) {
            pair.holders[1].apply(&grant, pair.now).unwrap();
        }
    }
    assert_eq!(pair.usable(), [0, 10]);
    pair.granter.hear(&0, &late, pair.now);
    drop(pair.granter.grant(pair.now));
    let report = pair.holders[0].report(10, 0, pair.now);
    pair.granter.hear(&0, &report, pair.now);
    let grants = pair.granter.grant(pair.now);
    let (_, grant) = grants.iter().find(|(to, _)| *to == 0).unwrap();
    pair.holders[0].apply(grant, pair.now).unwrap();
    assert_eq!(pair.usable(), [0, 10], "the other one has not heard of it yet");
    for _ in 0..3 {
        pair.round(&[10, 10]);
    }
    assert_eq!(pair.usable(), [5, 5]);
}

#[test]
fn a_safe_share_that_others_have_by_now_is_not_lent_anew() {
    let mut pair = Pair::new(10, 2);
    for _ in 0..5 {
        pair.round(&[10, 0]);
    }
    let until = pair.now + 2 * TERMS.counted_for();
    while pair.now < until {
        pair.now += TICK;
        let report = pair.holders[0].report(10, 0, pair.now);
        pair.granter.hear(&0, &report, pair.now);
        for (_, grant) in pair.granter.grant(pair.now) {
            pair.holders[0].apply(&grant, pair.now).unwrap();
        }
    }
    assert_eq!(pair.holders[0].report(10, 0, pair.now).safe, 10, "the other one was forgotten");
    let late = pair.holders[1].report(0, 0, pair.now);
    assert_eq!(late.safe, 5, "it still has one");
    pair.granter.hear(&1, &late, pair.now);
    let grants = pair.granter.grant(pair.now);
    let (_, grant) = grants.iter().find(|(to, _)| *to == 1).unwrap();
    assert!(grant.amount == 0 && grant.carried, "no more than it may have anyway: {grant:?}");
}

#[test]
fn what_began_under_a_longer_time_is_counted_for_that_long() {
    let mut pair = Pair::new(10, 1);
    pair.round(&[10]);
    pair.granter.set_hold(HOLD / 5, pair.now);
    drop(pair.granter.grant(pair.now + TICK));
    let last = pair.now + TERMS.counted_for() - Duration::from_nanos(1);
    assert_eq!(pair.granter.counted(last), 10);
}

#[test]
fn a_process_that_has_ended_cleanly_frees_its_share_at_once() {
    let mut pair = Pair::new(10, 2);
    pair.round(&[9, 9]);
    pair.holders.pop();
    assert_eq!(pair.round(&[9]), [5]);
    pair.granter.remove(&1);
    assert_eq!(pair.round(&[9]), [10]);
}

fn amounts() -> impl Strategy<Value = u64> {
    prop_oneof![0..20_u64, any::<u64>(), Just(u64::MAX)]
}

proptest! {
    /// Whatever a broken proxy or control plane says: nothing panics, nobody is lent more
    /// than the quantity, and a lease is never longer than agreed.
    #[test]
    fn nonsense_over_the_wire_does_no_harm(
        quantity in amounts(),
        reports in prop::collection::vec((0..4_usize, 0..4_u64, any::<u64>(), prop::array::uniform4(amounts())), 1..40),
        grants in prop::collection::vec((amounts(), 0..40_u64, any::<bool>(), prop::array::uniform3(amounts())), 1..40),
    ) {
        let mut pair = Pair::new(quantity, 1);
        for (from, term, applied, [holds, safe, in_use, demand]) in reports {
            let seq = applied;
            let report = Report { seq, term: Term(term % 2), applied, holds, safe, in_use, demand, is_recent: false };
            pair.granter.hear(&from, &report, pair.now);
            for (_, grant) in pair.granter.grant(pair.now) {
                prop_assert!(grant.amount <= quantity && grant.safe <= quantity);
            }
            pair.granter.set_quantity(quantity);
            prop_assert!(pair.granter.counted(pair.now) < u64::MAX / 2);
            pair.now += TICK;
        }
        let mut holder = pair.holders.remove(0);
        let mut share = RateShare::new(holder.clone(), 7, pair.now);
        for (id, answers, carried, [amount, safe, lease_ms]) in grants {
            holder.report(1, 1, pair.now);
            share.report(u64::MAX, pair.now);
            let lease = Duration::from_millis(lease_ms);
            let grant = Grant { term: Term(id % 3), id, answers, lease, amount, safe, carried, proxies: None };
            let applied = holder.apply(&grant, pair.now).is_ok();
            prop_assert_eq!(share.apply(&grant, pair.now).is_ok(), applied);
            prop_assert!(!holder.is_leased(pair.now + Terms::LEASE));
            let bucket = crate::limit::Bucket::new();
            let later = pair.now + Duration::from_secs(3600);
            prop_assert!(bucket.take(&share.pace(), later).is_admitted());
            pair.now += TICK;
        }
    }
}

/// Its former process's share may have been lent to others since.
#[test]
fn a_process_that_begins_claims_nothing_that_others_may_have() {
    let terms = Terms::slots(Duration::from_secs(30));
    let mut granter = Granter::new(Term(1), 10, terms, Former::None, epoch());
    let now = epoch() + TICK;
    let mut first = Slots::new(Holder::new(terms, OnLoss::SafeShare, 0, 1, now), now);
    let mut second = Slots::new(Holder::new(terms, OnLoss::SafeShare, 5, 2, now), now);
    granter.hear(&1, &first.report(now), now);
    for (holder, grant) in granter.grant(now) {
        assert_eq!((holder, grant.amount), (1, 10));
        first.apply(&grant, now).unwrap();
    }
    granter.hear(&2, &second.report(now), now);
    for (_, grant) in granter.grant(now).into_iter().filter(|(holder, _)| *holder == 2) {
        second.apply(&grant, now).unwrap();
    }
    assert_eq!((first.free(now), second.free(now)), (10, 0));
}
