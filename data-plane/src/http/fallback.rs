//! The pool that serves a request: its own, or the one that takes its place while that has no
//! backend. It is decided before anything is sent.

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use super::{
    attempts::Attempts,
    exchange::Exchange,
    prepare::{Destination, Prepared},
    relay::Relay,
    respond::OwnAnswer,
    stream::Stream,
};
use crate::{
    live::{LimitIndex, PoolConfig},
    reason::Reason,
    worker::Loaded,
};

/// What a request begins with.
pub(super) struct Begun<'c> {
    /// In the pool that serves it.
    pub(super) attempts: Attempts<'c>,
    /// The backend to try first; none if neither pool has one.
    pub(super) next: Option<u32>,
    /// The limits of what each backend of that pool may be sent.
    pub(super) of_backends: &'c [LimitIndex],
}

impl<S: Stream> Exchange<'_, S> {
    /// Picks a backend of the request's own pool, or of its fallback. There the client has no
    /// session, and keeps the one that it has in its own pool; the request has the time that
    /// it has left.
    pub(super) fn begin_in_a_pool<'c>(
        &mut self,
        own: &'c PoolConfig,
        prepared: &'c Prepared,
        config: &'c Loaded,
        upload: &Relay,
        started: Instant,
    ) -> Result<Begun<'c>, OwnAnswer> {
        let limits = config.limits.as_deref();
        if let Some(record) = &mut self.record {
            record.pool(&own.name);
        }
        let mut attempts = Attempts::new(own, prepared, config.ring(), started);
        let next = self.first(&mut attempts, upload, started)?;
        let fallback = own.fallback.pool.as_ref().filter(|_| next.is_none());
        if let Some(place) = fallback.and_then(|name| config.place_of(name)) {
            let other: &PoolConfig = &config.pools[place];
            if let Some(slot) = self.pick(other, prepared, &[], Some(upload), started) {
                own.fallen.to_pool.fetch_add(1, Relaxed);
                if let Some(record) = &mut self.record {
                    record.pool(&other.name);
                    record.reason(Reason::PoolFallback);
                }
                return Ok(Begun {
                    attempts: Attempts::new(other, prepared, None, started),
                    next: Some(slot),
                    of_backends: limits.map_or(&[], |limits| limits.of_fallback(place)),
                });
            }
        }
        let of_backends = match (limits, prepared.destination) {
            (Some(limits), Destination::Pool(route, pool)) => limits.of_backends(route, pool),
            _ => &[],
        };
        Ok(Begun { attempts, next, of_backends })
    }
}
