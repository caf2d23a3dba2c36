//! What the proxies pick, by all that the fleet knows: whoever tells of a pool asks here.

use std::collections::{BTreeMap, BTreeSet};

use lb_core::{
    health::{
        candidates::{self, Candidates},
        panic::{Judged, Panic},
    },
    model::{Backend, BackendId, BackendStatus, Key, Kind, Pool, PoolName, Reason, Resource},
};

use super::{Catalog, news::News};
use crate::events::EventType;

impl Catalog {
    /// Who of a pool's backends gets requests, in the order of [`Self::members`].
    pub(crate) fn picks(&self, pool: &Pool) -> Candidates {
        candidates::by_the_fleet(pool, self.has_spare(pool), self.known(&pool.name))
    }

    /// The backends of a pool that get requests.
    pub(crate) fn picked(&self, pool: &Pool) -> BTreeSet<BackendId> {
        let placed = self.in_pool(&pool.name).zip(self.picks(pool).places);
        let picked = placed.filter(|(_, place)| place.is_candidate());
        picked.map(|(stored, _)| stored.value.id.clone()).collect()
    }

    /// Whether the pool's fallback pool has a backend that is well.
    pub(crate) fn has_spare(&self, pool: &Pool) -> bool {
        let spare = pool.fallback.pool.as_ref();
        spare.is_some_and(|spare| self.tally(spare).any_well())
    }

    /// How many of a pool's backends get requests, and whether that is panic: what
    /// [`Self::picks`] comes to, without a look at each of them.
    pub(crate) fn judge(&self, pool: &Pool) -> Judged {
        self.tally(&pool.name).judge(pool, self.has_spare(pool))
    }

    /// Whether backends of a pool that were never checked are tried: nobody else of it may be picked.
    pub(crate) fn tries_unchecked(&self, pool: &Pool) -> bool {
        candidates::tries_unchecked(pool, self.has_spare(pool)) && self.judge(pool).candidates == 0
    }

    fn known(&self, pool: &PoolName) -> impl Iterator<Item = (&Backend, Option<&BackendStatus>)> {
        self.in_pool(pool).map(|stored| (&stored.value, self.status(&stored.value)))
    }
}

/// Which of the pools that a change is about panic.
pub(super) type Panics = BTreeMap<PoolName, Option<Panic>>;

/// Looks at the pools that a change may lead into panic mode or out of it.
pub(super) fn panics(catalog: &Catalog, upserts: &[Resource], deletes: &[Key]) -> Panics {
    let of_backend =
        |id: &BackendId| catalog.backends().get(id).map(|stored| stored.value.pool.clone());
    let put = upserts.iter().flat_map(|resource| match resource {
        Resource::Pool(pool) => [Some(pool.name.clone()), None],
        Resource::Backend(backend) => [Some(backend.pool.clone()), of_backend(&backend.id)],
        Resource::Status(status) => [of_backend(&status.backend), None],
        _ => [None, None],
    });
    let removed = deletes.iter().map(|key| match key.known_kind()? {
        Kind::Backend | Kind::Status => of_backend(&BackendId::new(&key.name).ok()?),
        _ => None,
    });
    let mut touched: BTreeSet<PoolName> = put.chain(removed).flatten().collect();
    let relies =
        |pool: &Pool| pool.fallback.pool.as_ref().is_some_and(|spare| touched.contains(spare));
    let rely = catalog.pools().values().filter(|stored| relies(&stored.value));
    let rely: Vec<PoolName> = rely.map(|stored| stored.value.name.clone()).collect();
    touched.extend(rely);
    let found = touched.into_iter().map(|name| {
        let panic = catalog.pools().get(&name).and_then(|pool| catalog.judge(&pool.value).panic);
        (name, panic)
    });
    found.collect()
}

/// What is worth telling about the pools that began and ceased to panic.
pub(super) fn news(before: &Panics, after: &Catalog) -> Vec<News> {
    let told = before.iter().filter_map(|(name, was)| {
        let pool = &after.pools().get(name)?.value;
        let judged = after.judge(pool);
        let (what, reason) = match (was, judged.panic) {
            (None, Some(panic)) => (EventType::PoolPanic, of_panic(panic, &judged)),
            (Some(_), None) => (EventType::PoolPanicEnded, of_end(after, pool, &judged)),
            _ => return None,
        };
        let key = Key::new("pool", name.as_str());
        Some(News { what, key, kind: Kind::Pool, reason })
    });
    told.collect()
}

fn of_panic(panic: Panic, judged: &Judged) -> Reason {
    let helping = judged.candidates - judged.well;
    let message = match panic {
        Panic::FewLeft { well, of } => format!(
            "{well} of {of} backends are up, so {helping} that accept connections are used all the same"
        ),
        Panic::AllEjected => format!(
            "all that are up were taken out for their requests, so {helping} are used all the same"
        ),
    };
    Reason::new(panic.name(), message)
}

