//! Clients that stay with their backends: what a request brings along, where it leads, and what
//! the answer says about the next time.

use std::time::Instant;

use lb_core::{
    affinity::{
        Decision, KeyRing, Met, NewReason, Presented, Refusal, Session, Value, field, sharing,
    },
    model::PoolName,
};

use super::{
    attempts::Attempts, exchange::Exchange, relay::Relay, respond::OwnAnswer, stream::Stream,
};
use crate::{
    clock::unix_ms,
    h1::{request::RequestHead, response::ResponseHead},
    live::{Config, CookieSticky, PoolConfig, PoolIndex, RouteDestination, Sticky},
    reason::Reason,
    worker::now,
};

/// What a request of a pool with affinity brought along.
#[derive(Debug)]
pub(crate) enum Bound {
    /// The value of the field by which clients are told apart; nothing without the field.
    Value(Option<Box<[u8]>>),
    /// A session, or none.
    Session {
        presented: Presented,
        /// The client's connection is encrypted, as whoever is trusted to know says.
        is_tls: bool,
    },
}

impl Bound {
    /// Reads what a request brings along.
    #[cold]
    pub(super) fn read(
        head: &RequestHead<'_, '_>,
        sticky: &Sticky,
        pool: &PoolName,
        ring: Option<&KeyRing>,
        peer_trusted: bool,
    ) -> Self {
        let policy = match sticky {
            Sticky::Header(header) => {
                let value = head.field(header.name.as_bytes()).filter(|value| !value.is_empty());
                return Self::Value(value.map(Box::from));
            }
            Sticky::Cookie(cookie) => &cookie.policy,
        };
        let is_tls = peer_trusted && head.field(b"x-forwarded-proto").is_some_and(began_as_https);
        let Some(value) = field::find(head.cookies(), &policy.name) else {
            return Self::Session { presented: Presented::Nothing, is_tls };
        };
        let verified = match ring {
            Some(ring) => Session::verify(value, ring, pool, unix_ms() / 1000, policy.ttl),
            None => Err(Refusal::UnknownKey),
        };
        Self::Session { presented: verified.into(), is_tls }
    }
}

/// Whether the client's own connection is encrypted, by the value of an `X-Forwarded-Proto`.
///
/// Where each of several proxies adds what it saw, the first tells of the client's connection, as
/// it does in `X-Forwarded-For`. A client that writes it itself deceives nobody else: only its
/// own browser keeps, or drops, the cookie.
fn began_as_https(proto: &[u8]) -> bool {
    let mut hops = proto.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    hops.find(|hop| !hop.is_empty()).is_some_and(|hop| hop.eq_ignore_ascii_case(b"https"))
}

/// The names of the proxy's own cookies, if the request has one of them at all.
#[cold]
pub(super) fn own_cookies<'n>(head: &RequestHead<'_, '_>, names: &'n [Box<str>]) -> &'n [Box<str>] {
    if head.cookies().any(|value| field::has(value, names)) { names } else { &[] }
}

/// The pool of one request. Among those that share a route's requests it is the one in which the
/// client has a session, whatever the shares say.
#[inline]
pub(super) fn pool_for(
    head: &RequestHead<'_, '_>,
    route: &RouteDestination,
    config: &Config,
) -> PoolIndex {
    let has_sessions = |pool: &&PoolIndex| {
        matches!(config.pools[**pool].sticky.as_deref(), Some(Sticky::Cookie(_)))
    };
    match route.shared().iter().find(has_sessions) {
        None => route.pool(),
        Some(_) => pool_of_session(head, route, config),
    }
}

