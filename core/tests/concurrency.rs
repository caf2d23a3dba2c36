//! An adaptive limit in front of a backend with a few slots that becomes ten times slower
//! for a while, under more requests than it can serve: beside fixed limits that know the
//! number of slots.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use lb_core::resilience::concurrency::{Concurrency, Policy};
use proptest::prelude::*;

/// Microseconds since the start.
type Micros = u64;
const SECOND: Micros = 1_000_000;
const FAST: Micros = 10_000;
const SLOW: Micros = 10 * FAST;

/// A backend that serves in order of arrival, and who decides what is sent to it.
struct World {
    slots: usize,
    /// From when on a slot is free.
    free_at: BinaryHeap<Reverse<Micros>>,
    /// When requests in flight are answered, and when they were sent.
    answers: BinaryHeap<Reverse<(Micros, Micros)>>,
    rng: fastrand::Rng,
    exponential: bool,
}

/// What happened in a second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    answered: u32,
    sent: u32,
    waited: Micros,
    limit: u32,
}

trait Limit {
    fn limit(&self) -> u32;
    fn record(&mut self, time: Duration, in_flight: u32);
}

impl Limit for Concurrency {
    fn limit(&self) -> u32 {
        self.limit()
    }
    fn record(&mut self, time: Duration, in_flight: u32) {
        self.record(time, in_flight);
    }
}

struct Fixed(u32);

impl Limit for Fixed {
    fn limit(&self) -> u32 {
        self.0
    }
    fn record(&mut self, _time: Duration, _in_flight: u32) {}
}

impl World {
    fn new(slots: usize, seed: u64, exponential: bool) -> Self {
        Self {
            slots,
            free_at: (0..slots).map(|_| Reverse(0)).collect(),
            answers: BinaryHeap::new(),
            rng: fastrand::Rng::with_seed(seed),
            exponential,
        }
    }

    /// Sends Poisson arrivals of `load` times the fast capacity; the service takes SLOW
    /// from second `slow.start` to `slow.end`. What is above the limit is refused.
    fn run(
        mut self,
        limit: &mut dyn Limit,
        load: f64,
        slow: std::ops::Range<u64>,
        seconds: u64,
    ) -> Vec<Second> {
        let gap = FAST as f64 / self.slots as f64 / load;
        let mut history = vec![Second::default(); usize::try_from(seconds).expect("two minutes")];
        let second = |at: Micros| usize::try_from(at / SECOND).expect("two minutes");
        let mut now = 0.0_f64;
        loop {
            now += self.exponential() * gap;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time")]
            let at = now as Micros;
            if at >= seconds * SECOND {
                return history;
            }
            while let Some(&Reverse((answered, sent))) = self.answers.peek() {
                if answered > at {
                    break;
                }
                let in_flight = u32::try_from(self.answers.len()).expect("few");
                self.answers.pop();
                limit.record(Duration::from_micros(answered - sent), in_flight);
                history[second(answered)].answered += 1;
            }
            let this = &mut history[second(at)];
            this.limit = limit.limit();
            if self.answers.len() >= limit.limit() as usize {
                continue;
            }
            let Reverse(free) = self.free_at.pop().expect("a slot");
            let start = free.max(at);
            let mean = if slow.contains(&(start / SECOND)) { SLOW } else { FAST };
            let factor = if self.exponential { self.exponential() } else { 0.5 + self.rng.f64() };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time")]
            let end = start + (mean as f64 * factor) as Micros;
            self.free_at.push(Reverse(end));
            self.answers.push(Reverse((end, at)));
            let this = &mut history[second(at)];
            this.sent += 1;
            this.waited += start - at;
        }
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.rng.f64()).ln()
    }
}

fn answered(history: &[Second]) -> f64 {
    history.iter().map(|second| f64::from(second.answered)).sum()
}

