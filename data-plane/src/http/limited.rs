//! Asks the limits of a request, and says what came of it: in fields, in the answer to a
//! request that is refused, in the access log.

use std::{cell::Cell, net::IpAddr, sync::Arc, time::Instant};

use lb_core::{
    affinity::field,
    limit::{Decision, KeyHasher},
    model::LimitKey,
    routing::{path_of, without_port},
};

use super::{
    attempts::Attempts,
    exchange::Exchange,
    prepare::{Context, Origin},
    respond::OwnAnswer,
    stream::Stream,
};
use crate::{
    h1::request::RequestHead,
    live::{
        Asking, LimitConfig, LimitCopies, LimitIndex, Limits, PoolConfig, PoolIndex, RouteIndex,
        Telling, Told, Usual,
    },
    reason::Reason,
    worker::{Loaded, Worker, now},
};

/// The limits of a configuration, for one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limiter<'a> {
    pub(super) limits: &'a Limits,
    asking: Asking<'a>,
}

/// What the client is told of a refusal beside its reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OverLimit {
    pub(crate) limit: Arc<str>,
    /// Whole lines.
    pub(crate) fields: String,
}

/// The number that a limit has for the peer of a connection, so that it is made once for all
/// requests: the serial of the limit's state, and the number. No limit has the serial 0.
pub(crate) type KeyMemo = Cell<(u64, u64)>;

/// What is known of a request that was counted.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// What the client is told of its limits; nothing without any.
    pub(super) told: Option<Telling>,
    /// What the limits of the pool count it by that takes its own one's place, if there is such
    /// a pool and it has any.
    pub(super) spare: Option<Box<[(LimitIndex, u64)]>>,
}

/// Backends that one request is refused by before it gives up.
const BACKENDS_MAX: usize = 32;

impl<'a, S: Stream> Exchange<'a, S> {
    /// The limits of a configuration; none if it has none.
    pub(super) fn limiter<'c>(&self, config: &'c Loaded, now: Instant) -> Option<Limiter<'c>>
    where
        'a: 'c,
    {
        Some(Limiter::new(config.limits.as_deref()?, self.worker, now))
    }

    /// Whether the limits of a backend let a request go there; else another backend, if there
    /// is one that was not asked yet and the client may have another than its own.
    #[cold]
    pub(super) fn within_limits(
        &mut self,
        attempts: &mut Attempts<'_>,
        limiter: &Limiter<'_>,
        asked: &[LimitIndex],
        slot: u32,
    ) -> Result<(), Option<u32>> {
        let pool = attempts.pool();
        // It may have waited, or have been somewhere else before.
        let now = now();
        let limiter = &Limiter { asking: Asking { now, ..limiter.asking }, ..*limiter };
        let Err(refused) = limiter.admit_at(asked, pool, slot) else { return Ok(()) };
        // Its slots and its trial are for whoever may go there.
        self.permit = None;
        self.trial = None;
        let is_strict = attempts.tie.is_strict;
        let over = attempts.over_limit.get_or_insert_default();
        over.note(slot, refused);
        let (left_out, soonest) = (over.slots.clone(), over.soonest.unwrap_or(refused));
        let next = if is_strict || left_out.len() >= BACKENDS_MAX {
            None
        } else {
            let tried = [attempts.slots(), left_out.as_slice()].concat();
            self.pick(pool, attempts.prepared(), &tried, None, now)
        };
        if next.is_none() {
            attempts.denied(exhausted(limiter, pool, &soonest, is_strict));
        }
        Err(next)
    }
}

/// What limits of backends have refused.
#[derive(Debug, Default)]
pub(super) struct OverLimits {
    /// The backends.
    pub(super) slots: Vec<u32>,
    /// The one of which the first may be asked again.
    soonest: Option<Over>,
}

/// A limit that refused a request, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Over {
    limit: LimitIndex,
    decision: Decision,
}

