//! An adaptive limit in front of a backend with a few slots that becomes ten times slower
//! for a while, under more requests than it can serve: beside fixed limits that know the
//! number of slots.

#[path = "concurrency/fleet.rs"]
mod fleet;

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use lb_core::resilience::concurrency::{Concurrency, Policy, Sample};
use proptest::prelude::*;

/// Microseconds since the start.
type Micros = u64;
const SECOND: Micros = 1_000_000;
const FAST: Micros = 10_000;
const SLOW: Micros = 10 * FAST;
/// Between two samples.
const PERIOD: Micros = SECOND / 10;
const POLICY: Policy = Policy { limit_min: 1, limit_max: 1000 };

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
    fn record(&mut self, sample: &Sample, now: Instant);
}

impl Limit for Concurrency {
    fn limit(&self) -> u32 {
        self.limit()
    }
    fn record(&mut self, sample: &Sample, now: Instant) {
        self.record(sample, now);
    }
}

struct Fixed(u32);

impl Limit for Fixed {
    fn limit(&self) -> u32 {
        self.0
    }
    fn record(&mut self, _sample: &Sample, _now: Instant) {}
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
        let mut sample = Sample::default();
        let mut sampled = 0;
        let epoch = epoch();
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
                self.answers.pop();
                sample.answers += 1;
                sample.time += Duration::from_micros(answered - sent);
                history[second(answered)].answered += 1;
            }
            if at >= sampled + PERIOD {
                sampled = at;
                sample.in_flight = self.answers.len() as u64;
                sample.waiting = u64::from(self.answers.len() >= limit.limit() as usize);
                limit.record(&std::mem::take(&mut sample), epoch + Duration::from_micros(at));
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

#[expect(clippy::disallowed_methods, reason = "the one epoch of a simulated clock")]
fn epoch() -> Instant {
    Instant::now()
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
        let history = run(&mut Concurrency::new(POLICY, epoch()));
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
    let mut limit = Concurrency::new(POLICY, epoch());
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
        events in prop::collection::vec((0_u64..10_000_000, 0_u64..2_000, 0_u64..100), 0..2_000),
        service_us in 1_u64..1_000_000,
    ) {
        let policy = Policy { limit_min: 2, limit_max: 60 };
        let mut now = epoch();
        let mut limit = Concurrency::new(policy, now);
        for (time_us, in_flight, answers) in events {
            now += Duration::from_micros(PERIOD);
            let time = Duration::from_micros(time_us * answers);
            let sample = Sample { answers, time, in_flight, ..Sample::default() };
            limit.record(&sample, now);
            prop_assert!((2..=60).contains(&limit.limit()));
        }
        let mut samples = 0;
        while limit.limit() < 60 {
            now += Duration::from_micros(PERIOD);
            let time = Duration::from_micros(service_us * 20);
            let in_flight = limit.limit().into();
            let sample = Sample { answers: 20, time, in_flight, ..Sample::default() };
            limit.record(&sample, now);
            samples += 1;
            prop_assert!(samples < 600, "a minute");
        }
    }
}
