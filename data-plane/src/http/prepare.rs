//! From a client's bytes to a request that can be sent to any backend of its pool.
//! No I/O: everything that can be refused is refused here.

use std::net::{IpAddr, SocketAddr};

use lb_core::client_address::{client_address, is_trusted};

use super::respond::OwnAnswer;
use crate::{
    h1::{
        Version,
        body::BodyLength,
        field_storage,
        request::{self, Forwarding, Method},
    },
    live::{ListenerConfig, PoolIndex},
};

/// A request, read and rewritten.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) keep_alive: bool,
    pub(crate) expects_continue: bool,
    pub(crate) body: BodyLength,
    /// Whose request it is, for the picker.
    pub(crate) client: IpAddr,
    pub(crate) pool: PoolIndex,
}

/// Why there is nothing to send.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) answer: OwnAnswer,
    /// Whether the request itself was understood: its framing can be relied on.
    pub(crate) request: Option<Understood>,
}

/// What was understood of a request that is refused all the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Understood {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) keep_alive: bool,
    pub(crate) body: BodyLength,
}

/// What the connection knows beside the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) peer: SocketAddr,
    pub(crate) listener: Option<&'a ListenerConfig>,
    pub(crate) request_id: u128,
}

/// Reads the head, finds its pool, and writes the head for the backend to `out`.
/// `local` is this end's address: whom an HTTP/1.0 client without Host meant.
pub(crate) fn prepare(
    head: &[u8],
    context: Context<'_>,
    local: impl FnOnce() -> Option<SocketAddr>,
    out: &mut Vec<u8>,
) -> Result<Prepared, Refused> {
    let mut storage = field_storage();
    let head = request::parse(head, &mut storage).map_err(|bad| Refused {
        answer: OwnAnswer::new(bad.status, bad.reason, bad.message),
        request: None,
    })?;
    let refused = |answer| Refused {
        answer,
        request: Some(Understood {
            method: head.method,
            version: head.version,
            keep_alive: head.keep_alive,
            body: head.body,
        }),
    };
    let Some(listener) = context.listener else {
        return Err(refused(OwnAnswer::new(
            503,
            "config_missing",
            "this proxy has no configuration for this listener yet; is the control plane reachable?",
        )));
    };
    let Some(pool) = listener.routes.find(head.host.unwrap_or_default(), head.path) else {
        return Err(refused(OwnAnswer::new(
            404,
            "no_route",
            "no route matches this host and path",
        )));
    };
    let trust = &listener.listener.forwarded_trust;
    let peer = context.peer.ip();
    let fallback_host = match head.host {
        None => local()
            .map(|local| SocketAddr::new(local.ip().to_canonical(), local.port()).to_string())
            .unwrap_or_default(),
        Some(_) => String::new(),
    };
    let forwarding = Forwarding {
        peer,
        peer_trusted: is_trusted(peer, trust),
        fallback_host: &fallback_host,
        request_id: context.request_id,
    };
    head.encode(&forwarding, out);
    Ok(Prepared {
        method: head.method,
        version: head.version,
        keep_alive: head.keep_alive,
        expects_continue: head.expects_continue,
        body: head.body,
        client: client_address(peer, head.forwarded_for(), trust),
        pool,
    })
}