/// The mean wait in front of the backend, in microseconds.
fn wait(history: &[Second]) -> f64 {
    let waited: Micros = history.iter().map(|second| second.waited).sum();
    let sent: f64 = history.iter().map(|second| f64::from(second.sent)).sum();
    waited as f64 / sent
}

/// Under 1.5 times what it can serve when it is fast, 15 times when it is slow, unless
/// said otherwise.
#[test]
fn a_backend_that_becomes_ten_times_slower_is_kept_busy_and_never_swamped() {
    for (slots, load, exponential) in [
        (1, 1.5, true),
        (4, 1.5, true),
        (10, 0.8, true),
        (10, 1.5, false),
        (10, 1.5, true),
        (10, 5.0, true),
        (100, 1.5, true),
    ] {
        let run =
            |limit: &mut dyn Limit| World::new(slots, 1, exponential).run(limit, load, 30..90, 120);
        let history = run(&mut Concurrency::new(Policy::default()));
        let fixed = u32::try_from(slots).expect("a hundred at most");
        let oracles = [run(&mut Fixed(fixed)), run(&mut Fixed(2 * fixed))];
        for (phase, seconds, service, wait_max) in [
            ("fast", 0..30, FAST, 2.5),
            ("slow", 30..90, SLOW, 2.5),
            ("fast again, at once", 90..100, FAST, 5.0),
            ("fast again, settled", 100..120, FAST, 2.5),
        ] {
            let answered = |history: &[Second]| answered(&history[seconds.clone()]);
            let best = oracles.iter().map(|oracle| answered(oracle)).fold(0.0, f64::max);
            let goodput = answered(&history) / best;
            let wait = wait(&history[seconds.clone()]) / service as f64;
            let what = format!(
                "{slots} slots, load {load}, exponential {exponential}, {phase}: {:.0} % of the \
                 best fixed limit, waits of {wait:.2} service times, limit {}",
                goodput * 100.0,
                history[seconds.end - 1].limit,
            );
            println!("{what}");
            assert!(goodput >= 0.8, "{what}");
            // The queue that is always allowed is most of what one slot sees.
            let wait_max = if slots == 1 { 6.0 } else { wait_max };
            assert!(wait <= wait_max, "{what}");
        }
    }
}

/// A limit that takes the mean of the past for what is normal creeps up under lasting
/// overload, by the queue that it lets in itself.
#[test]
fn a_limit_does_not_creep_up_under_lasting_overload() {
    let mut limit = Concurrency::new(Policy::default());
    let history = World::new(10, 2, true).run(&mut limit, 1.5, 0..0, 600);
    let highest = |seconds: std::ops::Range<usize>| {
        history[seconds].iter().map(|second| second.limit).max().expect("some seconds")
    };
    let minutes: Vec<_> = (0..10).map(|minute| highest(60 * minute..60 * (minute + 1))).collect();
    println!("highest limit of each minute: {minutes:?}");
    assert!(minutes.iter().all(|highest| (15..=50).contains(highest)), "{minutes:?}");
    assert!(wait(&history[300..]) / (FAST as f64) < 2.0);
}

proptest! {
    /// Whatever it is told, a limit keeps to its bounds; and whatever it was told, a
    /// backend whose times do not depend on the load gets the whole of it again.
    #[test]
    fn always_recovers(
        events in prop::collection::vec((0_u64..10_000_000, 0_u32..2_000), 0..2_000),
        service_us in 1_u64..1_000_000,
    ) {
        let policy = Policy { limit_min: 2, limit_max: 60, ..Policy::default() };
        let mut limit = Concurrency::new(policy.checked().expect("valid"));
        for (time_us, in_flight) in events {
            limit.record(Duration::from_micros(time_us), in_flight);
            prop_assert!((2..=60).contains(&limit.limit()));
        }
        let mut answers = 0;
        while limit.limit() < 60 {
            limit.record(Duration::from_micros(service_us), limit.limit());
            answers += 1;
            prop_assert!(answers < 5_000);
        }
    }
}
