//! A session as the value of a cookie.
//!
//! Base64url without padding of these bytes, numbers in network order:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version of this layout, 1 |
//! | 4 | id of the key that signed it |
//! | 8 | last second of the session, since the Unix epoch |
//! | 8 | incarnation of the backend |
//! | 1 | length of the pool's name |
//! | 1 to 63 | the pool's name |
//! | 1 to 63 | the backend's id |
//! | 16 | HMAC-SHA256 of everything before it, cut to its first half |
//!
//! Half of a signature is what RFC 2104 recommends as the least; a forger has one chance in
//! 2^128 with each request. Every byte is under the signature, and base64 is read strictly,
//! so that no two texts mean the same session.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::keys::{KeyId, KeyRing, Role};
use crate::model::{BackendId, Incarnation, PoolName};

/// The layout that is written, and the only one that is read.
const VERSION: u8 = 1;
const TAG_LEN: usize = 16;
/// Everything before the pool's name.
const HEAD_LEN: usize = 1 + 4 + 8 + 8 + 1;
/// The longest name of a pool or backend.
const NAME_MAX: usize = 63;
/// The longest session in bytes.
const BYTES_MAX: usize = HEAD_LEN + 2 * NAME_MAX + TAG_LEN;

/// The clocks of proxies may differ by so much without a session ending early: it is
/// believed this many seconds longer than it says. Hosts without any time service drift by
/// that much in two weeks.
pub const SKEW_S: u64 = 30;

/// A session is written anew when this part of its TTL is over. Not with every answer: an
/// answer that sets a cookie must be kept from shared caches ([`super::sharing`]), and each
/// costs a signature and a hundred bytes. So a client is sure to be remembered for nine tenths
/// of the TTL after its last request, and usually for all of it.
const RENEWAL_DIVISOR: u64 = 10;
/// And when this part is over, also with an answer that should better carry none.
const LATE_DIVISOR: u64 = 2;

/// The value of a cookie, ready to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Value {
    text: [u8; Self::LEN_MAX],
    len: usize,
}

impl Value {
    /// The longest value; whatever is longer is refused unread.
    pub const LEN_MAX: usize = (BYTES_MAX * 4).div_ceil(3);

    /// Signs a session with a backend of a pool that ends `ttl` after `now_s`, in seconds
    /// since the Unix epoch.
    #[must_use]
    pub fn sign(
        ring: &KeyRing,
        pool: &PoolName,
        backend: &BackendId,
        incarnation: Incarnation,
        now_s: u64,
        ttl: Duration,
    ) -> Self {
        let key = ring.active();
        let (pool, backend) = (pool.as_str().as_bytes(), backend.as_str().as_bytes());
        let pool_len = u8::try_from(pool.len()).expect("a name has at most 63 bytes");
        let mut bytes = Bytes::default();
        bytes.push(&[VERSION]);
        bytes.push(&key.id().0.to_be_bytes());
        bytes.push(&now_s.saturating_add(ttl.as_secs()).to_be_bytes());
        bytes.push(&incarnation.0.to_be_bytes());
        bytes.push(&[pool_len]);
        bytes.push(pool);
        bytes.push(backend);
        let tag: [u8; TAG_LEN] = key.sign(bytes.filled());
        bytes.push(&tag);

        let mut text = [0; Self::LEN_MAX];
        let len = URL_SAFE_NO_PAD
            .encode_slice(bytes.filled(), &mut text)
            .expect("the longest session fits into the longest value");
        Self { text, len }
    }

    /// The value as text: letters, digits, `-` and `_`, at most 219 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// Why a cookie is not believed. Each is counted on its own: the first three are the
/// client's doing or a defect, the others happen in healthy fleets.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No session in this layout: another application's cookie, or rubbish.
    #[error("the session cookie is malformed")]
    Malformed,
    /// Signed with a key that is not believed (any more).
    #[error("the session cookie is signed with an unknown key")]
    UnknownKey,
    /// Changed on the way, or forged.
    #[error("the session cookie's signature is wrong")]
    BadSignature,
    /// Genuine, but of another pool.
    #[error("the session cookie belongs to another pool")]
    WrongPool,
    /// Genuine, but its time is over.
    #[error("the session cookie has expired")]
    Expired,
}

