//! What clients of each route were answered.

use std::{collections::BTreeMap, sync::Arc};

use lb_core::model::RouteName;

use super::Padded;
use crate::stats::{AnswerCounters, Answers};

/// Where a route's counters stand in [`super::Config::route_counters`]. Several routes may share
/// them.
pub(crate) type CountersIndex = usize;

/// Routes that are told apart: a scrape has 24 series for each.
pub(crate) const ROUTES_TOLD_MAX: usize = 100;

/// The counters of one route, or of all that have none of their own.
#[derive(Debug)]
pub(crate) struct RouteCounters {
    /// `None` for all the routes beyond [`ROUTES_TOLD_MAX`].
    pub(crate) route: Option<RouteName>,
    workers: Box<[Padded<AnswerCounters>]>,
}

impl RouteCounters {
    fn new(route: Option<RouteName>, workers: usize) -> Self {
        Self { route, workers: (0..workers).map(|_| Padded::default()).collect() }
    }

    /// Those that this worker alone writes to.
    pub(crate) fn of(&self, worker: usize) -> &AnswerCounters {
        &self.workers[worker].0
    }

    /// The sums over all workers.
    pub(crate) fn sum(&self) -> Answers {
        let mut sum = Answers::default();
        self.workers.iter().for_each(|worker| sum.add(&worker.0));
        sum
    }
}

/// Gives routes their counters, and keeps them for as long as the route is there.
#[derive(Debug)]
pub(super) struct CountersOfRoutes {
    workers: usize,
    known: BTreeMap<RouteName, Arc<RouteCounters>>,
    others: Option<Arc<RouteCounters>>,
}

/// All counters, and which of them a route has.
#[derive(Debug)]
pub(super) struct Laid {
    pub(super) counters: Arc<[Arc<RouteCounters>]>,
    places: BTreeMap<RouteName, CountersIndex>,
}

impl CountersOfRoutes {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, known: BTreeMap::new(), others: None }
    }

    /// Counters for these routes: whoever had its own keeps them, the first of the others get
    /// what is left of [`ROUTES_TOLD_MAX`].
    pub(super) fn lay_out<'r>(
        &mut self,
        routes: impl Iterator<Item = &'r RouteName> + Clone,
    ) -> Laid {
        let mut former = std::mem::take(&mut self.known);
        for route in routes.clone() {
            self.known.extend(former.remove_entry(route));
        }
        let mut is_full = false;
        for route in routes {
            if self.known.contains_key(route) {
                continue;
            }
            if self.known.len() == ROUTES_TOLD_MAX {
                is_full = true;
                break;
            }
            let counters = RouteCounters::new(Some(route.clone()), self.workers);
            self.known.insert(route.clone(), Arc::new(counters));
        }
        if is_full {
            let others = || Arc::new(RouteCounters::new(None, self.workers));
            self.others.get_or_insert_with(others);
        }
        Laid {
            counters: self.known.values().chain(&self.others).map(Arc::clone).collect(),
            places: self.known.keys().cloned().zip(0..).collect(),
        }
    }
}

impl Laid {
    /// The counters of a route.
    pub(super) fn of(&self, route: &RouteName) -> CountersIndex {
        // Whoever has none of its own has those behind all others.
        self.places.get(route).copied().unwrap_or(self.places.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> RouteName {
        RouteName::new(&format!("route{number}")).unwrap()
    }

    #[test]
    fn a_route_keeps_its_counters_whatever_comes_and_goes() {
        let mut all = CountersOfRoutes::new(2);
        let laid = all.lay_out([name(5)].iter());
        laid.counters[laid.of(&name(5))].of(1).count(204, Some(3000));
        let laid = all.lay_out([name(1), name(5), name(7)].iter());
        let kept = laid.counters[laid.of(&name(5))].sum();
        assert_eq!(kept.status_classes, [0, 1, 0, 0, 0]);
        assert_eq!((kept.durations.count(), kept.durations.sum_us()), (1, 3000));
        let laid = all.lay_out([name(7)].iter());
        assert_eq!(laid.counters.len(), 1);
        let laid = all.lay_out([name(5)].iter());
        let anew = laid.counters[laid.of(&name(5))].sum();
        assert_eq!(anew, Answers::default(), "removed and added again, it is another route");
    }

    #[test]
    fn routes_beyond_the_bound_are_told_together() {
        let mut all = CountersOfRoutes::new(1);
        let many: Vec<RouteName> = (0..ROUTES_TOLD_MAX + 50).map(name).collect();
        let laid = all.lay_out(many.iter());
        assert_eq!(laid.counters.len(), ROUTES_TOLD_MAX + 1);
        let (first, last) = (laid.of(&many[0]), laid.of(&many[ROUTES_TOLD_MAX + 49]));
        assert_eq!(laid.counters[first].route.as_ref(), Some(&many[0]));
        assert_eq!(laid.counters[last].route, None);
        assert_eq!(last, laid.of(&many[ROUTES_TOLD_MAX]));
    }
}
