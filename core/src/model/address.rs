//! Where a backend listens, as the operator wrote it.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use super::{Invalid, invalid::shorten};

const FIELD: &str = "backend.address";

/// `HOST:PORT`; names are resolved by the control plane.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Address {
    host: Host,
    port: u16,
}

/// The host of an [`Address`].
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Host {
    /// A literal address.
    Ip(IpAddr),
    /// A name to be resolved, in lower case.
    Name(Arc<str>),
}

impl Address {
    /// Of a literal address. `port` is that of an address that was checked, never 0.
    #[must_use]
    pub fn of_ip(ip: IpAddr, port: u16) -> Self {
        debug_assert!(port != 0, "no checked address has port 0");
        Self { host: Host::Ip(ip), port }
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether only processes on the same machine can mean the same thing by it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.is_loopback(),
            Host::Name(name) => &**name == "localhost" || name.ends_with(".localhost"),
        }
    }
}

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.starts_with("unix:") {
            return Err(Invalid::value(
                FIELD,
                format!(
                    "{:?} is a Unix socket, and a backend has HOST:PORT: sockets are not supported \
                     there",
                    shorten(text)
                ),
            ));
        }
        if text.len() > 300 {
            return Err(Invalid::value(
                FIELD,
                format!(
                    "the address has {} bytes; write HOST:PORT, for example localhost:8001",
                    text.len()
                ),
            ));
        }
        // Without its scheme it would get plain HTTP on a port that expects TLS.
        if text.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
            return Err(Invalid::value(
                FIELD,
                format!(
                    "{text:?} asks for TLS, and TLS to backends is not supported yet; write HOST:PORT \
                     of a port that speaks plain HTTP, for example localhost:8001"
                ),
            ));
        }
        // Neither a host nor a port has one.
        if text.contains('/') {
            let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
            let bare = rest.split('/').next().unwrap_or_default();
            return Err(Invalid::value(
                FIELD,
                format!(
                    "{text:?} is not HOST:PORT: leave http:// and the path out, for example {}",
                    if bare.is_empty() { "localhost:8001" } else { bare }
                ),
            ));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(Invalid::value(
                FIELD,
                format!("{text:?} has no port; write HOST:PORT, for example {text}:8001"),
            ));
        };
        let port = match port.parse::<u16>() {
            Ok(0) => {
                return Err(Invalid::value(
                    FIELD,
                    format!("port 0 in {text:?} is not a port; use 1 to 65535"),
                ));
            }
            Ok(number) if port.bytes().all(|b| b.is_ascii_digit()) => number,
            _ => {
                return Err(Invalid::value(
                    FIELD,
                    format!("{port:?} in {text:?} is not a port; use 1 to 65535"),
                ));
            }
        };
        let host = parse_host(host)
            .map_err(|why| Invalid::value(FIELD, format!("{text:?} is not HOST:PORT: {why}")))?;
        Ok(Self { host, port })
    }
}

fn parse_host(host: &str) -> Result<Host, &'static str> {
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return match inner.parse::<IpAddr>() {
            Ok(ip @ IpAddr::V6(_)) => Ok(Host::Ip(ip)),
            _ => Err("brackets are for IPv6 addresses"),
        };
    }
    if host.is_empty() {
        return Err("the host is empty");
    }
    if host.contains(':') {
        return Err("write an IPv6 address in brackets, for example [::1]:8001");
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Host::Ip(ip));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label_ok) {
        return Err("the host is neither an address nor a host name");
    }
    // A last label of digits only is a mistyped IPv4 address (RFC 1123, 2.1).
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Err("the host looks like an IPv4 address, but is none");
    }
    Ok(Host::Name(name.to_ascii_lowercase().into()))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            Host::Ip(ip) => write!(f, "{ip}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_addresses_are_understood() {
        for (text, shown) in [
            ("localhost:8004", "localhost:8004"),
            ("Web-1.Example.COM.:80", "web-1.example.com:80"),
            ("10.0.0.1:65535", "10.0.0.1:65535"),
            ("[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, hint) in [
            ("localhost", "no port"),
            ("localhost:0", "port 0"),
            ("localhost:70000", "1 to 65535"),
            ("localhost:+80", "1 to 65535"),
            ("unix:/run/web.sock", "sockets are not supported"),
            (":80", "empty"),
            ("::1:80", "brackets"),
            ("[10.0.0.1]:80", "brackets"),
            ("256.0.0.1:80", "IPv4"),
            ("a b:80", "host name"),
            (
                "http://localhost:7101/",
                "leave http:// and the path out, for example localhost:7101",
            ),
            ("localhost:7101/x", "for example localhost:7101"),
            ("http://", "for example localhost:8001"),
            ("https://localhost:443", "TLS to backends is not supported yet"),
            ("HTTPS://a:443/x", "TLS to backends is not supported yet"),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.message.contains(hint), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(text in "[a-z0-9.:\\[\\]-]{0,30}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
            }
        }
    }
}
