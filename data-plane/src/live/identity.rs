//! Which backend is which, from one configuration to the next.

use lb_core::model::{Address, Backend, BackendId, Incarnation};

/// Who a backend is: added again after a removal, or given another address, it is
/// another one and starts at zero.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Identity {
    pub(crate) id: BackendId,
    pub(crate) incarnation: Incarnation,
    pub(crate) address: Address,
}

impl Identity {
    pub(crate) fn of(backend: &Backend) -> Self {
        Self {
            id: backend.id.clone(),
            incarnation: backend.incarnation,
            address: backend.address.clone(),
        }
    }

    /// Whether it is this one.
    pub(crate) fn is_of(&self, backend: &Backend) -> bool {
        self.id == backend.id
            && self.incarnation == backend.incarnation
            && self.address == backend.address
    }
}