impl Refusal {
    /// All of them, in the order in which a cookie is checked.
    pub const ALL: [Self; 5] =
        [Self::Malformed, Self::UnknownKey, Self::BadSignature, Self::WrongPool, Self::Expired];

    /// As metrics and the access log spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::WrongPool => "wrong_pool",
            Self::Expired => "expired",
        }
    }
}

/// A genuine session.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    bytes: Bytes,
    backend_at: usize,
    incarnation: Incarnation,
    is_due: bool,
    is_late: bool,
}

impl Session {
    /// Reads the value of a cookie that came with a request to `pool` at `now_s`, in
    /// seconds since the Unix epoch. Allocates nothing, and believes nothing that it says
    /// before its signature was checked.
    ///
    /// `ttl` is the pool's TTL now; it decides whether the cookie [`Self::is_due`].
    pub fn verify(
        value: &[u8],
        ring: &KeyRing,
        pool: &PoolName,
        now_s: u64,
        ttl: Duration,
    ) -> Result<Self, Refusal> {
        if value.len() > Value::LEN_MAX {
            return Err(Refusal::Malformed);
        }
        let bytes = Bytes::decode(value).ok_or(Refusal::Malformed)?;
        let (signed, tag) =
            bytes.filled().split_last_chunk::<TAG_LEN>().ok_or(Refusal::Malformed)?;
        let layout = Layout::read(signed).ok_or(Refusal::Malformed)?;

        let held = ring.believed(layout.key, now_s).ok_or(Refusal::UnknownKey)?;
        if !held.key.verifies(signed, tag) {
            return Err(Refusal::BadSignature);
        }
        if layout.pool != pool.as_str().as_bytes() {
            return Err(Refusal::WrongPool);
        }
        if now_s > layout.expires_s.saturating_add(SKEW_S) {
            return Err(Refusal::Expired);
        }
        let left_s = layout.expires_s.saturating_sub(now_s);
        let ttl_s = ttl.as_secs();
        let is_fresh = left_s >= ttl_s - ttl_s / RENEWAL_DIVISOR;
        // A session that ends later than one that began now was given a longer TTL, or by
        // a clock that is wrong.
        let is_long = left_s > ttl_s.saturating_add(SKEW_S);
        let is_due = !is_fresh || is_long || matches!(held.role, Role::Retired { .. });
        let is_late = left_s <= ttl_s / LATE_DIVISOR;
        let (backend_at, incarnation) = (HEAD_LEN + layout.pool.len(), layout.incarnation);
        Ok(Self { bytes, backend_at, incarnation, is_due, is_late })
    }

    /// The id of the backend that the client belongs to.
    #[must_use]
    pub fn backend(&self) -> &str {
        let name = &self.bytes.filled()[self.backend_at..self.bytes.len - TAG_LEN];
        str::from_utf8(name).expect("names that were signed are ASCII")
    }

    /// Which life of it.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Whether the answer should carry the session anew: a tenth of its time is over, its
    /// key is retired, or it would last longer than the pool's TTL.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.is_due
    }

    /// Whether half of its time is over: then even an answer should carry it anew that only
    /// says that nothing has changed (304), or a client that gets no others would lose it.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.is_late
    }
}

/// What a cookie says, for whoever asks about one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Inspected {
    /// Which key it says that it was signed with.
    pub key: KeyId,
    /// Its last second, since the Unix epoch.
    pub expires_s: u64,
    /// The backend.
    pub backend: String,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// The pool.
    pub pool: String,
    /// Why no proxy believes it, whatever its pool: of an unknown key, or with a bad
    /// signature, nothing of what it says can be relied on.
    pub refusal: Option<Refusal>,
}