impl OverLimits {
    fn note(&mut self, slot: u32, refused: Over) {
        self.slots.push(slot);
        let wait = |over: &Over| over.decision.retry_after_seconds();
        if self.soonest.is_none_or(|soonest| wait(&refused) < wait(&soonest)) {
            self.soonest = Some(refused);
        }
    }
}

/// What one request is counted by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a, 'h, 'b> {
    pub(super) head: &'a RequestHead<'h, 'b>,
    pub(super) client: IpAddr,
    /// Whether that is the connection's other end; then the memo is of it.
    pub(super) is_peer: bool,
    pub(super) memo: &'a KeyMemo,
}

impl Asker<'_, '_, '_> {
    /// The number under which a limit counts it; none if the limit does not concern it.
    #[inline(never)]
    pub(super) fn key(&self, limit: &LimitConfig) -> Option<u64> {
        match limit.limit.key() {
            LimitKey::All => Some(0),
            LimitKey::ClientAddress => Some(self.client_key(limit)),
            key @ (LimitKey::Path | LimitKey::Header(_) | LimitKey::Cookie(_)) => {
                key_of_head(self.head, &limit.state.hasher, key)
            }
        }
    }

    fn client_key(&self, limit: &LimitConfig) -> u64 {
        match self.memo.get() {
            (serial, key) if serial == limit.state.serial && self.is_peer => key,
            _ => self.new_client_key(limit),
        }
    }

    fn new_client_key(&self, limit: &LimitConfig) -> u64 {
        let key = limit.state.hasher.client(self.client);
        if self.is_peer {
            self.memo.set((limit.state.serial, key));
        }
        key
    }
}

/// The number of what a head has that a limit counts by; none if it has nothing of the kind.
#[inline(never)]
fn key_of_head(head: &RequestHead<'_, '_>, hasher: &KeyHasher, key: &LimitKey) -> Option<u64> {
    match key {
        LimitKey::All | LimitKey::ClientAddress => None,
        LimitKey::Path => Some(hasher.bytes(path_of(head.path()))),
        // What routes go by, too: a target in absolute form makes Host mean nothing.
        LimitKey::Header(name) if name.as_bytes() == b"host" => {
            let host = without_port(head.host?).to_ascii_lowercase();
            Some(hasher.bytes(&host))
        }
        LimitKey::Header(name) => key_of_values(hasher, head.aliases(name.as_bytes())),
        LimitKey::Cookie(name) => key_of_values(hasher, field::all(head.values(b"cookie"), name)),
    }
}

/// The number of a value. Of several that differ nobody knows which one a backend goes by: all
/// such requests are one client, who would otherwise be a new one with each value that it makes up.
fn key_of_values<'v>(
    hasher: &KeyHasher,
    mut values: impl Iterator<Item = &'v [u8]>,
) -> Option<u64> {
    /// No value can be this.
    const SEVERAL: &[u8] = b"\r\n";
    let first = values.next()?;
    let is_one = values.all(|value| value == first);
    Some(hasher.bytes(if is_one { first } else { SEVERAL }))
}

/// Counts a request that goes by a route to a pool. What the client is to be told, and what it
/// is counted by where it may fall back; or the answer to one that is too many. If one limit
/// refuses, nothing is taken from any. A function of its own, so that requests without limits pay
/// for none of it; and what is rare is in others, so that it has registers for what is not.
#[inline(never)]
pub(super) fn count(
    limits: &Limits,
    context: &Context<'_>,
    head: &RequestHead<'_, '_>,
    origin: &Origin,
    (route, pool): (RouteIndex, PoolIndex),
    counted: &mut Counted,
) -> Result<(), Box<OwnAnswer>> {
    if let Some(limit) = limits.only_one(route, pool)
        && let Some(key) = usual_key(limit, context, head, origin)
    {
        let worker = context.worker;
        counted.told = limit.take_usual(key, &worker.limit_copies, worker.index, context.nanos);
        if counted.told.is_some() {
            return Ok(());
        }
    }
    count_any(limits, context, head, origin, (route, pool), counted)
}

