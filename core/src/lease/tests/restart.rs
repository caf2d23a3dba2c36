//! A granter that follows another.

use super::*;

#[test]
fn a_new_granter_moves_what_those_have_that_it_hears_and_the_rest_when_that_must_have_ended() {
    let mut pair = Pair::new(10, 3);
    for _ in 0..3 {
        pair.round(&[8, 2, 0]);
    }
    assert_eq!(pair.usable(), [8, 2, 0]);
    let started = pair.now;
    pair.granter = Granter::new(Term(2), 10, TERMS, Former::MayHaveLent, started);
    // The second never reports again, and may be at what it has for as long as it lasts.
    pair.holders.swap(1, 2);
    let gone = pair.holders.pop().unwrap();
    assert_eq!(pair.round(&[10, 10]), [8, 0], "each may have a grant of the former on its way");
    assert_eq!(pair.round(&[10, 10]), [4, 0]);
    while pair.now + TICK < started + TERMS.counted_for() {
        assert_eq!(pair.round(&[10, 10]), [4, 4], "all that they had");
    }
    assert!(!gone.is_leased(pair.now));
    for _ in 0..3 {
        pair.round(&[10, 10]);
    }
    assert_eq!(pair.usable(), [5, 5]);
}

#[test]
fn nobody_waits_for_a_former_granters_holders_that_are_accounted_for() {
    let mut pair = Pair::new(10, 2);
    pair.granter = Granter::new(Term(2), 10, TERMS, Former::MayHaveLent, pair.now);
    assert_eq!(pair.round(&[5, 5]), [0, 0]);
    pair.granter.former_is_accounted_for(pair.now);
    assert_eq!(pair.round(&[5, 5]), [5, 5]);
}

#[test]
fn a_granter_that_has_just_begun_does_not_make_proxies_fewer() {
    let mut pair = Pair::new(10, 4);
    (0..3).for_each(|_| drop(pair.round(&[1; 4])));
    let proxies = |pair: &Pair| -> Vec<u32> {
        pair.holders.iter().map(|holder| holder.remembered().1).collect()
    };
    assert_eq!(proxies(&pair), [4; 4]);
    let started = pair.now;
    pair.granter = Granter::new(Term(2), 10, TERMS, Former::MayHaveLent, started);
    let others = pair.holders.split_off(1);
    pair.round(&[1]);
    assert_eq!(proxies(&pair), [4], "of four it has heard one so far");
    pair.holders.extend(others);
    while pair.now < started + TERMS.counted_for() {
        pair.round(&[1; 4]);
    }
    pair.round(&[1; 4]);
    assert_eq!(proxies(&pair), [4; 4]);
}

#[test]
fn a_granter_that_knows_of_none_before_it_is_told_by_leases() {
    for knows_leases in [true, false] {
        let mut pair = Pair::new(10, 2);
        if knows_leases {
            (0..3).for_each(|_| drop(pair.round(&[10, 10])));
        }
        let started = pair.now;
        pair.granter = Granter::new(Term(2), 10, TERMS, Former::Unknown, started);
        let others = pair.holders.split_off(1);
        let mut lent_after = Duration::ZERO;
        while pair.round(&[10]) != [10] {
            lent_after = pair.now - started;
        }
        let expected = if knows_leases { TERMS.counted_for() } else { TERMS.lease };
        let late = lent_after.saturating_sub(expected);
        assert!(lent_after + TICK >= expected && late <= 2 * TICK, "{lent_after:?}");
        drop(others);
    }
}

/// Whoever has more than a fair part gives it up, also while not all were heard.
#[test]
fn what_is_moved_before_all_were_heard_is_what_those_had_who_were() {
    let mut pair = Pair::new(12, 3);
    (0..3).for_each(|_| drop(pair.round(&[6, 2, 4])));
    assert_eq!(pair.usable(), [6, 2, 4]);
    pair.granter = Granter::new(Term(2), 12, TERMS, Former::MayHaveLent, pair.now);
    let silent = pair.holders.pop().unwrap();
    for _ in 0..5 {
        pair.round(&[2, 9]);
        let sum: u64 = pair.usable().iter().sum();
        assert!(sum <= 8, "{sum}, and the third has 4");
    }
    assert_eq!(pair.usable(), [2, 6]);
    pair.holders.push(silent);
    (0..3).for_each(|_| drop(pair.round(&[2, 9, 0])));
    assert_eq!(pair.usable(), [2, 9, 1], "with what the third has brought");
}

/// Slots that long requests keep are more than what their holder is lent, and those of others go on.
#[test]
fn what_is_kept_beyond_a_lease_is_found_too() {
    let mut pair = Pair::new(10, 2);
    (0..2).for_each(|_| drop(pair.round_in_use(&[(10, 0), (10, 8)])));
    let kept = [(10, 2), (10, 8)];
    (0..20).for_each(|_| drop(pair.round_in_use(&kept)));
    assert_eq!(pair.usable(), [2, 2], "one keeps eight");
    let started = pair.now;
    pair.granter = Granter::new(Term(2), 10, TERMS, Former::MayHaveLent, started);
    while pair.now + TICK < started + TERMS.counted_for() {
        assert_eq!(pair.round_in_use(&kept)[0], 2);
    }
}

/// Who stood still comes back with what it has in use and nothing else.
#[test]
fn what_a_process_that_stood_still_uses_is_not_lent_to_others() {
    let mut pair = Pair::new(10, 3);
    (0..3).for_each(|_| drop(pair.round(&[4, 3, 3])));
    assert_eq!(pair.usable(), [4, 3, 3]);
    pair.granter = Granter::new(Term(2), 10, TERMS, Former::MayHaveLent, pair.now);
    (0..2).for_each(|_| drop(pair.round(&[4, 3, 3])));
    // Another number, and four in use; one wants all, and one has an idle lease.
    pair.granter.remove(&0);
    let mut anew = Holder::new(TERMS, OnLoss::SafeShare, 0, 1, pair.now);
    let demands = [10, 0];
    for _ in 0..4 {
        pair.now += TICK;
        pair.granter.hear(&3, &anew.report(4, 4, pair.now), pair.now);
        for (index, demand) in (1..).zip(demands) {
            let report = pair.holders[index].report(demand, 0, pair.now);
            pair.granter.hear(&index, &report, pair.now);
        }
        // What the idle one is told is late.
        for (index, grant) in pair.granter.grant(pair.now).into_iter().filter(|(to, _)| *to != 2) {
            let holder = if index == 3 { &mut anew } else { &mut pair.holders[index] };
            holder.apply(&grant, pair.now).unwrap();
        }
        let others: u64 = pair.usable()[1..].iter().sum();
        assert!(others + 4 <= 10, "{others} beside four in use");
    }
}
