//! Keeping a client with its backend by a signed cookie.
//!
//! The cookie says which backend a client belongs to, until when, and is signed with a key
//! that all proxies have from the control plane. Nobody stores a session: so it holds on
//! every proxy, over restarts of all of them, over every change of the pool that leaves
//! the backend in it, and over a change of keys.
//!
//! | module | decides |
//! |---|---|
//! | [`keys`] | which key signs, and which are still believed |
//! | [`rotation`] | when a new key may sign |
//! | [`cookie`] | what a session looks like as a cookie's value, and whether one is genuine |
//! | [`field`] | where the value stands in `Cookie`, and what `Set-Cookie` says |
//! | [`decision`] | whether the client stays |
//! | [`sharing`] | whether shared caches must be kept from an answer that sets a cookie |
//!
//! The cookie is signed, not encrypted: whoever has it can read the names of its pool and
//! backend. It grants nothing but the way to a backend, so one that was stolen or copied is
//! of no more use than a request without it.

pub mod cookie;
pub mod decision;
pub mod field;
pub mod keys;
pub mod rotation;
pub mod sharing;

pub use self::{
    cookie::{Inspected, Refusal, Session, Value},
    decision::{BackendState, Decision, Fitness, Met, NewReason, Presented},
    keys::{KeyId, KeyRing, RingKey, Role, SessionKey},
};
