//! What proxies tell of their processes, added up.

use std::collections::BTreeMap;

use lb_core::{model::Reason, overload::Stage};

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
    /// Gauge: connections of clients at which accepting pauses.
    pub connections_max: u32,
    /// Gauge: memory that it may have, 0 for any; of one proxy only.
    pub memory_max: u64,
    /// Gauge, of one proxy only.
    pub overload: Overload,
}

/// What a proxy gives up for want of connections or memory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Overload {
    /// As the proxy spells it; empty if it is too old to tell.
    pub stage: String,
    /// What led to the stage; empty in normal times.
    pub reason: Reason,
}

impl Overload {
    /// The longest that a proxy may say.
    const MESSAGE_CHARS_MAX: usize = 200;

    /// Takes a proxy's words as far as people can be shown them.
    #[must_use]
    pub fn new(stage: String, code: &str, message: &str) -> Self {
        let shown = |text: &str| -> String {
            text.chars().filter(|c| !c.is_control()).take(Self::MESSAGE_CHARS_MAX).collect()
        };
        let stage = if is_word(&stage) { stage } else { String::new() };
        Self { stage, reason: Reason::new(&shown(code), shown(message)) }
    }

    /// How grave the stage is; one that is not known, of a newer proxy, is not normal.
    fn gravity(&self) -> usize {
        let known = Stage::ALL.iter().position(|stage| stage.name() == self.stage);
        known.unwrap_or(if self.stage.is_empty() { 0 } else { Stage::ALL.len() })
    }

    /// Whether a proxy gives up more than before, or less; nothing if it is the same.
    #[must_use]
    pub fn is_worse_than(&self, before: &Self) -> Option<bool> {
        let (now, then) = (self.gravity(), before.gravity());
        (now != then).then_some(now > then)
    }
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
        self.connections_max = other.connections_max;
        self.memory_max = other.memory_max;
        self.overload.clone_from(&other.overload);
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
        let fits = counts.len() <= Self::REASONS_MAX && counts.keys().all(|reason| is_word(reason));
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

    /// The same reasons with other counts.
    pub(super) fn map(&self, of: impl Fn(u64) -> u64) -> Self {
        Self(self.0.iter().map(|(reason, count)| (reason.clone(), of(*count))).collect())
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

/// Whether it is a short word, as the names of reasons and stages are.
fn is_word(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (1..=OwnAnswers::REASON_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits)
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
    fn a_stage_is_worse_or_better_than_another() {
        let of = |stage: &str| Overload::new(stage.to_owned(), "memory", "");
        let news = |before, now| of(now).is_worse_than(&of(before));
        assert_eq!(news("normal", "close_idle"), Some(true));
        assert_eq!(news("refuse_requests", "close_idle"), Some(false));
        assert_eq!(news("", "normal"), None, "a proxy that did not tell was not overloaded");
        assert_eq!(news("normal", "something_newer"), Some(true));
        assert_eq!(of("Not a word").stage, "");
        let rude = Overload::new("close_idle".to_owned(), "m\n", &"x\u{1b}".repeat(300));
        assert_eq!((&*rude.reason.code, rude.reason.message.len()), ("m", 200));
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
