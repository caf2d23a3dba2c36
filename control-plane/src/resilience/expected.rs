//! Proxies that are not heard yet, and may know better than one that fails.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lb_core::{model::ProxyId, resilience::hearing::Hearing};

/// Whoever is connected reports soon; whoever was connected before this process began is on its
/// way back.
#[derive(Debug)]
pub(super) struct Expected {
    /// Connected to the process before this one; all that there may be, if that is not known.
    former: Option<Vec<ProxyId>>,
    /// By when those are back, or lost.
    former_until: Instant,
    pub(super) connected: Arc<[ProxyId]>,
    /// Since when somebody is waited for.
    since: Option<Instant>,
}

impl Expected {
    pub(super) fn new(former: Option<Vec<ProxyId>>, former_until: Instant) -> Self {
        Self { former, former_until, connected: Arc::from([]), since: None }
    }

    /// Whether somebody is waited for, which nobody is for longer than a lease: statistics may
    /// fail while the rest of a proxy works.
    pub(super) fn are_waited_for(
        &mut self,
        hearing: &Hearing,
        lease: Duration,
        now: Instant,
    ) -> bool {
        let is_unheard = |proxy: &ProxyId| !hearing.knows(proxy);
        let former_are = now < self.former_until
            && self.former.as_ref().is_none_or(|former| former.iter().any(is_unheard));
        if !former_are && !self.connected.iter().any(is_unheard) {
            self.since = None;
            return false;
        }
        now.saturating_duration_since(*self.since.get_or_insert(now)) <= lease
    }
}
