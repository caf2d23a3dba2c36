//! What clients of each route were answered, by the pool that was to answer them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use lb_core::model::{PoolName, RouteName};

use super::{Padded, PoolIndex, RouteIndex};
use crate::stats::{AnswerCounters, Answers};

/// Where the counters of a route and a pool stand in [`super::Config::route_counters`]. Several
/// routes may share them.
pub(crate) type CountersIndex = usize;

/// Routes that are told apart: a scrape has 24 series for each.
pub(crate) const ROUTES_TOLD_MAX: usize = 100;

/// Pools that a route has left and whose counters are kept as they are. What older ones have
/// counted is added up: whoever moves a route to a new pool each day does not gather them.
const LEFT_MAX: usize = 4;

/// The counters of one route, or of all that have none of their own, and one pool.
#[derive(Debug)]
pub(crate) struct RouteCounters {
    /// `None` for all the routes beyond [`ROUTES_TOLD_MAX`].
    pub(crate) route: Option<RouteName>,
    /// `None` for what was refused before one of the route's pools had its turn.
    pub(crate) pool: Option<PoolName>,
    workers: Box<[Padded<AnswerCounters>]>,
}

impl RouteCounters {
    fn new(route: Option<RouteName>, pool: Option<PoolName>, workers: usize) -> Self {
        Self { route, pool, workers: (0..workers).map(|_| Padded::default()).collect() }
    }

    /// Those that this worker alone writes to.
    pub(crate) fn of(&self, worker: usize) -> &AnswerCounters {
        &self.workers[worker].0
    }

    /// Those of each worker.
    pub(crate) fn all(&self) -> impl Iterator<Item = &AnswerCounters> {
        self.workers.iter().map(|worker| &worker.0)
    }

    /// The sums over all workers.
    pub(crate) fn sum(&self) -> Answers {
        Answers::of(self.all())
    }
}

/// What else is known of the counters of a configuration.
#[derive(Debug, Default)]
pub(crate) struct CountersPlaces {
    /// Where a request counts that went to the pool in place of the route's own.
    spare: HashMap<(RouteIndex, PoolIndex), CountersIndex>,
    /// What was counted for pools that routes have left long ago.
    former: BTreeMap<Option<RouteName>, Answers>,
}

impl CountersPlaces {
    /// Where a request of the route counts that goes to a pool in place of its own.
    pub(crate) fn of_spare(&self, route: RouteIndex, pool: PoolIndex) -> Option<CountersIndex> {
        self.spare.get(&(route, pool)).copied()
    }

    /// The sums of each route, in order of the names.
    pub(crate) fn by_route(
        &self,
        counters: &[Arc<RouteCounters>],
    ) -> BTreeMap<Option<RouteName>, Answers> {
        let mut sums = self.former.clone();
        for counters in counters {
            sums.entry(counters.route.clone()).or_default().add_all(&counters.sum());
        }
        sums
    }
}

/// Gives routes their counters, and keeps them for as long as the route is there.
#[derive(Debug)]
pub(super) struct CountersOfRoutes {
    workers: usize,
    known: BTreeMap<Option<RouteName>, OfRoute>,
}

/// What is kept of one route.
#[derive(Debug, Default)]
struct OfRoute {
    /// Those of pools that it leads to, and before them those that it has left.
    counters: Vec<Arc<RouteCounters>>,
    former: Answers,
}

/// All counters, and which of them a route has.
#[derive(Debug, Default)]
pub(super) struct Laid {
    pub(super) counters: Vec<Arc<RouteCounters>>,
    pub(super) places: CountersPlaces,
    indexes: HashMap<(Option<RouteName>, Option<PoolName>), CountersIndex>,
}

/// A route, and the pools for which its requests are to be told apart.
pub(super) type Wanted<'r> = (&'r RouteName, Vec<Option<&'r PoolName>>);

impl CountersOfRoutes {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, known: BTreeMap::new() }
    }

    /// Counters for these routes: whoever had its own keeps them, the first of the others get
    /// what is left of [`ROUTES_TOLD_MAX`].
    pub(super) fn lay_out(&mut self, routes: &[Wanted<'_>]) -> Laid {
        let mut former = std::mem::take(&mut self.known);
        for (route, _) in routes {
            self.known.extend(former.remove_entry(&Some((*route).clone())));
        }
        // For as long as there are too many.
        let mut others = former.remove(&None).unwrap_or_default();
        let mut of_others: Vec<Option<&PoolName>> = Vec::new();
        for (route, pools) in routes {
            let key = Some((*route).clone());
            if self.known.len() == ROUTES_TOLD_MAX && !self.known.contains_key(&key) {
                of_others.extend(pools);
                continue;
            }
            let of_route = self.known.entry(key.clone()).or_default();
            of_route.lay_out(&key, pools, self.workers);
        }
        if !of_others.is_empty() || !others.counters.is_empty() {
            others.lay_out(&None, &of_others, self.workers);
            self.known.insert(None, others);
        }
        let mut laid = Laid::default();
        for (route, of_route) in &self.known {
            laid.places.former.insert(route.clone(), of_route.former.clone());
            for counters in &of_route.counters {
                let key = (route.clone(), counters.pool.clone());
                laid.indexes.insert(key, laid.counters.len());
                laid.counters.push(Arc::clone(counters));
            }
        }
        laid
    }
}

