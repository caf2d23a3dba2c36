//! Which pool each backend is in, while a snapshot is changed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::PoolEntry;
use crate::model::{BackendId, PoolName};

/// Found by a search through the pools where little changes, and by an index else: objects times
/// pools would be seconds where there are thousands of both.
#[derive(Debug)]
pub(super) struct Places(Option<HashMap<BackendId, PoolName>>);

/// So many objects are worth an index.
const INDEXED_MIN: usize = 64;

impl Places {
    /// For a change of so many objects.
    pub(super) fn of(pools: &BTreeMap<PoolName, Arc<PoolEntry>>, objects: usize) -> Self {
        let of_pool = |(name, entry): (&PoolName, &Arc<PoolEntry>)| {
            let ids: Vec<BackendId> = entry.backends.keys().cloned().collect();
            let name = name.clone();
            ids.into_iter().map(move |id| (id, name.clone()))
        };
        Self((objects >= INDEXED_MIN).then(|| pools.iter().flat_map(of_pool).collect()))
    }

    /// The pool that a backend is in.
    pub(super) fn find<'a>(
        &'a self,
        pools: &'a BTreeMap<PoolName, Arc<PoolEntry>>,
        id: &BackendId,
    ) -> Option<&'a PoolName> {
        match &self.0 {
            Some(index) => index.get(id),
            None => {
                let mut pools = pools.iter();
                pools.find(|(_, entry)| entry.backends.contains_key(id)).map(|(name, _)| name)
            }
        }
    }

    /// A backend is in this pool now, or in none.
    pub(super) fn moved(&mut self, id: &BackendId, pool: Option<&PoolName>) {
        let Some(index) = &mut self.0 else { return };
        match pool {
            Some(pool) => drop(index.insert(id.clone(), pool.clone())),
            None => drop(index.remove(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{
        Backend, BackendStatus, Health, Incarnation, Key, Pool, Reason, Resource, Snapshot,
        Standing,
    };

    fn pool_name(number: u8) -> PoolName {
        PoolName::new(&format!("p{}", number % 5)).unwrap()
    }

    fn id(number: u8) -> BackendId {
        BackendId::new(&format!("b{}", number % 40)).unwrap()
    }

    fn backend(number: u8, pool: u8) -> Resource {
        Resource::Backend(Backend {
            incarnation: Incarnation(1),
            ..Backend::new(id(number), pool_name(pool), "10.0.0.1:80".parse().unwrap())
        })
    }

    fn status(number: u8, is_up: bool) -> Resource {
        Resource::Status(BackendStatus {
            backend: id(number),
            incarnation: Incarnation(1),
            health: if is_up { Health::Up } else { Health::Down },
            addresses: Vec::new(),
            reason: Reason::default(),
            since_unix_ms: 0,
            was_up: true,
            standing: Standing::default(),
        })
    }

    proptest! {
        /// With an index what comes of a change is what comes of it one by one, by searches.
        #[test]
        fn an_index_finds_what_a_search_finds(
            backends in prop::collection::vec(any::<(u8, u8)>(), 40..80),
            statuses in prop::collection::vec(any::<(u8, bool)>(), 30..60),
            deleted in prop::collection::vec(any::<(u8, u8)>(), 0..20),
        ) {
            let pools = (0..5).map(|n| Resource::Pool(Pool::new(pool_name(n)))).collect();
            let (empty, _) = Snapshot::default().changed(pools, &[]);
            let upserts: Vec<Resource> = (backends.iter().map(|(n, pool)| backend(*n, *pool)))
                .chain(statuses.iter().map(|(n, is_up)| status(*n, *is_up)))
                .collect();
            let key = |(what, n): &(u8, u8)| match what % 8 {
                0 => Key::new("pool", pool_name(*n).as_str()),
                1..4 => Key::new("status", id(*n).as_str()),
                _ => Key::new("backend", id(*n).as_str()),
            };
            let deletes: Vec<Key> = deleted.iter().map(key).collect();
            prop_assert!(upserts.len() + deletes.len() >= INDEXED_MIN);

            let (at_once, _) = empty.changed(upserts.clone(), &deletes);
            let mut one_by_one = empty;
            for upsert in upserts {
                one_by_one = one_by_one.changed(vec![upsert], &[]).0;
            }
            for key in deletes {
                one_by_one = one_by_one.changed(vec![], &[key]).0;
            }
            prop_assert_eq!(at_once, one_by_one);
        }
    }
}
