//! What is to be lent.

use std::collections::BTreeMap;

use lb_core::lease::{Quantity, Wanted};

use crate::registry::Catalog;

/// What the configuration wants lent.
pub(super) fn wanted(catalog: &Catalog) -> BTreeMap<Quantity, Wanted> {
    let pools = catalog.pools();
    let of_pools = pools.values().filter_map(|pool| Quantity::of_pool(&pool.value));
    let of_backends = catalog.followed().filter_map(|backend| {
        let pool = pools.get(&backend.value.pool)?;
        Quantity::of_backend(&backend.value, &pool.value)
    });
    let of_limits = catalog.limits().values().filter_map(|limit| Quantity::of_limit(&limit.value));
    of_pools.chain(of_backends).chain(of_limits).collect()
}
