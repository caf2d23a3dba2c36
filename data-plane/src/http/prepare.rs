//! From a client's bytes to a request that can be sent to any backend of its pool.
//! No I/O: everything that can be refused is refused here.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use lb_core::{
    client_address::{client_address, is_trusted},
    model::{HttpLimits, ListenerName},
    overload,
    routing::{path_of, without_port},
};

use super::{
    affinity::{self, Bound},
    limited::{self, Counted, KeyMemo},
    management,
    record::Record,
    respond::OwnAnswer,
};
use crate::{
    h1::{
        Version,
        body::BodyLength,
        field_storage,
        request::{self, BadRequest, Forwarding, Method, RequestHead},
    },
    live::{
        Config, CountersIndex, ListenerConfig, Management, PASSAGES_MAX, PoolIndex, RouteIndex,
    },
    reason::Reason,
    worker::Worker,
};

/// A request, read and rewritten.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) understood: Understood,
    pub(crate) expects_continue: bool,
    /// The protocols that the client asks for.
    pub(crate) upgrade: Option<Box<[u8]>>,
    pub(crate) takes_trailers: bool,
    /// Whether trailers of the request are passed on.
    pub(crate) passes_trailers: bool,
    /// Whose request it is, for the picker.
    pub(crate) client: IpAddr,
    pub(crate) destination: Destination,
    /// What keeps the client with its backend, in a pool where something does.
    pub(crate) bound: Option<Box<Bound>>,
    /// What its limits made of it.
    pub(crate) counted: Counted,
}

/// Who is to answer a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Destination {
    Pool(RouteIndex, PoolIndex),
    ControlPlane,
}

/// Why there is nothing to send.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) answer: OwnAnswer,
    /// Whether the request itself was understood: its framing can be relied on.
    pub(crate) request: Option<Understood>,
    /// It was for the control plane.
    pub(crate) is_management: bool,
}

impl Refused {
    /// A request that was understood, and that is no business of the control plane's.
    fn of(request: Understood, answer: OwnAnswer) -> Box<Self> {
        Box::new(Self { answer, request: Some(request), is_management: false })
    }
}

/// What answering a request takes, whoever answers it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Understood {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) keep_alive: bool,
    pub(crate) body: BodyLength,
    /// Whether it came from a client on this machine, which may know what the machine knows.
    pub(crate) is_local: bool,
    /// Where its answer is counted; nowhere special when no route matches.
    pub(crate) counters: Option<CountersIndex>,
}

/// What the connection knows beside the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) peer: SocketAddr,
    pub(crate) listener: Option<&'a ListenerConfig>,
    pub(crate) listener_name: &'a ListenerName,
    pub(crate) limits: &'a HttpLimits,
    pub(crate) management: Option<&'a Management>,
    pub(crate) request_id: u128,
    /// Where the pools are.
    pub(crate) config: &'a Config,
    /// Who asks the limits, and when.
    pub(crate) worker: &'a Worker,
    pub(crate) started: Instant,
    /// The same, by the worker's clock.
    pub(crate) nanos: u64,
    pub(crate) key: &'a KeyMemo,
}

/// What came of reading a head.
pub(crate) type Outcome = Result<Prepared, Box<Refused>>;

/// Whether the request is for the control plane.
pub(crate) fn is_management(outcome: &Outcome) -> bool {
    match outcome {
        Ok(prepared) => prepared.destination == Destination::ControlPlane,
        Err(refused) => refused.is_management,
    }
}

/// Where the answer is counted.
pub(crate) fn counters(outcome: &Outcome) -> Option<CountersIndex> {
    match outcome {
        Ok(prepared) => prepared.understood.counters,
        Err(refused) => refused.request.and_then(|request| request.counters),
    }
}

impl From<BadRequest> for OwnAnswer {
    fn from(bad: BadRequest) -> Self {
        Self::new(bad.status, bad.reason, bad.message)
    }
}