impl Inspected {
    /// Reads the value of a cookie of any pool; `None` for what is no session at all.
    #[must_use]
    pub fn read(value: &[u8], ring: Option<&KeyRing>, now_s: u64) -> Option<Self> {
        if value.len() > Value::LEN_MAX {
            return None;
        }
        let bytes = Bytes::decode(value)?;
        let (signed, tag) = bytes.filled().split_last_chunk::<TAG_LEN>()?;
        let layout = Layout::read(signed)?;
        let refusal = match ring.and_then(|ring| ring.believed(layout.key, now_s)) {
            None => Some(Refusal::UnknownKey),
            Some(held) if !held.key.verifies(signed, tag) => Some(Refusal::BadSignature),
            Some(_) if now_s > layout.expires_s.saturating_add(SKEW_S) => Some(Refusal::Expired),
            Some(_) => None,
        };
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        Some(Self {
            key: layout.key,
            expires_s: layout.expires_s,
            backend: text(&signed[HEAD_LEN + layout.pool.len()..]),
            incarnation: layout.incarnation,
            pool: text(layout.pool),
            refusal,
        })
    }
}

/// The parts of what was signed.
struct Layout<'a> {
    key: KeyId,
    expires_s: u64,
    incarnation: Incarnation,
    pool: &'a [u8],
}

impl<'a> Layout<'a> {
    fn read(signed: &'a [u8]) -> Option<Self> {
        let (&[version], rest) = signed.split_first_chunk()?;
        let (&key, rest) = rest.split_first_chunk()?;
        let (&expires_s, rest) = rest.split_first_chunk()?;
        let (&incarnation, rest) = rest.split_first_chunk()?;
        let (&[pool_len], names) = rest.split_first_chunk()?;
        let (pool, backend) = names.split_at_checked(usize::from(pool_len))?;
        let is_name = |name: &[u8]| (1..=NAME_MAX).contains(&name.len()) && name.is_ascii();
        (version == VERSION && is_name(pool) && is_name(backend)).then(|| Self {
            key: KeyId(u32::from_be_bytes(key)),
            expires_s: u64::from_be_bytes(expires_s),
            incarnation: Incarnation(u64::from_be_bytes(incarnation)),
            pool,
        })
    }
}

/// A session's bytes, on the stack.
#[derive(Clone, Copy, Debug)]
struct Bytes {
    held: [u8; BYTES_MAX],
    len: usize,
}

impl Bytes {
    /// Reads base64url; `None` for anything that it would not be written as.
    fn decode(text: &[u8]) -> Option<Self> {
        // Room for what the longest text may decode to, by whatever rounding.
        let mut room = [0; Value::LEN_MAX];
        let len = URL_SAFE_NO_PAD.decode_slice(text, &mut room).ok()?;
        let mut bytes = Self::default();
        bytes.held.get_mut(..len)?.copy_from_slice(&room[..len]);
        bytes.len = len;
        Some(bytes)
    }

    fn push(&mut self, part: &[u8]) {
        self.held[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
    }

    fn filled(&self) -> &[u8] {
        &self.held[..self.len]
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self { held: [0; BYTES_MAX], len: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::keys::{RingKey, SessionKey};

    /// Only who has the key can say such things: a build of another layout, for example.
    #[test]
    fn what_is_signed_and_no_session_is_refused_as_malformed() {
        let key = SessionKey::new(KeyId(1), [7; SessionKey::LEN]);
        let active = RingKey { key: key.clone(), role: Role::Active };
        let ring = KeyRing::new(vec![active]).unwrap();
        let pool = PoolName::new("web").unwrap();
        let verify = |version: u8, pool_len: u8, names: &[u8]| {
            let mut bytes = vec![version];
            bytes.extend(1_u32.to_be_bytes());
            bytes.extend(1000_u64.to_be_bytes());
            bytes.extend(5_u64.to_be_bytes());
            bytes.push(pool_len);
            bytes.extend(names);
            bytes.extend(key.sign::<TAG_LEN>(&bytes));
            let mut text = [0; 2 * Value::LEN_MAX];
            let len = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text).unwrap();
            let session = Session::verify(&text[..len], &ring, &pool, 0, Duration::from_secs(1000));
            session.map(|session| session.backend().to_owned())
        };
        assert_eq!(verify(1, 3, b"webb1").unwrap(), "b1");
        for (version, pool_len, names) in [
            (2, 3, &b"webb1"[..]),
            (1, 0, b"webb1"),
            (1, 5, b"webb1"),
            (1, 6, b"webb1"),
            (1, 3, b"web\xffb1"),
            (1, 3, &[b'w'; 3 + NAME_MAX + 1]),
        ] {
            assert_eq!(verify(version, pool_len, names), Err(Refusal::Malformed), "{names:?}");
        }
    }
}
