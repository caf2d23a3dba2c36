//! The keys that sign sessions: which one does, and which are still believed.
//!
//! ```text
//!   announce        activate              prune, a TTL later
//!  ----------> next ---------> active ... retired ---------> (gone)
//! ```
//!
//! Proxies learn of a change at different moments. So a key is *announced* before it signs
//! anything: only when every live proxy has applied the ring with the next key may it be
//! activated, or proxies that do not know it yet would refuse the sessions of those that
//! do. The key it replaces is believed until the last session that it may have signed has
//! ended.
//!
//! A ring is a value: the control plane makes one from another and sends it. The bytes of
//! keys come from outside, as everything random does.

use std::{fmt, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::cookie::SKEW_S;
use crate::model::Invalid;

/// Names a key in the cookies that it signed. Random, so that a control plane that was set up
/// anew does not give another key the name of one whose cookies are still about.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyId(pub u32);

impl fmt::Display for KeyId {
    /// Eight hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A secret that signs sessions. Its bytes are never shown.
#[derive(Clone)]
pub struct SessionKey {
    id: KeyId,
    bytes: [u8; Self::LEN],
    /// The key is mixed in once, not for every cookie: half of the work of a short one.
    keyed: Hmac<Sha256>,
    /// When it was made, in seconds since the Unix epoch; 0: not known.
    made_s: u64,
}

impl PartialEq for SessionKey {
    fn eq(&self, other: &Self) -> bool {
        (self.id, self.bytes, self.made_s) == (other.id, other.bytes, other.made_s)
    }
}

impl Eq for SessionKey {}

impl SessionKey {
    /// Bytes of a key: as many as of the hash, beyond which more would add nothing.
    pub const LEN: usize = 32;

    /// A key of bytes that nobody can guess.
    #[must_use]
    pub fn new(id: KeyId, bytes: [u8; Self::LEN]) -> Self {
        let keyed = Hmac::new_from_slice(&bytes).expect("HMAC takes keys of any length");
        Self { id, bytes, keyed, made_s: 0 }
    }

    /// This key with when it was made, in seconds since the Unix epoch.
    #[must_use]
    pub fn made_at(self, made_s: u64) -> Self {
        Self { made_s, ..self }
    }

    /// When it was made, in seconds since the Unix epoch; 0: not known.
    #[must_use]
    pub fn made_s(&self) -> u64 {
        self.made_s
    }

    /// Its name in cookies.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The secret, to be stored and to be sent to proxies, and shown to nobody.
    #[must_use]
    pub fn bytes(&self) -> &[u8; Self::LEN] {
        &self.bytes
    }

    /// The first bytes of the signature of `message`.
    pub(super) fn sign<const TAG: usize>(&self, message: &[u8]) -> [u8; TAG] {
        let whole = self.keyed.clone().chain_update(message).finalize().into_bytes();
        *whole.first_chunk().expect("a tag is no longer than the hash")
    }

    /// Whether `tag` begins the signature of `message`. How long it takes says nothing
    /// about how much of a wrong one was right.
    pub(super) fn verifies(&self, message: &[u8], tag: &[u8]) -> bool {
        self.keyed.clone().chain_update(message).verify_truncated_left(tag).is_ok()
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey({}, secret)", self.id)
    }
}

/// What a key of a ring is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Believed, so that it can be activated without a session being lost.
    Next,
    /// Signs, and is believed.
    Active,
    /// Believed until the sessions that it signed have ended.
    Retired {
        /// The last second of that, since the Unix epoch.
        honoured_until_s: u64,
    },
}

impl Role {
    /// As people and programs are told it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retired { .. } => "retired",
        }
    }
}

/// A key with its role.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RingKey {
    /// The key.
    pub key: SessionKey,
    /// What it is for.
    pub role: Role,
}

/// All keys of a fleet: one that signs, others that are believed as well.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyRing {
    /// The active one first.
    keys: Vec<RingKey>,
}

impl KeyRing {
    /// The most keys: rotating more often than eight times in a TTL protects nobody.
    pub const KEYS_MAX: usize = 8;

    /// A ring as it was stored or received: one active key, at most one next, ids that
    /// differ, at most eight in all.
    pub fn new(mut keys: Vec<RingKey>) -> Result<Self, Invalid> {
        let refuse = |message: String| Err(Invalid::value("session_keys", message));
        let with = |role| keys.iter().filter(|held| held.role == role).count();
        if with(Role::Active) != 1 || with(Role::Next) > 1 {
            return refuse(format!(
                "{} session keys are active and {} next; there must be one active key and at \
                 most one next",
                with(Role::Active),
                with(Role::Next)
            ));
        }
        if keys.len() > Self::KEYS_MAX {
            return refuse(format!(
                "{} session keys are too many; at most {} are kept: wait until old sessions have \
                 ended before the next rotation",
                keys.len(),
                Self::KEYS_MAX
            ));
        }
        for (at, held) in keys.iter().enumerate() {
            if keys[..at].iter().any(|other| other.key.id == held.key.id) {
                return refuse(format!(
                    "two session keys have the id {}; give each an id of its own",
                    held.key.id
                ));
            }
        }
        keys.sort_by_key(|held| held.role != Role::Active);
        Ok(Self { keys })
    }

