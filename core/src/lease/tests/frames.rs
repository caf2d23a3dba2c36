//! Reports that say nothing new.

use super::*;

/// What a frame repeats is prolonged by its answer, and nobody says anything more.
#[test]
fn what_does_not_change_is_said_once() {
    let mut pair = Pair::new(10, 2);
    let mut slots: Vec<Slots> =
        pair.holders.drain(..).map(|holder| Slots::new(holder, pair.now)).collect();
    let (mut reports, mut grants) = (0, 0);
    for _ in 0..100 {
        pair.now += TICK;
        let now = pair.now;
        for (index, slots) in slots.iter_mut().enumerate() {
            if let Some(report) = slots.news(now) {
                pair.granter.hear(&index, &report, now);
                reports += 1;
            }
            let (_, heard) = pair.granter.last_heard(index..=index).unwrap();
            assert_eq!(heard, slots.holder().last_report());
            pair.granter.hear_again(&index, now);
        }
        for (index, grant) in pair.granter.grant(now) {
            slots[index].apply(&grant, now).unwrap();
            grants += 1;
        }
        slots.iter_mut().for_each(|slots| slots.renew(Term(1), now, now));
    }
    assert_eq!(slots.iter().map(|slots| slots.free(pair.now)).collect::<Vec<_>>(), [5, 5]);
    assert!(reports <= 12 && grants <= 12, "{reports} reports, {grants} grants");
    // What is spelled out again at the end of a lease is answered by a grant.
    pair.now += Terms::LEASE;
    assert!(slots[0].news(pair.now).is_some());
}

/// A grant that was lost is not counted for ever.
#[test]
fn who_has_nothing_new_to_say_is_asked_what_became_of_a_grant() {
    let mut pair = Pair::new(3, 1);
    let mut slots = Slots::new(pair.holders.remove(0), pair.now);
    let mut asked = 0;
    for round in 0..12 {
        pair.now += TICK;
        let now = pair.now;
        let mut news = slots.news(now);
        if pair.granter.asked().next().is_some() {
            asked += 1;
            news.get_or_insert_with(|| slots.report(now));
        }
        if let Some(report) = news {
            pair.granter.hear(&0, &report, now);
        }
        pair.granter.hear_again(&0, now);
        // For a moment there is more, and that grant is lost.
        pair.granter.set_quantity(if round == 4 { 10 } else { 3 });
        for (_, grant) in pair.granter.grant(now).into_iter().filter(|_| round != 4) {
            slots.apply(&grant, now).unwrap();
        }
        slots.renew(Term(1), now, now);
    }
    assert_eq!((slots.free(pair.now), pair.granter.counted(pair.now)), (3, 3));
    assert_eq!(asked, 1);
}
