//! Pools of thousands, whose backends change together.

use super::*;

#[tokio::test]
async fn thousands_come_up_fail_and_go_down_together() {
    const BACKENDS: u64 = 3000;
    let mut world = World::new(BACKENDS).await;
    for number in 1..=BACKENDS {
        world.report("p1", number, (0, 5), None);
    }
    world.settle(Vec::new()).await;
    let out = (1..=BACKENDS).filter(|number| world.is_out(*number)).count() as u64;
    assert_eq!(out, BACKENDS / 3, "no more than a pool can spare");
    let words = (1..=BACKENDS).map(|n| world.word(n, Health::Down, "check_refused")).collect();
    world.settle(words).await;
    assert!((1..=BACKENDS).all(|number| world.status(number).health == Health::Down));
    // Panic goes on sending to them, and nobody is left to be found.
    for number in 1..=BACKENDS {
        world.report("p1", number, (0, 5), None);
    }
    for _ in 0..5 {
        world.pass(Duration::from_millis(100)).await;
    }
    assert!((1..=BACKENDS).all(|number| world.status(number).health == Health::Down));
}
