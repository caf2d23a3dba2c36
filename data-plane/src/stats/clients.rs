//! What clients were answered, by the pool that was to answer them, as it is reported.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use lb_core::model::PoolName;
use lb_proto::{convert::histogram_to_wire, v1 as pb};

use super::{AnswerCounters, Answers, Shard};
use crate::live::{Config, RouteCounters};

/// Remembers what was reported.
#[derive(Debug, Default)]
pub(super) struct ClientReporter {
    /// By where the counters are kept, which nothing else is while they are kept here.
    of_routes: HashMap<usize, (Arc<RouteCounters>, Answers)>,
    unrouted: Answers,
}

impl ClientReporter {
    /// What is new since the last report, of each pool of which there is anything to tell; under
    /// no pool's name, what was answered before a pool was found.
    pub(super) fn report<'s>(
        &mut self,
        config: &Config,
        shards: &(impl Iterator<Item = &'s Shard> + Clone),
    ) -> Vec<pb::AnswersReport> {
        for counters in config.route_counters.iter() {
            let place = Arc::as_ptr(counters).addr();
            let new = || (Arc::clone(counters), Answers::default());
            self.of_routes.entry(place).or_insert_with(new);
        }
        let mut news: BTreeMap<Option<PoolName>, Answers> = BTreeMap::new();
        for (counters, told) in self.of_routes.values_mut() {
            if let Some(new) = told_now(told, || counters.all()) {
                news.entry(counters.pool.clone()).or_default().add_all(&new);
            }
        }
        // Nobody counts there any more.
        self.of_routes.retain(|_, (counters, _)| Arc::strong_count(counters) > 1);
        if let Some(new) =
            told_now(&mut self.unrouted, || shards.clone().map(|shard| &shard.unrouted))
        {
            news.entry(None).or_default().add_all(&new);
        }
        news.iter().map(|(pool, new)| to_wire(pool.as_ref(), new)).collect()
    }
}

/// What was counted since `told`, which is told by this; nothing if nothing was.
fn told_now<'c, C: Iterator<Item = &'c AnswerCounters>>(
    told: &mut Answers,
    counters: impl Fn() -> C,
) -> Option<Answers> {
    let mut classes = [0; 5];
    counters().for_each(|worker| worker.add_classes(&mut classes));
    if classes == told.status_classes {
        return None;
    }
    let sums = Answers::of(counters());
    let new = sums.since(told);
    *told = sums;
    Some(new)
}

fn to_wire(pool: Option<&PoolName>, new: &Answers) -> pb::AnswersReport {
    pb::AnswersReport {
        pool: pool.map_or_else(String::new, PoolName::to_string),
        status_classes: new.status_classes.to_vec(),
        durations: Some(histogram_to_wire(&new.durations)),
        broken: new.broken,
        failures: new.failures().map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
    }
}
