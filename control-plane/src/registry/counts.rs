//! What came of writes, for those who watch.

use std::collections::BTreeMap;

use lb_core::{model::PoolName, stats::LatencyHistogram};

use super::{WriteError, Written};

/// Counts since the process began.
#[derive(Clone, Debug, Default)]
pub struct WriteCounts {
    /// Writes that changed the state.
    pub stored: u64,
    /// Writes that changed nothing: dry runs, repetitions, and what was so already.
    pub unchanged: u64,
    /// Writes that broke a rule or came too late.
    pub refused: u64,
    /// Times that the store failed, commits of the prober and notes included.
    pub store_failures: u64,
    /// How long the store took for each commit that it made.
    pub commits: LatencyHistogram,
    /// Changes of verdicts, by pool and new verdict.
    pub transitions: BTreeMap<(PoolName, &'static str), u64>,
}

impl WriteCounts {
    pub(super) fn note(&mut self, outcome: &Result<Written, WriteError>, dry_run: bool) {
        match outcome {
            Ok(written) if written.changed && !dry_run => self.stored += 1,
            Ok(_) => self.unchanged += 1,
            Err(WriteError::Store(_)) => {}
            Err(_) => self.refused += 1,
        }
    }
}
