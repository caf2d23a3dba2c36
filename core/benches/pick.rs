//! What a pick costs, and what building a picker costs.
//!
//! Criterion follows changes from run to run. After it the figures that the project
//! promises are measured once more, in processor time and at their best, and the run
//! fails when one is missed by a factor of two: less than that may be the machine.
//! The bare counter, which is most of what a round robin costs, is there to compare.

mod common;

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
    sync::{
        Barrier,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use criterion::{BenchmarkId, Criterion};
use lb_core::{
    balance::{Candidate, HashKey, Loads, Phase, PickContext, Picker},
    model::Algorithm,
};

use self::common::{is_only_asked, timed};

fn main() -> ExitCode {
    let mut criterion = Criterion::default().configure_from_args();
    picks(&mut criterion);
    builds(&mut criterion);
    criterion.final_summary();
    if is_only_asked() {
        return ExitCode::SUCCESS;
    }
    let kept = figures();
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn picks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for case in Case::ALL {
        for &backends in case.sizes() {
            let fleet = Fleet::new(case, backends);
            let mut rng = rng();
            let mut worker = fleet.worker(&mut rng);
            group.bench_function(BenchmarkId::new(case.name(), backends), |bencher| {
                bencher.iter(|| worker.pick());
            });
        }
    }
}

fn builds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    group.sample_size(10);
    for case in Case::ALL {
        group.bench_function(BenchmarkId::new(case.name(), 10_000), |bencher| {
            let ids = ids(10_000);
            let candidates = case.candidates(&ids);
            bencher.iter(|| Picker::build(case.algorithm(), black_box(&candidates)));
        });
    }
}

/// Measures the promised figures; whether all were kept, or missed narrowly.
fn figures() -> bool {
    let mut kept = true;
    let mut figure = |what: &str, measured: f64, promised: f64, unit: &str| {
        let verdict = match measured / promised {
            ratio if ratio <= 1.0 => "kept",
            ratio if ratio <= 2.0 => "missed, within the tolerance for a busy machine",
            _ => {
                kept = false;
                "MISSED"
            }
        };
        println!("{what:<52} {measured:>8.2} {unit:<2} of {promised:>5} {verdict}");
    };
    println!();
    let counter = AtomicU64::new(0);
    let count = || {
        for _ in 0..PICKS {
            black_box(counter.fetch_add(1, Ordering::Relaxed));
        }
    };
    println!("a bare counter: {:.2} ns", best_of(RUNS, count).as_nanos() as f64 / f64::from(PICKS));
    for (case, promised) in [
        (Case::RoundRobin, 10.0),
        (Case::Turns, 10.0),
        (Case::WeightClasses, 60.0),
        (Case::Maglev, 10.0),
    ] {
        let fleet = Fleet::new(case, 10_000);
        let what = format!("{}, a pick of 10 000", case.name());
        figure(&what, nanoseconds(&fleet), promised, "ns");
    }
    for (case, promised) in
        [(Case::Turns, 30.0), (Case::WeightClasses, 30.0), (Case::Maglev, 200.0)]
    {
        let ids = ids(10_000);
        let candidates = case.candidates(&ids);
        let build = || drop(Picker::build(case.algorithm(), black_box(&candidates)));
        let what = format!("{}, built for 10 000", case.name());
        figure(&what, best_of(7, build).as_secs_f64() * 1e3, promised, "ms");
    }
    for case in [Case::RoundRobin, Case::Turns] {
        let fleet = Fleet::new(case, 100);
        let (alone, together) = (nanoseconds(&fleet), nanoseconds_of_two(&fleet));
        let what = format!("{}, on two threads ({together:.1} ns)", case.name());
        figure(&what, together / alone, 3.0, "x");
    }
    kept
}

/// What one pick costs one thread.
fn nanoseconds(fleet: &Fleet) -> f64 {
    let mut rng = rng();
    let mut worker = fleet.worker(&mut rng);
    best_of(RUNS, || worker.picks()).as_nanos() as f64 / f64::from(PICKS)
}

/// What one pick costs each of two threads that share the cursor: the median run,
/// since at their best the threads ran one after the other.
fn nanoseconds_of_two(fleet: &Fleet) -> f64 {
    let picks = || {
        let start = Barrier::new(2);
        let run = || {
            let mut rng = rng();
            let mut worker = fleet.worker(&mut rng);
            start.wait();
            timed(|| worker.picks())
        };
        thread::scope(|scope| {
            let other = scope.spawn(run);
            run().max(other.join().expect("picks do not panic"))
        })
    };
    let mut runs: Vec<_> = (0..RUNS).map(|_| picks()).collect();
    runs.sort();
    runs[runs.len() / 2].as_nanos() as f64 / f64::from(PICKS)
}

