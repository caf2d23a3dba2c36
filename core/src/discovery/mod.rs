//! Discovery: from what sources answer to what changes in a pool.
//!
//! Decisions only; asking name servers and reading files is the control plane's.
//!
//! | part | decides |
//! |---|---|
//! | `changes` | which backends are new, changed or gone |
//! | [`may_leave`] | when those that are gone are removed |
//! | [`parse_lines`] | what a file of backends says |
//! | [`weights`], [`priority_in_use`] | what SRV records mean |

mod changes;
mod leave;
mod lines;
mod srv;

pub use self::{
    changes::{Answered, Changes, Member, changes},
    leave::{Leaving, PATIENCE, Wait, may_leave},
    lines::{BadLine, Twins, parse_lines},
    srv::{priority_in_use, weights},
};
use crate::model::{Address, BackendId, Weight};

/// One backend as a source tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// Where it listens.
    pub address: Address,
    /// Its weight, if the source says one.
    pub weight: Option<Weight>,
    /// Its id, if the source says one.
    pub id: Option<BackendId>,
    /// Of SRV records: larger numbers are for when no smaller one can serve.
    pub priority: u16,
}

impl Found {
    /// One of which nothing but the address is known.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self { address, weight: None, id: None, priority: 0 }
    }
}
