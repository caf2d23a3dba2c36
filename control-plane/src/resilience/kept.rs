//! Backends that there is a reason to take out, and that stay because their pools cannot spare
//! them: who they are, and that it is told when one of them is one no more.

use std::collections::BTreeSet;

use lb_core::model::{BackendId, EjectedBy, Health, Reason};

use super::{At, State, settle::Told, words};
use crate::events::EventType;

impl State {
    /// A backend should be out and is not.
    pub(super) fn note_kept(&mut self, id: &BackendId, by: EjectedBy, reason: Reason, at: At<'_>) {
        let Some(backend) = self.backends.get_mut(id) else { return };
        backend.keep(by, reason, at);
        self.retained.insert(id.clone());
    }

    /// Drops reasons to be out that nobody asks for any more.
    pub(super) fn let_go(&mut self, at: At<'_>) {
        let Self { retained, backends, .. } = self;
        retained.retain(|id| {
            let Some(backend) = backends.get_mut(id) else { return false };
            // The operator may have taken it out, or turned outlier detection off.
            if !at.catalog.backends().get(id).is_some_and(|stored| stored.value.is_wanted()) {
                backend.kept.clear();
            } else if !backend.policy.outlier.enabled {
                backend.kept.remove(&EjectedBy::Outlier);
            }
            !backend.kept.is_empty()
        });
    }

    /// What is to be told of those that stay: that they do, beside what `refusals` tell, and that
    /// they do no longer.
    pub(super) fn news_of_kept(
        &mut self,
        refusals: Vec<(BackendId, Reason)>,
        at: At<'_>,
    ) -> Vec<Told> {
        let mut kept = BTreeSet::new();
        let mut told: Vec<Told> = Vec::new();
        for id in &self.retained {
            let Some(why) = self.backends.get(id).and_then(|backend| backend.why_kept()) else {
                continue;
            };
            // One that was down meanwhile, and is up without having been mended.
            if !self.told_kept.contains(id) && !refusals.iter().any(|(refused, _)| refused == id) {
                told.push((EventType::EjectionRefused, id.clone(), why.reason.clone()));
            }
            kept.insert(id.clone());
        }
        let refusals = refusals.into_iter();
        told.extend(refusals.map(|(id, reason)| (EventType::EjectionRefused, id, reason)));
        for id in std::mem::replace(&mut self.told_kept, kept) {
            if self.told_kept.contains(&id) {
                continue;
            }
            // Of one that is gone, that is told.
            let Some(reason) = self.why_kept_no_more(&id, at) else { continue };
            told.push((EventType::EjectionRefusedEnded, id, reason));
        }
        told
    }

    fn why_kept_no_more(&self, id: &BackendId, at: At<'_>) -> Option<Reason> {
        let (stored, backend) = (at.catalog.backends().get(id)?, self.backends.get(id)?);
        let ended = if !stored.value.is_wanted() {
            words::Ended::NotWanted
        } else if backend.ejection().is_some() {
            words::Ended::Out
        } else if backend.shown() == Health::Down {
            words::Ended::Down
        } else {
            words::Ended::Well
        };
        Some(words::of_end(ended))
    }
}
