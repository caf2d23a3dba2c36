//! From what a control plane says of its HTTP to addresses that this proxy can connect to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What a control plane listens on for HTTP, and how this proxy reaches its gRPC.
#[derive(Debug)]
pub(super) struct Told<'a> {
    /// `IP:PORT` or `unix:/PATH`; empty when it is too old to say.
    pub(super) http: &'a str,
    /// The host in the URL of its gRPC; none for a Unix socket.
    pub(super) host: Option<&'a str>,
}

/// Where its HTTP is.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Place {
    At(SocketAddr),
    /// At this port of the host that is known for its gRPC.
    SameHost(String, u16),
    /// Out of reach; why, and what to do.
    Away(String),
}

impl Told<'_> {
    pub(super) fn place(&self) -> Place {
        let http = self.http;
        if http.is_empty() {
            return Place::Away("the control plane does not tell where its HTTP is; it is of an older build than this proxy".to_owned());
        }
        let Ok(address) = http.parse::<SocketAddr>() else {
            return Place::Away(format!(
                "the control plane's HTTP is on {http}, which proxies do not pass requests on \
                 to; ask it there, or start it with --http IP:PORT"
            ));
        };
        let is_here = self.host.is_none_or(is_loopback);
        if address.ip().is_unspecified() {
            return match self.host {
                Some(host) if !is_here => Place::SameHost(host.to_owned(), address.port()),
                _ => Place::At(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())),
            };
        }
        if address.ip().is_loopback() && !is_here {
            return Place::Away(format!(
                "the control plane's HTTP is on {http}, which only its own machine can reach; ask \
                 it there, or start it with --http on an address of that machine and --insecure"
            ));
        }
        Place::At(address)
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost"),
    }
}

/// The addresses, or why there are none.
pub(super) async fn find(told: &Told<'_>) -> Result<Vec<SocketAddr>, String> {
    match told.place() {
        Place::At(address) => Ok(vec![address]),
        Place::Away(why) => Err(why),
        Place::SameHost(host, port) => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            match tokio::net::lookup_host((bare, port)).await {
                Ok(found) => Ok(found.collect()),
                Err(error) => Err(format!(
                    "the control plane's host {host} has no address any more: {error}; see \
                     whether its name still resolves here"
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(http: &str, host: &str) -> Place {
        Told { http, host: Some(host) }.place()
    }

    #[test]
    fn on_one_machine_it_is_where_it_says() {
        for host in ["127.0.0.1", "localhost", "[::1]"] {
            let at = Place::At("127.0.0.1:9401".parse().unwrap());
            assert_eq!(place("127.0.0.1:9401", host), at);
            assert_eq!(place("0.0.0.0:9401", host), at);
        }
    }

    #[test]
    fn on_another_machine_it_must_listen_for_others() {
        let Place::Away(why) = place("127.0.0.1:9401", "10.0.0.7") else { panic!("reachable?") };
        assert!(why.contains("127.0.0.1:9401") && why.contains("--insecure"), "{why}");
        let at = Place::At("10.0.0.7:9401".parse().unwrap());
        assert_eq!(place("10.0.0.7:9401", "control.example"), at);
        let same = Place::SameHost("control.example".to_owned(), 9401);
        assert_eq!(place("[::]:9401", "control.example"), same);
    }

    #[test]
    fn what_cannot_be_used_is_explained() {
        assert!(
            matches!(place("unix:/run/lb.sock", "localhost"), Place::Away(why) if why.contains("--http"))
        );
        assert!(matches!(place("", "localhost"), Place::Away(_)));
    }
}
