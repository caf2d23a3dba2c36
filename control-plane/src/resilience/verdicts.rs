//! The status of each backend, from all that is known of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
    time::Duration,
};

use lb_core::{
    health::verdict::{self, Evidence, Reach, Verdict},
    model::{Address, AdminState, BackendId, BackendStatus, Health, PoolName, Reason, Standing},
    resilience::slow_start::after_return,
};

use super::{At, State, pool::Pool, settle::enabled, words};

/// How often a status is stored of which only words have changed: who disagrees at the moment
/// may change with every report.
const WORDS_EVERY: Duration = Duration::from_secs(5);

impl State {
    /// Judges whatever may have changed.
    pub(super) fn statuses(&mut self, at: At<'_>) -> Vec<BackendStatus> {
        let mut pools: BTreeMap<PoolName, Vec<BackendId>> = BTreeMap::new();
        for id in std::mem::take(&mut self.dirty) {
            if let Some(backend) = self.backends.get(&id) {
                pools.entry(backend.pool.clone()).or_default().push(id);
            }
        }
        let mut judged = Vec::new();
        let mut reach = None;
        for (name, mut ids) in pools {
            // Only a check that fails needs to be seen beside those of the others.
            if ids.iter().any(|id| self.fails(id)) {
                reach.get_or_insert_with(|| self.reach(at));
                ids = enabled(at.catalog, &name).cloned().chain(ids).collect();
                ids.sort_unstable();
                ids.dedup();
                ids.retain(|id| self.backends.contains_key(id));
            }
            let evidence: Vec<Evidence<'_>> =
                ids.iter().filter_map(|id| self.evidence(id, at)).collect();
            let nobody = Reach::default();
            let verdicts = verdict::judge(&evidence, reach.as_ref().unwrap_or(&nobody), at.now);
            judged.extend(ids.into_iter().zip(verdicts));
        }
        judged.into_iter().filter_map(|(id, verdict)| self.status(&id, verdict, at)).collect()
    }

    /// Whether a backend's check has taken it down.
    pub(super) fn fails(&self, id: &BackendId) -> bool {
        let check = self.backends.get(id).and_then(|backend| backend.check.as_ref());
        check.is_some_and(|check| check.status.health == Health::Down)
    }

    /// What proxies see of those that the prober cannot reach, in whichever pool.
    fn reach<'a>(&'a self, at: At<'a>) -> Reach<'a> {
        let down = self.down.iter().filter_map(|id| self.evidence(id, at));
        let falling: BTreeSet<&Address> =
            down.filter(Evidence::would_fall).map(|evidence| evidence.address).collect();
        if falling.is_empty() {
            return Reach::default();
        }
        let is_meant = |evidence: &Evidence<'_>| falling.contains(evidence.address);
        let there = self.backends.keys().filter_map(|id| self.evidence(id, at)).filter(is_meant);
        Reach::of(&there.collect::<Vec<_>>(), at.now)
    }

    fn evidence<'a>(&'a self, id: &BackendId, at: At<'a>) -> Option<Evidence<'a>> {
        static UNCHECKED: LazyLock<Reason> =
            LazyLock::new(|| Reason::not_checked(AdminState::Enabled));
        let backend = self.backends.get(id)?;
        let check = backend.check.as_ref();
        Some(Evidence {
            address: &at.catalog.backends().get(id)?.value.address,
            check: check.map_or(Health::Unknown, |check| check.status.health),
            reason: check.map_or(&*UNCHECKED, |check| &check.status.reason),
            failing_since: check.and_then(|check| check.failing_since),
            was: backend.shown(),
            sightings: backend.breaker.sightings(),
        })
    }

    /// The status of a backend, if it is another than the one that is stored.
    fn status(&mut self, id: &BackendId, verdict: Verdict, at: At<'_>) -> Option<BackendStatus> {
        let stored = &at.catalog.backends().get(id)?.value;
        let known = at.catalog.status(stored);
        let kept = self.backends.get(id)?;
        if known.is_none() && kept.check.is_none() {
            return None;
        }
        let was = kept.shown();
        let health = self.observe(id, &verdict, at);
        if was != health && health == Health::Up {
            let policy = self.backends.get(id)?.policy;
            let is_new = was == Health::Unknown;
            let duration = if is_new { policy.slow_start } else { after_return(policy.slow_start) };
            self.ramp(id, duration, at);
        }
        let backend = self.backends.get_mut(id)?;
        let addresses = backend.check.as_ref().map(|check| check.status.addresses.clone());
        let disagreement = verdict.disagreement.as_ref();
        // What speaks for it may be said in another pool, and no longer be.
        let is_contradicted = verdict.reason.code == "check_contradicted";
        let is_unsettled = disagreement.is_some() || backend.hold.is_some() || is_contradicted;
        let status = BackendStatus {
            backend: id.clone(),
            incarnation: backend.incarnation,
            health,
            addresses: addresses.unwrap_or_default(),
            reason: backend.hold.clone().unwrap_or(verdict.reason),
            since_unix_ms: known
                .filter(|known| known.health == health)
                .map_or(at.unix_ms, |known| known.since_unix_ms),
            was_up: BackendStatus::was_up_by(health, known),
            standing: Standing {
                ejection: backend.ejection().cloned(),
                slow_start: backend.slow_start,
                disagreements: disagreement
                    .map(|told| words::of_disagreement(told, health == Health::Up))
                    .unwrap_or_default(),
            },
        };
        let waits = known.is_some_and(|known| differ_in_words(known, &status))
            && backend.told.is_some_and(|told| at.now < told + WORDS_EVERY);
        if is_unsettled || waits {
            self.dirty.insert(id.clone());
        }
        let is_news = known != Some(&status) && !waits;
        if is_news {
            backend.told = Some(at.now);
        }
        is_news.then_some(status)
    }

    /// The verdict as it is shown: one that comes and goes is held down.
    fn observe(&mut self, id: &BackendId, verdict: &Verdict, at: At<'_>) -> Health {
        let Some(backend) = self.backends.get(id) else { return verdict.health };
        let is_needed = backend.flap.asks_for_need(verdict.health) && {
            let Pool { ejections, peers, .. } = self.pools.entry(backend.pool.clone()).or_default();
            !peers.others_serve(at.catalog, &backend.pool, id, ejections)
        };
        let Some(backend) = self.backends.get_mut(id) else { return verdict.health };
        let health = backend.flap.observe(verdict.health, is_needed, at.now);
        match backend.flap.held_until() {
            None => backend.hold = None,
            Some(until) if backend.hold.is_none() => {
                let lasts = until.saturating_duration_since(at.now);
                let score = backend.flap.score(at.now);
                backend.hold = Some(words::of_hold(score, lasts, &verdict.reason));
            }
            Some(_) => {}
        }
        health
    }
}

/// Whether two statuses differ in nothing but how it is put, or in who disagrees.
fn differ_in_words(known: &BackendStatus, status: &BackendStatus) -> bool {
    let plain = |status: &BackendStatus| {
        let mut plain = status.clone();
        plain.reason.message.clear();
        let disagreements = std::mem::take(&mut plain.standing.disagreements);
        (plain, disagreements.is_empty())
    };
    known != status && plain(known) == plain(status)
}
