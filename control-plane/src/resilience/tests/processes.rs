//! Processes that begin, end, and take over from each other.

use super::*;

#[tokio::test]
async fn a_stream_that_breaks_off_for_a_moment_does_not_open_a_breaker_again() {
    let mut world = World::new(3).await;
    let word = world.trying("p1").await;
    world.pass(LEASE).await;
    // Its stream is gone, or is another one by now; it has reported within the lease.
    world.report_of("p1", word);
    world.pass(Duration::from_secs(4)).await;
    world.lose_silent(&[]);
    // Its stream is open, and only its reports do not come.
    world.pass(Duration::from_secs(4)).await;
    world.lose_silent(&["p1"]);
    world.pass(Duration::from_millis(10)).await;
    assert_eq!(world.ejection(1), Some(("breaker_consecutive_failures".to_owned(), true)));
    world.lose_silent(&[]);
    world.pass(Duration::from_millis(10)).await;
    assert_eq!(world.ejection(1), Some(("breaker_probe_lost".to_owned(), false)));
}

#[tokio::test]
async fn a_take_over_leaves_the_former_process_what_it_tries_and_a_restart_does_not() {
    for took_over in [true, false] {
        let mut world = World::new(3).await;
        let word = world.trying("p1/1").await;
        world.role = Role::Present { took_over };
        assert!(world.report("p1/2", 2, (1, 0), None).is_empty(), "one at a time");
        world.pass(Duration::from_millis(10)).await;
        let lost = (!took_over).then_some("breaker_probe_lost");
        let code = lost.unwrap_or("breaker_consecutive_failures");
        assert_eq!(world.ejection(1), Some((code.to_owned(), took_over)));
        if took_over {
            // The former one is heard, and gets nothing new to try.
            world.role = Role::Other;
            let ended = ProbeWord { state: ProbeState::Succeeded, ..word };
            assert!(world.report("p1/1", 1, (1, 0), Some(ended)).is_empty());
            world.role = Role::Present { took_over };
            assert_eq!(world.report("p1/2", 2, (1, 0), None).len(), 1);
        }
    }
}

#[tokio::test]
async fn failures_of_a_process_that_finishes_its_connections_count() {
    let mut world = World::new(3).await;
    world.role = Role::Other;
    world.report("p1/1", 1, (0, 3), None);
    world.role = Role::Present { took_over: true };
    world.report("p1/2", 1, (0, 2), None);
    world.settle(Vec::new()).await;
    assert!(world.is_out(1));
}

#[tokio::test]
async fn tokens_of_a_later_start_are_above_all_earlier_ones() {
    let mut world = World::new(3).await;
    let earlier = world.trying("p1").await;
    world.resilience = Resilience::new(2, LEASE, Some(Vec::new()));
    world.pass(Duration::from_millis(10)).await;
    world.pass(LEASE).await;
    world.pass(Duration::from_millis(10)).await;
    let tokens = world.report("p1", 2, (1, 0), None);
    let [token] = &tokens[..] else { panic!("{tokens:?}") };
    assert!(token.token.id > earlier.id);
}