/// A client whose pools cannot serve it gets another one of the route's, which can: it would
/// else be sent to where nobody is for as long as its cookie lasts.
#[cold]
fn pool_of_session(
    head: &RequestHead<'_, '_>,
    route: &RouteDestination,
    config: &Config,
) -> PoolIndex {
    let Some(ring) = config.ring() else { return route.pool() };
    let (now_s, now) = (unix_ms() / 1000, now());
    let mut is_bound = false;
    for &index in route.shared() {
        let pool = &*config.pools[index];
        let Some(cookie) = pool.sticky.as_deref().and_then(Sticky::cookie) else { continue };
        let policy = &cookie.policy;
        let Some(value) = field::find(head.cookies(), &policy.name) else { continue };
        let verified = Session::verify(value, ring, &pool.name, now_s, policy.ttl);
        let Ok(session) = verified else { continue };
        is_bound = true;
        let stays = || {
            let decision = cookie.decide(pool, &Presented::Session(session), now);
            matches!(decision, Decision::Keep(_) | Decision::Elsewhere(_))
        };
        if policy.strict || can_serve(pool, config) || stays() {
            return index;
        }
    }
    let turn = route.pool();
    if !is_bound || can_serve(&config.pools[turn], config) {
        return turn;
    }
    let others = || route.shared().iter().copied();
    others().find(|&other| can_serve(&config.pools[other], config)).unwrap_or(turn)
}

/// Whether a request without a session would come to a backend, of the pool or of the one that
/// takes its place.
fn can_serve(pool: &PoolConfig, config: &Config) -> bool {
    let takes_over = || {
        let place = pool.fallback.pool.as_ref().and_then(|name| config.place_of(name));
        place.is_some_and(|place| !config.pools[place].picker.is_empty())
    };
    !pool.picker.is_empty() || takes_over()
}

/// What is known of a request's session while it is served.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tie {
    /// The backend that it belongs to.
    pub(super) own: Option<u32>,
    /// The cookie is to be sent anew although it stays there.
    is_due: bool,
    /// Also with an answer that should better carry none.
    is_late: bool,
    /// It goes to no other.
    pub(super) is_strict: bool,
}

impl<S: Stream> Exchange<'_, S> {
    /// The first backend of the pool for a request: its client's own, or one that is picked; an
    /// answer, if it may have no other than one that cannot serve it. A client whose own has no
    /// room gets another; where the pool has none to pick, that is for the caller to find.
    #[inline]
    pub(super) fn first(
        &mut self,
        attempts: &mut Attempts<'_>,
        upload: &Relay,
        started: Instant,
    ) -> Result<Option<u32>, OwnAnswer> {
        let (pool, prepared) = (attempts.pool(), attempts.prepared());
        if let Some(Sticky::Cookie(sticky)) = pool.sticky.as_deref()
            && let Some(slot) = self.own(attempts, sticky, started)?
        {
            return Ok(Some(slot));
        }
        Ok(self.pick(pool, prepared, &[], Some(upload), started))
    }

    /// The client's own backend, if it has one that can serve it.
    #[cold]
    fn own(
        &mut self,
        attempts: &mut Attempts<'_>,
        sticky: &CookieSticky,
        now: Instant,
    ) -> Result<Option<u32>, OwnAnswer> {
        let Some(Bound::Session { presented, is_tls }) = attempts.prepared().bound.as_deref()
        else {
            return Ok(None);
        };
        let pool = attempts.pool();
        let decision = sticky.decide(pool, presented, now);
        let tie = |own| {
            let (is_due, is_late) = match presented {
                Presented::Session(session) => (session.is_due(), session.is_late()),
                Presented::Nothing | Presented::Refused(_) => (false, false),
            };
            Tie { own: Some(own), is_due, is_late, is_strict: sticky.policy.strict }
        };
        let (met, outcome) = match decision {
            Decision::Keep(slot) => {
                attempts.tie = tie(slot);
                self.worker.release_held(now);
                pool.backends[slot as usize].count_session(self.worker.index);
                (Met::Kept, Ok(Some(slot)))
            }
            Decision::Elsewhere(own) => {
                attempts.tie = tie(own);
                (Met::New(NewReason::AtCap), Ok(None))
            }
            Decision::New(reason) => (Met::New(reason), Ok(None)),
            Decision::Refuse { reason, ends_session } => {
                let ended = ends_session.then(|| {
                    let mut value = Vec::new();
                    field::clear(&sticky.policy, *is_tls, &mut value);
                    value
                });
                let mut answer = refusal(pool, presented, reason);
                answer.set_cookie = ended.map(Into::into);
                (Met::New(reason), Err(answer))
            }
        };
        sticky.counts.count(self.worker.index, met);
        if let Some(record) = &mut self.record {
            record.session(met);
        }
        outcome
    }
}

