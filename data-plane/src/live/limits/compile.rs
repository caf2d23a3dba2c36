//! Lays out which limits apply where, and keeps what they remember.

use std::{collections::BTreeMap, num::NonZero, sync::Arc, time::Instant};

use lb_core::{
    lease::{Quantity, Sort},
    limit::{Pace, Table},
    model::{
        Limit, LimitKey, LimitName, LimitScope, LimitTarget, Pool, PoolName, Route, RouteName,
        Snapshot,
    },
};

use super::{Applicable, LimitConfig, LimitIndex, LimitState, Limits, OfFallback, Source};
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
    /// Of the limit that was compiled last.
    version: NonZero<u32>,
    laid_out: Option<LaidOut>,
}

/// What was laid out last. Health changes many times a minute, and this seldom does.
#[derive(Debug)]
struct LaidOut {
    limits: Arc<BTreeMap<LimitName, Arc<Limit>>>,
    routes: Arc<BTreeMap<RouteName, Arc<Route>>>,
    /// And which other each falls back on.
    pools: Vec<(PoolName, Option<PoolName>)>,
    result: Arc<Limits>,
}

impl LaidOut {
    fn is_of(&self, snapshot: &Snapshot) -> bool {
        Arc::ptr_eq(&self.limits, snapshot.limits())
            && Arc::ptr_eq(&self.routes, snapshot.routes())
            && self.pools.iter().map(|(name, other)| (name, other)).eq(fallbacks(snapshot))
    }
}

/// The pools, and which other each falls back on.
fn fallbacks(snapshot: &Snapshot) -> impl Iterator<Item = (&PoolName, &Option<PoolName>)> {
    snapshot.pools().iter().map(|(name, entry)| (name, &entry.pool.fallback.pool))
}

