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

    /// Nobody needs to be waited for at present: the next time begins anew.
    pub(super) fn rest(&mut self) {
        self.since = None;
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
            self.rest();
            return false;
        }
        now.saturating_duration_since(*self.since.get_or_insert(now)) <= lease
    }
}

#[cfg(test)]
mod tests {
    use lb_core::{model::InstanceId, resilience::breaker::Reporter};

    use super::*;
    use crate::clock::now;

    #[test]
    fn each_time_is_a_lease_of_its_own() {
        let (start, lease, mut hearing) = (now(), Duration::from_secs(5), Hearing::new());
        let mut expected = Expected::new(Some(Vec::new()), start);
        let id = |name: &str| ProxyId::new(name).unwrap();
        let mut are_waited_for = |connected: &[&str], hearing: &Hearing, seconds, rests| {
            expected.connected = connected.iter().map(|name| id(name)).collect();
            if rests {
                expected.rest();
            }
            expected.are_waited_for(hearing, lease, start + Duration::from_secs(seconds))
        };
        assert!(are_waited_for(&["a"], &hearing, 0, false));
        assert!(are_waited_for(&["a"], &hearing, 5, false));
        assert!(!are_waited_for(&["a"], &hearing, 6, false));
        assert!(are_waited_for(&["a"], &hearing, 7, true), "there was no need in between");
        let instance = InstanceId::new("1").unwrap();
        hearing.heard(&Reporter { proxy: id("a"), instance }, start);
        assert!(!are_waited_for(&["a"], &hearing, 8, false));
        assert!(are_waited_for(&["a", "b"], &hearing, 13, false), "another one has come");
    }
}
