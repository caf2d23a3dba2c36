//! What the reports so far say of each process that reports about one backend.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::super::probe::USE_MAX;
use crate::model::{InstanceId, ProxyId};

/// One process of a proxy. While one takes over from another, both report, each by a clock of
/// its own.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Reporter {
    /// Of which proxy.
    pub proxy: ProxyId,
    /// Which start of it.
    pub instance: InstanceId,
}

/// By process.
#[derive(Debug, Default)]
pub(super) struct AllHeard(BTreeMap<Reporter, Heard>);

#[derive(Clone, Copy, Debug)]
struct Heard {
    /// When its last report was sent, by its own clock.
    sent: Duration,
    /// When that was heard.
    at: Instant,
    /// Since when it has a request under way by a token that is not the one that is out.
    claims_since: Option<Instant>,
}

impl AllHeard {
    /// When its last report was sent, by its own clock.
    pub(super) fn sent(&self, reporter: &Reporter) -> Option<Duration> {
        self.0.get(reporter).map(|heard| heard.sent)
    }

    /// Takes note of a report that was sent later than all before it. `claims` tells whether
    /// it speaks of a request under way by a token that is not the one that is out.
    pub(super) fn note(
        &mut self,
        reporter: &Reporter,
        sent: Duration,
        claims: bool,
        lease: Duration,
        now: Instant,
    ) {
        match self.0.get_mut(reporter) {
            Some(heard) => {
                let since = claims.then(|| heard.claims_since.unwrap_or(now));
                *heard = Heard { sent, at: now, claims_since: since };
            }
            None => {
                // Whatever was before this process, and is silent, will not be heard again.
                self.0.retain(|other, heard| {
                    other.proxy != reporter.proxy || heard.is_recent(lease, now)
                });
                let heard = Heard { sent, at: now, claims_since: claims.then_some(now) };
                self.0.insert(reporter.clone(), heard);
            }
        }
    }

    /// Forgets a process; returns whether none of its proxy is left.
    pub(super) fn forget(&mut self, reporter: &Reporter) -> bool {
        self.0.remove(reporter);
        !self.0.keys().any(|other| other.proxy == reporter.proxy)
    }

    /// Forgets all processes of a proxy.
    pub(super) fn forget_proxy(&mut self, proxy: &ProxyId) {
        self.0.retain(|reporter, _| reporter.proxy != *proxy);
    }

    /// Processes that still have a request under way by an earlier token, as far as is known.
    /// What one said holds for a lease: one that says nothing for so long may be gone, and
    /// then nobody would ever take its word back.
    pub(super) fn claimants(
        &self,
        lease: Duration,
        now: Instant,
    ) -> impl Iterator<Item = &Reporter> {
        let claims = move |heard: &Heard| {
            let since = heard.claims_since?;
            let lasts = now.saturating_duration_since(since) < USE_MAX + lease;
            Some(lasts && heard.is_recent(lease, now))
        };
        let all = self.0.iter().filter(move |(_, heard)| claims(heard) == Some(true));
        all.map(|(reporter, _)| reporter)
    }
}

impl Heard {
    fn is_recent(&self, lease: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.at) <= lease
    }
}