/// Reads the head at the start of `input`, finds its pool, and writes the head for the
/// backend to `out`. `local` is this end's address: whom an HTTP/1.0 client without Host
/// meant. How long the head was, or nothing if more of it must come.
pub(crate) fn prepare(
    input: &[u8],
    context: Context<'_>,
    local: impl FnOnce() -> Option<SocketAddr>,
    record: Option<&mut Record>,
    out: &mut Vec<u8>,
    outcome: &mut Option<Outcome>,
) -> Option<usize> {
    let mut storage = field_storage();
    let head = match request::parse(input, context.limits, &mut storage) {
        Ok(Some(head)) => head,
        Ok(None) => return None,
        Err(bad) => {
            let refused = Refused { answer: bad.into(), request: None, is_management: false };
            *outcome = Some(Err(Box::new(refused)));
            // Nothing is taken out: what it is cannot be told.
            return Some(0);
        }
    };
    let peer = context.peer.ip();
    let trust = context.listener.map(|config| &config.listener.forwarded_trust);
    let peer_trusted = trust.is_some_and(|trust| is_trusted(peer, trust));
    let client = match trust {
        Some(trust) if peer_trusted => client_address(peer, head.forwarded_for(), trust),
        _ => peer.to_canonical(),
    };
    if let Some(record) = record {
        record.describe(&head, client, context.request_id);
    }
    let understood = Understood {
        method: head.method,
        version: head.version,
        keep_alive: head.keep_alive,
        body: head.body,
        is_local: peer.to_canonical().is_loopback() && !head.was_forwarded,
        counters: None,
    };
    let origin = Origin { client, peer_trusted };
    *outcome = Some(forward(&head, understood, origin, context, local, out));
    Some(head.len())
}

/// Whom a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) client: IpAddr,
    /// Whether what the connection's other end says about earlier hops is believed.
    peer_trusted: bool,
}

impl Origin {
    /// Whether the client is the connection's other end.
    #[inline(always)]
    pub(super) fn is_peer(&self, context: &Context<'_>) -> bool {
        !self.peer_trusted || self.is_that(context.peer.ip())
    }

    #[inline(never)]
    fn is_that(&self, peer: IpAddr) -> bool {
        self.client == peer.to_canonical()
    }
}

fn forward(
    head: &RequestHead<'_, '_>,
    mut understood: Understood,
    origin: Origin,
    context: Context<'_>,
    local: impl FnOnce() -> Option<SocketAddr>,
    out: &mut Vec<u8>,
) -> Outcome {
    let Origin { client, peer_trusted } = origin;
    let refused = |request, status, reason, message: &str| {
        Err(Refused::of(request, OwnAnswer::new(status, reason, message)))
    };
    let Some(config) = context.listener else {
        let name = context.listener_name;
        let message = format!(
            "listener {name} is not configured: add it with lbctl add-listener {name}, or, if this \
             proxy has never had a configuration, see whether the control plane is reachable"
        );
        return refused(understood, 503, Reason::ConfigMissing, &message);
    };
    if head.max_forwards == Some(0) {
        // It is the proxy itself that is asked what it can do (RFC 9110, 7.6.2).
        return Err(Refused::of(understood, OwnAnswer::options()));
    }
    if head.has_passed && head.passages(context.config.mark.name()) >= PASSAGES_MAX {
        let message = format!(
            "the request has passed this load balancer {PASSAGES_MAX} times and would go on in a \
             circle: a backend that it was sent to leads back here; lbctl check looks for it"
        );
        // It counts where it was to go.
        let route = config.routes.find(head.host.unwrap_or_default(), head.path());
        understood.counters = route.map(|route| route.counters);
        return refused(understood, 508, Reason::LoopDetected, &message);
    }
    let management = context.management.filter(|_| management::is_claimed(head.path()));
    let route = match management {
        Some(management) => {
            management::admit(management, head, context.peer.ip()).map_err(|answer| {
                Box::new(Refused { is_management: true, ..*Refused::of(understood, answer) })
            })?;
            None
        }
        None => {
            let host = head.host.unwrap_or_default();
            let route = config.routes.find(host, head.path());
            if route.is_none() {
                let message = no_route(host, head.path(), &config.listener.name);
                return refused(understood, 404, Reason::NoRoute, &message);
            }
            route
        }
    };
    understood.counters = route.map(|route| route.counters);
    let body_max = context.limits.body_bytes_max;
    if body_max > 0 && matches!(head.body, BodyLength::Known(length) if length > body_max) {
        return refused(
            understood,
            413,
            Reason::BodyTooLarge,
            "the request's body is longer than allowed here",
        );
    }
    // After what is refused without a look at the pools, so that it takes no turn.
    let destination = match route {
        Some(route) => {
            let pool = affinity::pool_for(head, route, context.config);
            if !route.shared().is_empty() {
                understood.counters = Some(route.counters_of(pool));
            }
            Destination::Pool(route.route, pool)
        }
        None => Destination::ControlPlane,
    };
    let mut counted = Counted::default();
    if let (Some(limits), Destination::Pool(route, pool)) =
        (context.config.limits.as_deref(), destination)
    {
        limited::count(limits, &context, head, &origin, (route, pool), &mut counted)
            .map_err(|answer| Refused::of(understood, *answer))?;
    }
    if destination != Destination::ControlPlane && context.worker.refuses_requests() {
        // No head is written: that would take more of the memory that is short.
        return Err(shed(understood, &context));
    }
    let peer = context.peer.ip();
    let fallback_host = match head.host {
        None => local()
            .map(|local| SocketAddr::new(local.ip().to_canonical(), local.port()).to_string())
            .unwrap_or_default(),
        Some(_) => String::new(),
    };
    let sticky = match destination {
        Destination::Pool(_, index) => {
            let pool = &context.config.pools[index];
            pool.sticky.as_deref().map(|sticky| (sticky, &pool.name))
        }
        Destination::ControlPlane => None,
    };
    let bound = sticky.map(|(sticky, pool)| {
        Box::new(Bound::read(head, sticky, pool, context.config.ring(), peer_trusted))
    });
    let own_cookies = match route.map_or(&[][..], |route| route.cookies()) {
        [] => &[],
        names => affinity::own_cookies(head, names),
    };
    let forwarding = Forwarding {
        mark: context.config.mark.field(),
        peer,
        peer_trusted,
        fallback_host: &fallback_host,
        request_id: context.request_id,
        own_cookies,
        keeps_named: destination == Destination::ControlPlane,
    };
    head.encode(&forwarding, out);
    Ok(Prepared {
        understood,
        expects_continue: head.expects_continue,
        upgrade: head.upgrade.map(Box::from),
        takes_trailers: head.takes_trailers,
        passes_trailers: head.names_no_fields(),
        client,
        destination,
        bound,
        counted,
    })
}

