//! Which backends are others than before, found without a look at those that are not.

use std::{iter::Peekable, slice, sync::Arc};

use crate::live::{BackendState, PoolConfig};

/// Between two configurations. A backend that is otherwise than before has gone and come.
#[derive(Debug, Default)]
pub(super) struct Changes<'a> {
    pub(super) gone: Vec<&'a Arc<BackendState>>,
    pub(super) come: Vec<&'a Arc<BackendState>>,
}

impl<'a> Changes<'a> {
    /// Of pools, both in order of their names; their backends are in order of their ids.
    pub(super) fn between(before: &'a [Arc<PoolConfig>], after: &'a [Arc<PoolConfig>]) -> Self {
        let mut changes = Self::default();
        let mut before = before.iter().peekable();
        for pool in after {
            while let Some(gone) = before.next_if(|former| former.name < pool.name) {
                changes.gone.extend(gone.backends.iter());
            }
            match before.next_if(|former| former.name == pool.name) {
                Some(former) if Arc::ptr_eq(former, pool) => {}
                Some(former) => changes.of_pool(former, pool),
                None => changes.come.extend(pool.backends.iter()),
            }
        }
        changes.gone.extend(before.flat_map(|pool| pool.backends.iter()));
        changes
    }

    fn of_pool(&mut self, before: &'a PoolConfig, after: &'a PoolConfig) {
        if Arc::ptr_eq(&before.backends, &after.backends) {
            return;
        }
        let mut before: Peekable<slice::Iter<'_, _>> = before.backends.iter().peekable();
        for state in after.backends.iter() {
            // Nearly always the next: those that stay are found by where they are kept.
            if before.next_if(|former| Arc::ptr_eq(former, state)).is_some() {
                continue;
            }
            let id = &state.identity.id;
            while let Some(gone) = before.next_if(|former| former.identity.id < *id) {
                self.gone.push(gone);
            }
            if before.peek().is_some_and(|former| Arc::ptr_eq(former, state)) {
                before.next();
                continue;
            }
            self.gone.extend(before.next_if(|former| former.identity.id == *id));
            self.come.push(state);
        }
        self.gone.extend(before);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lb_core::model::{Backend, BackendId, Incarnation, Pool, PoolName, Resource, Snapshot};
    use proptest::prelude::*;

    use super::*;
    use crate::live::Compiler;

    /// By which backend is in which pool, and which life of it.
    fn snapshot(places: &[(u8, u8)]) -> Snapshot {
        let pools = ["a", "b"].map(|name| PoolName::new(name).unwrap());
        let mut resources: Vec<Resource> =
            pools.iter().map(|name| Resource::Pool(Pool::new(name.clone()))).collect();
        for (number, (place, life)) in places.iter().enumerate() {
            let Some(pool) = pools.get(usize::from(place % 3)) else { continue };
            let id = BackendId::new(&format!("b{number}")).unwrap();
            resources.push(Resource::Backend(Backend {
                incarnation: Incarnation(u64::from(life % 2)),
                ..Backend::new(id, pool.clone(), "127.0.0.1:1".parse().unwrap())
            }));
        }
        Snapshot::default().changed(resources, &[]).0
    }

    proptest! {
        #[test]
        fn what_has_gone_and_come_makes_one_of_the_other(
            before in prop::collection::vec(any::<(u8, u8)>(), 0..12),
            after in prop::collection::vec(any::<(u8, u8)>(), 0..12),
        ) {
            let mut compiler = Compiler::new(1, Vec::new());
            let before = compiler.compile(&snapshot(&before), None);
            let after = compiler.compile(&snapshot(&after), None);
            let of = |pools: &[Arc<PoolConfig>]| -> BTreeSet<_> {
                pools.iter().flat_map(|pool| pool.backends.iter()).map(Arc::as_ptr).collect()
            };
            let changes = Changes::between(&before.pools, &after.pools);
            let mut there = of(&before.pools);
            for gone in &changes.gone {
                prop_assert!(there.remove(&Arc::as_ptr(gone)));
            }
            for come in &changes.come {
                prop_assert!(there.insert(Arc::as_ptr(come)));
            }
            prop_assert_eq!(there, of(&after.pools));
            let both = |gone: &&Arc<_>| changes.come.iter().any(|come| Arc::ptr_eq(gone, come));
            prop_assert_eq!(changes.gone.iter().filter(|gone| both(gone)).count(), 0);
        }
    }
}
