//! Active checks close it where there are no requests to do so.

use super::*;

#[test]
fn passing_checks_close_it_only_where_nobody_has_requests() {
    let mut bench = Bench::new();
    bench.half_open();
    let check = |bench: &mut Bench, passed| {
        bench.breaker.checked(passed);
        bench.advance()
    };
    for _ in 0..9 {
        assert_eq!(check(&mut bench, true), None, "there is traffic to tell");
    }
    check(&mut bench, false);
    bench.has_traffic = false;
    assert_eq!(check(&mut bench, true), None);
    assert_eq!(check(&mut bench, true), Some(Event::Closed { by: ClosedBy::Checks }));
    // Traffic that never picks this backend tells nothing either.
    let mut bench = Bench::new();
    bench.half_open();
    bench.breaker.checked(true);
    bench.breaker.checked(true);
    for name in ["a", "b", "c"] {
        bench.ask(name).unwrap();
        assert_eq!(bench.advance(), None);
        bench.now += 3 * SECOND;
        if name != "c" {
            assert_eq!(bench.hear(name, Outcomes::default(), None), None);
        }
    }
    let event = bench.hear("c", Outcomes::default(), None);
    assert_eq!(event, Some(Event::Closed { by: ClosedBy::Checks }));
}

#[test]
fn tokens_that_nobody_used_count_in_a_row_only() {
    let mut bench = Bench::new();
    bench.half_open();
    bench.breaker.checked(true);
    bench.breaker.checked(true);
    for uses in [false, false, true, false, false] {
        let id = bench.ask("a").unwrap();
        let event = if uses {
            bench.word("a", id, ProbeState::Succeeded)
        } else {
            bench.now += 3 * SECOND;
            bench.hear("a", Outcomes::default(), None)
        };
        assert_eq!(event, None);
    }
    bench.ask("a").unwrap();
    bench.now += 3 * SECOND;
    let event = bench.hear("a", Outcomes::default(), None);
    assert_eq!(event, Some(Event::Closed { by: ClosedBy::Checks }), "three in a row");
}
