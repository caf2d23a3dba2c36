//! Backends that lead back to the load balancer.

use std::net::SocketAddr;

use super::{Facts, Group};
use crate::view::{BackendView, ProxyView};

/// Whatever is sent to such a backend comes back. That may be meant, from one listener to another.
pub(super) fn backends(facts: &Facts, group: &mut Group<'_>) {
    for backend in &facts.backends {
        let BackendView { id, address, .. } = backend;
        let own = facts.live_proxies().find_map(|proxy| Some((proxy, led_back(backend, proxy)?)));
        if let Some((proxy, listener)) = own {
            group.warn(
                "backend_leads_back",
                format!("backend/{id}"),
                format!("{id} {address} is listener {listener} of proxy {}", proxy.id),
                format!(
                    "'lbctl set-backend {id} --address HOST:PORT' with the server that is meant, \
                     unless the routes of listener {listener} lead elsewhere"
                ),
            );
        }
    }
}

/// The listener of the proxy at which requests for the backend arrive.
fn led_back<'p>(backend: &BackendView, proxy: &'p ProxyView) -> Option<&'p str> {
    let resolved = backend.resolved_addresses.iter();
    let addresses = resolved.chain([&backend.address]).filter_map(|address| address.parse().ok());
    let peer = proxy.peer_address.parse().ok();
    let mut listeners = proxy.listen.iter();
    let own = listeners.find(|listen| {
        let listens: Option<SocketAddr> = listen.address.parse().ok();
        listens.is_some_and(|at| addresses.clone().any(|to| arrives(to, at, peer)))
    });
    own.map(|listen| &*listen.listener)
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
