//! Backends that lead back to the load balancer.

use std::{collections::HashMap, net::SocketAddr};

use super::{Facts, Group};
use crate::view::BackendView;

/// Whatever is sent to such a backend comes back. That may be meant, from one listener to another.
pub(super) fn backends(facts: &Facts, group: &mut Group<'_>) {
    let doors = doors(facts);
    for backend in &facts.backends {
        let BackendView { id, address, .. } = backend;
        let Some(Door { proxy, listener, .. }) = led_back(backend, &doors) else { continue };
        group.advise(
            "backend_leads_back",
            format!("backend/{id}"),
            format!("{id} {address} is listener {listener} of proxy {proxy}"),
            format!(
                "'lbctl set-backend {id} --address HOST:PORT' with the server that is meant, \
                 unless the routes of listener {listener} lead elsewhere"
            ),
        );
    }
}

/// Where a proxy accepts.
struct Door<'f> {
    proxy: &'f str,
    listener: &'f str,
    at: SocketAddr,
    /// As whom the control plane sees the proxy.
    peer: Option<SocketAddr>,
}

/// All of them by port: there may be thousands of backends and of proxies.
fn doors(facts: &Facts) -> HashMap<u16, Vec<Door<'_>>> {
    let mut doors = HashMap::<u16, Vec<Door<'_>>>::new();
    for proxy in facts.live_proxies() {
        let peer = proxy.peer_address.parse().ok();
        for listen in &proxy.listen {
            let Ok(at) = listen.address.parse::<SocketAddr>() else { continue };
            let door = Door { proxy: &proxy.id, listener: &listen.listener, at, peer };
            doors.entry(at.port()).or_default().push(door);
        }
    }
    doors
}

/// Where requests for the backend arrive, if that is at a proxy.
fn led_back<'d, 'f>(
    backend: &BackendView,
    doors: &'d HashMap<u16, Vec<Door<'f>>>,
) -> Option<&'d Door<'f>> {
    let resolved = backend.resolved_addresses.iter();
    let mut addresses =
        resolved.chain([&backend.address]).filter_map(|address| address.parse().ok());
    addresses.find_map(|to: SocketAddr| {
        doors.get(&to.port())?.iter().find(|door| arrives(to, door.at, door.peer))
    })
}

/// Whether a connection to `to` is accepted by the proxy that listens at `at` and is seen as
/// `peer` by the control plane.
fn arrives(to: SocketAddr, at: SocketAddr, peer: Option<SocketAddr>) -> bool {
    let [to_ip, at_ip] = [to, at].map(|address| address.ip().to_canonical());
    let is_own = match at_ip.is_unspecified() {
        // To each proxy, loopback is its own machine.
        true => to_ip.is_loopback() || peer.is_some_and(|peer| peer.ip().to_canonical() == to_ip),
        false => to_ip == at_ip,
    };
    to.port() == at.port() && is_own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_proxy_accepts_leads_back() {
        let arrives = |to: &str, at: &str| {
            let peer = "10.0.0.5:43210".parse().ok();
            arrives(to.parse().unwrap(), at.parse().unwrap(), peer)
        };
        for (to, at) in [
            ("127.0.0.1:8080", "0.0.0.0:8080"),
            ("127.0.0.1:8080", "[::]:8080"),
            ("10.0.0.5:8080", "[::]:8080"),
            ("[::ffff:10.0.0.5]:8080", "0.0.0.0:8080"),
            ("10.0.0.7:80", "10.0.0.7:80"),
        ] {
            assert!(arrives(to, at), "{to} at {at}");
        }
        for (to, at) in [
            ("127.0.0.1:8081", "0.0.0.0:8080"),
            ("10.0.0.6:8080", "0.0.0.0:8080"),
            ("10.0.0.5:80", "10.0.0.7:80"),
        ] {
            assert!(!arrives(to, at), "{to} at {at}");
        }
    }
}
