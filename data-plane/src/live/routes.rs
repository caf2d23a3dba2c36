//! Where the requests of a route go.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::AtomicU64},
};

use lb_core::{
    balance::{Phase, Split},
    model::{ListenerName, PoolEntry, PoolName, Route, RouteName, RoutePools, Snapshot},
    routing::RouteTable,
};

use super::{
    Padded,
    route_counters::{CountersIndex, CountersOfRoutes, CountersPlaces, RouteCounters, Wanted},
};

/// Where a pool stands in [`super::Config::pools`]: requests carry this, and touch no
/// reference count that other workers share.
pub(crate) type PoolIndex = usize;

/// The routes of a listener.
pub(crate) type Routes = RouteTable<Destination>;

/// Where a route stands in the order of all routes of a snapshot.
pub(crate) type RouteIndex = usize;

/// Where the requests of one route go, and where their answers are counted.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) route: RouteIndex,
    /// Of a route to several pools, where requests count that are refused before one is picked.
    pub(crate) counters: CountersIndex,
    pools: Pools,
    /// The names of the sessions' cookies of its pools and of those that take their place.
    cookies: Option<Arc<[Box<str>]>>,
}

#[derive(Clone, Debug)]
enum Pools {
    One(PoolIndex),
    Shared(Arc<Shared>),
}

/// Pools that share the requests of a route.
#[derive(Debug)]
struct Shared {
    split: Split,
    pools: Box<[PoolIndex]>,
    /// Where the answers of each are counted, in the same order.
    counters: Box<[CountersIndex]>,
    /// Whose turn it is; shared by all workers, so that shares are exact per proxy.
    cursor: Arc<Padded<AtomicU64>>,
}

impl Destination {
    /// The pools among which the route shares its requests out; none if all go to one.
    #[inline]
    pub(crate) fn shared(&self) -> &[PoolIndex] {
        match &self.pools {
            Pools::One(_) => &[],
            Pools::Shared(shared) => &shared.pools,
        }
    }

    /// Where the answers of one of the pools are counted.
    pub(crate) fn counters_of(&self, pool: PoolIndex) -> CountersIndex {
        let Pools::Shared(shared) = &self.pools else { return self.counters };
        let mut pools = shared.pools.iter().zip(&shared.counters);
        let found = pools.find_map(|(place, counters)| (*place == pool).then_some(*counters));
        found.unwrap_or(self.counters)
    }

    /// The cookies of the proxies' own that a request may carry; none in most cases.
    #[inline]
    pub(crate) fn cookies(&self) -> &[Box<str>] {
        self.cookies.as_deref().unwrap_or_default()
    }

    /// The pool of one request.
    #[inline]
    pub(crate) fn pool(&self) -> PoolIndex {
        match &self.pools {
            Pools::One(pool) => *pool,
            Pools::Shared(shared) => shared.pools[shared.split.take(&shared.cursor.0)],
        }
    }
}

/// Lays out the routes, and keeps them for as long as they stay the same.
#[derive(Debug)]
pub(super) struct RouteCompiler {
    former: Option<Former>,
    /// The cursors of routes to several pools: they go on where they are while the
    /// shares stay.
    cursors: BTreeMap<RouteName, (RoutePools, Arc<Padded<AtomicU64>>)>,
    counters: CountersOfRoutes,
}

#[derive(Debug)]
struct Former {
    routes: Arc<BTreeMap<RouteName, Arc<Route>>>,
    pools: Vec<Known>,
    tables: HashMap<ListenerName, Arc<Routes>>,
    counters: Arc<[Arc<RouteCounters>]>,
    places: Arc<CountersPlaces>,
}

/// What routes take from a pool.
#[derive(Debug)]
struct Known {
    name: PoolName,
    /// The name of its sessions' cookie.
    cookie: Option<Box<str>>,
    fallback: Option<PoolName>,
}

