//! A seeded simulation of the configuration protocol: one control plane, some
//! proxies, a bad network, restarts on both sides, lost stores and flipped bits.
//!
//! `SYNC_SIM_SEED=n cargo test -p lb-core --test sync_sim -- --nocapture` replays one
//! seed with its trace.

#[path = "sync_sim/codec.rs"]
mod codec;
#[path = "sync_sim/event.rs"]
mod event;
#[path = "sync_sim/oracle.rs"]
mod oracle;
#[path = "sync_sim/proxy.rs"]
mod proxy;
#[path = "sync_sim/store.rs"]
mod store;
#[path = "sync_sim/world.rs"]
mod world;

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
};

use event::Report;
use world::World;

/// Trace lines that a failure shows.
const SHOWN: usize = 60;

#[test]
fn all_proxies_converge_whatever_happens_first_quarter() {
    run_all(0..256);
}

#[test]
fn all_proxies_converge_whatever_happens_second_quarter() {
    run_all(256..512);
}

#[test]
fn all_proxies_converge_whatever_happens_third_quarter() {
    run_all(512..768);
}

#[test]
fn all_proxies_converge_whatever_happens_fourth_quarter() {
    run_all(768..1024);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..10 {
        let first = replay(seed);
        assert!(first.1.len() > 100);
        assert_eq!(first, replay(seed), "seed {seed}");
    }
}

/// Runs these seeds, or the one of the environment, and checks that they came
/// across everything that they are for.
fn run_all(seeds: Range<u64>) {
    if let Ok(seed) = std::env::var("SYNC_SIM_SEED") {
        let seed = seed.parse().expect("SYNC_SIM_SEED is a number");
        if seeds.contains(&seed) || (seed >= 1024 && seeds.start == 0) {
            println!("{}\n{:#?}", replay(seed).1.join("\n"), run(seed));
        }
        return;
    }
    let reports: Vec<Report> = seeds.map(run).collect();
    let sum = |field: fn(&Report) -> u64| reports.iter().map(field).sum::<u64>();
    let figures = [
        ("steps", sum(|one| one.steps)),
        ("commits", sum(|one| one.commits)),
        ("deltas", sum(|one| one.deltas)),
        ("snapshots", sum(|one| one.snapshots)),
        ("applied", sum(|one| one.applied)),
        ("stale answers", sum(|one| one.stale)),
        ("divergences", sum(|one| one.diverged)),
        ("refused as not following", sum(|one| one.resyncs)),
        ("refused as emptying", sum(|one| one.would_empty)),
        ("rejected objects", sum(|one| one.rejections)),
        ("lost messages", sum(|one| one.lost)),
        ("doubled messages", sum(|one| one.doubled)),
        ("messages of earlier connections", sum(|one| one.strays)),
        ("corruptions", sum(|one| one.corruptions)),
        ("proxy restarts", sum(|one| one.proxy_restarts)),
        ("control plane restarts", sum(|one| one.publisher_restarts)),
        ("lost stores", sum(|one| one.epochs)),
    ];
    println!("{figures:#?}");
    for (what, count) in figures {
        assert!(count >= 10, "these seeds had too few {what}: {count}");
    }
}

fn run(seed: u64) -> Report {
    let mut world = World::new(seed, false);
    let Err(why) = attempt(&mut world) else { return world.report };
    // Again, to see what led there.
    let (again, trace) = replay(seed);
    assert_eq!(again, Err(why.clone()), "the replay differs");
    let latest = &trace[trace.len().saturating_sub(SHOWN)..];
    let shown: String = latest.iter().map(|line| format!("{line:.400}\n")).collect();
    panic!("{shown}\nSYNC_SIM_SEED={seed} fails at step {}: {why}", world.report.steps);
}

fn replay(seed: u64) -> (Result<(), String>, Vec<String>) {
    let mut world = World::new(seed, true);
    let outcome = attempt(&mut world);
    (outcome, world.trace.unwrap_or_default())
}

/// Turns a panic of the code under test into a failure with a seed.
fn attempt(world: &mut World) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| world.run()))
        .unwrap_or_else(|_| Err("it panicked, see above".to_owned()))
}