impl OfRoute {
    fn lay_out(&mut self, route: &Option<RouteName>, pools: &[Option<&PoolName>], workers: usize) {
        let mut lacking: HashSet<Option<&PoolName>> = pools.iter().copied().collect();
        let (mut wanted, mut left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.counters)
            .into_iter()
            .partition(|counters| lacking.contains(&counters.pool.as_ref()));
        let too_many = left.len().saturating_sub(LEFT_MAX);
        left.drain(..too_many).for_each(|oldest| self.former.add_all(&oldest.sum()));
        for counters in &wanted {
            lacking.remove(&counters.pool.as_ref());
        }
        let new = pools.iter().filter(|pool| lacking.remove(*pool));
        let new = new.map(|pool| RouteCounters::new(route.clone(), pool.cloned(), workers));
        let new: Vec<_> = new.map(Arc::new).collect();
        left.append(&mut wanted);
        left.extend(new);
        self.counters = left;
    }
}

impl Laid {
    /// The counters of a route's requests to a pool; to none, of those that are refused before.
    pub(super) fn of(&self, route: &RouteName, pool: Option<&PoolName>) -> CountersIndex {
        let of = |route| self.indexes.get(&(route, pool.cloned()));
        // Whoever has none of its own has those of all others.
        of(Some(route.clone())).or_else(|| of(None)).copied().unwrap_or_default()
    }

    /// Notes where requests of a route count that another pool answers than its own.
    pub(super) fn add_spare(&mut self, route: RouteIndex, pool: PoolIndex, at: CountersIndex) {
        self.places.spare.insert((route, pool), at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> RouteName {
        RouteName::new(&format!("route{number}")).unwrap()
    }

    fn pool(name: &str) -> PoolName {
        PoolName::new(name).unwrap()
    }

    fn lay_out(all: &mut CountersOfRoutes, routes: &[(usize, &str)]) -> Laid {
        let routes: Vec<_> = routes.iter().map(|(n, to)| (name(*n), pool(to))).collect();
        let wanted: Vec<_> = routes.iter().map(|(route, pool)| (route, vec![Some(pool)])).collect();
        all.lay_out(&wanted)
    }

    fn sums(laid: &Laid, route: usize) -> Answers {
        let by_route = laid.places.by_route(&laid.counters);
        by_route.get(&Some(name(route))).cloned().unwrap_or_default()
    }

    #[test]
    fn a_route_keeps_its_counters_whatever_comes_and_goes() {
        let mut all = CountersOfRoutes::new(2);
        let laid = lay_out(&mut all, &[(5, "p")]);
        laid.counters[laid.of(&name(5), Some(&pool("p")))].of(1).count(204, Some(3000));
        let laid = lay_out(&mut all, &[(1, "p"), (5, "p"), (7, "p")]);
        let kept = sums(&laid, 5);
        assert_eq!(kept.status_classes, [0, 1, 0, 0, 0]);
        assert_eq!((kept.durations.count(), kept.durations.sum_us()), (1, 3000));
        let laid = lay_out(&mut all, &[(7, "p")]);
        assert_eq!(laid.counters.len(), 1);
        let laid = lay_out(&mut all, &[(5, "p")]);
        assert_eq!(sums(&laid, 5), Answers::default(), "removed and added again, it is another");
    }

    #[test]
    fn a_route_that_is_led_elsewhere_each_day_loses_no_count_and_gathers_no_counters() {
        let mut all = CountersOfRoutes::new(1);
        for day in 0..20u64 {
            let to = format!("p{day}");
            let laid = lay_out(&mut all, &[(1, &to)]);
            laid.counters[laid.of(&name(1), Some(&pool(&to)))].of(0).count(200, Some(10));
            assert_eq!(sums(&laid, 1).status_classes[1], day + 1);
            assert_eq!(sums(&laid, 1).durations.count(), day + 1);
            assert!(laid.counters.len() <= LEFT_MAX + 1);
        }
    }

    #[test]
    fn routes_beyond_the_bound_are_told_together_and_their_pools_apart() {
        let mut all = CountersOfRoutes::new(1);
        let many: Vec<(usize, &str)> = (0..ROUTES_TOLD_MAX + 50)
            .map(|n| (n, if n % 2 == 0 { "even" } else { "odd" }))
            .collect();
        let laid = lay_out(&mut all, &many);
        assert_eq!(laid.counters.len(), ROUTES_TOLD_MAX + 2);
        let at = |n: usize| {
            let to = pool(many[n].1);
            &laid.counters[laid.of(&name(n), Some(&to))]
        };
        assert_eq!(at(0).route, Some(name(0)));
        let (even, odd) = (at(ROUTES_TOLD_MAX), at(ROUTES_TOLD_MAX + 49));
        assert_eq!((&even.route, &even.pool), (&None, &Some(pool("even"))));
        assert_eq!((&odd.route, &odd.pool), (&None, &Some(pool("odd"))));
        assert!(Arc::ptr_eq(even, at(ROUTES_TOLD_MAX + 2)));
    }
}