/// What a client of a strict pool is told that may have no other backend.
fn refusal(pool: &PoolConfig, presented: &Presented, reason: NewReason) -> OwnAnswer {
    let backend = match presented {
        Presented::Session(session) => session.backend(),
        Presented::Nothing | Presented::Refused(_) => "",
    };
    OwnAnswer::new(
        503,
        Reason::SessionUnavailable,
        format!(
            "this client's session belongs to backend {backend} of pool {}, which cannot serve it \
             ({}), and the pool gives it no other (session-strict)",
            pool.name,
            reason.name()
        ),
    )
}

impl Attempts<'_> {
    /// Adds to a complete head what keeps the client with its backend, unless the client has it
    /// already. `answer` is what the backend has said.
    #[inline]
    pub(super) fn give_session(&self, answer: &ResponseHead<'_, '_>, head: &mut Vec<u8>) {
        if let Some(Sticky::Cookie(sticky)) = self.pool().sticky.as_deref() {
            self.give_cookie(sticky, answer, head);
        }
    }

    /// The backend that the client has from now on. One that had no room, or that a limit kept
    /// the request from, has not been tried and keeps its client: that passes. One that has
    /// failed does not.
    fn seat(&self) -> Option<u32> {
        match self.tie.own {
            Some(own) if !self.slots().contains(&own) => Some(own),
            _ => self.current(),
        }
    }

    #[cold]
    fn give_cookie(
        &self,
        sticky: &CookieSticky,
        answer: &ResponseHead<'_, '_>,
        head: &mut Vec<u8>,
    ) {
        let Some(slot) = self.seat() else { return };
        let is_own = self.tie.own == Some(slot);
        // What an answer says that nothing has changed, caches add to what they keep, which is
        // everybody's (RFC 9111, 3.2): so a session neither begins nor moves with it.
        let is_called_for = match answer.status {
            304 => is_own && self.tie.is_late,
            _ => !is_own || self.tie.is_due,
        };
        if !is_called_for {
            return;
        }
        let (Some(ring), Some(Bound::Session { is_tls, .. })) =
            (self.ring, self.prepared().bound.as_deref())
        else {
            return;
        };
        let identity = &self.pool().backends[slot as usize].identity;
        let value = Value::sign(
            ring,
            &self.pool().name,
            &identity.id,
            identity.incarnation,
            unix_ms() / 1000,
            sticky.policy.ttl,
        );
        add_field(head, b"Set-Cookie: ", |out| field::set(&sticky.policy, &value, *is_tls, out));
        // Nobody keeps an answer that changes the protocol.
        if answer.status >= 200 && !sharing::is_private(answer.values(b"cache-control")) {
            add_field(head, b"Cache-Control: ", |out| out.extend_from_slice(b"private"));
        }
    }
}

/// Adds a field to a complete head.
pub(super) fn add_field(head: &mut Vec<u8>, name: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
    debug_assert!(head.ends_with(b"\r\n\r\n"));
    head.truncate(head.len() - 2);
    head.extend_from_slice(name);
    value(head);
    head.extend_from_slice(b"\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hop_tells_of_the_clients_connection() {
        for (proto, is_https) in [
            ("https", true),
            ("HTTPS", true),
            ("https, http", true),
            (" , https ,http", true),
            ("http, https", false),
            ("http", false),
            ("httpss", false),
            ("", false),
        ] {
            assert_eq!(began_as_https(proto.as_bytes()), is_https, "{proto}");
        }
    }
}
