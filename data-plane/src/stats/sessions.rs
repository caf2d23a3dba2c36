//! What became of sessions, as it is reported.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use lb_core::{affinity::Met, model::PoolName};
use lb_proto::v1 as pb;

use crate::live::{Config, SessionCounts, Sticky};

/// Remembers what was reported.
#[derive(Debug, Default)]
pub(super) struct SessionReporter(HashMap<PoolName, ToldSessions>);

impl SessionReporter {
    /// What is new since the last report, of each pool of which there is anything to tell. A
    /// pool whose sessions have just ended tells its last.
    pub(super) fn report(&mut self, config: &Config) -> Vec<pb::PoolReport> {
        for pool in &config.pools {
            let Some(cookie) = pool.sticky.as_deref().and_then(Sticky::cookie) else { continue };
            let told = self.0.entry(pool.name.clone());
            let told = told.or_insert_with(|| ToldSessions::of(&cookie.counts));
            if !Arc::ptr_eq(&told.counts, &cookie.counts) {
                *told = ToldSessions::of(&cookie.counts);
            }
        }
        let report = |(pool, told): (&PoolName, &mut ToldSessions)| {
            let sessions = told.news();
            (!sessions.is_empty()).then(|| pb::PoolReport { pool: pool.to_string(), sessions })
        };
        let mut reports: Vec<pb::PoolReport> = self.0.iter_mut().filter_map(report).collect();
        reports.sort_by(|a, b| a.pool.cmp(&b.pool));
        // Nobody counts there any more.
        self.0.retain(|_, told| Arc::strong_count(&told.counts) > 1);
        reports
    }
}

/// What was told of one pool's sessions.
#[derive(Debug)]
struct ToldSessions {
    counts: Arc<SessionCounts>,
    told: [u64; Met::ALL.len()],
}

impl ToldSessions {
    fn of(counts: &Arc<SessionCounts>) -> Self {
        Self { counts: Arc::clone(counts), told: [0; Met::ALL.len()] }
    }

    fn news(&mut self) -> BTreeMap<String, u64> {
        let now = self.counts.sums();
        let before = std::mem::replace(&mut self.told, now);
        Met::ALL
            .into_iter()
            .filter(|met| now[met.index()] > before[met.index()])
            .map(|met| (met.name().to_owned(), now[met.index()] - before[met.index()]))
            .collect()
    }
}
