//! A proxy that fails, and others that may know better.

use super::*;

/// Nothing was sent since its last report.
fn quiet(world: &mut World, proxy: &str) {
    world.report(proxy, 2, (0, 0), None);
}

fn connected(world: &World, proxies: &[&str]) {
    let proxies = proxies.iter().map(|name| ProxyId::new(name).unwrap()).collect();
    world.resilience.lock().expected.connected = proxies;
}

#[tokio::test]
async fn one_that_fails_alone_is_believed_once_the_others_have_told_that_they_were_not_served() {
    let mut world = World::new(3).await;
    quiet(&mut world, "a");
    world.cut_off = true;
    world.report("b", 1, (0, 5), None);
    world.pass(LEASE / 2).await;
    assert_eq!(world.ejection(1), None, "a has not told what it saw");
    for _ in 0..3 {
        assert_eq!(world.ejection(1), None);
        quiet(&mut world, "a");
        world.pass(Duration::ZERO).await;
    }
    let opened = ("breaker_consecutive_failures".to_owned(), false);
    assert_eq!(world.ejection(1), Some(opened));
}

#[tokio::test]
async fn whoever_was_served_is_heard_however_late() {
    let mut world = World::new(3).await;
    quiet(&mut world, "a");
    world.cut_off = true;
    world.report("b", 1, (0, 5), None);
    world.pass(LEASE - Duration::from_millis(100)).await;
    world.report("a", 1, (1, 0), None);
    for _ in 0..9 {
        quiet(&mut world, "a");
        world.pass(LEASE / 2).await;
    }
    assert_eq!(world.ejection(1), None);
    // Where nobody is served any more, it counts: with what was left out before.
    world.report("b", 1, (0, 5), None);
    for _ in 0..3 {
        quiet(&mut world, "a");
    }
    world.pass(Duration::ZERO).await;
    assert!(world.ejection(1).is_some());
}

#[tokio::test]
async fn whoever_is_connected_and_was_never_heard_is_waited_for_but_not_for_ever() {
    let mut world = World::new(3).await;
    connected(&world, &["a", "b"]);
    world.cut_off = true;
    world.report("b", 1, (0, 5), None);
    world.pass(Duration::ZERO).await;
    world.pass(LEASE).await;
    assert_eq!(world.ejection(1), None);
    world.pass(Duration::from_millis(1)).await;
    assert!(world.ejection(1).is_some(), "its statistics may have failed");
}

#[tokio::test]
async fn whoever_was_connected_before_a_restart_is_waited_for_but_not_for_ever() {
    let mut world = World::new(3).await;
    let (a, b) = (ProxyId::new("a").unwrap(), ProxyId::new("b").unwrap());
    for (former, waits) in [(Some(vec![a, b.clone()]), true), (None, true), (Some(vec![b]), false)]
    {
        world.resilience = Resilience::new(2, LEASE, former.clone());
        world.now = now();
        world.began = world.now - LEASE;
        world.settle(Vec::new()).await;
        world.cut_off = true;
        world.report("b", 1, (0, 5), None);
        world.pass(LEASE / 2).await;
        assert_eq!(world.ejection(1).is_none(), waits, "{former:?}");
        world.pass(LEASE).await;
        assert!(world.ejection(1).is_some(), "{former:?}");
        // It is another one next time.
        world.resilience.lock().backends.clear();
        let opened = world.status(1);
        let closed = BackendStatus { standing: Standing::default(), ..opened };
        world.registry.record(vec![closed]).await.unwrap();
    }
}

#[tokio::test]
async fn a_breaker_that_waits_for_others_is_looked_at_until_they_have_told() {
    let mut world = World::new(3).await;
    quiet(&mut world, "a");
    world.cut_off = true;
    world.report("b", 1, (0, 5), None);
    // Longer than the breaker's window, and never silent for a lease.
    for _ in 0..2 {
        world.pass(LEASE - Duration::from_millis(100)).await;
        quiet(&mut world, "a");
    }
    world.pass(LEASE - Duration::from_millis(100)).await;
    assert_eq!(world.ejection(1), None);
    quiet(&mut world, "a");
    world.pass(Duration::ZERO).await;
    assert!(world.ejection(1).is_some());
}