impl Known {
    fn of(entry: &PoolEntry) -> Self {
        let cookie = entry.pool.affinity.cookie();
        Self {
            name: entry.pool.name.clone(),
            cookie: cookie.map(|policy| Box::from(&*policy.name)),
            fallback: entry.pool.fallback.pool.clone(),
        }
    }

    fn is_of(&self, entry: &PoolEntry) -> bool {
        let cookie = entry.pool.affinity.cookie();
        self.name == entry.pool.name
            && self.cookie.as_deref() == cookie.map(|policy| &*policy.name)
            && self.fallback == entry.pool.fallback.pool
    }
}

/// What routes are compiled to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compiled<'a> {
    /// The tables of all listeners that have routes.
    pub(super) tables: &'a HashMap<ListenerName, Arc<Routes>>,
    /// What they point into.
    pub(super) counters: &'a Arc<[Arc<RouteCounters>]>,
    pub(super) places: &'a Arc<CountersPlaces>,
}

impl RouteCompiler {
    /// For so many workers.
    pub(super) fn new(workers: usize) -> Self {
        Self { former: None, cursors: BTreeMap::new(), counters: CountersOfRoutes::new(workers) }
    }

    /// The tables of all listeners that have routes, and their counters. Health changes many times a minute and
    /// routes seldom do, so tables are taken over when no route is new and nothing that routes
    /// take from pools.
    pub(super) fn compile(&mut self, snapshot: &Snapshot, phase: Phase) -> Compiled<'_> {
        let routes = snapshot.routes();
        let entries = snapshot.pools();
        let stays = |former: &Former| {
            let mut pairs = former.pools.iter().zip(entries.values());
            Arc::ptr_eq(&former.routes, routes)
                && former.pools.len() == entries.len()
                && pairs.all(|(known, entry)| known.is_of(entry))
        };
        let former = match self.former.take().filter(stays) {
            Some(former) => former,
            None => self.lay_out(snapshot, phase),
        };
        let Former { tables, counters, places, .. } = self.former.insert(former);
        Compiled { tables, counters, places }
    }

    fn lay_out(&mut self, snapshot: &Snapshot, phase: Phase) -> Former {
        let pools: Vec<Known> = snapshot.pools().values().map(|entry| Known::of(entry)).collect();
        let places: HashMap<&PoolName, PoolIndex> =
            pools.iter().map(|known| &known.name).zip(0..).collect();
        let routes = snapshot.routes().values();
        let wanted: Vec<Wanted<'_>> = routes.map(|route| told_apart(route, snapshot)).collect();
        let mut laid = self.counters.lay_out(&wanted);
        let former_cursors = std::mem::take(&mut self.cursors);
        let mut by_listener: HashMap<&ListenerName, Vec<(&Route, Destination)>> = HashMap::new();
        for (index, route) in snapshot.routes().values().enumerate() {
            // The snapshot is consistent: every route's pools are there.
            let place = |pool| places.get(pool).copied();
            let Some(indexes) = route.pools.names().map(place).collect::<Option<Box<[_]>>>() else {
                continue;
            };
            let cookies = cookies(&pools, &indexes, |name| places.get(name).copied());
            let shares = match *indexes {
                [pool] => Pools::One(pool),
                _ => {
                    let counters = route.pools.names().map(|pool| laid.of(&route.name, Some(pool)));
                    let counters = counters.collect();
                    let cursor = former_cursors.get(&route.name);
                    self.share(route, (indexes, counters), cursor, phase)
                }
            };
            for spare in spares(route, snapshot) {
                if let Some(pool) = place(spare) {
                    let at = laid.of(&route.name, Some(spare));
                    laid.add_spare(index, pool, at);
                }
            }
            let only = route.pools.names().next().filter(|_| matches!(shares, Pools::One(_)));
            let counters = laid.of(&route.name, only);
            let destination = Destination { route: index, counters, pools: shares, cookies };
            by_listener.entry(&route.listener).or_default().push((route, destination));
        }
        let tables = by_listener
            .into_iter()
            .map(|(listener, routes)| (listener.clone(), Arc::new(RouteTable::new(routes))))
            .collect();
        let routes = Arc::clone(snapshot.routes());
        let (counters, places) = (laid.counters.into(), Arc::new(laid.places));
        Former { routes, pools, tables, counters, places }
    }

    fn share(
        &mut self,
        route: &Route,
        (pools, counters): (Box<[PoolIndex]>, Box<[CountersIndex]>),
        former: Option<&(RoutePools, Arc<Padded<AtomicU64>>)>,
        phase: Phase,
    ) -> Pools {
        let weights: Vec<u16> = route.pools.iter().map(|(_, weight)| weight).collect();
        let split = Split::new(&weights);
        let cursor = match former {
            Some((shares, cursor)) if *shares == route.pools => Arc::clone(cursor),
            _ => Arc::new(Padded(AtomicU64::new(split.start(phase)))),
        };
        self.cursors.insert(route.name.clone(), (route.pools.clone(), Arc::clone(&cursor)));
        Pools::Shared(Arc::new(Shared { split, pools, counters, cursor }))
    }
}

