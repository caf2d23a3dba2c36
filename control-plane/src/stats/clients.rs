//! What clients were answered in the last seconds, by the pool that was to answer them.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use lb_core::{model::PoolName, stats::LatencyHistogram};
use tokio::time::Instant;

use super::{
    Report,
    process::OwnAnswers,
    recent::{Count, Recent},
};
use crate::registry::Catalog;

/// What clients were answered, by backends or by the proxies themselves.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Answers {
    /// 1xx to 5xx.
    pub status_classes: [u64; 5],
    /// Responses that had begun and were not brought to their end.
    pub broken: u64,
    /// From the complete head of a request to the end of its answer, time in a queue included.
    pub durations: LatencyHistogram,
    /// Why clients were failed, as far as it was the proxies' word; the other 5xx were backends'.
    pub failures: OwnAnswers,
}

/// What one report says of the answers of one pool.
#[derive(Clone, Debug)]
pub struct AnswersPart {
    /// Nothing for what was answered before a pool was found.
    pub pool: Option<PoolName>,
    /// Since the last report.
    pub answers: Answers,
}

/// What clients were answered in the last seconds.
#[derive(Clone, Debug, Default)]
pub struct RecentAnswers {
    /// Over so long: about ten seconds, less when nobody reported before.
    pub window: Duration,
    /// Everything.
    pub all: Answers,
    /// Before a pool was found.
    pub unrouted: Answers,
    /// Of each pool that had any.
    pub pools: BTreeMap<PoolName, Answers>,
    /// What the proxies answered by themselves, with whatever status.
    pub own_answers: OwnAnswers,
}

/// Sums of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Clients {
    all: Recent<Answers>,
    unrouted: Recent<Answers>,
    pools: BTreeMap<PoolName, Recent<Answers>>,
    own_answers: Recent<OwnAnswers>,
}

impl Clients {
    /// Takes a report in. Pools that are not in the catalog, and were never, count in the whole.
    pub(super) fn note(&mut self, report: &Report, catalog: &Catalog, now: Instant) {
        let counted_for = report.interval;
        self.own_answers.add(now, counted_for, &report.process.own_answers);
        let parts: Cow<'_, [AnswersPart]> = match &report.answers {
            Some(parts) => Cow::Borrowed(parts),
            None => Cow::Owned(of_backends(report)),
        };
        let mut all = Answers::default();
        for AnswersPart { pool, answers } in &*parts {
            all.add(answers);
            match pool {
                None => self.unrouted.add(now, counted_for, answers),
                Some(name) => {
                    if catalog.pools().contains_key(name) || self.pools.contains_key(name) {
                        let pool = self.pools.entry(name.clone()).or_default();
                        pool.add(now, counted_for, answers);
                    }
                }
            }
        }
        if report.answers.is_none() {
            // Of the whole such a proxy tells the classes.
            all.status_classes = report.process.status_classes;
        }
        // Also when there was nothing: that is known, too.
        self.all.add(now, counted_for, &all);
    }

    /// What clients were answered in the last seconds.
    pub(super) fn recent(&self, now: Instant) -> RecentAnswers {
        let pools = self.pools.iter().map(|(name, pool)| (name.clone(), pool.lately(now)));
        RecentAnswers {
            window: self.all.window(now),
            all: self.all.lately(now),
            unrouted: self.unrouted.lately(now),
            pools: pools.collect(),
            own_answers: self.own_answers.lately(now),
        }
    }

    /// The pools of which there is something.
    pub(super) fn names(&self) -> impl Iterator<Item = &PoolName> {
        self.pools.keys()
    }

    /// Drops the sums of pools.
    pub(super) fn forget_pools(&mut self, pools: &[PoolName]) {
        self.pools.retain(|name, _| !pools.contains(name));
    }
}

/// What stands for the answers of each pool where a proxy is too old to tell them: how its
/// requests ended at their last backend.
fn of_backends(report: &Report) -> Vec<AnswersPart> {
    let mut pools: BTreeMap<&PoolName, Answers> = BTreeMap::new();
    for part in &report.backends {
        let answers = pools.entry(&part.pool).or_default();
        answers.status_classes[1] += part.counters.successes;
        let failed = part.counters.failures.total();
        answers.status_classes[4] += failed.saturating_sub(part.counters.retries);
        answers.durations.add(&part.counters.latency);
    }
    let part =
        |(pool, answers): (&PoolName, Answers)| AnswersPart { pool: Some(pool.clone()), answers };
    pools.into_iter().map(part).collect()
}

impl Count for Answers {
    fn add(&mut self, other: &Self) {
        for (sum, count) in self.status_classes.iter_mut().zip(other.status_classes) {
            *sum += count;
        }
        self.broken += other.broken;
        self.durations.add(&other.durations);
        self.failures.add(&other.failures);
    }

    fn part(&self, from: u64, until: u64, parts: u64) -> Self {
        let part = |count: u64| count.part(from, until, parts);
        let buckets = self.durations.sparse().map(|(bucket, count)| (bucket, part(count)));
        Self {
            status_classes: self.status_classes.map(part),
            broken: part(self.broken),
            durations: LatencyHistogram::from_sparse(buckets, part(self.durations.sum_us())),
            failures: self.failures.part(from, until, parts),
        }
    }
}

impl Count for OwnAnswers {
    fn add(&mut self, other: &Self) {
        Self::add(self, other);
    }

    fn part(&self, from: u64, until: u64, parts: u64) -> Self {
        self.map(|count| count.part(from, until, parts))
    }
}
