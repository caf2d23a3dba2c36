//! Clients that stay with their backends: what a request brings along, where it leads, and what
//! the answer says about the next time.

use std::time::Instant;

use lb_core::{
    affinity::{Decision, KeyRing, Met, NewReason, Presented, Refusal, Session, Value, field},
    model::PoolName,
};

use super::{
    attempts::Attempts, exchange::Exchange, relay::Relay, respond::OwnAnswer, stream::Stream,
};
use crate::{
    clock::unix_ms,
    h1::request::RequestHead,
    live::{Config, CookieSticky, PoolConfig, PoolIndex, Sticky},
    reason::Reason,
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
    /// Reads what a request brings along; beside it the name of the proxy's own cookie, if it
    /// is there.
    #[cold]
    pub(super) fn read<'s>(
        head: &RequestHead<'_, '_>,
        sticky: &'s Sticky,
        pool: &PoolName,
        ring: Option<&KeyRing>,
        peer_trusted: bool,
    ) -> (Self, Option<&'s str>) {
        let policy = match sticky {
            Sticky::Header(header) => {
                let value = head.field(header.name.as_bytes()).filter(|value| !value.is_empty());
                return (Self::Value(value.map(Box::from)), None);
            }
            Sticky::Cookie(cookie) => &cookie.policy,
        };
        let is_tls = peer_trusted
            && head
                .field(b"x-forwarded-proto")
                .is_some_and(|proto| proto.eq_ignore_ascii_case(b"https"));
        let Some(value) = field::find(head.cookies(), &policy.name) else {
            return (Self::Session { presented: Presented::Nothing, is_tls }, None);
        };
        let verified = match ring {
            Some(ring) => Session::verify(value, ring, pool, unix_ms() / 1000, policy.ttl),
            None => Err(Refusal::UnknownKey),
        };
        (Self::Session { presented: verified.into(), is_tls }, Some(&policy.name))
    }
}

/// The pool, among those that share a route's requests, in which the client has a session: it
/// stays there, whatever the shares say.
#[inline]
pub(super) fn own_pool(
    head: &RequestHead<'_, '_>,
    pools: &[PoolIndex],
    config: &Config,
) -> Option<PoolIndex> {
    let has_sessions = |pool: &&PoolIndex| {
        matches!(config.pools[**pool].sticky.as_deref(), Some(Sticky::Cookie(_)))
    };
    pools.iter().find(has_sessions)?;
    pool_of_session(head, pools, config)
}

#[cold]
fn pool_of_session(
    head: &RequestHead<'_, '_>,
    pools: &[PoolIndex],
    config: &Config,
) -> Option<PoolIndex> {
    let (ring, now_s) = (config.ring()?, unix_ms() / 1000);
    pools.iter().copied().find(|&index| {
        let pool = &config.pools[index];
        let Some(cookie) = pool.sticky.as_deref().and_then(Sticky::cookie) else { return false };
        let policy = &cookie.policy;
        let value = field::find(head.cookies(), &policy.name);
        let verified = value.map(|v| Session::verify(v, ring, &pool.name, now_s, policy.ttl));
        verified.is_some_and(|verified| verified.is_ok())
    })
}

/// What is known of a request's session while it is served.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tie {
    /// The backend that it belongs to.
    pub(super) own: Option<u32>,
    /// The cookie is to be sent anew even so.
    is_due: bool,
    /// It goes to no other.
    pub(super) is_strict: bool,
}

impl<S: Stream> Exchange<'_, S> {
    /// The first backend for a request: its client's own, or one that is picked; an answer, if
    /// it may have no other than one that cannot serve it.
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
        let (met, outcome) = match decision {
            Decision::Keep(slot) => {
                let is_due = matches!(presented, Presented::Session(s) if s.is_due());
                attempts.tie = Tie { own: Some(slot), is_due, is_strict: sticky.policy.strict };
                self.worker.release_held(now);
                pool.backends[slot as usize].count_session(self.worker.index);
                (Met::Kept, Ok(Some(slot)))
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
    /// Adds to a complete head what keeps the client with the backend that answers, unless the
    /// client has it already.
    #[inline]
    pub(super) fn give_session(&self, head: &mut Vec<u8>) {
        if let Some(Sticky::Cookie(sticky)) = self.pool().sticky.as_deref() {
            self.give_cookie(sticky, head);
        }
    }

    #[cold]
    fn give_cookie(&self, sticky: &CookieSticky, head: &mut Vec<u8>) {
        let Some(slot) = self.current() else { return };
        if self.tie.own == Some(slot) && !self.tie.is_due || self.is_guest() {
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