fn of_end(catalog: &Catalog, pool: &Pool, judged: &Judged) -> Reason {
    let spare = pool.fallback.pool.as_ref().filter(|_| catalog.has_spare(pool));
    match (judged.candidates, spare) {
        (0, Some(spare)) => {
            Reason::new("pool_fallback", format!("its fallback pool {spare} can serve, and does"))
        }
        (0, None) => Reason::new("no_healthy_backend", "none of its backends can be used any more"),
        (count, _) => Reason::new("enough_left", format!("{count} of its backends are well")),
    }
}

#[cfg(test)]
mod tests {
    use lb_core::model::{
        AdminState, EjectedBy, Ejection, Fallback, Health, Incarnation, MaxInFlight, Standing,
    };
    use proptest::prelude::*;

    use super::*;

    const POOLS: [&str; 3] = ["a", "b", "c"];

    fn pool(number: u8, spare: Option<u8>, threshold: u8) -> Resource {
        let name = |number: u8| PoolName::new(POOLS[usize::from(number) % 3]).unwrap();
        let mut pool = Pool::new(name(number));
        pool.resilience.panic_threshold_percent = threshold % 101;
        pool.fallback = Fallback { pool: spare.map(name), ..Fallback::default() };
        Resource::Pool(pool)
    }

    fn backend(number: u8, pool: u8, life: bool, state: u8) -> Resource {
        let pool = PoolName::new(POOLS[usize::from(pool) % 3]).unwrap();
        let address = format!("10.0.0.{number}:80").parse().unwrap();
        Resource::Backend(Backend {
            incarnation: Incarnation(life.into()),
            admin_state: match state % 4 {
                0 => AdminState::Disabled,
                1 => AdminState::Draining,
                _ => AdminState::Enabled,
            },
            max_in_flight: MaxInFlight::of_backend(u32::from(state > 200)).unwrap(),
            ..Backend::new(BackendId::new(&format!("b{number}")).unwrap(), pool, address)
        })
    }

    fn status(number: u8, life: bool, health: u8, (connects, is_out, was_up): Said) -> Resource {
        let ejection = Ejection {
            by: EjectedBy::Breaker,
            is_half_open: false,
            open_for: std::time::Duration::ZERO,
            times: 1,
            reason: Reason::default(),
            since_unix_ms: 0,
        };
        let code = if connects { "check_status" } else { "backend_connect_refused" };
        Resource::Status(BackendStatus {
            backend: BackendId::new(&format!("b{number}")).unwrap(),
            incarnation: Incarnation(life.into()),
            health: [Health::Up, Health::Down, Health::Unknown][usize::from(health) % 3],
            addresses: vec![([10, 0, 0, 1], 80).into()],
            reason: Reason::new(code, ""),
            since_unix_ms: 0,
            was_up,
            standing: Standing { ejection: is_out.then_some(ejection), ..Standing::default() },
        })
    }

    type Said = (bool, bool, bool);

    #[derive(Clone, Debug)]
    enum Step {
        Put(Box<Resource>),
        Remove(&'static str, u8),
    }

    fn put(resource: Resource) -> Step {
        Step::Put(Box::new(resource))
    }

    fn step() -> impl Strategy<Value = Step> {
        let few = 0u8..8;
        prop_oneof![
            1 => any::<(u8, Option<u8>, u8)>().prop_map(|(n, s, t)| put(pool(n, s, t))),
            4 => (few.clone(), any::<(u8, bool, u8)>())
                .prop_map(|(n, (pool, life, state))| put(backend(n, pool, life, state))),
            6 => (few.clone(), any::<(bool, u8, Said)>())
                .prop_map(|(n, (life, health, said))| put(status(n, life, health, said))),
            1 => few.clone().prop_map(|n| Step::Remove("backend", n)),
            1 => few.prop_map(|n| Step::Remove("status", n)),
        ]
    }

    proptest! {
        /// The numbers that follow the changes are those of a look at all backends, after each.
        #[test]
        fn judged_by_numbers_is_judged_by_a_look_at_all(
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let mut catalog = Catalog::default();
            for step in steps {
                match step {
                    Step::Put(resource) => catalog.put(*resource, 1),
                    Step::Remove(kind, n) => catalog.remove(&Key::new(kind, &format!("b{n}"))),
                }
                for stored in catalog.pools().values() {
                    let pool = &stored.value;
                    let spare = pool.fallback.pool.as_ref();
                    let spared =
                        spare.is_some_and(|spare| candidates::any_well(catalog.known(spare)));
                    prop_assert_eq!(catalog.has_spare(pool), spared);
                    let (judged, picks) = (catalog.judge(pool), catalog.picks(pool));
                    prop_assert_eq!(judged.panic, picks.panic);
                    prop_assert_eq!(judged.candidates, picks.count());
                    prop_assert_eq!(judged.candidates - judged.well, picks.helping());
                }
                let stored = catalog.backends().values();
                let with_slots = stored.filter(|stored| stored.value.max_in_flight.is_some());
                prop_assert!(with_slots.eq(catalog.followed()));
            }
        }
    }
}
