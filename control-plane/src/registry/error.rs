//! Why a write was refused.

use lb_core::model::Invalid;

use crate::store::StoreError;

/// A refused write. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A value breaks a rule of the domain.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// The request contradicts itself.
    #[error("{0}")]
    Malformed(String),
    /// There is no such object.
    #[error("{0}")]
    NotFound(String),
    /// The object, or one that means the same, is there already.
    #[error("{0}")]
    AlreadyExists(String),
    /// Somebody else was faster.
    #[error("{0}")]
    RevisionConflict(String),
    /// Something else must be done first, or `force` given.
    #[error("{0}")]
    Precondition(String),
    /// A key that signs sessions could not be made.
    #[error("no session key can be made, because the system gives no random bytes: {0}")]
    Random(String),
    /// The store failed.
    #[error(
        "the write did not take effect: {0}; the control plane goes on serving what it holds, \
         and takes writes again as soon as the store does: it tries by itself"
    )]
    Store(#[from] StoreError),
    /// The control plane is stopping.
    #[error("the control plane is stopping and takes no more writes; try again when it is back")]
    Stopping,
}