/// The pools that may take the place of a route's own.
fn spares<'s>(route: &'s Route, snapshot: &'s Snapshot) -> impl Iterator<Item = &'s PoolName> {
    let own = route.pools.names().filter_map(|name| snapshot.pools().get(name));
    own.filter_map(|entry| entry.pool.fallback.pool.as_ref())
}

/// The pools for which the answers of a route are to be told apart.
fn told_apart<'s>(route: &'s Route, snapshot: &'s Snapshot) -> Wanted<'s> {
    let mut pools: Vec<Option<&PoolName>> = route.pools.names().map(Some).collect();
    if pools.len() > 1 {
        pools.push(None);
    }
    pools.extend(spares(route, snapshot).map(Some));
    (&route.name, pools)
}

/// The names of the cookies of these pools, and of those that take their place.
fn cookies(
    pools: &[Known],
    indexes: &[PoolIndex],
    place: impl Fn(&PoolName) -> Option<PoolIndex>,
) -> Option<Arc<[Box<str>]>> {
    let of_route = indexes.iter().map(|&index| &pools[index]);
    let fallbacks = of_route.clone().filter_map(|known| place(known.fallback.as_ref()?));
    let all = of_route.chain(fallbacks.map(|index| &pools[index]));
    let mut names: Vec<Box<str>> = all.filter_map(|known| known.cookie.clone()).collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then(|| names.into())
}

#[cfg(test)]
mod tests {
    use lb_core::model::{
        Affinity, CookieAffinity, Fallback, HostMatch, Listener, PathMatch, Pool, Resource, Weight,
    };

    use super::*;

    fn pool(name: &str) -> Resource {
        Resource::Pool(Pool::new(PoolName::new(name).unwrap()))
    }

    fn route(name: &str, host: &str, pools: &[(&str, u32)]) -> Resource {
        let pools = pools
            .iter()
            .map(|(pool, weight)| (PoolName::new(pool).unwrap(), Weight::new(*weight).unwrap()));
        Resource::Route(Route {
            name: RouteName::new(name).unwrap(),
            listener: ListenerName::default_listener(),
            host: HostMatch::parse(host).unwrap(),
            path: PathMatch::parse("", "").unwrap(),
            pools: RoutePools::weighted(pools.collect()).unwrap(),
        })
    }

    fn snapshot(before: &Snapshot, changes: Vec<Resource>) -> Snapshot {
        let (next, rejected) = before.changed(changes, &[]);
        assert_eq!(rejected, []);
        next
    }