/// The number under which a limit counts the usual request; none of others.
#[inline(always)]
fn usual_key(
    limit: &LimitConfig,
    context: &Context<'_>,
    head: &RequestHead<'_, '_>,
    origin: &Origin,
) -> Option<u64> {
    match limit.usual() {
        Usual::All => Some(0),
        Usual::Peer => {
            let (serial, key) = context.key.get();
            (serial == limit.state.serial && origin.is_peer(context)).then_some(key)
        }
        Usual::Head => key_of_head(head, &limit.state.hasher, limit.limit.key()),
        Usual::None => None,
    }
}

/// The same for any request that was not counted yet.
#[inline(never)]
fn count_any(
    limits: &Limits,
    context: &Context<'_>,
    head: &RequestHead<'_, '_>,
    origin: &Origin,
    (route, pool): (RouteIndex, PoolIndex),
    counted: &mut Counted,
) -> Result<(), Box<OwnAnswer>> {
    let (own, asked) = (&context.config.pools[pool], limits.of_requests(route, pool));
    let has_spare = own.fallback.pool.is_some();
    if asked.is_empty() && !has_spare {
        return Ok(());
    }
    let limiter = Limiter::new(limits, context.worker, context.started);
    let (client, is_peer) = (origin.client, origin.is_peer(context));
    let asker = Asker { head, client, is_peer, memo: context.key };
    if has_spare {
        counted.spare = limiter.spare(own, context.config, &asker);
    }
    counted.told = limiter.admit(asked, &asker)?.map(Telling::Anew);
    Ok(())
}

impl<'a> Limiter<'a> {
    pub(super) fn new(limits: &'a Limits, worker: &'a Worker, now: Instant) -> Self {
        let asking = Asking { worker: worker.index, copies: &worker.limit_copies, now };
        Self { limits, asking }
    }

    /// Asks these limits.
    #[inline]
    fn admit(
        &self,
        asked: &[LimitIndex],
        asker: &Asker<'_, '_, '_>,
    ) -> Result<Option<Told>, Box<OwnAnswer>> {
        self.admit_all(asked, |&index, all| {
            let limit = &all[index];
            Some((limit, asker.key(limit)?))
        })
    }

    /// Asks limits of which it is known what they count a request by.
    #[cold]
    pub(super) fn admit_by(&self, keys: &[(LimitIndex, u64)]) -> Result<(), Box<OwnAnswer>> {
        self.admit_all(keys, |&(index, key), all| Some((&all[index], key))).map(|_| ())
    }

    /// Asks each of these of which `find` tells the number that it counts the request by; if one
    /// refuses, nothing is taken from any.
    #[inline(never)]
    fn admit_all<T>(
        &self,
        asked: &[T],
        find: impl Fn(&T, &'a [LimitConfig]) -> Option<(&'a LimitConfig, u64)>,
    ) -> Result<Option<Told>, Box<OwnAnswer>> {
        let all = self.limits.all();
        let mut nearest: Option<Told> = None;
        for (place, one) in asked.iter().enumerate() {
            let Some((limit, key)) = find(one, all) else { continue };
            match judge(limit, &limit.take(key, &self.asking)) {
                Ok(Some(told))
                    if nearest.is_none_or(|near| told.remaining() < near.remaining()) =>
                {
                    nearest = Some(told);
                }
                Ok(_) => {}
                Err(refusal) => {
                    self.give_back(asked[..place].iter().filter_map(|one| find(one, all)));
                    return Err(refusal);
                }
            }
        }
        Ok(nearest)
    }

