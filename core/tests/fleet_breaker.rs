//! A seeded simulation of one backend's breaker in a fleet: proxies that report over a
//! network which delays, loses, repeats and reorders, proxies that die and come back, a
//! control plane that restarts, a backend that comes and goes, clients that leave.
//!
//! It holds that at most one probe is under way in the fleet, proxies that are lost left
//! aside; that only probes of its own half-open time close the breaker; and that the
//! breaker closes once the backend works.

#[path = "fleet_breaker/world.rs"]
mod world;

use world::World;

const SEEDS: u64 = 400;

#[test]
fn one_probe_at_a_time_and_always_an_end() {
    let mut sum = world::Seen::default();
    for seed in 0..SEEDS {
        sum.add(&World::new(seed).run());
    }
    println!("{sum:?}");
    // What did not happen was not tested.
    assert!(sum.opened > SEEDS && sum.probes > 2 * SEEDS && sum.closed_by_probes > SEEDS / 2);
    assert!(sum.lost_in_use > 20 && sum.waited_for > 20 && sum.restarts > SEEDS);
    assert!(sum.late_tokens > 100 && sum.tokens > sum.probes + 300 && sum.abandoned > 20);
    assert!(sum.lapsed > 20);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..5 {
        assert_eq!(World::new(seed).run(), World::new(seed).run());
    }
}