    fn start() -> Snapshot {
        let listener = Resource::Listener(Listener::new(ListenerName::default_listener()));
        let split = route("split", "", &[("b", 3), ("c", 1)]);
        let objects = vec![listener, pool("b"), pool("c"), split, route("one", "one", &[("c", 1)])];
        snapshot(&Snapshot::default(), objects)
    }

    fn table(compiler: &mut RouteCompiler, snapshot: &Snapshot) -> Arc<Routes> {
        let compiled = compiler.compile(snapshot, Phase::default());
        Arc::clone(&compiled.tables[&ListenerName::default_listener()])
    }

    fn ask(table: &Routes, host: &str, times: usize) -> Vec<PoolIndex> {
        (0..times).map(|_| table.find(host.as_bytes(), b"/").unwrap().pool()).collect()
    }

    #[test]
    fn shares_are_exact_and_a_single_pool_takes_no_turns() {
        let table = table(&mut RouteCompiler::new(1), &start());
        assert_eq!(ask(&table, "any", 8).iter().sum::<usize>(), 2);
        assert_eq!(ask(&table, "one", 2), [1, 1]);
    }

    #[test]
    fn tables_stay_until_a_route_or_a_pool_s_place_changes() {
        let (mut compiler, before) = (RouteCompiler::new(1), start());
        let first = table(&mut compiler, &before);
        let same = snapshot(&before, vec![pool("b")]);
        assert!(Arc::ptr_eq(&first, &table(&mut compiler, &same)));
        let moved = table(&mut compiler, &snapshot(&same, vec![pool("a")]));
        assert_eq!(ask(&moved, "one", 1), [2], "pool c stands behind two others now");
        let other = snapshot(&same, vec![route("one", "one", &[("b", 1)])]);
        assert_eq!(ask(&table(&mut compiler, &other), "one", 1), [0]);
    }

    #[test]
    fn a_route_knows_the_cookies_of_all_pools_that_may_serve_it() {
        let named = |name: &str, cookie: Option<&str>, fallback: Option<&str>| {
            let mut pool = Pool::new(PoolName::new(name).unwrap());
            if let Some(name) = cookie {
                let policy = CookieAffinity { name: name.into(), ..CookieAffinity::default() };
                pool.affinity = Affinity::Cookie(policy);
            }
            let fallback = fallback.map(|name| PoolName::new(name).unwrap());
            pool.fallback = Fallback { pool: fallback, ..Fallback::default() };
            Resource::Pool(pool)
        };
        let (mut compiler, before) = (RouteCompiler::new(1), start());
        let cookies = |compiler: &mut RouteCompiler, snapshot: &Snapshot, host: &str| {
            let table = table(compiler, snapshot);
            table.find(host.as_bytes(), b"/").unwrap().cookies().join(" ")
        };
        assert_eq!(cookies(&mut compiler, &before, "any"), "");
        let one = snapshot(&before, vec![named("b", Some("y"), None)]);
        assert_eq!(cookies(&mut compiler, &one, "any"), "y");
        assert_eq!(cookies(&mut compiler, &one, "one"), "", "it leads to c only");
        let more =
            vec![named("c", None, Some("d")), named("d", Some("x"), None), named("e", None, None)];
        let more = snapshot(&one, more);
        assert_eq!(cookies(&mut compiler, &more, "any"), "x y");
        assert_eq!(cookies(&mut compiler, &more, "one"), "x");
        let other = snapshot(&more, vec![named("d", Some("z"), None)]);
        assert_eq!(cookies(&mut compiler, &other, "one"), "z");
    }

    #[test]
    fn turns_go_on_while_the_shares_stay() {
        let (mut compiler, before) = (RouteCompiler::new(1), start());
        let first = ask(&table(&mut compiler, &before), "any", 2);
        let more = snapshot(&before, vec![route("more", "more", &[("b", 1)])]);
        let rest = ask(&table(&mut compiler, &more), "any", 2);
        assert_eq!([first, rest].concat().iter().sum::<usize>(), 1, "one cycle, cut in two");
    }
}
