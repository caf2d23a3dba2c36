//! What proxies tell of their processes, added up.

use std::collections::BTreeMap;

/// Figures of a proxy process. In a report, the counters are since the last one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Process {
    /// Counter.
    pub requests: u64,
    /// Counter: answered 503, because no backend could serve.
    pub no_healthy_backend: u64,
    /// Counter: answered 404, because no route matched.
    pub no_route: u64,
    /// Counter: requests that were no valid HTTP, too large or too slow.
    pub client_errors: u64,
    /// Counter: clients that left before the answer.
    pub client_aborts: u64,
    /// Counters: answers by status class, 1xx to 5xx.
    pub status_classes: [u64; 5],
    /// Counters: answers that the proxy gave by itself.
    pub own_answers: OwnAnswers,
    /// Counter: lines of the access log that nobody took in time.
    pub access_log_dropped: u64,
    /// Gauge.
    pub client_connections: u32,
    /// Gauge, of each worker; of one proxy only.
    pub worker_connections: Vec<u32>,
    /// Gauge.
    pub resident_bytes: u64,
    /// Since the process began.
    pub cpu_us: u64,
}

impl Process {
    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.no_healthy_backend += other.no_healthy_backend;
        self.no_route += other.no_route;
        self.client_errors += other.client_errors;
        self.client_aborts += other.client_aborts;
        for (sum, count) in self.status_classes.iter_mut().zip(other.status_classes) {
            *sum += count;
        }
        self.own_answers.add(&other.own_answers);
        self.access_log_dropped += other.access_log_dropped;
        self.client_connections = other.client_connections;
        self.worker_connections.clone_from(&other.worker_connections);
        self.resident_bytes = other.resident_bytes;
        self.cpu_us = other.cpu_us;
    }
}

/// How often the proxies answered by themselves, by reason; also what became of sessions, by
/// result.
///
/// The reasons are the proxies' words, so that a newer proxy can say something new. How
/// many are told apart is bounded: what comes after the last that has a place is counted
/// as [`Self::OTHER`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OwnAnswers(BTreeMap<String, u64>);

impl OwnAnswers {
    /// Reasons that are told apart.
    pub const REASONS_MAX: usize = 64;
    /// The longest reason.
    pub const REASON_BYTES_MAX: usize = 63;
    /// All reasons beyond the last that has a place.
    pub const OTHER: &str = "other";

    /// The counts of one report; `None` if there are too many reasons, or one is no word.
    #[must_use]
    pub fn new(counts: BTreeMap<String, u64>) -> Option<Self> {
        let is_word = |reason: &String| {
            let bytes = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            (1..=Self::REASON_BYTES_MAX).contains(&reason.len()) && reason.bytes().all(bytes)
        };
        let fits = counts.len() <= Self::REASONS_MAX && counts.keys().all(is_word);
        fits.then_some(Self(counts))
    }

    /// Reasons with their counts, in the order of the reasons.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(reason, count)| (reason.as_str(), *count))
    }

    /// How often it was for this reason.
    #[must_use]
    pub fn of(&self, reason: &str) -> u64 {
        self.0.get(reason).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (reason, count) in other.iter().filter(|(_, count)| *count > 0) {
            let place = if self.0.contains_key(reason) || self.0.len() + 1 < Self::REASONS_MAX {
                reason
            } else {
                Self::OTHER
            };
            *self.0.entry(place.to_owned()).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(counts: &[(&str, u64)]) -> Option<OwnAnswers> {
        OwnAnswers::new(counts.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect())
    }

    #[test]
    fn counts_add_up_by_reason() {
        let mut sum = OwnAnswers::default();
        sum.add(&answers(&[("no_route", 2), ("overloaded", 1)]).unwrap());
        sum.add(&answers(&[("no_route", 3), ("internal", 0)]).unwrap());
        assert_eq!(sum.iter().collect::<Vec<_>>(), [("no_route", 5), ("overloaded", 1)]);
    }

    #[test]
    fn a_reason_is_a_short_word() {
        assert!(answers(&[("http2_error", 1)]).is_some());
        for bad in ["", "No_route", "a b", "x\n", "ü", &"x".repeat(64)] {
            assert_eq!(answers(&[(bad, 1)]), None, "{bad:?}");
        }
        let many: Vec<String> = (0..65).map(|n| format!("r{n}")).collect();
        assert_eq!(OwnAnswers::new(many.into_iter().map(|r| (r, 1)).collect()), None);
    }

    #[test]
    fn reasons_without_a_place_are_counted_together() {
        let mut sum = OwnAnswers::default();
        for n in 0..200 {
            sum.add(&answers(&[(&format!("r{n}"), 1)]).unwrap());
        }
        assert_eq!(sum.iter().count(), OwnAnswers::REASONS_MAX);
        assert_eq!(sum.iter().map(|(_, count)| count).sum::<u64>(), 200);
        let other = sum.iter().find(|(reason, _)| *reason == OwnAnswers::OTHER);
        assert_eq!(other, Some(("other", 137)));
    }
}
