//! Takes in what proxies report, and hands out probe tokens.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use lb_core::{
    model::{BackendId, Incarnation, ProxyId},
    resilience::{
        breaker::{self, Reporter},
        probe::{ProbeToken, ProbeWord},
        sightings::{Outcomes, Traffic},
    },
    stats::BackendCounters,
};

use super::{At, Resilience, State};
use crate::{
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

/// What a process that reports is to its proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// It is the one that is live.
    Present {
        /// It took over from another one, which finishes what it has.
        took_over: bool,
    },
    /// It was taken over and finishes its connections, or is not (yet) connected. What it
    /// says is heard, and it gets no tokens.
    Other,
}

impl Resilience {
    /// Takes in a report that was not heard before, and returns the tokens that its proxy may
    /// use.
    pub(crate) fn report(&self, report: &Report, role: Role, catalog: &Catalog) -> Vec<Token> {
        let mut state = self.lock();
        let (is_news, tokens) = state.report(report, role, At::present(catalog));
        drop(state);
        if is_news {
            self.news.notify_one();
        }
        tokens
    }
}

impl State {
    pub(super) fn report(&mut self, report: &Report, role: Role, at: At<'_>) -> (bool, Vec<Token>) {
        let reporter = Reporter { proxy: report.proxy.clone(), instance: report.instance.clone() };
        let is_new = self.hearing.heard(&reporter, at.now);
        if is_new && role == (Role::Present { took_over: false }) {
            // What the former process had under way is beyond hearing of.
            self.others_lost(&reporter, at);
        }
        let mut is_news = false;
        for part in &report.backends {
            is_news |= self.part(report, part, at);
        }
        let mut tokens = Vec::new();
        let half_open: Vec<BackendId> = self.half_open.iter().cloned().collect();
        let told: HashSet<&BackendId> = if half_open.is_empty() {
            HashSet::new()
        } else {
            report.backends.iter().map(|part| &part.backend).collect()
        };
        for id in half_open {
            if !told.contains(&id) {
                is_news |= self.hear(report, &id, Traffic::default(), at);
            }
            if role != Role::Other {
                tokens.extend(self.offer(&reporter, &id, report.sent, at.now));
            }
        }
        (is_news, tokens)
    }

    /// What a report says of one backend; returns whether that may change its status.
    fn part(&mut self, report: &Report, part: &BackendPart, at: At<'_>) -> bool {
        let Some(stored) = at.catalog.backends().get(&part.backend) else { return false };
        let backend = &stored.value;
        if backend.incarnation != part.incarnation {
            return false;
        }
        if part.counters.requests > 0 {
            let pool = self.pools.entry(backend.pool.clone()).or_default();
            pool.sent(&report.proxy, part.counters.requests, at.now);
        }
        let kept = self.kept(backend, at);
        if kept.incarnation != backend.incarnation {
            return false;
        }
        kept.seen.add(&part.counters);
        let reporter = Reporter { proxy: report.proxy.clone(), instance: report.instance.clone() };
        let traffic = Traffic {
            outcomes: outcomes(&part.counters),
            answered: part.begun > 0,
            broke_off: may_have_broken_off(&part.counters),
            trailing_failures: short(part.trailing_failures),
            since: self.hearing.tells_since(&reporter),
        };
        self.hear(report, &part.backend, traffic, at)
    }

    fn hear(&mut self, report: &Report, id: &BackendId, traffic: Traffic, at: At<'_>) -> bool {
        let Some(backend) = self.backends.get_mut(id) else { return false };
        let policy = backend.policy;
        let about =
            |probe: &&ProbeReport| probe.backend == *id && probe.incarnation == backend.incarnation;
        let heard = breaker::Report {
            reporter: Reporter { proxy: report.proxy.clone(), instance: report.instance.clone() },
            sent: report.sent,
            traffic,
            probe: report.probes.iter().find(about).map(|probe| probe.word),
        };
        let event = backend.breaker.report(&policy.breaker, &heard, at.now, &mut self.rng);
        let failed = traffic.outcomes.failures() > 0;
        if failed {
            backend.failing_until = at.now + policy.breaker.window;
            self.failing.insert(id.clone());
            self.dirty.insert(id.clone());
        }
        if let Some(event) = event {
            self.moved(id, event, &policy, at);
            return true;
        }
        failed
    }

    fn offer(
        &mut self,
        reporter: &Reporter,
        id: &BackendId,
        sent: Duration,
        now: Instant,
    ) -> Option<Token> {
        let backend = self.backends.get_mut(id)?;
        let pool = self.pools.get(&backend.pool)?;
        if !pool.has_traffic_at(&reporter.proxy, now) {
            return None;
        }
        let others = pool.has_traffic_beside(&reporter.proxy, now);
        let token = backend.breaker.offer(reporter, sent, others, now)?;
        Some(Token { backend: id.clone(), incarnation: backend.incarnation, token })
    }

    /// Gives up processes that have not reported for a lease, unless they are said to live.
    pub(super) fn lose_silent(&mut self, lives: impl Fn(&Reporter) -> bool, at: At<'_>) {
        let lease = self.beginning.lease;
        let silent = self.hearing.silent(lease, at.now).filter(|reporter| !lives(reporter));
        let silent: Vec<Reporter> = silent.collect();
        silent.iter().for_each(|reporter| self.lost(reporter, at));
    }

    /// A process has begun, and all others of its proxy have ended.
    fn others_lost(&mut self, present: &Reporter, at: At<'_>) {
        let others = self.hearing.others(present);
        others.iter().for_each(|other| self.lost(other, at));
    }

    /// A process is gone, with whatever it had under way. Only breakers that are not at rest
    /// are told: there may be very many, and the others have nothing to do with it.
    fn lost(&mut self, reporter: &Reporter, at: At<'_>) {
        self.hearing.forget(reporter);
        if !self.hearing.knows(&reporter.proxy) {
            self.pools.values_mut().for_each(|pool| pool.forget(&reporter.proxy));
        }
        for id in self.failing.union(&self.half_open).cloned().collect::<Vec<_>>() {
            let Some(backend) = self.backends.get_mut(&id) else { continue };
            let policy = backend.policy;
            let breaker = &mut backend.breaker;
            if let Some(event) = breaker.lost(&policy.breaker, reporter, at.now, &mut self.rng) {
                self.moved(&id, event, &policy, at);
            }
        }
    }

    /// Forgets a proxy altogether.
    pub(super) fn forget(&mut self, proxy: &ProxyId) {
        self.hearing.forget_proxy(proxy);
        self.pools.values_mut().for_each(|pool| pool.forget(proxy));
        self.backends.values_mut().for_each(|backend| backend.breaker.forget(proxy));
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

/// Whether responses that had begun may be among the failures: all but connections that failed may
/// be that, for reports do not tell them apart.
fn may_have_broken_off(counters: &BackendCounters) -> bool {
    let failures = counters.failures;
    failures.reset + failures.timeout + failures.protocol > 0
}

fn short(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
