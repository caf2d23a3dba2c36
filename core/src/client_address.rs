//! Whose address a request came from.
//!
//! Every proxy on the way appends to `X-Forwarded-For` the address it was called from,
//! so the field is true from the right up to the first address that is not one of
//! our own proxies; everything further left is what a client chose to write.
//! Addresses are compared in canonical form: an IPv4 address mapped into IPv6, as a
//! dual-stack socket reports it, is that IPv4 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::ForwardedTrust;

/// The client of a request that came from `peer`.
///
/// `forwarded_for` gives the values of all `X-Forwarded-For` fields in their order. With
/// [`ForwardedTrust::Networks`] the client is the rightmost address outside the
/// networks, beginning with the peer; the leftmost, when all are inside. What is no
/// address ends the search, because nothing left of it can be vouched for: the last
/// trusted address then stands for the client. With [`ForwardedTrust::Always`] the
/// client is the leftmost address that can be read, or else the peer.
///
/// The answer is in canonical form.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
    trust: &ForwardedTrust,
) -> IpAddr {
    let peer = peer.to_canonical();
    let elements = forwarded_for
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        // Lists may have empty elements, which mean nothing (RFC 9110, 5.6.1).
        .filter(|element| !element.is_empty());
    if *trust == ForwardedTrust::Always {
        return elements.filter_map(parse_address).next().unwrap_or(peer);
    }
    let mut client = peer;
    let mut further = elements.rev();
    while is_trusted(client, trust) {
        let Some(address) = further.next().and_then(parse_address) else { break };
        client = address;
    }
    client
}

/// Whether what this peer says about the client is believed.
#[must_use]
pub fn is_trusted(peer: IpAddr, trust: &ForwardedTrust) -> bool {
    match trust {
        ForwardedTrust::Always => true,
        ForwardedTrust::Networks(networks) => {
            let peer = peer.to_canonical();
            networks.iter().any(|network| network.contains(&peer))
        }
    }
}

/// Reads an address in any of the forms that proxies write: `192.0.2.1`,
/// `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`. In canonical form.
#[must_use]
pub fn parse_address(element: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(element).ok()?;
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port_fits = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        address.parse::<Ipv6Addr>().ok().filter(|_| port_fits)?.into()
    } else {
        // An IPv6 address has a second colon, so what follows the first is no port.
        match text.split_once(':').filter(|(_, port)| is_port(port)) {
            Some((address, _)) => address.parse::<Ipv4Addr>().ok()?.into(),
            None => text.parse::<IpAddr>().ok()?,
        }
    };
    Some(address.to_canonical())
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(networks: &[&str]) -> ForwardedTrust {
        ForwardedTrust::Networks(networks.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn client(peer: &str, fields: &[&str], trust: &ForwardedTrust) -> String {
        let fields = fields.iter().map(|field| field.as_bytes());
        client_address(peer.parse().unwrap(), fields, trust).to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_ours() {
        let trust = networks(&["10.0.0.0/8", "fd00::/8"]);
        for (peer, fields, expected) in [
            // Nobody vouches for the field.
            ("192.0.2.9", &["198.51.100.1"][..], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            // What the client wrote stands left of what our proxy appended.
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1,198.51.100.1 , 10.0.0.2"], "198.51.100.1"),
            // Several fields are one list.
            ("10.0.0.1", &["1.1.1.1", "198.51.100.1", "10.0.0.2, 10.0.0.3"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1,,", " , ", ""], "198.51.100.1"),
            // All are ours: the one that is furthest away.
            ("10.0.0.1", &["10.0.0.4, fd00::2", "10.0.0.2"], "10.0.0.4"),
            // What is no address ends the search.
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, _x, 10.0.0.2"], "10.0.0.2"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
        ] {
            assert_eq!(client(peer, fields, &trust), expected, "{peer} {fields:?}");
        }
    }

    #[test]
    fn with_trust_in_everybody_the_client_is_the_leftmost_address() {
        for (fields, expected) in [
            (&["192.168.1.100"][..], "192.168.1.100"),
            (&["192.168.1.100, 10.0.0.1", "10.0.0.2"], "192.168.1.100"),
            (&["unknown, 192.168.1.100"], "192.168.1.100"),
            (&["unknown"], "127.0.0.1"),
            (&[], "127.0.0.1"),
        ] {
            assert_eq!(client("127.0.0.1", fields, &ForwardedTrust::Always), expected);
        }
    }

    #[test]
    fn trust_is_a_matter_of_canonical_addresses() {
        let trust = networks(&["10.0.0.0/8"]);
        assert!(is_trusted("10.1.2.3".parse().unwrap(), &trust));
        assert!(is_trusted("::ffff:10.1.2.3".parse().unwrap(), &trust));
        assert!(!is_trusted("11.1.2.3".parse().unwrap(), &trust));
        assert!(!is_trusted("10.1.2.3".parse().unwrap(), &networks(&[])));
        assert!(is_trusted("11.1.2.3".parse().unwrap(), &ForwardedTrust::Always));
    }

    #[test]
    fn every_usual_way_to_write_an_address_is_read() {
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1:80", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:DB8::1]:65535", Some("2001:db8::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("::1", Some("::1")),
            ("1::", Some("1::")),
            ("192.0.2.1:", None),
            ("192.0.2.1:65536", None),
            ("192.0.2.1:+80", None),
            ("192.0.2.256", None),
            ("[192.0.2.1]", None),
            ("[::1", None),
            ("[::1]80", None),
            ("[::1]:", None),
            ("fe80::1%eth0", None),
            ("localhost", None),
            (":80", None),
            ("\u{e4}", None),
        ] {
            let expected = expected.map(|text| text.parse::<IpAddr>().unwrap());
            assert_eq!(parse_address(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(parse_address(b"\xff"), None);
    }

    proptest! {
        /// The point of it all: once a trusted proxy has appended whom it saw, nothing
        /// that the client wrote makes a difference.
        #[test]
        fn a_client_cannot_choose_its_address(
            forged in prop::collection::vec("([0-9.:, ]|10\\.0\\.0\\.[1-9]|,){0,40}", 0..4),
            hops in 0_usize..3,
        ) {
            let trust = networks(&["10.0.0.0/8"]);
            let appended = ["198.51.100.7", "10.0.0.2", "10.0.0.3"];
            let fields: Vec<_> =
                forged.iter().map(String::as_str).chain(appended[..=hops].iter().copied()).collect();
            prop_assert_eq!(client("10.0.0.1", &fields, &trust), "198.51.100.7");
        }

        #[test]
        fn an_address_reads_back_in_every_form(address: IpAddr, port: u16) {
            let host = match address {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            };
            for text in [address.to_string(), host.clone(), format!("{host}:{port}")] {
                prop_assert_eq!(parse_address(text.as_bytes()), Some(address.to_canonical()), "{}", text);
            }
        }

        #[test]
        fn any_bytes_give_the_peer_or_an_address_from_the_list(
            fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4),
            peer: IpAddr,
        ) {
            for trust in [ForwardedTrust::Always, networks(&["0.0.0.0/0", "::/0"]), networks(&[])] {
                let client = client_address(peer, fields.iter().map(Vec::as_slice), &trust);
                let listed = fields
                    .iter()
                    .flat_map(|field| field.split(|&byte| byte == b','))
                    .filter_map(|element| parse_address(element.trim_ascii()));
                prop_assert!(std::iter::once(peer.to_canonical()).chain(listed).any(|a| a == client));
            }
        }
    }
}
