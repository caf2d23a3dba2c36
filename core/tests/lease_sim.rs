//! A seeded simulation of leases: a control plane, some proxies with traffic, and a
//! network that loses, delays, doubles and reorders; deaths and restarts on both sides,
//! partitions, joining, changes of the quantity, and clocks that agree in nothing.
//!
//! `LEASE_SIM_SEED=n cargo test -p lb-core --test lease_sim -- --nocapture` replays one
//! seed with its trace.

#[path = "lease_sim/bound.rs"]
mod bound;
#[path = "lease_sim/node.rs"]
mod node;
#[path = "lease_sim/plan.rs"]
mod plan;
#[path = "lease_sim/steady.rs"]
mod steady;
#[path = "lease_sim/world.rs"]
mod world;

use std::{ops::Range, time::Duration};

use plan::{Plan, Report};
use world::World;

#[test]
fn the_bound_holds_whatever_happens_first_half() {
    run_all(0..504);
}

#[test]
fn the_bound_holds_whatever_happens_second_half() {
    run_all(504..1008);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..12 {
        let first = replay(seed);
        assert!(first.1.len() > 100);
        assert_eq!(first, replay(seed), "seed {seed}");
    }
}

fn run_all(seeds: Range<u64>) {
    if let Ok(seed) = std::env::var("LEASE_SIM_SEED") {
        let seed = seed.parse().expect("LEASE_SIM_SEED is a number");
        if seeds.contains(&seed) {
            let (outcome, trace) = replay(seed);
            println!("{}\n{outcome:?}", trace.join("\n"));
        }
        return;
    }
    let mut sum = Report::default();
    for seed in seeds {
        let mut world = World::new(Plan::drawn(seed), false);
        if let Err(why) = world.run() {
            let (again, trace) = replay(seed);
            assert_eq!(again, Err(why.clone()), "the replay differs");
            let shown = trace[trace.len().saturating_sub(60)..].join("\n");
            panic!("{shown}\nLEASE_SIM_SEED={seed} fails: {why}");
        }
        sum.add(&world.report);
    }
    println!("{sum:#?}");
    sum.check_that_all_happened();
}

fn replay(seed: u64) -> (Result<(), String>, Vec<String>) {
    let mut world = World::new(Plan::drawn(seed), true);
    let outcome = world.run();
    (outcome, world.trace.unwrap_or_default())
}

/// Milliseconds of true time, in microseconds.
const fn ms(ms: u64) -> u64 {
    ms * 1000
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).expect("short durations")
}
