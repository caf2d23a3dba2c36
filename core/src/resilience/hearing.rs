//! Since when it is known what each process of the fleet saw.
//!
//! Reports come late, and some later than others: whoever has failed reports at once, whoever was
//! served at the end of a period, and a starved machine whenever it can. Clocks of different
//! machines tell nothing about each other. But a process makes a report only after the one before
//! it was answered, so that by the clock of whoever hears them alone it is known that
//!
//! - a report was made after the one before it was heard,
//! - so the time that it tells of began after the one before *that* was heard.
//!
//! Three reports after a moment, everything is known that a process saw just before and just
//! after it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::breaker::Reporter;
use crate::model::{InstanceId, ProxyId};

/// When the processes of the fleet were heard.
#[derive(Debug, Default)]
pub struct Hearing {
    proxies: BTreeMap<ProxyId, BTreeMap<InstanceId, Heard>>,
}

/// When the last three reports of a process were heard, the last one first.
#[derive(Clone, Copy, Debug)]
struct Heard {
    last: Instant,
    before: Option<Instant>,
    before_that: Option<Instant>,
}

/// The processes that may contradict a proxy whose requests fail, and how much of what each of
/// them saw is known.
#[derive(Clone, Debug, Default)]
pub struct Jury {
    /// Of each process its proxy, and since when all that it saw is known: those that have told
    /// least first.
    witnesses: Vec<(Option<Instant>, ProxyId)>,
    /// Whether there may be processes that were not heard yet.
    awaits_others: bool,
}

impl Hearing {
    /// Nobody was heard.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Hears a report that was not heard before; returns whether it is its process's first one.
    pub fn heard(&mut self, reporter: &Reporter, now: Instant) -> bool {
        let processes = self.proxies.entry(reporter.proxy.clone()).or_default();
        let known = processes.get(&reporter.instance).copied();
        let heard = Heard {
            last: now,
            before: known.map(|known| known.last),
            before_that: known.and_then(|known| known.before),
        };
        processes.insert(reporter.instance.clone(), heard).is_none()
    }

    /// What the last report of a process tells of has all happened after this, as far as that is
    /// known.
    #[must_use]
    pub fn tells_since(&self, reporter: &Reporter) -> Option<Instant> {
        self.proxies.get(&reporter.proxy)?.get(&reporter.instance)?.before_that
    }

    /// Whether any process of a proxy is heard.
    #[must_use]
    pub fn knows(&self, proxy: &ProxyId) -> bool {
        self.proxies.contains_key(proxy)
    }

    /// The processes of a proxy that are not this one.
    #[must_use]
    pub fn others(&self, present: &Reporter) -> Vec<Reporter> {
        let processes = self.proxies.get(&present.proxy).into_iter().flat_map(BTreeMap::keys);
        let others = processes.filter(|instance| **instance != present.instance).cloned();
        others.map(|instance| Reporter { proxy: present.proxy.clone(), instance }).collect()
    }

    /// Those that were not heard for a lease.
    pub fn silent(&self, lease: Duration, now: Instant) -> impl Iterator<Item = Reporter> {
        let silent = self.all().filter(move |(_, _, heard)| heard.is_silent(lease, now));
        silent.map(|(proxy, instance, _)| Reporter {
            proxy: proxy.clone(),
            instance: instance.clone(),
        })
    }

    /// Forgets a process.
    pub fn forget(&mut self, reporter: &Reporter) {
        if let Some(processes) = self.proxies.get_mut(&reporter.proxy) {
            processes.remove(&reporter.instance);
            if processes.is_empty() {
                self.proxies.remove(&reporter.proxy);
            }
        }
    }

    /// Forgets all processes of a proxy.
    pub fn forget_proxy(&mut self, proxy: &ProxyId) {
        self.proxies.remove(proxy);
    }

    /// All that were heard within a lease. `awaits_others` tells whether there may be more that
    /// are not heard yet, as after a restart.
    #[must_use]
    pub fn jury(&self, awaits_others: bool, lease: Duration, now: Instant) -> Jury {
        let audible = self.all().filter(|(_, _, heard)| !heard.is_silent(lease, now));
        let witnesses = audible.map(|(proxy, _, heard)| (heard.before_that, proxy.clone()));
        let mut witnesses: Vec<_> = witnesses.collect();
        witnesses.sort_unstable();
        Jury { witnesses, awaits_others }
    }

    fn all(&self) -> impl Iterator<Item = (&ProxyId, &InstanceId, &Heard)> {
        self.proxies.iter().flat_map(|(proxy, processes)| {
            processes.iter().map(move |(instance, heard)| (proxy, instance, heard))
        })
    }
}

impl Heard {
    fn is_silent(&self, lease: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > lease
    }
}

impl Jury {
    /// Until when all those have told what they saw that `is_asked` names; nothing if one of
    /// them has told nothing, `now` if none needs to be asked.
    #[must_use]
    pub(super) fn has_told_until(
        &self,
        is_asked: impl Fn(&ProxyId) -> bool,
        now: Instant,
    ) -> Option<Instant> {
        if self.awaits_others {
            return None;
        }
        let slowest = self.witnesses.iter().find(|(_, proxy)| is_asked(proxy));
        slowest.map_or(Some(now), |(since, _)| *since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch;

    const LEASE: Duration = Duration::from_secs(5);

    fn process(name: &str) -> Reporter {
        let proxy = ProxyId::new(name).unwrap();
        Reporter { proxy, instance: InstanceId::new("1").unwrap() }
    }

    #[test]
    fn what_a_process_saw_is_known_three_reports_later() {
        let (start, mut hearing, a) = (epoch(), Hearing::new(), process("a"));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(hearing.heard(&a, at(0)));
        assert_eq!(hearing.tells_since(&a), None);
        assert!(!hearing.heard(&a, at(1)));
        assert_eq!(hearing.tells_since(&a), None);
        for second in 2..9 {
            hearing.heard(&a, at(second));
            assert_eq!(hearing.tells_since(&a), Some(at(second - 2)));
        }
        hearing.forget(&a);
        assert!(hearing.heard(&a, at(9)), "it begins anew");
        assert_eq!(hearing.tells_since(&a), None);
    }

    #[test]
    fn the_slowest_of_those_that_are_asked_is_waited_for_while_it_is_heard() {
        let (start, mut hearing) = (epoch(), Hearing::new());
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..=6 {
            hearing.heard(&process("a"), at(second));
        }
        for second in 0..3 {
            hearing.heard(&process("slow"), at(second));
        }
        hearing.heard(&process("new"), at(6));
        let told = |now, but: &[&str]| {
            let jury = hearing.jury(false, LEASE, now);
            jury.has_told_until(|proxy| !but.contains(&proxy.as_str()), now)
        };
        assert_eq!(told(at(6), &[]), None, "one has told nothing yet");
        assert_eq!(told(at(6), &["new"]), Some(at(0)));
        assert_eq!(told(at(6), &["new", "slow"]), Some(at(4)));
        assert_eq!(told(at(6), &["new", "slow", "a"]), Some(at(6)), "nobody else is there");
        assert_eq!(told(at(7), &["new"]), Some(at(0)), "a lease is not over");
        assert_eq!(told(at(8), &["new"]), Some(at(4)));
        let jury = hearing.jury(true, LEASE, at(8));
        assert_eq!(jury.has_told_until(|_| true, at(8)), None, "others are on their way back");
    }
}
