//! Whose word counts for a backend that a source discovered.
//!
//! | of a discovered backend | who decides |
//! |---|---|
//! | that it is there, its id and address | the source; by hand it can be neither removed nor moved, since it would come back |
//! | weight | the source, if its answers carry weights; else the operator |
//! | enabled, disabled, draining; labels | the operator, for as long as the source tells the backend |
//!
//! What belongs to the operator is read from the state that a change meets, so that an
//! answer that was compared with an older state cannot undo a command.

use std::collections::{BTreeMap, BTreeSet};

use lb_core::model::{Backend, BackendId, Key, Pool, PoolName, Resource, Source};

use super::{Catalog, Origin, WriteError};

/// Completes or refuses what is to be put in place of `former`.
pub(super) fn settle(
    backend: &mut Backend,
    former: Option<&Backend>,
    origin: Origin,
) -> Result<(), WriteError> {
    let id = &backend.id;
    let owner = former.and_then(|former| former.source.as_ref());
    match (origin, former, owner) {
        (Origin::Operator, Some(former), Some(source)) => {
            if backend.address != former.address || backend.pool != former.pool {
                return Err(WriteError::Precondition(format!(
                    "backend {id} is discovered by {source} of pool {}, which says where it \
                     listens; change it there, or take it out of service with \
                     'lbctl disable-backend {id}'",
                    former.pool
                )));
            }
            if backend.weight != former.weight && source.gives_weights() {
                return Err(WriteError::Precondition(format!(
                    "backend {id} gets its weight from {source}; change it there, or take it out \
                     of service with 'lbctl disable-backend {id}'"
                )));
            }
            backend.source = Some(source.clone());
        }
        // Nobody but a source can say that it discovered something.
        (Origin::Operator, ..) => backend.source = None,
        (Origin::Discovery, Some(_), None) => {
            return Err(WriteError::AlreadyExists(format!(
                "backend {id} was added by hand; the source will choose another id"
            )));
        }
        (Origin::Discovery, Some(former), Some(source)) => {
            backend.admin_state = former.admin_state;
            backend.labels = former.labels.clone();
            if !source.gives_weights() && backend.source == former.source {
                backend.weight = former.weight;
            }
        }
        (Origin::Discovery, None, _) => {}
    }
    Ok(())
}

/// Refuses to remove what would come back, and a pool before its sources.
pub(super) fn check_removals(
    catalog: &Catalog,
    puts: &BTreeMap<Key, Resource>,
    deletes: &BTreeSet<Key>,
) -> Result<(), WriteError> {
    for key in deletes {
        match &*key.kind {
            "backend" => check_backend(catalog, puts, deletes, key)?,
            "pool" => check_pool(catalog, deletes, key)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_backend(
    catalog: &Catalog,
    puts: &BTreeMap<Key, Resource>,
    deletes: &BTreeSet<Key>,
    key: &Key,
) -> Result<(), WriteError> {
    let stored = BackendId::new(&key.name).ok().and_then(|id| catalog.backends().get(&id));
    let Some((backend, source)) =
        stored.and_then(|stored| Some((&stored.value, stored.value.source.as_ref()?)))
    else {
        return Ok(());
    };
    let pool = Key::new("pool", backend.pool.as_str());
    let sources = match puts.get(&pool) {
        Some(Resource::Pool(pool)) => &pool.sources[..],
        _ if deletes.contains(&pool) => &[],
        _ => catalog.pools().get(&backend.pool).map_or(&[][..], |pool| &pool.value.sources[..]),
    };
    if !sources.contains(source) {
        return Ok(());
    }
    Err(WriteError::Precondition(format!(
        "backend {} is discovered by {source} and would come back; take it out of service with \
         'lbctl disable-backend {}', or take the source from the pool with 'lbctl set-pool {} \
         --unsource {source}'",
        backend.id, backend.id, backend.pool
    )))
}

fn check_pool(catalog: &Catalog, deletes: &BTreeSet<Key>, key: &Key) -> Result<(), WriteError> {
    let Ok(name) = PoolName::new(&key.name) else { return Ok(()) };
    let staying = catalog.backends_of(Some(&name)).into_iter().any(|stored| {
        stored.value.source.is_some()
            && !deletes.contains(&Key::new("backend", stored.value.id.as_str()))
    });
    let pool: Option<&Pool> = catalog.pools().get(&name).map(|stored| &stored.value);
    match pool.map(|pool| &pool.sources[..]) {
        Some(sources @ [_, ..]) if staying => Err(WriteError::Precondition(format!(
            "pool {name} has backends that {} discovered; take its sources away first with \
             'lbctl set-pool {name} --no-sources', which removes them",
            list(sources)
        ))),
        _ => Ok(()),
    }
}

fn list(sources: &[Source]) -> String {
    sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
