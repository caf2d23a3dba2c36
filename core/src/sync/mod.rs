//! The configuration protocol, both ends, without I/O.
//!
//! ```text
//!   registry --commit--> Publisher (state, ring of changes)
//!                            |  poll: Delta | Snapshot        one per proxy:
//!                         Session  <----- ACK / NACK -----  Subscriber
//!                                                               | Snapshot to compile
//!                                                            workers
//! ```
//!
//! * A version is (epoch, revision); within an epoch it never goes back.
//! * Both sides keep the objects *as sent* and compare digests over those bytes, so
//!   that builds of different age agree on what they hold.
//! * At most one transmission per session is unacknowledged. What changes meanwhile
//!   merges into the next one: a slow proxy costs O(objects), never O(changes).
//! * A bad object is refused alone: it keeps its former value and the rest applies.
//!   What comes of a state does not depend on how it came: in deltas, whole, or off
//!   a disk.
//! * A state that would empty a pool by accident is refused whole.

mod judge;
mod object;
mod publisher;
mod session;
mod subscriber;

pub use self::{
    object::{Digest, Object, ObjectSet},
    publisher::{Delta, FullState, Publisher, Transmission},
    session::{AckOutcome, Answer, Due, Nonce, Sending, Session},
    subscriber::{Decode, Held, Outcome, Refusal, Rejection, Subscriber, Update},
};
