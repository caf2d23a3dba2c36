//! The keys that sign sessions, as an object of the state.

use std::time::Duration;

use crate::affinity::KeyRing;

/// The fleet's keys, of which there is one object. It goes to proxies and to nobody else: no
/// list, export or event has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SessionKeys {
    /// The keys.
    pub ring: KeyRing,
    /// The longest TTL of any pool since the active key became that: how long what it signed
    /// may live on once another has taken its place.
    pub ttl_max: Duration,
    /// Random bytes that differ in every revision. People may see the digest of a state, to
    /// which the hash of this object goes; the salt keeps anything about the keys from being
    /// reckoned from several of those.
    pub salt: [u8; Self::SALT_LEN],
}

impl SessionKeys {
    /// The name of the only object of its kind.
    pub const NAME: &str = "fleet";
    /// Bytes of [`Self::salt`]: as many as of a hash.
    pub const SALT_LEN: usize = 16;
}
