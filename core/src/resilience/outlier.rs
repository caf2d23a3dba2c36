//! Backends that differ from the rest of their pool.
//!
//! A breaker opens when a backend fails much. Some fail only more than the others do:
//! one of ten answers every fifth request with an error. At each sweep, what the fleet
//! saw of all backends since the last one is compared:
//!
//! | rule | outlier when | needs |
//! |---|---|---|
//! | success rate | 1.9 standard deviations below the pool's mean | 5 backends with 100 requests |
//! | failure percentage | 85 % or more failed | 3 backends with 50 requests |
//! | latency (off by default) | mean latency more than 3 times the pool's lower median | 5 backends with 100 requests |
//!
//! The lower median lets half of a pool be slow without that being the norm. Latency is
//! off by default because a slow backend still answers, and where requests differ in
//! kind a backend may be slow because of who its clients are; a policy that looks at load
//! sends it less in any case.
//!
//! An outlier stays out for a base time, multiplied by how often it was one; each sweep in
//! which it is none takes one from that. What the pool cannot spare is refused and
//! stays in: see [`super::ejection`].

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::ejection::Refused;
use crate::model::{BackendId, OutlierPolicy};

/// What the whole fleet saw of one backend since the last sweep.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sample {
    /// Which backend.
    pub backend: BackendId,
    /// Requests that ended, those of clients that went away left out.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
    /// Of requests that succeeded.
    pub latency_mean: Option<Duration>,
}

/// Which rule made a backend an outlier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outlier {
    /// Its success rate is far below the mean of the pool.
    SuccessRate {
        /// Of this backend, 0 to 1.
        rate: f64,
        /// The least that would have done.
        threshold: f64,
    },
    /// It fails almost always.
    FailurePercentage {
        /// In percent.
        percent: f64,
    },
    /// It is far slower than the median.
    Latency {
        /// Its mean.
        mean: Duration,
        /// The lower median of the pool's means.
        median: Duration,
    },
}

/// What a sweep has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Which backend.
    pub backend: BackendId,
    /// By which rule.
    pub outlier: Outlier,
    /// How it is out, or why it is not.
    pub ejected: Result<Ejected, Refused>,
}

/// A backend that is out for being an outlier.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ejected {
    /// For so long.
    pub lasts: Duration,
    /// For which time in a row.
    pub times: u32,
}

/// The outliers of one pool.
#[derive(Clone, Debug, Default)]
pub struct Outliers {
    next_sweep: Option<Instant>,
    backends: BTreeMap<BackendId, History>,
}

#[derive(Clone, Copy, Debug, Default)]
struct History {
    times: u32,
    until: Option<Instant>,
}

const RATE_BACKENDS: usize = 5;
const RATE_REQUESTS: u64 = 100;
const RATE_DEVIATIONS: f64 = 1.9;
const PERCENTAGE_BACKENDS: usize = 3;
const PERCENTAGE_REQUESTS: u64 = 50;
const LATENCY_FACTOR: f64 = 3.0;
/// Added to an ejection, as a share of it, so that those of one sweep do not end together.
const JITTER: f64 = 0.1;

impl Outliers {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it is time for [`Self::sweep`]; the first is one interval after the first
    /// question.
    pub fn is_due(&mut self, policy: &OutlierPolicy, now: Instant) -> bool {
        let next = *self.next_sweep.get_or_insert(now + policy.interval);
        if now >= next {
            self.next_sweep = Some(now + policy.interval);
        }
        policy.enabled && now >= next
    }

