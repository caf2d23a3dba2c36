//! What probes and traffic say about a backend.
//!
//! The control plane probes each backend once for the whole fleet; how a probe is sent
//! is its business.
//!
//! | part | decides |
//! |---|---|
//! | [`CheckState`] | what a check's answers mean, and when to ask again |
//! | [`verdict`] | what the fleet believes, from the check and from what proxies see |
//! | [`Flap`] | whether a backend whose verdict comes and goes is held down |
//! | [`candidates`] | who of a pool may be picked, from all that is known |
//! | [`mod@panic`] | who may be picked when few are well |

pub mod candidates;
mod check;
mod flap;
pub mod panic;
pub mod verdict;

pub use self::{
    check::{CheckState, Transition},
    flap::{Flap, THRESHOLD as FLAP_THRESHOLD},
};
