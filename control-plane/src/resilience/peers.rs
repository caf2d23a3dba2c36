//! Whether a pool can do without one of its backends.

use lb_core::{
    model::{BackendId, Health, PoolName},
    resilience::ejection::{Ejections, Pool as Spare},
};

use super::settle::enabled;
use crate::registry::Catalog;

/// What is known of a pool's backends. In a large pool many are asked about in one pass, and each
/// answer would take a look at all of them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// How many are enabled, if that was asked for since the state changed.
    size: Option<usize>,
    /// The last two that can serve, or all if there are fewer, if that was asked for in this
    /// pass: one of them may be the backend in question.
    serving: Option<Vec<BackendId>>,
}

const TWO: usize = 2;

impl Peers {
    /// Verdicts may have changed.
    pub(super) fn begin_pass(&mut self) {
        self.serving = None;
    }

    /// What the pool has beside this backend.
    pub(super) fn spare(
        &mut self,
        catalog: &Catalog,
        pool: &PoolName,
        id: &BackendId,
        ejections: &Ejections,
    ) -> Spare {
        Spare {
            enabled: *self.size.get_or_insert_with(|| enabled(catalog, pool).count()),
            others_serve: self.others_serve(catalog, pool, id, ejections),
        }
    }

    /// Whether the pool has another backend that can serve. Those that are out were mostly asked
    /// for in order, which is why it is looked from the end.
    pub(super) fn others_serve(
        &mut self,
        catalog: &Catalog,
        pool: &PoolName,
        id: &BackendId,
        ejections: &Ejections,
    ) -> bool {
        let serves = |other: &BackendId| {
            let stored = catalog.backends().get(other);
            let status = stored.and_then(|stored| catalog.status(&stored.value));
            !ejections.is_out(other) && status.is_some_and(|status| status.health == Health::Up)
        };
        let is_stale = |known: &Vec<BackendId>| {
            known.len() == TWO && known.iter().any(|other| ejections.is_out(other))
        };
        if self.serving.as_ref().is_none_or(is_stale) {
            let found = enabled(catalog, pool).rev().filter(|other| serves(other));
            self.serving = Some(found.take(TWO).cloned().collect());
        }
        let serving = self.serving.iter().flatten();
        serving.into_iter().any(|other| other != id && !ejections.is_out(other))
    }
}
