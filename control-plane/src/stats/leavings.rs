//! What proxies have left of the work of backends that drain.
//!
//! Each instance of a proxy tells for itself: while one takes over from another, both have
//! connections of their own.

use std::collections::HashMap;

use lb_core::model::{AdminState, BackendId, Incarnation, InstanceId, ProxyId};
use tokio::time::Instant;

use super::Report;
use crate::registry::Catalog;

/// What one proxy has left of one backend, as it told last.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Leaving {
    /// The revision from which it served then. Of an earlier instance that still finishes
    /// its connections nothing is known in this respect, and nothing is asked.
    pub applied_revision: u64,
    /// Requests in flight, without upgraded connections.
    pub requests: u32,
    /// Upgraded connections.
    pub upgraded: u32,
    /// Requests and upgraded connections that it cut.
    pub cut: u32,
}

/// The newest word of each instance of each proxy.
#[derive(Debug, Default)]
pub(super) struct Leavings(HashMap<ProxyId, HashMap<InstanceId, Word>>);

#[derive(Debug)]
struct Word {
    applied_revision: u64,
    fresh_until: Instant,
    backends: HashMap<(BackendId, Incarnation), Leaving>,
}

impl Leavings {
    /// Takes note of a report, which is newer than all others of its instance.
    pub(super) fn note(&mut self, report: &Report, fresh_until: Instant, catalog: &Catalog) {
        let drains = |id: &BackendId, incarnation| drains(catalog, id, incarnation);
        let words = self.0.entry(report.proxy.clone()).or_default();
        let former = words.remove(&report.instance);
        // A backend that is not named has nothing in flight; what was cut stays cut.
        let mut backends: HashMap<_, _> = former
            .into_iter()
            .flat_map(|word| word.backends)
            .filter(|((id, incarnation), left)| left.cut > 0 && drains(id, *incarnation))
            .map(|(key, left)| (key, Leaving { cut: left.cut, ..Leaving::default() }))
            .collect();
        for part in &report.backends {
            if drains(&part.backend, part.incarnation) {
                let left = Leaving {
                    applied_revision: 0,
                    requests: part.in_flight.saturating_sub(part.upgraded),
                    upgraded: part.upgraded,
                    cut: part.cut,
                };
                backends.insert((part.backend.clone(), part.incarnation), left);
            }
        }
        let applied_revision = report.applied_revision;
        words.insert(report.instance.clone(), Word { applied_revision, fresh_until, backends });
    }

    /// What a proxy has left of a backend. `present` is its process that follows the control
    /// plane; others count until they fall silent, which is their end.
    pub(super) fn of(
        &self,
        key: &(BackendId, Incarnation),
        proxy: &ProxyId,
        present: &InstanceId,
        now: Instant,
    ) -> Leaving {
        let mut sum = Leaving::default();
        for (instance, word) in self.0.get(proxy).into_iter().flatten() {
            let is_present = instance == present;
            if is_present {
                sum.applied_revision = word.applied_revision;
            }
            let Some(left) = word.backends.get(key) else { continue };
            sum.cut += left.cut;
            if is_present || now < word.fresh_until {
                sum.requests += left.requests;
                sum.upgraded += left.upgraded;
            }
        }
        sum
    }

    /// Drops processes that have fallen silent, except those that are present, and those
    /// that have cut something: how much is told at the drain's end.
    pub(super) fn forget_ended<'a>(
        &mut self,
        present: impl Fn(&ProxyId) -> Option<&'a InstanceId>,
        catalog: &Catalog,
        now: Instant,
    ) {
        for (proxy, words) in &mut self.0 {
            let present = present(proxy);
            words.retain(|instance, word| {
                word.backends.retain(|(id, incarnation), _| drains(catalog, id, *incarnation));
                let has_cut = word.backends.values().any(|left| left.cut > 0);
                present == Some(instance) || now < word.fresh_until || has_cut
            });
        }
    }

    /// Drops what a proxy told.
    pub(super) fn forget(&mut self, proxy: &ProxyId) {
        self.0.remove(proxy);
    }
}

fn drains(catalog: &Catalog, id: &BackendId, incarnation: Incarnation) -> bool {
    catalog.backends().get(id).is_some_and(|stored| {
        let backend = &stored.value;
        backend.incarnation == incarnation && backend.admin_state == AdminState::Draining
    })
}