    /// Compares all enabled backends of the pool; those without a sample are forgotten.
    /// `admit` is asked for each outlier that is not out yet whether the pool can spare
    /// it; the worst are asked for first.
    pub fn sweep(
        &mut self,
        policy: &OutlierPolicy,
        samples: &[Sample],
        mut admit: impl FnMut(&BackendId) -> Result<(), Refused>,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Vec<Found> {
        // One that is out and was disabled meanwhile must be heard of when its time is over.
        self.backends.retain(|id, history| {
            history.until.is_some() || samples.iter().any(|sample| sample.backend == *id)
        });
        let outliers = outliers(policy, samples);
        for (id, history) in &mut self.backends {
            let is_one = outliers.iter().any(|(sample, _)| sample.backend == *id);
            if !is_one && history.until.is_none() {
                history.times = history.times.saturating_sub(1);
            }
        }
        self.backends.retain(|_, history| history.times > 0);
        let mut found = Vec::new();
        for (sample, outlier) in outliers {
            let backend = sample.backend.clone();
            if self.is_out(&backend) {
                continue;
            }
            let ejected = admit(&backend).map(|()| {
                let history = self.backends.entry(backend.clone()).or_default();
                history.times = history.times.saturating_add(1);
                let base = policy.ejection.saturating_mul(history.times).min(policy.ejection_max);
                let lasts = base.mul_f64(1.0 + JITTER * rng.f64());
                history.until = Some(now + lasts);
                Ejected { lasts, times: history.times }
            });
            found.push(Found { backend, outlier, ejected });
        }
        found
    }

    /// Those whose time is over: they come back, into a slow start.
    pub fn expire(&mut self, now: Instant) -> Vec<BackendId> {
        let over = |history: &History| history.until.is_some_and(|until| now >= until);
        let back = self.backends.iter_mut().filter(|(_, history)| over(history));
        back.map(|(id, history)| {
            history.until = None;
            id.clone()
        })
        .collect()
    }

    /// Takes a backend back early, into a slow start: its active check has brought it up
    /// after it was down, or the pool needs it. Returns whether it was out.
    ///
    /// A check that goes on passing is no reason: it passed while traffic failed, too.
    pub fn release(&mut self, backend: &BackendId) -> bool {
        self.backends.get_mut(backend).is_some_and(|history| history.until.take().is_some())
    }

    /// Forgets a backend, and how often it was an outlier: somebody who knows says that it is
    /// well.
    pub fn forget(&mut self, backend: &BackendId) {
        self.backends.remove(backend);
    }

    /// Those that are out.
    pub fn out(&self) -> impl Iterator<Item = &BackendId> {
        self.backends.iter().filter(|(_, history)| history.until.is_some()).map(|(id, _)| id)
    }

    /// Whether a backend is out.
    #[must_use]
    pub fn is_out(&self, backend: &BackendId) -> bool {
        self.backends.get(backend).is_some_and(|history| history.until.is_some())
    }
}

/// The outliers among these, the worst first: those that fail most, then the slowest.
fn outliers<'a>(policy: &OutlierPolicy, samples: &'a [Sample]) -> Vec<(&'a Sample, Outlier)> {
    let failing = |sample: &Sample| sample.failures as f64 / sample.requests as f64;
    let of = |requests: u64, backends: usize| -> Vec<&'a Sample> {
        let known: Vec<_> = samples.iter().filter(|sample| sample.requests >= requests).collect();
        if known.len() < backends { Vec::new() } else { known }
    };
    let mut found: Vec<(&Sample, Outlier)> = Vec::new();
    let mut add = |sample: &'a Sample, outlier| {
        if !found.iter().any(|(known, _)| known.backend == sample.backend) {
            found.push((sample, outlier));
        }
    };
    if policy.failure_percentage > 0 {
        for sample in of(PERCENTAGE_REQUESTS, PERCENTAGE_BACKENDS) {
            let percent = 100.0 * failing(sample);
            if percent >= policy.failure_percentage.into() {
                add(sample, Outlier::FailurePercentage { percent });
            }
        }
    }
    if policy.success_rate {
        let known = of(RATE_REQUESTS, RATE_BACKENDS);
        let rates: Vec<f64> = known.iter().map(|sample| 1.0 - failing(sample)).collect();
        let count = rates.len() as f64;
        let mean = rates.iter().sum::<f64>() / count;
        let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
        let threshold = mean - RATE_DEVIATIONS * variance.sqrt();
        for (sample, rate) in known.into_iter().zip(rates) {
            if rate < threshold {
                add(sample, Outlier::SuccessRate { rate, threshold });
            }
        }
    }
    if policy.latency {
        let known = of(RATE_REQUESTS, RATE_BACKENDS);
        let mut means: Vec<_> = known.iter().filter_map(|sample| sample.latency_mean).collect();
        means.sort_unstable();
        let median = means.get(means.len().saturating_sub(1) / 2).copied().unwrap_or_default();
        for sample in known {
            if let Some(mean) = sample.latency_mean
                && means.len() >= RATE_BACKENDS
                && mean > median.mul_f64(LATENCY_FACTOR)
            {
                add(sample, Outlier::Latency { mean, median });
            }
        }
    }
    found.sort_by(|(a, _), (b, _)| {
        failing(b).total_cmp(&failing(a)).then(b.latency_mean.cmp(&a.latency_mean))
    });
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::ejection::{Ejections, Pool},
        *,
    };
    use crate::{epoch, model::EjectedBy};

    fn sample(number: usize, requests: u64, failures: u64, ms: u64) -> Sample {
        Sample {
            backend: BackendId::new(&format!("backend{number}")).unwrap(),
            requests,
            failures,
            latency_mean: (ms > 0).then(|| Duration::from_millis(ms)),
        }
    }

    /// A pool of equals, and one that is not.
    fn pool(equals: usize, requests: u64, odd: (u64, u64)) -> Vec<Sample> {
        let rest = (1..=equals).map(|number| sample(number, requests, 1, 10));
        [sample(0, requests, odd.0, odd.1)].into_iter().chain(rest).collect()
    }

    /// The first backend of the pool that is found, and by which rule.
    fn found(policy: OutlierPolicy, samples: &[Sample]) -> Vec<(String, &'static str)> {
        let name = |outlier| match outlier {
            Outlier::SuccessRate { .. } => "rate",
            Outlier::FailurePercentage { .. } => "percentage",
            Outlier::Latency { .. } => "latency",
        };
        outliers(&policy, samples)
            .into_iter()
            .map(|(sample, outlier)| (sample.backend.to_string(), name(outlier)))
            .collect()
    }

    fn odd(rule: &'static str) -> Vec<(String, &'static str)> {
        vec![("backend0".to_owned(), rule)]
    }

    #[test]
    fn each_rule_needs_its_numbers() {
        let policy = OutlierPolicy { latency: true, ..OutlierPolicy::default() };
        for (samples, expected) in [
            (pool(4, 100, (20, 10)), odd("rate")),
            (pool(3, 100, (20, 10)), vec![]),
            (pool(4, 99, (20, 10)), vec![]),
            (pool(4, 100, (1, 10)), vec![]),
            (pool(2, 50, (43, 10)), odd("percentage")),
            (pool(1, 50, (43, 10)), vec![]),
            (pool(2, 49, (43, 10)), vec![]),
            (pool(2, 50, (42, 10)), vec![]),
            (pool(4, 100, (1, 31)), odd("latency")),
            (pool(4, 100, (1, 30)), vec![]),
            (pool(3, 100, (1, 99)), vec![]),
            (pool(4, 99, (1, 99)), vec![]),
        ] {
            assert_eq!(found(policy, &samples), expected, "{samples:?}");
        }
    }

    #[test]
    fn each_rule_can_be_off_and_latency_is() {
        let off = OutlierPolicy {
            success_rate: false,
            failure_percentage: 0,
            ..OutlierPolicy::default()
        };
        assert_eq!(found(off, &pool(9, 1_000, (1_000, 999))), []);
    }

    #[test]
    fn half_of_a_pool_may_be_slow_and_still_stand_out() {
        let policy = OutlierPolicy { latency: true, ..OutlierPolicy::default() };
        let samples: Vec<_> = (0..6)
            .map(|number| sample(number, 100, 0, if number < 3 { 100 } else { 10 }))
            .collect();
        assert_eq!(found(policy, &samples).len(), 3);
    }

    #[test]
    fn an_outlier_stays_out_longer_each_time_and_is_forgiven_sweep_by_sweep() {
        let (policy, mut rng) = (OutlierPolicy::default(), fastrand::Rng::with_seed(2));
        let (mut outliers, mut now) = (Outliers::new(), epoch());
        let (bad, good) = (pool(4, 100, (90, 10)), pool(4, 100, (1, 10)));
        let id = &bad[0].backend;
        for (nth, base) in [(1, 30.0), (2, 60.0), (3, 90.0)] {
            let found = outliers.sweep(&policy, &bad, |_| Ok(()), now, &mut rng);
            let Ejected { lasts, times } = found[0].ejected.unwrap();
            assert!((base..=base * 1.1).contains(&lasts.as_secs_f64()), "{lasts:?}");
            assert_eq!(times, nth);
            assert!(outliers.is_out(id));
            // While it is out, nothing is found and nothing forgiven.
            assert_eq!(outliers.sweep(&policy, &bad, |_| Ok(()), now, &mut rng), []);
            assert_eq!(outliers.sweep(&policy, &good, |_| Ok(()), now, &mut rng), []);
            assert_eq!(outliers.expire(now), []);
            now += lasts;
            assert_eq!(outliers.expire(now), std::slice::from_ref(id));
        }
        for _ in 0..3 {
            outliers.sweep(&policy, &good, |_| Ok(()), now, &mut rng);
        }
        let found = outliers.sweep(&policy, &bad, |_| Ok(()), now, &mut rng);
        assert!(found[0].ejected.unwrap().lasts < Duration::from_secs(34));
        assert!(outliers.release(id) && !outliers.release(id) && !outliers.is_out(id));
    }

    #[test]
    fn what_the_pool_cannot_spare_stays_in_and_says_why() {
        let (policy, mut rng) = (OutlierPolicy::default(), fastrand::Rng::with_seed(2));
        let (mut outliers, bad) = (Outliers::new(), pool(4, 100, (90, 10)));
        let refuse = |_: &BackendId| Err(Refused::LastOne);
        let found = outliers.sweep(&policy, &bad, refuse, epoch(), &mut rng);
        assert_eq!(found[0].ejected, Err(Refused::LastOne));
        assert!(!outliers.is_out(&bad[0].backend));
    }

    #[test]
    fn sweeps_come_one_interval_apart() {
        let (policy, mut outliers, start) = (OutlierPolicy::default(), Outliers::new(), epoch());
        let due = |outliers: &mut Outliers, seconds| {
            outliers.is_due(&policy, start + Duration::from_secs(seconds))
        };
        let asked = [0, 9, 10, 11, 19, 20, 45, 46, 55];
        let expected = [false, false, true, false, false, true, true, false, true];
        for (seconds, expected) in asked.into_iter().zip(expected) {
            assert_eq!(due(&mut outliers, seconds), expected, "{seconds} s");
        }
    }

    proptest! {
        /// However bad everybody is, sweeps leave two thirds of the pool in.
        #[test]
        fn sweeps_never_empty_a_pool(
            failures in prop::collection::vec(prop::collection::vec(0_u64..=100, 12), 1..20),
        ) {
            let policy = OutlierPolicy { latency: true, ..OutlierPolicy::default() };
            let (mut outliers, mut ejections) = (Outliers::new(), Ejections::new());
            let (mut now, mut rng) = (epoch(), fastrand::Rng::with_seed(9));
            for failures in failures {
                let samples: Vec<_> = failures
                    .iter()
                    .enumerate()
                    .map(|(number, &failures)| sample(number, 100, failures, 1 + failures))
                    .collect();
                for back in outliers.expire(now) {
                    ejections.release(&back, EjectedBy::Outlier);
                }
                let admit = |id: &BackendId| {
                    let pool = Pool { enabled: 12, others_serve: ejections.iter().count() < 11 };
                    ejections.admit(id, EjectedBy::Outlier, pool)
                };
                outliers.sweep(&policy, &samples, admit, now, &mut rng);
                prop_assert!(ejections.iter().count() <= 4);
                for sample in &samples {
                    let id = &sample.backend;
                    prop_assert_eq!(outliers.is_out(id), ejections.is_out(id));
                }
                now += policy.interval;
            }
        }
    }
}
