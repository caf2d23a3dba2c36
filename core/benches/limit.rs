//! What a decision about one request costs: without a key, and by key in a table that
//! holds a million, one of which is asked for twice, so that caches do not help.
//!
//! Criterion follows changes from run to run; the run fails when a decision takes more
//! than is promised, by a factor of two.

mod common;

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
    time::{Duration, Instant},
};

use criterion::Criterion;
use lb_core::limit::{Bucket, KeyHasher, MICROS, Pace, Table};

use self::common::{is_only_asked, timed};

const DECISIONS: u32 = 100_000;

fn main() -> ExitCode {
    let mut criterion = Criterion::default().configure_from_args();
    let mut world = World::new();
    let mut group = criterion.benchmark_group("limit");
    for (name, _, decide) in CASES {
        group.bench_function(name, |bencher| bencher.iter(|| decide(&mut world)));
    }
    group.finish();
    criterion.final_summary();
    if is_only_asked() {
        return ExitCode::SUCCESS;
    }
    println!();
    let mut kept = true;
    for (name, promised_ns, decide) in CASES {
        let runs = (0..50).map(|_| {
            timed(|| {
                for _ in 0..DECISIONS {
                    black_box(decide(&mut world));
                }
            })
        });
        let best = runs.min().unwrap_or_default();
        let each = best.as_nanos() as f64 / f64::from(DECISIONS);
        kept &= each <= promised_ns * 2.0;
        println!("{name:<36} {each:>7.1} ns of {promised_ns}");
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

type Case = (&'static str, f64, fn(&mut World) -> bool);

const CASES: [Case; 3] = [
    ("one bucket", 50.0, |world| {
        world.tick();
        world.bucket.take(&world.pace, world.now).is_admitted()
    }),
    ("a bucket by client, warm", 80.0, |world| {
        world.tick();
        let client = Ipv4Addr::from_bits(world.turn % 1000);
        let key = world.hasher.client(IpAddr::V4(client));
        world.table.take(key, &world.pace, world.now).is_admitted()
    }),
    ("a bucket by client, of a million", 250.0, |world| {
        world.tick();
        // 7919 is prime to a million: all are asked for, far from each other.
        let client = Ipv4Addr::from_bits((u64::from(world.turn) * 7919 % 1_000_000) as u32);
        let key = world.hasher.client(IpAddr::V4(client));
        world.table.take(key, &world.pace, world.now).is_admitted()
    }),
];

struct World {
    pace: Pace,
    bucket: Bucket,
    table: Table,
    hasher: KeyHasher,
    now: Instant,
    turn: u32,
}

impl World {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "where a simulated clock begins")]
        let now = Instant::now();
        let rate = 1000 * MICROS;
        Self {
            pace: Pace::new(rate, 1000, now),
            bucket: Bucket::new(),
            table: Table::new(1_000_000, rate, 1000),
            hasher: KeyHasher::new([1, 2]),
            now,
            turn: 0,
        }
    }

    fn tick(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        self.now += Duration::from_micros(10);
    }
}
