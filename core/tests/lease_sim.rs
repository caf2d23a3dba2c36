//! A seeded simulation of leases: a control plane, some proxies with traffic, and a
//! network that loses, delays, doubles and reorders; deaths and restarts on both sides,
//! partitions, joining, changes of the quantity, and clocks that agree in nothing.
//!
//! `LEASE_SIM_SEED=n cargo test -p lb-core --test lease_sim -- --nocapture` replays one
//! seed with its trace; with `LEASE_SIM_SEEDS=5000..7000` these are run instead of the usual ones.

#[path = "lease_sim/bound.rs"]
mod bound;
#[path = "lease_sim/calm.rs"]
mod calm;
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
    let (from, to) = range();
    run_all(from..(from + to) / 2);
}

#[test]
fn the_bound_holds_whatever_happens_second_half() {
    let (from, to) = range();
    run_all((from + to) / 2..to);
}

/// The seeds to run.
fn range() -> (u64, u64) {
    if let Some(seed) = number("LEASE_SIM_SEED") {
        return (seed, seed + 1);
    }
    let Ok(seeds) = std::env::var("LEASE_SIM_SEEDS") else { return (0, 1008) };
    let (from, to) = seeds.split_once("..").expect("LEASE_SIM_SEEDS is like 5000..7000");
    let number = |text: &str| text.parse().expect("LEASE_SIM_SEEDS has two numbers");
    (number(from), number(to))
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
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
    if let Some(seed) = number("LEASE_SIM_SEED") {
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