/// The answer to a request that there is no memory for; it ends the connection, since what the
/// client says next is not to be kept either.
#[cold]
fn shed(understood: Understood, context: &Context<'_>) -> Box<Refused> {
    let wait = overload::Policy::default().retry_after(&mut context.worker.rng.borrow_mut());
    let message = "this proxy is short of memory and takes no new requests for the moment";
    let answer = OwnAnswer::new(503, Reason::Overloaded, message).retry_after(wait);
    Refused::of(Understood { keep_alive: false, ..understood }, answer)
}

/// Says what was looked for. What the client sent is cut short, without its query, and has
/// only characters that mean nothing to a terminal, a log, HTML or JSON.
fn no_route(host: &[u8], target: &[u8], listener: &ListenerName) -> String {
    format!(
        "no route of listener {listener} matches host {} and path {}; lbctl explain-route says why, \
         and lbctl add-route adds one",
        shown(without_port(host)),
        shown(path_of(target))
    )
}

fn shown(sent: &[u8]) -> String {
    const SHOWN_MAX: usize = 100;
    let mut shown = String::new();
    for &byte in sent.iter().take(SHOWN_MAX) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => shown.push(char::from(byte)),
            b'/' | b'.' | b'-' | b'_' | b'~' | b'%' | b':' | b'[' | b']' | b'*' | b'+' | b','
            | b';' | b'=' | b'@' | b'!' | b'(' | b')' | b'$' => shown.push(char::from(byte)),
            other => shown.push_str(&format!("%{other:02X}")),
        }
    }
    match sent.len() {
        0 => "(none)".to_owned(),
        length if length > SHOWN_MAX => shown + "...",
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_for_is_told_without_what_could_do_harm() {
        let listener = ListenerName::default_listener();
        let told = no_route(b"a.example:80", b"/<b>\"'&\\{x}?secret=1", &listener);
        assert!(told.contains("host a.example and path /%3Cb%3E%22%27%26%5C%7Bx%7D; "), "{told}");
        let long = [b'x'; 5000];
        let told = no_route(b"", &long, &listener);
        assert!(told.contains("host (none) and path xxx") && told.contains("xxx...; "), "{told}");
        assert!(told.len() < 300);
    }
}
