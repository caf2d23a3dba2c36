//! Whether a request for management was sent by who it seems to be sent by.
//!
//! A browser that shows a foreign page sends requests to this machine when the page asks
//! it to. It says so in Origin, which must then be the very host that is asked. And a
//! foreign name can be made to resolve to a loopback address (DNS rebinding): so a host
//! is taken only as an address or as a name that no foreigner can own.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Why a request is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The host is a name that could be anybody's.
    #[error(
        "the host {0:?} is neither localhost nor an IP address, as in an attack by DNS \
         rebinding; ask by address, for example 127.0.0.1"
    )]
    ForeignHost(String),
    /// A page of another site asked for it.
    #[error(
        "the request was sent by a page of {0:?}, another site than the one asked; send it without an Origin, or from a page of this host"
    )]
    ForeignOrigin(String),
}

/// Judges a request by its Host and Origin fields. Without Host no browser sent it.
pub fn check(host: Option<&str>, origin: Option<&str>) -> Result<(), Refusal> {
    let shown = |text: &str| text.chars().take(80).collect();
    if let Some(host) = host.filter(|host| !is_own(host)) {
        return Err(Refusal::ForeignHost(shown(host)));
    }
    match origin {
        Some(origin) if !is_origin_of(origin, host.unwrap_or_default()) => {
            Err(Refusal::ForeignOrigin(shown(origin)))
        }
        _ => Ok(()),
    }
}

/// Whether a host, with or without a port, is an address or a loopback name.
fn is_own(authority: &str) -> bool {
    if let Some(v6) = authority.strip_prefix('[') {
        let Some((address, port)) = v6.split_once(']') else { return false };
        return address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || is_port(port));
    }
    let (name, port) = match authority.find(':') {
        Some(at) => authority.split_at(at),
        None => (authority, ""),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    (port.is_empty() || is_port(port))
        && (name.parse::<Ipv4Addr>().is_ok() || name == "localhost" || name.ends_with(".localhost"))
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

fn is_origin_of(origin: &str, host: &str) -> bool {
    [("http://", ":80"), ("https://", ":443")].into_iter().any(|(scheme, port)| {
        let without = |authority: &str| {
            authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase()
        };
        origin
            .strip_prefix(scheme)
            .is_some_and(|authority| !host.is_empty() && without(authority) == without(host))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_and_own_pages_are_let_in() {
        for host in ["localhost", "localhost:9401", "LOCALHOST.", "x.localhost:1"] {
            assert_eq!(check(Some(host), None), Ok(()), "{host}");
        }
        for host in ["127.0.0.1:9401", "10.0.0.7", "[::1]:9401", "[fe80::1]"] {
            assert_eq!(check(Some(host), Some(&format!("http://{host}"))), Ok(()), "{host}");
        }
        assert_eq!(check(Some("localhost:80"), Some("http://localhost")), Ok(()));
        assert_eq!(check(None, None), Ok(()), "HTTP/1.0, which no browser speaks");
    }

    #[test]
    fn names_that_anybody_could_own_are_not() {
        for host in [
            "evil.example",
            "evil.example:9401",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
        ] {
            assert!(matches!(check(Some(host), None), Err(Refusal::ForeignHost(_))), "{host}");
        }
        for host in ["", "localhost:x", "[::1", "[::1]x", "localhost:9401:1", "evil@127.0.0.1"] {
            assert!(check(Some(host), None).is_err(), "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_not() {
        for origin in
            ["null", "http://evil.example", "http://localhost:9402", "http://127.0.0.1:9401", ""]
        {
            let judged = check(Some("localhost:9401"), Some(origin));
            assert!(matches!(judged, Err(Refusal::ForeignOrigin(_))), "{origin}");
        }
        assert!(check(None, Some("http://")).is_err());
    }
}
