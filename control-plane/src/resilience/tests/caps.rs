//! Who counts against what a pool can spare, and what is told of those that come back.

use super::*;

/// Has the breaker of a backend see enough to open.
async fn fail(world: &mut World, number: u64) {
    world.report("p1", number, (0, 20), None);
    world.settle(Vec::new()).await;
}

/// A check takes a backend down, and brings it up again.
async fn mend(world: &mut World, number: u64) {
    for (health, code) in [(Health::Down, "backend_connect_refused"), (Health::Up, "check_passed")]
    {
        let word = world.word(number, health, code);
        world.settle(vec![word]).await;
    }
}

#[tokio::test]
async fn what_is_out_since_before_a_restart_counts_against_the_cap() {
    let mut world = World::new(4).await;
    fail(&mut world, 1).await;
    world.resilience = Resilience::new(1, LEASE, Some(Vec::new()));
    world.pass(Duration::from_millis(10)).await;
    fail(&mut world, 2).await;
    assert!(world.is_out(1) && !world.is_out(2), "a third of four is one");
    assert_eq!(world.ejection(1).map(|(_, half_open)| half_open), Some(false), "for a lease");
}

#[tokio::test]
async fn what_has_come_back_counts_against_the_cap_no_more() {
    let mut world = World::new(4).await;
    fail(&mut world, 1).await;
    mend(&mut world, 1).await;
    assert!(!world.is_out(1));
    fail(&mut world, 2).await;
    assert!(world.is_out(2));
}

#[tokio::test]
async fn others_are_found_beside_those_that_are_out_already() {
    let mut world = World::new(9).await;
    // The last two of the list are out when others are looked for.
    for number in [9, 8, 1] {
        fail(&mut world, number).await;
        assert!(world.is_out(number), "{number} of a third of nine");
    }
}

#[tokio::test]
async fn an_outlier_that_was_down_and_comes_up_again_is_none_any_more() {
    let mut world = World::new(6).await;
    world.pass(Duration::from_millis(100)).await;
    for number in 1..=6 {
        let failing = number == 1;
        for _ in 0..100 {
            world.report("p1", number, (1, 0), None);
            world.report("p1", number, (u64::from(!failing), u64::from(failing)), None);
        }
    }
    world.pass(Duration::from_secs(11)).await;
    assert!(world.is_out(1));
    mend(&mut world, 1).await;
    assert!(!world.is_out(1), "{:?}", world.status(1));
}

#[tokio::test]
async fn nothing_is_kept_of_a_backend_that_is_gone() {
    let mut world = World::new(4).await;
    fail(&mut world, 1).await;
    world.pass(Duration::from_secs(8)).await;
    let down = world.word(2, Health::Down, "check_status");
    world.settle(vec![down]).await;
    let kept = |world: &World| {
        world.with(|state, _, _| (state.failing.len(), state.half_open.len(), state.down.len()))
    };
    assert_eq!(kept(&world), (1, 1, 1));
    for number in [1, 2] {
        let name = format!("b{number}");
        let request = WriteRequest {
            items: vec![Item::Delete { kind: Kind::Backend, name }],
            ..WriteRequest::default()
        };
        world.registry.write(request).await.unwrap();
    }
    world.pass(Duration::from_millis(10)).await;
    assert_eq!(kept(&world), (0, 0, 0));
}

/// Requests enough for slow starts to be worth it.
async fn busy(world: &mut World) {
    for _ in 0..8 {
        world.report("p1", 1, (1000, 0), None);
        world.pass(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn slow_starts_are_for_those_that_come_up_beside_others_that_can_bear_it() {
    let mut world = World::new(3).await;
    let down = [2, 3].map(|number| world.word(number, Health::Down, "check_status"));
    world.settle(down.into()).await;
    busy(&mut world).await;
    let up = world.word(2, Health::Up, "check_passed");
    world.settle(vec![up]).await;
    let ramps = |world: &World, number| world.status(number).standing.slow_start.is_some();
    assert!(ramps(&world, 2));
    // One that is up is looked at again, and goes on as it is.
    world.report("p1", 1, (1000, 1), None);
    world.settle(Vec::new()).await;
    assert!(!ramps(&world, 1));
    let down = world.word(1, Health::Down, "check_status");
    world.settle(vec![down]).await;
    let up = world.word(3, Health::Up, "check_passed");
    world.settle(vec![up]).await;
    assert!(!ramps(&world, 3), "the only other one has not got its own share yet");
}

#[tokio::test]
async fn a_wall_clock_that_is_set_back_makes_nobody_cold_again() {
    let mut world = World::new(2).await;
    let down = world.word(2, Health::Down, "check_status");
    world.settle(vec![down]).await;
    busy(&mut world).await;
    let up = world.word(2, Health::Up, "check_passed");
    world.settle(vec![up]).await;
    assert!(world.status(2).standing.slow_start.is_some());
    world.pass(Duration::from_secs(60)).await;
    world.set_back = Duration::from_secs(3600);
    let down = world.word(1, Health::Down, "check_status");
    world.settle(vec![down]).await;
    busy(&mut world).await;
    let up = world.word(1, Health::Up, "check_passed");
    world.settle(vec![up]).await;
    assert!(world.status(1).standing.slow_start.is_some(), "the other has its whole share");
}

#[tokio::test]
async fn who_disagrees_is_told_anew_every_few_seconds_only() {
    let mut world = World::new(3).await;
    let cut_off = world.word(1, Health::Down, "backend_reset");
    world.now += Duration::from_secs(1);
    world.report("p1", 1, (10, 0), None);
    world.settle(vec![cut_off]).await;
    let told = world.status(1);
    assert_eq!(told.reason.code, "check_contradicted");
    world.report("p2", 1, (10, 0), None);
    world.pass(Duration::from_secs(4)).await;
    assert_eq!(world.status(1), told);
    world.report("p1", 1, (10, 0), None);
    world.report("p2", 1, (10, 0), None);
    world.pass(Duration::from_secs(1)).await;
    let later = world.status(1);
    assert_eq!((later.health, &later.reason.code), (Health::Up, &told.reason.code));
    assert_ne!(later, told, "p2 is served as well");
}
