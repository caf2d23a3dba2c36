//! What probes and traffic say about a backend.
//!
//! The control plane probes each backend once for the whole fleet; how a probe is sent
//! is its business. [`CheckState`] decides what the answers mean and when to ask again;
//! [`panic`] decides who may be picked when few are well.

mod check;
pub mod panic;

pub use self::check::{CheckState, Transition};
