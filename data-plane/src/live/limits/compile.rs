//! Lays out which limits apply where, and keeps what they remember.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use lb_core::{
    lease::{Quantity, Sort},
    limit::{Pace, Table},
    model::{
        Limit, LimitKey, LimitName, LimitScope, LimitTarget, PoolName, Route, RouteName, Snapshot,
    },
};

use super::{Applicable, LimitConfig, LimitIndex, LimitState, Limits, Source};
use crate::{leases::Leases, live::PoolIndex};

/// Backends that a limit over each of them tells apart.
const BACKENDS_MAX: usize = 16_384;

/// Compiles limits.
#[derive(Debug)]
pub(in crate::live) struct LimitCompiler {
    workers: usize,
    /// Keys that each limit by key tells apart.
    keys_max: usize,
    former: BTreeMap<LimitName, LimitConfig>,
    /// States that were ever made.
    serials: u64,
    laid_out: Option<LaidOut>,
}

/// What was laid out last. Health changes many times a minute, and this seldom does.
#[derive(Debug)]
struct LaidOut {
    limits: Arc<BTreeMap<LimitName, Arc<Limit>>>,
    routes: Arc<BTreeMap<RouteName, Arc<Route>>>,
    pools: Vec<PoolName>,
    result: Arc<Limits>,
}

impl LaidOut {
    fn is_of(&self, snapshot: &Snapshot) -> bool {
        Arc::ptr_eq(&self.limits, snapshot.limits())
            && Arc::ptr_eq(&self.routes, snapshot.routes())
            && self.pools.iter().eq(snapshot.pools().keys())
    }
}

impl LimitCompiler {
    pub(in crate::live) fn new(workers: usize, keys_max: usize) -> Self {
        Self { workers, keys_max, former: BTreeMap::new(), serials: 0, laid_out: None }
    }

    /// The limits of a snapshot, for one of so many proxies; none if there are none.
    pub(in crate::live) fn compile(
        &mut self,
        snapshot: &Snapshot,
        leases: &Leases,
        proxies: u32,
        now: Instant,
    ) -> Option<Arc<Limits>> {
        if let Some(laid_out) = &self.laid_out
            && laid_out.is_of(snapshot)
        {
            return Some(Arc::clone(&laid_out.result));
        }
        self.laid_out = None;
        let former = std::mem::take(&mut self.former);
        if snapshot.limits().is_empty() {
            return None;
        }
        for (name, limit) in snapshot.limits().iter() {
            let known = former.get(name).filter(|known| known.state.is_of(limit));
            let config = match known {
                Some(known) if *known.limit == **limit => known.clone(),
                known => self.limit(limit, known, leases, proxies, now),
            };
            self.former.insert(name.clone(), config);
        }
        let all: Box<[LimitConfig]> = self.former.values().cloned().collect();
        let places: BTreeMap<&PoolName, PoolIndex> = snapshot.pools().keys().zip(0..).collect();
        let routes = snapshot.routes().values().map(|route| {
            let pools = route.pools.names().filter_map(|pool| Some((pool, *places.get(pool)?)));
            pools.map(|(pool, place)| applicable(&all, route, pool, place)).collect()
        });
        let result = Arc::new(Limits { routes: routes.collect(), all });
        self.laid_out = Some(LaidOut {
            limits: Arc::clone(snapshot.limits()),
            routes: Arc::clone(snapshot.routes()),
            pools: snapshot.pools().keys().cloned().collect(),
            result: Arc::clone(&result),
        });
        Some(result)
    }

    fn limit(
        &mut self,
        limit: &Arc<Limit>,
        known: Option<&LimitConfig>,
        leases: &Leases,
        proxies: u32,
        now: Instant,
    ) -> LimitConfig {
        let state = match known {
            Some(known) => Arc::clone(&known.state),
            None => {
                self.serials += 1;
                Arc::new(LimitState::new(limit, self.serials, self.workers))
            }
        };
        let source = match Quantity::of_limit(limit) {
            None => self.own_source(limit, known.map(|known| &known.source), now),
            Some((quantity, wanted)) => match wanted.sort {
                Sort::RateByKey { burst } => {
                    let keys_max = match limit.scope() {
                        LimitScope::Backend => BACKENDS_MAX,
                        LimitScope::Fleet | LimitScope::Proxy => self.keys_max,
                    };
                    let table = || Table::new(keys_max, wanted.amount, burst);
                    Source::ByKey(leases.rate_by_key(&quantity, wanted, proxies, table))
                }
                Sort::Rate { .. } | Sort::Slots { .. } => {
                    Source::Whole(leases.rate(&quantity, wanted, proxies))
                }
            },
        };
        LimitConfig::new(limit, state, source)
    }

    fn own_source(&self, limit: &Limit, known: Option<&Source>, now: Instant) -> Source {
        let (rate, burst) = (limit.rate.micros(), limit.burst());
        match (known, limit.key()) {
            // Buckets go on where they are, at another pace.
            (Some(Source::Own(pace)), _) => Source::Own(pace.steadied(rate, burst, now)),
            (Some(Source::OwnByKey(pace, table)), _) => {
                table.fit(rate, burst);
                Source::OwnByKey(pace.steadied(rate, burst, now), Arc::clone(table))
            }
            (_, LimitKey::All) => Source::Own(Pace::new(rate, burst, now)),
            (_, _) => {
                let table = Table::new(self.keys_max, rate, burst);
                Source::OwnByKey(Pace::new(rate, burst, now), Arc::new(table))
            }
        }
    }
}

fn applicable(all: &[LimitConfig], route: &Route, pool: &PoolName, place: PoolIndex) -> Applicable {
    let applies = |limit: &Limit| match &limit.target {
        LimitTarget::All => true,
        LimitTarget::Pool(name) => name == pool,
        LimitTarget::Route(name) => *name == route.name,
    };
    let list = |of_backends: bool| {
        let mut list: Vec<LimitIndex> = (0..all.len())
            .filter(|&index| {
                let limit = &all[index].limit;
                (limit.scope() == LimitScope::Backend) == of_backends && applies(limit)
            })
            .collect();
        list.sort_by_key(|&index| all[index].limit.shadow);
        list.into()
    };
    Applicable { pool: place, of_requests: list(false), of_backends: list(true) }
}
