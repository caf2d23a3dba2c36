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
