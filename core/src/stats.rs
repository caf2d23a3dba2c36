//! Counters and latencies that add up over workers, proxies and time.

use std::time::Duration;

/// Buckets of a [`LatencyHistogram`]: exact below 4 us, then four per octave, up to
/// 36 minutes.
pub const LATENCY_BUCKETS: usize = 124;

/// Whole microseconds of a duration, as times are counted and told.
#[must_use]
pub fn whole_us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What happened to the requests sent to one backend.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BackendCounters {
    /// Requests given to the backend.
    pub requests: u64,
    /// Those that it answered with a status below 500.
    pub successes: u64,
    /// Those that failed, by kind.
    pub failures: Failures,
    /// Requests moved to another backend after this one failed.
    pub retries: u64,
    /// Request bytes sent, heads included.
    pub bytes_to_backend: u64,
    /// Response bytes received, heads included.
    pub bytes_from_backend: u64,
    /// From the pick to the end of the response.
    pub latency: LatencyHistogram,
}

/// Failed requests by kind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Failures {
    /// No connection: refused, unreachable, timed out.
    pub connect: u64,
    /// The connection ended before the response did.
    pub reset: u64,
    /// No response in time.
    pub timeout: u64,
    /// What came was not valid HTTP.
    pub protocol: u64,
    /// A 5xx status.
    pub status_5xx: u64,
    /// Of these, with 502, 503 or 504: the backend says that it cannot serve.
    pub status_gateway: u64,
}

impl Failures {
    /// All kinds together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.connect + self.reset + self.timeout + self.protocol + self.status_5xx
    }

    /// Those that count as failures in a row: all but 5xx statuses that an application may
    /// answer to single requests, such as 500.
    #[must_use]
    pub fn consecutive(&self) -> u64 {
        self.connect + self.reset + self.timeout + self.protocol + self.status_gateway
    }
}

impl BackendCounters {
    /// Adds what another worker, proxy or period counted.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.successes += other.successes;
        self.failures.connect += other.failures.connect;
        self.failures.reset += other.failures.reset;
        self.failures.timeout += other.failures.timeout;
        self.failures.protocol += other.failures.protocol;
        self.failures.status_5xx += other.failures.status_5xx;
        self.failures.status_gateway += other.failures.status_gateway;
        self.retries += other.retries;
        self.bytes_to_backend += other.bytes_to_backend;
        self.bytes_from_backend += other.bytes_from_backend;
        self.latency.add(&other.latency);
    }
}

/// Latencies in log-linear buckets: base 2, four steps per octave, so that a
/// quantile is off by at most a quarter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LatencyHistogram {
    /// Grows to the largest bucket in use: most backends need few.
    counts: Vec<u64>,
    sum_us: u64,
}

impl LatencyHistogram {
    /// The bucket of a latency.
    #[must_use]
    pub fn bucket_of(us: u64) -> usize {
        if us < 4 {
            return (us & 3) as usize;
        }
        let octave = us.ilog2() as usize;
        let step = (us >> (octave - 2) & 3) as usize;
        ((octave - 1) * 4 + step).min(LATENCY_BUCKETS - 1)
    }

    /// The largest latency of a bucket.
    #[must_use]
    pub fn bucket_upper_us(index: usize) -> u64 {
        if index < 4 {
            return index as u64;
        }
        let (octave, step) = (index / 4 + 1, index as u64 % 4);
        (1 << octave) + ((step + 1) << (octave - 2)) - 1
    }

    /// Counts one latency.
    pub fn record(&mut self, us: u64) {
        self.add_to_bucket(Self::bucket_of(us), 1);
        self.sum_us += us;
    }

    /// Reads the sparse form of the wire; buckets that do not exist count as the
    /// last one.
    #[must_use]
    pub fn from_sparse(pairs: impl IntoIterator<Item = (u32, u64)>, sum_us: u64) -> Self {
        let mut histogram = Self { counts: Vec::new(), sum_us };
        for (bucket, count) in pairs {
            histogram.add_to_bucket((bucket as usize).min(LATENCY_BUCKETS - 1), count);
        }
        histogram
    }

    /// The buckets that hold something.
    pub fn sparse(&self) -> impl Iterator<Item = (u32, u64)> {
        (0u32..).zip(self.counts.iter().copied()).filter(|(_, count)| *count > 0)
    }

