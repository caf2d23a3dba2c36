//! What clients were answered in the last seconds.

use std::{collections::BTreeMap, time::Duration};

use lb_proto::{convert::histogram_from_wire, v1 as pb};
use serde::Serialize;

use super::{by_reason, most_frequent};
use crate::format;

/// Reasons that are told by name.
const REASONS_MAX: usize = 4;

/// Answers to clients, by backends or by the proxies themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct RecentView {
    /// Over so long.
    pub(crate) window_ms: u32,
    pub(crate) answers: u64,
    /// Of these, with 5xx or broken off.
    pub(crate) failed: u64,
    pub(crate) answers_per_second: f64,
    pub(crate) latency_p50_us: Option<u64>,
    pub(crate) latency_p99_us: Option<u64>,
    /// 1xx to 5xx.
    pub(crate) status_classes: [u64; 5],
    /// Responses that had begun and were not brought to their end.
    pub(crate) broken: u64,
    /// Why clients were failed, as far as it was the proxies' word; the other 5xx were backends'.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl RecentView {
    /// How far back it goes: `last 10s`.
    pub(crate) fn window(&self) -> String {
        format!("last {}s", self.window_ms / 1000)
    }

    /// The share of the answers that were not failed.
    pub(crate) fn ok_ratio(&self) -> String {
        format::percent(self.answers - self.failed.min(self.answers), self.answers)
    }

    /// So many of this window, per second.
    pub(crate) fn per_second(&self, count: u64) -> f64 {
        count as f64 / Duration::from_millis(self.window_ms.max(1000).into()).as_secs_f64()
    }

    /// 5xx that backends answered.
    fn of_backends(&self) -> u64 {
        let own: u64 = self.failures.values().fold(0, |sum, count| sum.saturating_add(*count));
        self.failed.saturating_sub(own)
    }

    /// The most frequent reason; none if it was 5xx of backends.
    pub(crate) fn main_reason(&self) -> Option<&str> {
        let most = self.failures.iter().max_by_key(|(_, count)| **count)?;
        (*most.1 >= self.of_backends()).then_some(most.0)
    }

    /// Why clients were failed: `no_healthy_backend 51000/s, 5xx of backends 12/s`.
    pub(crate) fn why(&self) -> String {
        self.rates(by_reason(&self.failures).chain([("5xx of backends", self.of_backends())]))
    }

    /// Counts of this window per second, the most frequent first.
    pub(crate) fn rates<'r>(&self, counts: impl Iterator<Item = (&'r str, u64)>) -> String {
        let counts = most_frequent(counts);
        let rate = |count| format::rate(self.per_second(count));
        let shown = counts.iter().take(REASONS_MAX);
        let mut told: Vec<String> =
            shown.map(|(reason, count)| format!("{reason} {}/s", rate(*count))).collect();
        let rest: u64 = counts.iter().skip(REASONS_MAX).map(|(_, count)| count).sum();
        if rest > 0 {
            told.push(format!("others {}/s", rate(rest)));
        }
        told.join(", ")
    }
}

impl From<pb::RecentAnswers> for RecentView {
    fn from(wire: pb::RecentAnswers) -> Self {
        let mut status_classes = [0; 5];
        for (class, count) in status_classes.iter_mut().zip(&wire.status_classes) {
            *class = *count;
        }
        let answers = status_classes.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
        let durations = histogram_from_wire(wire.durations);
        let mut view = Self {
            window_ms: wire.window_ms,
            answers,
            failed: status_classes[4].saturating_add(wire.broken).min(answers),
            answers_per_second: 0.0,
            latency_p50_us: durations.quantile_us(0.5),
            latency_p99_us: durations.quantile_us(0.99),
            status_classes,
            broken: wire.broken,
            failures: wire.failures,
        };
        view.answers_per_second = view.per_second(answers);
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent(classes: [u64; 5], failures: &[(&str, u64)]) -> RecentView {
        let failures = failures.iter().map(|(reason, count)| ((*reason).to_owned(), *count));
        RecentView::from(pb::RecentAnswers {
            window_ms: 10_400,
            status_classes: classes.into(),
            failures: failures.collect(),
            ..pb::RecentAnswers::default()
        })
    }

    #[test]
    fn what_proxies_refuse_is_no_success() {
        let view = recent([0, 520, 0, 0, 520_000], &[("no_healthy_backend", 520_000)]);
        assert_eq!((view.ok_ratio(), view.window()), ("0.09%".to_owned(), "last 10s".to_owned()));
        assert_eq!(view.why(), "no_healthy_backend 50000/s");
        assert_eq!(view.main_reason(), Some("no_healthy_backend"));
        assert!((view.answers_per_second - 50_050.0).abs() < 0.01, "{view:?}");
    }

    #[test]
    fn what_no_proxy_accounts_for_is_the_backends_own() {
        let view = recent([0, 0, 0, 10, 104], &[("queue_full", 52)]);
        assert_eq!(view.why(), "queue_full 5.0/s, 5xx of backends 5.0/s");
        let view = recent([0, 0, 0, 10, 104], &[("queue_full", 20)]);
        assert_eq!(view.main_reason(), None);
        assert_eq!(view.ok_ratio(), "8.77%", "a 4xx is no failure");
    }
}
