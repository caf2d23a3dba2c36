//! How the sources do, for people who ask.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lb_core::{
    model::{PoolName, Reason, Source},
    moment::Moment,
};

/// Complaints of one source that are kept.
const SKIPPED_MAX: usize = 10;

/// One source of one pool.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct SourceReport {
    /// Backends in its last answer.
    pub(crate) found: usize,
    /// The last answer since the control plane started.
    pub(crate) answered: Option<Moment>,
    /// When it is asked again.
    pub(crate) next: Option<Moment>,
    /// Since when it fails; nothing when it does not.
    pub(crate) failing_since: Option<Moment>,
    /// Why.
    pub(crate) failure: Reason,
    /// Backends that it does not tell any more and that are still there.
    pub(crate) leaving: usize,
    /// Why they are.
    pub(crate) waiting: &'static str,
    /// What it told and cannot be a backend.
    pub(crate) skipped: Vec<String>,
}

/// The reports of all sources.
#[derive(Debug, Default)]
pub(crate) struct Sources(Mutex<BTreeMap<(PoolName, Source), SourceReport>>);

impl Sources {
    /// The report of one source; an empty one before its first answer.
    pub(crate) fn report(&self, pool: &PoolName, source: &Source) -> SourceReport {
        self.lock().get(&(pool.clone(), source.clone())).cloned().unwrap_or_default()
    }

    pub(super) fn update(
        &self,
        pool: &PoolName,
        source: &Source,
        change: impl FnOnce(&mut SourceReport),
    ) {
        let mut reports = self.lock();
        let report = reports.entry((pool.clone(), source.clone())).or_default();
        change(report);
        report.skipped.truncate(SKIPPED_MAX);
    }

    pub(super) fn forget(&self, pool: &PoolName, source: &Source) {
        self.lock().remove(&(pool.clone(), source.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(PoolName, Source), SourceReport>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