    /// Adds another histogram.
    pub fn add(&mut self, other: &Self) {
        for (bucket, count) in other.sparse() {
            self.add_to_bucket(bucket as usize, count);
        }
        self.sum_us += other.sum_us;
    }

    /// What was recorded after `earlier` was this histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |bucket: usize| earlier.counts.get(bucket).copied().unwrap_or_default();
        let counts = self.counts.iter().enumerate();
        Self {
            counts: counts.map(|(bucket, count)| count.saturating_sub(before(bucket))).collect(),
            sum_us: self.sum_us.saturating_sub(earlier.sum_us),
        }
    }

    /// How many latencies.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all latencies, exact.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The mean, `None` when there are none.
    #[must_use]
    pub fn mean_us(&self) -> Option<u64> {
        self.sum_us.checked_div(self.count())
    }

    /// The upper end of the bucket that holds the quantile, or less where the sum of all
    /// latencies leaves no room for that: with few of them it would often be more than the
    /// largest. `None` when empty. `quantile` is 0 to 1.
    #[must_use]
    pub fn quantile_us(&self, quantile: f64) -> Option<u64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 1..=total"
        )]
        let rank = ((total as f64 * quantile).ceil() as u64).clamp(1, total);
        let (mut seen, mut least_sum) = (0, 0_u64);
        for (bucket, count) in self.counts.iter().enumerate() {
            let least = bucket.checked_sub(1).map_or(0, |below| Self::bucket_upper_us(below) + 1);
            let before = (*count).min(rank - 1 - seen);
            least_sum = least_sum.saturating_add(least.saturating_mul(before));
            seen += before;
            if before < *count {
                // This latency and those above it share what those below leave of the sum.
                let share = self.sum_us.saturating_sub(least_sum) / (total - rank + 1);
                return Some(Self::bucket_upper_us(bucket).min(share.max(least)));
            }
        }
        None
    }

    fn add_to_bucket(&mut self, bucket: usize, count: u64) {
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += count;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of its bucket, 8.68 s would be told as 10.49 s.
    #[test]
    fn a_percentile_of_few_is_no_longer_than_the_longest() {
        let mut histogram = LatencyHistogram::default();
        for us in [700, 800, 900, 700, 800, 8_680_000] {
            histogram.record(us);
        }
        let told = histogram.quantile_us(0.99).unwrap();
        assert!((8_680_000..8_681_000).contains(&told), "{told}");
    }

    proptest! {
        #[test]
        fn a_bucket_holds_what_is_put_into_it(us in 0u64..1 << 32) {
            let bucket = LatencyHistogram::bucket_of(us);
            prop_assume!(bucket < LATENCY_BUCKETS - 1);
            prop_assert!(us <= LatencyHistogram::bucket_upper_us(bucket));
            prop_assert!(bucket == 0 || us > LatencyHistogram::bucket_upper_us(bucket - 1));
        }

        #[test]
        fn a_quantile_is_never_too_small_and_at_most_a_quarter_too_large(
            mut latencies in prop::collection::vec(0u64..10_000_000, 1..200),
            quantile in 0.0f64..=1.0,
        ) {
            let mut histogram = LatencyHistogram::default();
            latencies.iter().for_each(|us| histogram.record(*us));
            latencies.sort_unstable();
            let below = |us: &&u64| latencies.iter().filter(|other| other <= us).count() as f64;
            let exact = *latencies
                .iter()
                .find(|us| below(us) >= latencies.len() as f64 * quantile)
                .expect("the largest has all below it");
            let told = histogram.quantile_us(quantile).unwrap();
            prop_assert!(told >= exact && told <= exact + exact / 4 + 1, "{told} for {exact}");
        }

        #[test]
        fn parts_add_up_to_the_whole(
            parts in prop::collection::vec(prop::collection::vec(0u64..1 << 40, 0..20), 0..5)
        ) {
            let mut whole = LatencyHistogram::default();
            let mut sum = LatencyHistogram::default();
            for part in parts {
                let mut histogram = LatencyHistogram::default();
                for us in part {
                    histogram.record(us);
                    whole.record(us);
                }
                sum.add(&LatencyHistogram::from_sparse(histogram.sparse(), histogram.sum_us()));
            }
            prop_assert_eq!(sum, whole);
        }
    }
}
