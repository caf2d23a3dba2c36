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
            backend.max_in_flight = former.max_in_flight;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lb_core::model::{AdminState, DrainWish, Weight};

    use super::*;
    use crate::{
        events::EventLog,
        registry::{Item, PutMode, Registry, WriteRequest},
        store::MemoryStore,
    };

    fn backend(source: &str, weight: u32) -> Backend {
        Backend {
            weight: Weight::new(weight).unwrap(),
            source: Some(source.parse().unwrap()),
            ..Backend::new(
                BackendId::new("found").unwrap(),
                PoolName::default_pool(),
                "10.0.0.1:80".parse().unwrap(),
            )
        }
    }

    fn put(resource: Resource) -> Item {
        Item::Put { resource: Box::new(resource), mode: PutMode::Upsert, assign_id: false }
    }

    async fn write(
        registry: &Registry,
        origin: Origin,
        items: Vec<Item>,
    ) -> Result<Backend, WriteError> {
        let request =
            WriteRequest { items, origin, batch: true, force: true, ..WriteRequest::default() };
        registry.write(request).await?;
        let stored = registry.read(|view| view.catalog.backends().values().next().cloned());
        stored.map(|stored| stored.value).ok_or(WriteError::Stopping)
    }

    /// A registry with a backend that this source of the default pool discovered.
    async fn discovered(source: &str) -> (Registry, Backend) {
        let registry =
            Registry::start(Box::new(MemoryStore::new()), Arc::new(EventLog::new())).unwrap();
        let mut pool = Pool::new(PoolName::default_pool());
        pool.sources = vec![source.parse().unwrap()];
        let items = vec![put(Resource::Pool(pool)), put(Resource::Backend(backend(source, 1)))];
        let backend = write(&registry, Origin::Discovery, items).await.unwrap();
        (registry, backend)
    }

    #[tokio::test]
    async fn what_would_come_back_is_not_removed_or_moved_by_hand() {
        let (registry, found) = discovered("dns:web.test:80").await;
        let delete = |kind, name: &str| vec![Item::Delete { kind, name: name.to_owned() }];
        let moved = Backend { address: "10.0.0.2:80".parse().unwrap(), ..found.clone() };
        for (items, hint) in [
            (delete(lb_core::model::Kind::Backend, "found"), "would come back"),
            (delete(lb_core::model::Kind::Pool, "default"), "--no-sources"),
            (vec![put(Resource::Backend(moved))], "says where it listens"),
        ] {
            let error = write(&registry, Origin::Operator, items).await.unwrap_err();
            assert!(error.to_string().contains(hint), "{error}");
        }
        // Once its pool does not have the source, nothing would bring it back.
        let items = vec![
            put(Resource::Pool(Pool::new(PoolName::default_pool()))),
            Item::Delete { kind: lb_core::model::Kind::Backend, name: "found".to_owned() },
        ];
        let gone = write(&registry, Origin::Operator, items).await;
        assert!(matches!(gone, Err(WriteError::Stopping)), "no backend is left: {gone:?}");
    }

    #[tokio::test]
    async fn what_would_come_back_drains_and_is_not_removed_afterwards() {
        let (registry, _) = discovered("dns:web.test:80").await;
        let drain = |remove| {
            vec![Item::SetState {
                id: "found".to_owned(),
                state: AdminState::Draining,
                drain: DrainWish::new(None, remove).unwrap(),
            }]
        };
        let error = write(&registry, Origin::Operator, drain(true)).await.unwrap_err();
        assert!(error.to_string().contains("would come back"), "{error}");
        let draining = write(&registry, Origin::Operator, drain(false)).await.unwrap();
        assert!(draining.drain.is_some());
        // The source goes on telling it, and does not end that.
        let items = vec![put(Resource::Backend(backend("dns:web.test:80", 1)))];
        let after = write(&registry, Origin::Discovery, items).await.unwrap();
        assert_eq!(after.drain, draining.drain);
    }

    #[tokio::test]
    async fn an_older_answer_does_not_undo_a_command() {
        let (registry, found) = discovered("srv:_a._tcp.test").await;
        let disable = Item::SetState {
            id: "found".to_owned(),
            state: AdminState::Disabled,
            drain: DrainWish::default(),
        };
        let disabled = write(&registry, Origin::Operator, vec![disable]).await.unwrap();
        assert_eq!(disabled.source, found.source);
        let answer = Backend { weight: Weight::new(9).unwrap(), ..found };
        let items = vec![put(Resource::Backend(answer))];
        let after = write(&registry, Origin::Discovery, items).await.unwrap();
        assert_eq!((after.admin_state, after.weight.get()), (AdminState::Disabled, 9));
        assert_eq!(after.incarnation, disabled.incarnation);
    }

    #[tokio::test]
    async fn weights_are_the_operators_where_the_source_has_none() {
        for (source, taken) in [("dns:web.test:80", true), ("file:/web", false)] {
            let (registry, found) = discovered(source).await;
            let heavy = Backend { weight: Weight::new(9).unwrap(), ..found };
            let items = vec![put(Resource::Backend(heavy))];
            let result = write(&registry, Origin::Operator, items).await;
            assert_eq!(result.is_ok(), taken, "{source}: {result:?}");
        }
    }

    #[tokio::test]
    async fn nobody_but_a_source_discovers() {
        let registry =
            Registry::start(Box::new(MemoryStore::new()), Arc::new(EventLog::new())).unwrap();
        let items = vec![put(Resource::Backend(backend("file:/web", 1)))];
        let added = write(&registry, Origin::Operator, items.clone()).await.unwrap();
        assert_eq!(added.source, None);
        let error = write(&registry, Origin::Discovery, items).await.unwrap_err();
        assert!(error.to_string().contains("added by hand"), "{error}");
    }
}