impl LimitCompiler {
    pub(in crate::live) fn new(workers: usize, keys_max: usize) -> Self {
        Self {
            workers,
            keys_max,
            former: BTreeMap::new(),
            serials: 0,
            version: NonZero::<u32>::MIN,
            laid_out: None,
        }
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
        let configs = self.former.values().cloned().enumerate();
        let all: Box<[LimitConfig]> = configs.map(|(index, config)| config.at(index)).collect();
        let places: BTreeMap<&PoolName, PoolIndex> = snapshot.pools().keys().zip(0..).collect();
        let routes = snapshot.routes().values().map(|route| {
            let pools = route.pools.names().filter_map(|name| {
                let place = *places.get(name)?;
                Some(applicable(&all, route, &snapshot.pools()[name].pool, place))
            });
            pools.collect()
        });
        let routes = routes.collect();
        let pools = snapshot.pools().keys().map(|pool| {
            let is_of_pool =
                |limit: &Limit| matches!(&limit.target, LimitTarget::Pool(name) if name == pool);
            let applies = |limit: &Limit| limit.target == LimitTarget::All || is_of_pool(limit);
            OfFallback {
                of_requests: listed(&all, false, is_of_pool),
                of_backends: listed(&all, true, applies),
            }
        });
        let pools = pools.collect();
        let any_of_backends = all.iter().any(|config| config.limit.scope() == LimitScope::Backend);
        let result = Arc::new(Limits { routes, pools, any_of_backends, all });
        self.laid_out = Some(LaidOut {
            limits: Arc::clone(snapshot.limits()),
            routes: Arc::clone(snapshot.routes()),
            pools: fallbacks(snapshot).map(|(name, other)| (name.clone(), other.clone())).collect(),
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
        self.version = self.version.checked_add(1).unwrap_or(NonZero::<u32>::MIN);
        LimitConfig::new(self.version, limit, state, source)
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

fn applicable(all: &[LimitConfig], route: &Route, pool: &Pool, place: PoolIndex) -> Applicable {
    let applies = |limit: &Limit| match &limit.target {
        LimitTarget::All => true,
        LimitTarget::Pool(name) => *name == pool.name,
        LimitTarget::Route(name) => *name == route.name,
    };
    let [of_requests, of_backends] = [false, true].map(|kind| listed(all, kind, applies));
    let only = match *of_requests {
        [only] if pool.fallback.pool.is_none() => only,
        _ => LimitIndex::MAX,
    };
    Applicable { pool: place, of_requests, only, of_backends }
}

/// The limits that apply, of backends or not; those in shadow mode last.
fn listed(
    all: &[LimitConfig],
    of_backends: bool,
    applies: impl Fn(&Limit) -> bool,
) -> Box<[LimitIndex]> {
    let mut list: Vec<LimitIndex> = (0..all.len())
        .filter(|&index| {
            let limit = &all[index].limit;
            (limit.scope() == LimitScope::Backend) == of_backends && applies(limit)
        })
        .collect();
    list.sort_by_key(|&index| all[index].limit.shadow);
    list.into()
}

#[cfg(test)]
mod tests {
    use lb_core::model::{
        HostMatch, Listener, ListenerName, PathMatch, Pool, Resource, RoutePools, Weight,
    };

    use super::*;
    use crate::{
        live::{Asking, LimitCopies},
        worker::now,
    };

    fn route(name: &str, pools: &[&str]) -> Resource {
        let pools = pools.iter().map(|pool| (PoolName::new(pool).unwrap(), Weight::default()));
        Resource::Route(Route {
            name: RouteName::new(name).unwrap(),
            listener: ListenerName::default_listener(),
            host: HostMatch::parse(name).unwrap(),
            path: PathMatch::parse("", "").unwrap(),
            pools: RoutePools::weighted(pools.collect()).unwrap(),
        })
    }

    fn limit(name: &str, target: &str, change: impl FnOnce(Limit) -> Limit) -> Resource {
        let mut limit = Limit::new(LimitName::new(name).unwrap(), "1/h".parse().unwrap());
        limit.target = target.parse().unwrap();
        Resource::Limit(change(limit.counted(LimitScope::Proxy, LimitKey::All).unwrap()))
    }

    fn with(before: &Snapshot, changes: Vec<Resource>) -> Snapshot {
        let (next, rejected) = before.changed(changes, &[]);
        assert_eq!(rejected, []);
        next
    }

    fn start() -> Snapshot {
        let pool = |name| Resource::Pool(Pool::new(PoolName::new(name).unwrap()));
        let listener = Resource::Listener(Listener::new(ListenerName::default_listener()));
        let objects = vec![listener, pool("a"), pool("b"), route("one", &["a"])];
        with(&with(&Snapshot::default(), objects), vec![route("two", &["a", "b"])])
    }

    fn compile(compiler: &mut LimitCompiler, snapshot: &Snapshot) -> Option<Arc<Limits>> {
        compiler.compile(snapshot, &Leases::new(1), 1, now())
    }

    fn names(limits: &Limits, of: &[LimitIndex]) -> Vec<String> {
        of.iter().map(|&index| limits.all()[index].limit.name.to_string()).collect()
    }

    #[test]
    fn each_destination_has_the_limits_that_count_it() {
        let mut compiler = LimitCompiler::new(1, 100);
        assert!(compile(&mut compiler, &start()).is_none());
        let shadow = |mut limit: Limit| {
            limit.shadow = true;
            limit
        };
        let at_backends = |limit: Limit| limit.counted(LimitScope::Backend, LimitKey::All).unwrap();
        let changes = vec![
            limit("all", "all", shadow),
            limit("of-a", "pool:a", |limit| limit),
            limit("of-two", "route:two", |limit| limit),
            limit("backends", "pool:b", at_backends),
        ];
        let limits = compile(&mut compiler, &with(&start(), changes)).unwrap();
        let of = |route, pool| names(&limits, limits.of_requests(route, pool));
        assert_eq!(of(0, 0), ["of-a", "all"], "what only counts is asked last");
        assert_eq!(of(1, 0), ["of-a", "of-two", "all"]);
        assert_eq!(of(1, 1), ["of-two", "all"]);
        assert_eq!(names(&limits, limits.of_backends(1, 1)), ["backends"]);
        assert!(limits.of_backends(1, 0).is_empty() && limits.of_requests(9, 0).is_empty());
    }

    #[test]
    fn buckets_outlive_a_change_of_the_rate_and_not_one_of_what_is_counted() {
        let mut compiler = LimitCompiler::new(1, 100);
        let at = now();
        let copies = LimitCopies::new(at);
        let admits = |limits: &Limits| {
            let asking = Asking { worker: 0, copies: &copies, now: at };
            limits.all()[0].take(0, &asking).is_admitted()
        };
        let before = with(&start(), vec![limit("l", "all", |limit| limit)]);
        let limits = compile(&mut compiler, &before).unwrap();
        assert!(admits(&limits) && !admits(&limits));
        assert!(Arc::ptr_eq(&limits, &compile(&mut compiler, &before).unwrap()));
        let larger = with(&before, vec![limit("l", "all", |limit| limit.with_burst(3).unwrap())]);
        let limits = compile(&mut compiler, &larger).unwrap();
        assert!(admits(&limits) && admits(&limits) && !admits(&limits), "one was used before");
        let sums = limits.all()[0].sums();
        assert_eq!((sums.admitted, sums.refused), (3, 2));
        let incarnation = lb_core::model::Incarnation(9);
        let other = limit("l", "pool:a", |mut limit| {
            limit.incarnation = incarnation;
            limit
        });
        let limits = compile(&mut compiler, &with(&larger, vec![other])).unwrap();
        assert!(admits(&limits) && !admits(&limits));
    }

    /// Or a flood that one limit refuses would have a share of another lie idle.
    #[test]
    fn what_another_limit_refuses_asks_for_no_share() {
        let mut compiler = LimitCompiler::new(1, 100);
        let fleet = |limit: Limit| limit.counted(LimitScope::Fleet, LimitKey::All).unwrap();
        let snapshot = with(&start(), vec![limit("l", "all", fleet)]);
        let limits = compile(&mut compiler, &snapshot).unwrap();
        let copies = LimitCopies::new(now());
        let asking = Asking { worker: 0, copies: &copies, now: now() };
        let limit = &limits.all()[0];
        let Source::Whole(lease) = &limit.source else { panic!("it is lent") };
        assert!(limit.take(0, &asking).is_admitted());
        assert_eq!(lease.asked(), 1);
        limit.give_back(0, &asking);
        assert_eq!(lease.asked(), 0);
        assert!(limit.take(0, &asking).is_admitted() && !limit.take(0, &asking).is_admitted());
        assert_eq!(lease.asked(), 2, "what it refuses itself counts");
    }
}
