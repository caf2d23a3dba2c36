//! Weights that are without effect, as far as a change has to do with them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use lb_core::model::{Algorithm, Backend, Key, Kind, Pool, PoolName, Resource};

use super::Catalog;

/// Pools that pick in turn and whose backends have weights above 1, which nobody looks at. Told
/// only of what the change sets: a weight, or the algorithm.
pub(super) fn warnings(catalog: &Catalog, upserts: &[Resource], deletes: &[Key]) -> Vec<String> {
    let sets_weight = |backend: &Backend| {
        let former = catalog.backends().get(&backend.id).map(|stored| &stored.value);
        let is_same =
            |former: &Backend| former.weight == backend.weight && former.pool == backend.pool;
        backend.weight.get() > 1 && backend.source.is_none() && !former.is_some_and(is_same)
    };
    let sets_algorithm = |pool: &Pool| {
        let former = catalog.pools().get(&pool.name).map(|stored| stored.value.algorithm);
        former.is_some_and(|former| former != pool.algorithm)
    };
    let concerned: BTreeSet<&PoolName> = upserts
        .iter()
        .filter_map(|resource| match resource {
            Resource::Backend(backend) if sets_weight(backend) => Some(&backend.pool),
            Resource::Pool(pool) if sets_algorithm(pool) => Some(&pool.name),
            _ => None,
        })
        .collect();
    if concerned.is_empty() {
        return Vec::new();
    }
    let gone = deletes.iter().filter(|key| key.known_kind() == Some(Kind::Backend));
    let gone = gone.map(|key| &*key.name);
    let new = upserts.iter().filter_map(Resource::as_backend);
    let changed: HashSet<&str> = gone.chain(new.map(|backend| backend.id.as_str())).collect();
    let put: BTreeMap<&str, &Pool> = upserts
        .iter()
        .filter_map(|resource| match resource {
            Resource::Pool(pool) => Some((pool.name.as_str(), pool)),
            _ => None,
        })
        .collect();
    let in_turn = concerned.into_iter().filter(|name| {
        let stored = || catalog.pools().get(*name).map(|stored| &stored.value);
        let pool = put.get(name.as_str()).copied().or_else(stored);
        pool.is_some_and(|pool| pool.algorithm == Algorithm::RoundRobin)
    });
    let differ = |name: &&PoolName| {
        // One after the other, since looking each of thousands up takes its time, and the new ones
        // first: nearly always one of them differs from the first that is stored.
        let stored = catalog.backends().values().map(|stored| &stored.value);
        let stored = stored.filter(|backend| !changed.contains(backend.id.as_str()));
        let new = upserts.iter().filter_map(Resource::as_backend);
        let of_pool = new.chain(stored).filter(|backend| backend.pool == **name);
        let mut weights = of_pool.map(|backend| backend.weight.get()).filter(|weight| *weight > 0);
        let first = weights.next();
        weights.any(|weight| Some(weight) != first)
    };
    let told = in_turn.filter(differ).map(|name| {
        format!(
            "pool {name} picks by round_robin, which knows no weights but 0; 'lbctl set-algorithm \
             {name} weighted_round_robin' goes by them"
        )
    });
    told.collect()
}
