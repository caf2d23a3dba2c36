//! What proxies have left of the work of backends that drain.
//!
//! Each instance of a proxy tells for itself: while one takes over from another, both have
//! connections of their own.

use std::{collections::HashMap, time::Duration};

use lb_core::model::{AdminState, BackendId, Incarnation, InstanceId, ProxyId};
use tokio::time::Instant;

use super::{Report, reporters::FORMER_FOR};
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
    /// An earlier instance, which may still have something, has not told since the drain began.
    pub unheard: bool,
}

/// Who is asked what it has left.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Which proxy.
    pub proxy: &'a ProxyId,
    /// Its process that follows the control plane, or did last. Others count until they fall
    /// silent, which is their end.
    pub present: Option<&'a InstanceId>,
    /// That process has ended, and what it told last is over.
    pub ended: bool,
    /// When this control plane learned of the drain.
    pub since: Instant,
    /// One that had something in flight has fallen silent after so long.
    pub lease: Duration,
}

/// The newest word of each instance of each proxy.
#[derive(Debug, Default)]
pub(super) struct Leavings(HashMap<ProxyId, HashMap<InstanceId, Word>>);

#[derive(Debug)]
struct Word {
    applied_revision: u64,
    heard: Instant,
    fresh_until: Instant,
    /// The process had requests of some backend in flight.
    is_busy: bool,
    /// The report was made after this: when the one before it was heard, which was answered before
    /// this one was made.
    made_after: Option<Instant>,
    backends: HashMap<(BackendId, Incarnation), Leaving>,
}

impl Leavings {
    /// Takes note of a report, which is newer than all others of its instance.
    pub(super) fn note(&mut self, report: &Report, catalog: &Catalog, now: Instant) {
        let drains = |id: &BackendId, incarnation| drains(catalog, id, incarnation);
        let words = self.0.entry(report.proxy.clone()).or_default();
        let former = words.remove(&report.instance);
        let made_after = former.as_ref().map(|word| word.heard);
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
                    unheard: false,
                };
                backends.insert((part.backend.clone(), part.incarnation), left);
            }
        }
        let word = Word {
            applied_revision: report.applied_revision,
            heard: now,
            fresh_until: report.fresh_until(now),
            is_busy: report.backends.iter().any(|part| part.in_flight > 0),
            made_after,
            backends,
        };
        words.insert(report.instance.clone(), word);
    }

    /// What a proxy has left of a backend. Sums of what was told end at the greatest number, for
    /// anybody may have told anything.
    pub(super) fn of(
        &self,
        key: &(BackendId, Incarnation),
        asked: Asked<'_>,
        now: Instant,
    ) -> Leaving {
        let mut sum = Leaving::default();
        for (instance, word) in self.0.get(asked.proxy).into_iter().flatten() {
            let is_present = Some(instance) == asked.present;
            let may_be_there = !is_present && word.may_be_there(asked.lease, now);
            if is_present {
                sum.applied_revision = word.applied_revision;
            } else if may_be_there {
                sum.unheard |= word.made_after.is_none_or(|at| at < asked.since);
            }
            let Some(left) = word.backends.get(key) else { continue };
            sum.cut = sum.cut.saturating_add(left.cut);
            if is_present && !asked.ended || may_be_there {
                sum.requests = sum.requests.saturating_add(left.requests);
                sum.upgraded = sum.upgraded.saturating_add(left.upgraded);
            }
        }
        sum
    }

    /// Processes that may still have something: those that were heard lately.
    pub(super) fn processes(&self, lease: Duration, now: Instant) -> Vec<(ProxyId, InstanceId)> {
        let all = self.0.iter().flat_map(|(proxy, words)| {
            let there = words.iter().filter(|(_, word)| word.may_be_there(lease, now));
            there.map(|(instance, _)| (proxy.clone(), instance.clone()))
        });
        all.collect()
    }

    /// Whether a process was heard.
    pub(super) fn has_told(&self, proxy: &ProxyId, instance: &InstanceId) -> bool {
        self.0.get(proxy).is_some_and(|words| words.contains_key(instance))
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
                present == Some(instance) || now < word.heard + FORMER_FOR || has_cut
            });
        }
        self.0.retain(|_, words| !words.is_empty());
    }

    /// Drops what a proxy told, but for processes that may still have something. One may be known
    /// to have ended.
    pub(super) fn forget(
        &mut self,
        proxy: &ProxyId,
        ended: Option<&InstanceId>,
        lease: Duration,
        now: Instant,
    ) {
        let Some(words) = self.0.get_mut(proxy) else { return };
        words.retain(|instance, word| Some(instance) != ended && word.may_be_there(lease, now));
        if words.is_empty() {
            self.0.remove(proxy);
        }
    }
}

impl Word {
    /// Whether its process may still have something: it was heard lately.
    fn may_be_there(&self, lease: Duration, now: Instant) -> bool {
        now < self.fresh_until || self.is_busy && now < self.heard + lease
    }
}

fn drains(catalog: &Catalog, id: &BackendId, incarnation: Incarnation) -> bool {
    catalog.backends().get(id).is_some_and(|stored| {
        let backend = &stored.value;
        backend.incarnation == incarnation && backend.admin_state == AdminState::Draining
    })
}
