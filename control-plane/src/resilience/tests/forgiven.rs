//! What an operator forgives by disabling a backend and enabling it again.

use super::*;

#[tokio::test]
async fn a_backend_that_is_disabled_and_enabled_again_begins_with_a_closed_breaker() {
    let mut world = World::new(3).await;
    world.report("p1", 1, (0, 5), None);
    world.settle(Vec::new()).await;
    assert!(world.is_out(1));
    world.set_state(1, AdminState::Disabled).await;
    world.settle(Vec::new()).await;
    assert!(!world.is_out(1));
    world.set_state(1, AdminState::Enabled).await;
    world.settle(Vec::new()).await;
    assert!(!world.is_out(1));
    assert_eq!(world.resilience.breakers().open, 0);
    // What it failed with before counts no more; what it fails with now does.
    world.report("p1", 1, (0, 4), None);
    world.settle(Vec::new()).await;
    assert!(!world.is_out(1), "four are not enough");
    world.report("p1", 1, (0, 1), None);
    world.settle(Vec::new()).await;
    assert!(world.is_out(1));
}

#[tokio::test]
async fn a_change_of_something_else_forgives_nothing() {
    let mut world = World::new(3).await;
    world.report("p1", 1, (0, 5), None);
    world.settle(Vec::new()).await;
    let stored = world.declared(1);
    world
        .put(Resource::Backend(Declared {
            weight: lb_core::model::Weight::new(7).unwrap(),
            ..stored
        }))
        .await;
    world.set_state(2, AdminState::Disabled).await;
    world.settle(Vec::new()).await;
    assert!(world.is_out(1));
}

/// Its breaker opens.
async fn open(world: &mut World) -> u32 {
    world.report("p1", 1, (0, 5), None);
    world.settle(Vec::new()).await;
    world.status(1).standing.ejection.expect("five are enough").times
}

#[tokio::test]
async fn how_often_it_was_open_in_a_row_is_forgiven_by_an_operator() {
    let mut world = World::new(3).await;
    assert_eq!(open(&mut world).await, 1);
    for state in [AdminState::Disabled, AdminState::Enabled] {
        world.set_state(1, state).await;
        world.settle(Vec::new()).await;
    }
    assert_eq!(open(&mut world).await, 1);
}

#[tokio::test]
async fn how_often_it_was_open_in_a_row_is_not_forgiven_for_having_crashed() {
    let mut world = World::new(3).await;
    for times in 1..=3 {
        assert_eq!(open(&mut world).await, times);
        let down = world.word(1, Health::Down, "backend_connect_refused");
        world.settle(vec![down]).await;
        world.pass(Duration::from_secs(1)).await;
        let up = world.word(1, Health::Up, "check_passed");
        world.settle(vec![up]).await;
    }
}

#[tokio::test]
async fn what_fails_while_it_is_disabled_is_forgiven_too() {
    let mut world = World::new(3).await;
    world.set_state(1, AdminState::Disabled).await;
    world.settle(Vec::new()).await;
    // It was under way.
    world.report("p1", 1, (0, 5), None);
    world.settle(Vec::new()).await;
    world.set_state(1, AdminState::Enabled).await;
    world.settle(Vec::new()).await;
    assert!(!world.is_out(1));
}
