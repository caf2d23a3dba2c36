//! Declared state: what a person writes into a file, and what a program sends as JSON.
//!
//! ```text
//!   TOML, JSON --tree--> places of all values --read--> Declaration (domain objects)
//!                                                          |
//!                           what there is (domain objects) +--changes--> what to do
//!                                  |
//!                                  +--Document--> TOML, JSON
//! ```
//!
//! The keys are the flags of `lbctl` with underscores. The types are derived once, for
//! reading, for writing and for the schema; what a value may be is decided by the domain
//! alone, whose refusals are reported with the place of the value that they are about. All
//! faults of all files are found in one go.

mod affinity;
mod backend;
mod changes;
mod export;
mod fault;
mod files;
mod keys;
mod limit;
mod listener;
mod missing;
mod pairs;
mod pool;
mod problem;
mod read;
mod reference;
mod resilience;
mod route;
pub mod schema;
mod share;
mod tree;
pub mod unit;

pub use self::{
    affinity::{SessionSameSite, SessionSecure},
    backend::{DeclaredBackend, DeclaredState},
    changes::{Action, Change, Field, changes, details_between},
    export::{DECLARED_KINDS, Document},
    fault::in_words,
    files::{Unreadable, load},
    keys::nearest,
    limit::DeclaredLimit,
    listener::{DeclaredListener, TrustXff},
    missing::{instead, missing, some_of},
    pairs::Pairs,
    pool::{DeclaredPool, HealthProtocol},
    problem::{Place, Problem, Problems},
    read::{Declaration, Format, SOURCE_BYTES_MAX, Source, Wish},
    reference::reference,
    route::DeclaredRoute,
    share::DeclaredShare,
};

#[cfg(test)]
mod tests;
