//! The part of a request that a limit counts by, as a number.

use std::net::{IpAddr, Ipv6Addr};

use siphasher::sip::SipHasher13;

/// Turns keys of one limit into numbers. Keyed with a secret, since clients choose what
/// is hashed: nobody who does not know it can find another's bucket. Proxies that have the
/// same secret make the same numbers, and can speak of a key without naming it.
#[derive(Clone)]
pub struct KeyHasher {
    seeded: SipHasher13,
}

impl KeyHasher {
    /// With the secret of a limit.
    #[must_use]
    pub fn new(secret: [u64; 2]) -> Self {
        Self { seeded: SipHasher13::new_with_keys(secret[0], secret[1]) }
    }

    /// Whether this is the secret.
    #[must_use]
    pub fn is_of(&self, secret: [u64; 2]) -> bool {
        self.bytes(b"") == Self::new(secret).bytes(b"")
    }

    /// The number of a client: its IPv4 address, or the /64 network of its IPv6 address,
    /// within which a client may have any address that it likes.
    #[inline]
    #[must_use]
    pub fn client(&self, address: IpAddr) -> u64 {
        match address.to_canonical() {
            IpAddr::V4(address) => self.bytes(&address.octets()),
            IpAddr::V6(address) => self.bytes(&network(address)),
        }
    }

    /// The number of the value of a header field or a cookie, or of a path without its
    /// query.
    #[inline]
    #[must_use]
    pub fn bytes(&self, value: &[u8]) -> u64 {
        self.seeded.hash(value)
    }
}

fn network(address: Ipv6Addr) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = address.octets();
    [a, b, c, d, e, f, g, h]
}

impl std::fmt::Debug for KeyHasher {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHasher")
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use super::*;

    #[test]
    fn addresses_of_one_client_are_one_key() {
        let hasher = KeyHasher::new([1, 2]);
        let client = |address: &str| hasher.client(address.parse().unwrap());
        assert_eq!(client("192.0.2.1"), client("::ffff:192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("2001:db8:0:1::1"), client("2001:db8:0:1:ffff::2"));
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8:0:2::1"));
    }

    #[test]
    fn numbers_are_those_of_the_published_hash() {
        // Proxies of different versions speak of the same key.
        let (hasher, mut written) = (KeyHasher::new([7, 9]), SipHasher13::new_with_keys(7, 9));
        written.write(b"a key of some length");
        assert_eq!(hasher.bytes(b"a key of some length"), written.finish());
    }

    #[test]
    fn without_the_secret_numbers_say_nothing() {
        let one = KeyHasher::new([1, 2]);
        assert_eq!(one.bytes(b"a"), KeyHasher::new([1, 2]).bytes(b"a"));
        assert_ne!(one.bytes(b"a"), KeyHasher::new([1, 3]).bytes(b"a"));
        assert!(one.is_of([1, 2]) && !one.is_of([1, 3]));
        assert_eq!(format!("{one:?}"), "KeyHasher");
    }
}
