//! What the proxies pick, by all that the fleet knows: whoever tells of a pool asks here.

use std::collections::{BTreeMap, BTreeSet};

use lb_core::{
    health::{
        candidates::{self, Candidates, Facts},
        panic::Panic,
    },
    model::{Backend, BackendId, BackendStatus, Key, Kind, Pool, PoolName, Reason, Resource},
};

use super::{Catalog, news::News};
use crate::events::EventType;

impl Catalog {
    /// Who of a pool's backends gets requests, in the order of [`Self::members`].
    pub(crate) fn picks(&self, pool: &Pool) -> Candidates {
        candidates::by_the_fleet(pool, self.has_spare(pool), self.judged(&pool.name))
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
        spare.is_some_and(|spare| candidates::any_well(self.judged(spare)))
    }

    fn judged(&self, pool: &PoolName) -> impl Iterator<Item = (&Backend, Option<&BackendStatus>)> {
        self.in_pool(pool).map(|stored| (&stored.value, self.status(&stored.value)))
    }
}

/// Which of the pools that a change is about panic.
pub(super) type Panics = BTreeMap<PoolName, Option<Panic>>;

/// Looks at the pools that a change may lead into panic mode or out of it. That is a look at all of
/// their backends, and most changes, such as of a weight, are nothing that it goes by.
pub(super) fn panics(catalog: &Catalog, upserts: &[Resource], deletes: &[Key]) -> Panics {
    let of_backend =
        |id: &BackendId| catalog.backends().get(id).map(|stored| stored.value.pool.clone());
    let put = upserts.iter().flat_map(|resource| match resource {
        Resource::Pool(pool) => vec![Some(pool.name.clone())],
        Resource::Backend(backend) if counts_otherwise(catalog, backend) => {
            vec![Some(backend.pool.clone()), of_backend(&backend.id)]
        }
        Resource::Status(status) if is_judged_otherwise(catalog, status) => {
            vec![of_backend(&status.backend)]
        }
        _ => Vec::new(),
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
        let panic = catalog.pools().get(&name).and_then(|pool| catalog.picks(&pool.value).panic);
        (name, panic)
    });
    found.collect()
}

fn counts_otherwise(catalog: &Catalog, backend: &Backend) -> bool {
    let Some(former) = catalog.backends().get(&backend.id).map(|stored| &stored.value) else {
        return true;
    };
    let status = catalog.status(former);
    (&former.pool, former.incarnation) != (&backend.pool, backend.incarnation)
        || Facts::told(former, status) != Facts::told(backend, status)
}

fn is_judged_otherwise(catalog: &Catalog, status: &BackendStatus) -> bool {
    let stored = catalog.backends().get(&status.backend).map(|stored| &stored.value);
    stored.is_some_and(|backend| {
        Facts::told(backend, catalog.status(backend)) != Facts::told(backend, Some(status))
    })
}

/// What is worth telling about the pools that began and ceased to panic.
pub(super) fn news(before: &Panics, after: &Catalog) -> Vec<News> {
    let told = before.iter().filter_map(|(name, was)| {
        let pool = &after.pools().get(name)?.value;
        let picks = after.picks(pool);
        let (what, reason) = match (was, picks.panic) {
            (None, Some(panic)) => (EventType::PoolPanic, of_panic(panic, &picks)),
            (Some(_), None) => (EventType::PoolPanicEnded, of_end(after, pool, &picks)),
            _ => return None,
        };
        let key = Key::new("pool", name.as_str());
        Some(News { what, key, kind: Kind::Pool, reason })
    });
    told.collect()
}

fn of_panic(panic: Panic, picks: &Candidates) -> Reason {
    let helping = picks.helping();
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

fn of_end(catalog: &Catalog, pool: &Pool, picks: &Candidates) -> Reason {
    let spare = pool.fallback.pool.as_ref().filter(|_| catalog.has_spare(pool));
    match (picks.count(), spare) {
        (0, Some(spare)) => {
            Reason::new("pool_fallback", format!("its fallback pool {spare} can serve, and does"))
        }
        (0, None) => Reason::new("no_healthy_backend", "none of its backends can be used any more"),
        (count, _) => Reason::new("enough_left", format!("{count} of its backends are well")),
    }
}
