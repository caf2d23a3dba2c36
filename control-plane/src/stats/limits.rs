//! What the limits of all proxies came to, added up.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use lb_core::{
    limit::{RefusalNews, Refusals},
    model::{Incarnation, LimitName, ProxyId},
};
use tokio::time::Instant;

use super::{Report, recent::Rate};
use crate::registry::Catalog;

/// For how long what a proxy told of its share stands. Proxies tell it every two seconds, or
/// sooner when there is traffic.
const SHARE_FOR: Duration = Duration::from_secs(5);

/// What one report says of one limit.
#[derive(Clone, Debug)]
pub struct LimitPart {
    /// Which.
    pub limit: LimitName,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Since the last report.
    pub counts: LimitCounts,
    /// Now.
    pub share: LimitShare,
}

/// What a limit decided.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LimitCounts {
    /// Requests that passed.
    pub admitted: u64,
    /// Requests that it refused, or would have if it did more than count.
    pub refused: u64,
    /// Keys that were forgotten before their bucket was full again.
    pub forgiven: u64,
}

/// What a proxy may let pass.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LimitShare {
    /// Millionths of a request per second; of a limit by key, of each key that is not hot.
    pub rate: u64,
    /// Keys of which more than an even share is lent.
    pub hot_keys: u32,
    /// Why it is that much.
    pub basis: ShareBasis,
}

/// What a share rests on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ShareBasis {
    /// Nothing was told.
    #[default]
    Unknown,
    /// The limit holds for each proxy by itself.
    Own,
    /// A lease of the control plane.
    Leased,
    /// An even share of every key; those that need more have leases.
    Even,
    /// The control plane is not heard.
    Safe,
}

/// Added up over reports.
#[derive(Clone, Debug, Default)]
pub struct LimitTotals {
    /// Since the control plane started.
    pub counts: LimitCounts,
    /// Requests that passed per second, lately.
    pub admitted_rate: f64,
    /// Requests that did not per second, lately.
    pub refused_rate: f64,
    /// What a proxy told last; of a sum, and of a proxy that is silent, nothing.
    pub share: Option<LimitShare>,
}

#[derive(Debug, Default)]
pub(super) struct Limits(HashMap<(LimitName, Incarnation), LimitSums>);

#[derive(Debug, Default)]
struct LimitSums {
    all: Sum,
    refusals: Refusals,
    by_proxy: BTreeMap<ProxyId, (Sum, LimitShare, Option<Instant>)>,
}

#[derive(Debug, Default)]
struct Sum {
    counts: LimitCounts,
    admitted: Rate,
    refused: Rate,
}

impl ShareBasis {
    /// As the command line and JSON spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Own => "own",
            Self::Leased => "leased",
            Self::Even => "even_share",
            Self::Safe => "safe_share",
        }
    }
}

impl Limits {
    pub(super) fn add(
        &mut self,
        report: &Report,
        part: &LimitPart,
        catalog: &Catalog,
        now: Instant,
    ) {
        if !is_known(catalog, &part.limit, part.incarnation) {
            return;
        }
        let sums = self.0.entry((part.limit.clone(), part.incarnation)).or_default();
        let heard = (now, report.interval);
        sums.all.add(heard, &part.counts);
        sums.refusals.count(part.counts.admitted, part.counts.refused, now.into_std());
        let (sum, share, told) = sums.by_proxy.entry(report.proxy.clone()).or_default();
        sum.add(heard, &part.counts);
        (*share, *told) = (part.share, Some(now));
    }

    /// The totals of one limit, and those of each proxy.
    pub(super) fn of(
        &self,
        limit: &LimitName,
        incarnation: Incarnation,
    ) -> (LimitTotals, Vec<(ProxyId, LimitTotals)>) {
        let now = Instant::now();
        let Some(sums) = self.0.get(&(limit.clone(), incarnation)) else {
            return (LimitTotals::default(), Vec::new());
        };
        let of_proxy =
            |(proxy, (sum, share, told)): (&ProxyId, &(Sum, LimitShare, Option<Instant>))| {
                let is_fresh = told.is_some_and(|told| now < told + SHARE_FOR);
                let share = is_fresh.then_some(*share);
                (proxy.clone(), LimitTotals { share, ..sum.totals(now) })
            };
        (sums.all.totals(now), sums.by_proxy.iter().map(of_proxy).collect())
    }

    /// Which limits began to refuse requests, and which have stopped, in the order of their names.
    pub(super) fn news(&mut self) -> Vec<(LimitName, RefusalNews)> {
        let now = Instant::now().into_std();
        let told = self.0.iter_mut().filter_map(|((limit, _), sums)| {
            let news = sums.refusals.news(now)?;
            Some((limit.clone(), news))
        });
        let mut told: Vec<_> = told.collect();
        told.sort_by(|(one, _), (other, _)| one.cmp(other));
        told
    }

    pub(super) fn forget_removed(&mut self, catalog: &Catalog) {
        self.0.retain(|(limit, incarnation), _| is_known(catalog, limit, *incarnation));
    }

    pub(super) fn forget_proxy(&mut self, proxy: &ProxyId) {
        for sums in self.0.values_mut() {
            sums.by_proxy.remove(proxy);
        }
    }
}

impl Sum {
    /// Adds what was heard now, and counted for so long.
    fn add(&mut self, (now, counted_for): (Instant, Duration), counts: &LimitCounts) {
        self.counts.admitted += counts.admitted;
        self.counts.refused += counts.refused;
        self.counts.forgiven += counts.forgiven;
        self.admitted.add(now, counted_for, &counts.admitted);
        self.refused.add(now, counted_for, &counts.refused);
    }

    fn totals(&self, now: Instant) -> LimitTotals {
        LimitTotals {
            counts: self.counts,
            admitted_rate: self.admitted.per_second(now),
            refused_rate: self.refused.per_second(now),
            share: None,
        }
    }
}

fn is_known(catalog: &Catalog, limit: &LimitName, incarnation: Incarnation) -> bool {
    catalog.limits().get(limit).is_some_and(|stored| stored.value.incarnation == incarnation)
}
