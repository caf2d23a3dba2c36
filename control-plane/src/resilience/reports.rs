//! Takes in what proxies report, and hands out probe tokens.

use std::time::{Duration, Instant};

use lb_core::{
    model::{BackendId, Incarnation, ProxyId},
    resilience::{
        breaker,
        probe::{ProbeToken, ProbeWord},
        sightings::{Outcomes, Traffic},
    },
    stats::BackendCounters,
};

use super::{Resilience, State};
use crate::{
    clock::{now, unix_ms},
    registry::Catalog,
    stats::{BackendPart, Report},
};

/// What a report says of a probe token.
#[derive(Clone, Debug)]
pub struct ProbeReport {
    /// Which backend it was for.
    pub backend: BackendId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// What became of it.
    pub word: ProbeWord,
}

/// Leave for the proxy that has just reported.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) backend: BackendId,
    pub(crate) incarnation: Incarnation,
    pub(crate) token: ProbeToken,
}

impl Resilience {
    /// Takes in a report that was not heard before, and returns the tokens that its proxy may
    /// use.
    pub(crate) fn report(&self, report: &Report, catalog: &Catalog) -> Vec<Token> {
        let mut state = self.lock();
        let (is_news, tokens) = state.report(report, catalog, now());
        drop(state);
        if is_news {
            self.news.notify_one();
        }
        tokens
    }
}

impl State {
    pub(super) fn report(
        &mut self,
        report: &Report,
        catalog: &Catalog,
        now: Instant,
    ) -> (bool, Vec<Token>) {
        let proxy = &report.proxy;
        let before = self.instances.insert(proxy.clone(), report.instance.clone());
        if before.is_some_and(|before| before != report.instance) {
            // What the former process had under way is beyond hearing of.
            self.lost(proxy, now);
        }
        let mut is_news = false;
        for part in &report.backends {
            is_news |= self.part(report, part, catalog, now);
        }
        let mut tokens = Vec::new();
        for id in self.half_open.clone() {
            if !report.backends.iter().any(|part| part.backend == id) {
                is_news |= self.hear(report, &id, Traffic::default(), now);
            }
            tokens.extend(self.offer(proxy, &id, report.sent, now));
        }
        (is_news, tokens)
    }

    /// What a report says of one backend; returns whether that may change its status.
    fn part(
        &mut self,
        report: &Report,
        part: &BackendPart,
        catalog: &Catalog,
        now: Instant,
    ) -> bool {
        let Some(stored) = catalog.backends().get(&part.backend) else { return false };
        let backend = &stored.value;
        if backend.incarnation != part.incarnation {
            return false;
        }
        if part.counters.requests > 0 {
            let pool = self.pools.entry(backend.pool.clone()).or_default();
            pool.sent(&report.proxy, part.counters.requests, now);
        }
        let kept = self.kept(backend, catalog, now, unix_ms());
        if kept.incarnation != backend.incarnation {
            return false;
        }
        kept.seen.add(&part.counters);
        let traffic = Traffic {
            outcomes: outcomes(&part.counters),
            trailing_failures: short(part.trailing_failures),
        };
        self.hear(report, &part.backend, traffic, now)
    }

    fn hear(&mut self, report: &Report, id: &BackendId, traffic: Traffic, now: Instant) -> bool {
        let Some(backend) = self.backends.get_mut(id) else { return false };
        let policy = backend.policy;
        let about =
            |probe: &&ProbeReport| probe.backend == *id && probe.incarnation == backend.incarnation;
        let heard = breaker::Report {
            proxy: report.proxy.clone(),
            sent: report.sent,
            traffic,
            probe: report.probes.iter().find(about).map(|probe| probe.word),
        };
        let event = backend.breaker.report(&policy.breaker, &heard, now, &mut self.rng);
        let failed = traffic.outcomes.failures() > 0;
        if failed {
            backend.failing_until = now + policy.breaker.window;
            self.failing.insert(id.clone());
            self.dirty.insert(id.clone());
        }
        if let Some(event) = event {
            self.moved(id, event, &policy, now, unix_ms());
            return true;
        }
        failed
    }

    fn offer(
        &mut self,
        proxy: &ProxyId,
        id: &BackendId,
        sent: Duration,
        now: Instant,
    ) -> Option<Token> {
        let backend = self.backends.get_mut(id)?;
        let pool = self.pools.get(&backend.pool)?;
        if !pool.has_traffic_at(proxy, now) {
            return None;
        }
        let others = pool.has_traffic_beside(proxy, now);
        let token = backend.breaker.offer(proxy, sent, others)?;
        Some(Token { backend: id.clone(), incarnation: backend.incarnation, token })
    }

    /// A proxy is gone, with whatever it had under way.
    pub(super) fn lost(&mut self, proxy: &ProxyId, now: Instant) {
        self.pools.values_mut().for_each(|pool| pool.forget(proxy));
        let ids: Vec<BackendId> = self.backends.keys().cloned().collect();
        for id in ids {
            let Some(backend) = self.backends.get_mut(&id) else { continue };
            let policy = backend.policy;
            if let Some(event) = backend.breaker.lost(&policy.breaker, proxy, now, &mut self.rng) {
                self.moved(&id, event, &policy, now, unix_ms());
            }
        }
    }
}

/// What a proxy's counters say, in the breaker's terms.
fn outcomes(counters: &BackendCounters) -> Outcomes {
    let failures = counters.failures;
    Outcomes {
        successes: short(counters.successes),
        transport: short(failures.connect + failures.reset + failures.timeout + failures.protocol),
        gateway: short(failures.status_gateway),
        other: short(failures.status_5xx.saturating_sub(failures.status_gateway)),
    }
}

fn short(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