/// Few enough for some of many runs to pass without an interruption.
const PICKS: u32 = 100_000;
const RUNS: u32 = 70;

fn best_of(runs: u32, mut work: impl FnMut()) -> Duration {
    (0..runs).map(|_| timed(&mut work)).min().expect("one run at least")
}

/// What is measured.
#[derive(Clone, Copy)]
enum Case {
    RoundRobin,
    /// Weights whose cycle is written down.
    Turns,
    /// Weights whose cycle is too long for that.
    WeightClasses,
    Maglev,
    LeastConnections,
}

impl Case {
    const ALL: [Self; 5] =
        [Self::RoundRobin, Self::Turns, Self::WeightClasses, Self::Maglev, Self::LeastConnections];

    fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round robin",
            Self::Turns => "weighted, table of turns",
            Self::WeightClasses => "weighted, classes",
            Self::Maglev => "ip_hash, Maglev",
            Self::LeastConnections => "least connections",
        }
    }

    fn sizes(self) -> &'static [usize] {
        match self {
            Self::WeightClasses => &[10_000],
            Self::LeastConnections => &[3, 64, 10_000],
            Self::RoundRobin | Self::Turns | Self::Maglev => &[3, 100, 10_000],
        }
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Self::RoundRobin => Algorithm::RoundRobin,
            Self::Turns | Self::WeightClasses => Algorithm::WeightedRoundRobin,
            Self::Maglev => Algorithm::IpHash,
            Self::LeastConnections => Algorithm::LeastConnections(Default::default()),
        }
    }

    fn candidates(self, ids: &[String]) -> Vec<Candidate<'_>> {
        let weight = |slot: u32| match self {
            // The cycle of 10 000 backends has 54 994 turns.
            Self::Turns => 1 + slot % 10,
            Self::WeightClasses => 1 + slot % 256,
            Self::RoundRobin | Self::Maglev | Self::LeastConnections => 1,
        };
        let weight = |slot| u16::try_from(weight(slot)).expect("at most 256");
        (0..).zip(ids).map(|(slot, id)| Candidate { slot, id, weight: weight(slot) }).collect()
    }
}

/// A picker with what its workers share.
struct Fleet {
    picker: Picker,
    cursor: AtomicU64,
    in_flight: InFlight,
    many_clients: bool,
}

struct InFlight(Vec<AtomicU32>);

impl Loads for InFlight {
    fn in_flight(&self, slot: u32) -> u32 {
        self.0[slot as usize].load(Ordering::Relaxed)
    }
}

impl Fleet {
    fn new(case: Case, backends: usize) -> Self {
        let ids = ids(backends);
        let picker = Picker::build(case.algorithm(), &case.candidates(&ids));
        let cursor = AtomicU64::new(picker.start(Phase { index: 1, count: 3 }));
        let mut rng = fastrand::Rng::with_seed(1);
        let in_flight = (0..backends).map(|_| AtomicU32::new(rng.u32(..4))).collect();
        let many_clients = case.algorithm() == Algorithm::IpHash;
        Self { picker, cursor, in_flight: InFlight(in_flight), many_clients }
    }

    fn worker<'a>(&'a self, rng: &'a mut fastrand::Rng) -> Worker<'a> {
        let context = PickContext {
            key: HashKey::Client(Ipv4Addr::UNSPECIFIED.into()),
            cursor: &self.cursor,
            loads: &self.in_flight,
            rng,
            excluded: &[],
        };
        let client = |n: u32| Ipv4Addr::from_bits(n).into();
        let clients =
            if self.many_clients { (0..).map(client).take(CLIENTS).collect() } else { Vec::new() };
        Worker { picker: &self.picker, context, clients, next: 0 }
    }
}

/// Few enough for what they hash to to stay in a cache: figures are for a warm one.
const CLIENTS: usize = 4096;

/// One thread that picks, for many clients in turn where that matters.
struct Worker<'a> {
    picker: &'a Picker,
    context: PickContext<'a, InFlight>,
    clients: Vec<IpAddr>,
    next: usize,
}

impl Worker<'_> {
    #[inline]
    fn pick(&mut self) -> Option<u32> {
        if let Some(&client) = self.clients.get(self.next) {
            self.context.key = HashKey::Client(client);
            self.next = (self.next + 1) % CLIENTS;
        }
        self.picker.pick(&mut self.context)
    }

    fn picks(&mut self) {
        for _ in 0..PICKS {
            black_box(self.pick());
        }
    }
}

fn rng() -> fastrand::Rng {
    fastrand::Rng::with_seed(2)
}

fn ids(count: usize) -> Vec<String> {
    (1..=count).map(|i| format!("backend{i}")).collect()
}