    /// The ring of a new fleet.
    #[must_use]
    pub fn first(key: SessionKey) -> Self {
        Self { keys: vec![RingKey { key, role: Role::Active }] }
    }

    /// This ring with `key` as the next: the first half of a rotation. Refused while
    /// another is next, or when the ring is full.
    pub fn announce(&self, key: SessionKey) -> Result<Self, Invalid> {
        let mut keys = self.keys.clone();
        keys.push(RingKey { key, role: Role::Next });
        Self::new(keys)
    }

    /// This ring with the next key active: the second half, once every live proxy knows
    /// the key. Without a next key nothing changes.
    ///
    /// `ttl_max` is the longest TTL of any pool; with [`SKEW_S`] it is how long the old key
    /// is still believed. A proxy that is cut off from the control
    /// plane goes on signing with the old key; those sessions are believed up to the same
    /// moment and are then picked for anew, unless another proxy renews them before.
    #[must_use]
    pub fn activate(&self, now_s: u64, ttl_max: Duration) -> Self {
        let mut keys = self.keys.clone();
        if keys.iter().any(|held| held.role == Role::Next) {
            let honoured_until_s = now_s.saturating_add(ttl_max.as_secs()).saturating_add(SKEW_S);
            for held in &mut keys {
                held.role = match held.role {
                    Role::Next => Role::Active,
                    Role::Active => Role::Retired { honoured_until_s },
                    retired @ Role::Retired { .. } => retired,
                };
            }
            keys.sort_by_key(|held| held.role != Role::Active);
        }
        Self { keys }
    }

    /// This ring without the keys of which no session is left.
    #[must_use]
    pub fn prune(&self, now_s: u64) -> Self {
        let keys = self.keys.iter().filter(|held| !held.is_over(now_s)).cloned().collect();
        Self { keys }
    }

    /// All keys, the active one first.
    #[must_use]
    pub fn keys(&self) -> &[RingKey] {
        &self.keys
    }

    /// The key that is announced, if one is.
    #[must_use]
    pub fn next(&self) -> Option<&SessionKey> {
        self.keys.iter().find(|held| held.role == Role::Next).map(|held| &held.key)
    }

    /// The key that signs.
    #[must_use]
    pub fn active(&self) -> &SessionKey {
        &self.keys[0].key
    }

    /// The key of this id, if it is believed at `now_s`: also when the control plane is
    /// away and has not pruned the ring.
    pub(super) fn believed(&self, id: KeyId, now_s: u64) -> Option<&RingKey> {
        self.keys.iter().find(|held| held.key.id == id && !held.is_over(now_s))
    }
}

impl RingKey {
    fn is_over(&self, now_s: u64) -> bool {
        matches!(self.role, Role::Retired { honoured_until_s } if now_s > honoured_until_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(3600);

    fn key(id: u32) -> SessionKey {
        SessionKey::new(KeyId(id), [u8::try_from(id).unwrap(); SessionKey::LEN])
    }

    fn ids(ring: &KeyRing) -> Vec<u32> {
        ring.keys().iter().map(|held| held.key.id().0).collect()
    }

    #[test]
    fn a_key_is_known_before_it_signs_and_after_it_was_replaced() {
        let ring = KeyRing::first(key(1));
        assert!(ring.activate(100, TTL).active().id() == KeyId(1), "nothing was announced");
        let announced = ring.announce(key(2)).unwrap();
        assert_eq!(announced.active().id(), KeyId(1));
        assert!(announced.believed(KeyId(2), 0).is_some());
        let rotated = announced.activate(1_000, TTL);
        assert_eq!(rotated.active().id(), KeyId(2));
        assert!(rotated.believed(KeyId(1), 4_630).is_some());
        assert!(rotated.believed(KeyId(1), 4_631).is_none());
        assert_eq!(ids(&rotated.prune(4_630)), [2, 1]);
        assert_eq!(ids(&rotated.prune(4_631)), [2]);
    }

    #[test]
    fn rings_that_mean_nothing_are_refused() {
        let held = |id, role| RingKey { key: key(id), role };
        let retired = Role::Retired { honoured_until_s: 1 };
        let full = (1..=9).map(|id| held(id, if id == 1 { Role::Active } else { retired }));
        let full: Vec<_> = full.collect();
        for (keys, hint) in [
            (vec![], "0 session keys are active"),
            (vec![held(1, Role::Active), held(2, Role::Active)], "2 session keys are active"),
            (vec![held(1, Role::Active), held(2, Role::Next), held(3, Role::Next)], "and 2 next"),
            (vec![held(1, Role::Active), held(1, retired)], "the id 00000001"),
            (full.clone(), "9 session keys are too many"),
        ] {
            let error = KeyRing::new(keys).unwrap_err();
            assert!(error.message.contains(hint), "{error}");
        }
        let ring = KeyRing::new(full[..8].to_vec()).unwrap();
        assert!(ring.announce(key(10)).is_err(), "full");
    }

    #[test]
    fn keys_are_not_shown() {
        let secret = SessionKey::new(KeyId(7), *b"0123456789abcdef0123456789abcdef");
        let shown = format!("{:?} {:#?}", secret, KeyRing::first(secret.clone()));
        assert!(shown.contains("SessionKey(00000007, secret)"));
        for leak in ["0123", "48, 49", "0x30", "keyed"] {
            assert!(!shown.contains(leak), "{shown}");
        }
    }
}