    /// Gives back what was taken from these for one request.
    #[cold]
    fn give_back(&self, taken: impl Iterator<Item = (&'a LimitConfig, u64)>) {
        taken.for_each(|(limit, key)| limit.give_back(key, &self.asking));
    }

    /// Asks the limits of a backend for a request that is to go there; if one refuses, nothing
    /// is taken from any, and it is told what the client is to know.
    pub(super) fn admit_at(
        &self,
        asked: &[LimitIndex],
        pool: &PoolConfig,
        slot: u32,
    ) -> Result<(), Over> {
        let identity = &pool.backends[slot as usize].identity;
        let key = |limit: &LimitConfig| limit.state.backend_key(identity);
        for (place, &index) in asked.iter().enumerate() {
            let limit = self.limit(index);
            let decision = limit.take(key(limit), &self.asking);
            if decision.is_admitted() || limit.limit.shadow {
                continue;
            }
            let taken = asked[..place].iter().map(|&index| self.limit(index));
            self.give_back(taken.map(|limit| (limit, key(limit))));
            return Err(Over { limit: index, decision });
        }
        Ok(())
    }

    pub(super) fn limit(&self, index: LimitIndex) -> &'a LimitConfig {
        &self.limits.all()[index]
    }
}

/// What the client is told of a decision; nothing if the limit only counts.
#[inline]
fn judge(limit: &LimitConfig, decision: &Decision) -> Result<Option<Told>, Box<OwnAnswer>> {
    if limit.limit.shadow {
        Ok(None)
    } else if decision.is_admitted() {
        Ok(Some(limit.told(decision)))
    } else {
        Err(Box::new(refusal(limit, decision)))
    }
}

/// 429 by this limit.
#[cold]
fn refusal(limit: &LimitConfig, decision: &Decision) -> OwnAnswer {
    let seconds = decision.retry_after_seconds().unwrap_or(1);
    let message = format!(
        "limit {} lets {} pass{}, and this one was too many; try again in {seconds} s",
        limit.limit.name,
        limit.limit.rate,
        limit.each()
    );
    over_limit(limit, decision, seconds, message)
}

/// 429 because every backend that this request may have has had what a limit lets it have.
#[cold]
fn exhausted(
    limiter: &Limiter<'_>,
    pool: &PoolConfig,
    soonest: &Over,
    is_strict: bool,
) -> OwnAnswer {
    let limit = limiter.limit(soonest.limit);
    let seconds = soonest.decision.retry_after_seconds().unwrap_or(1);
    let pool = &pool.name;
    let who = if is_strict {
        format!("the backend of this client's session, which pool {pool} does not move,")
    } else {
        format!("every backend of pool {pool} that could be asked")
    };
    let message = format!(
        "{who} has had what limit {} lets pass, {}{}; try again in {seconds} s",
        limit.limit.name,
        limit.limit.rate,
        limit.each()
    );
    over_limit(limit, &soonest.decision, seconds, message)
}

fn over_limit(
    limit: &LimitConfig,
    decision: &Decision,
    retry_after: u64,
    message: String,
) -> OwnAnswer {
    let mut fields = Vec::new();
    limit.told(decision).write(limit, &mut fields);
    let fields = String::from_utf8_lossy(&fields).into_owned();
    let over_limit = OverLimit { limit: Arc::from(&limit.limit.name), fields };
    let mut answer = OwnAnswer::new(429, Reason::RateLimited, message);
    answer.retry_after_s = retry_after;
    answer.over_limit = Some(Box::new(over_limit));
    answer
}

impl Telling {
    /// Adds the fields to a head that is complete. As long as a limit is far from reached its
    /// figures are the same from request to request, and so are the fields.
    #[inline(always)]
    pub(super) fn add(&self, limits: &Limits, copies: &LimitCopies, head: &mut Vec<u8>) {
        match self {
            Self::Again(fields) => {
                // Before the empty line, which they end with.
                head.truncate(head.len().saturating_sub(2));
                head.extend_from_slice(fields);
            }
            Self::Anew(told) => copies.tell(told, limits, head),
        }
    }
}
