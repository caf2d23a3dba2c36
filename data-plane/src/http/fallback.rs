//! The pool that serves a request: its own, or the one that takes its place while that has no
//! backend to pick. It is decided before anything is sent. The limits of that pool count it then, beside
//! those that have counted it in its own.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    attempts::Attempts,
    exchange::Exchange,
    limited::{Asker, Limiter},
    prepare::Destination,
    relay::Relay,
    respond::OwnAnswer,
    stream::Stream,
};
use crate::{
    live::{Config, LimitIndex, PoolConfig, PoolIndex},
    worker::Loaded,
};

impl<S: Stream> Exchange<'_, S> {
    /// Picks the backend to try first: of the request's own pool, in which `attempts` begins,
    /// or of its fallback, to which it is moved. There the client has no session, and keeps
    /// the one that it has in its own pool; the request has the time that it has left. Told is
    /// also which limits hold for each backend of that pool.
    pub(super) fn begin_in_a_pool<'c>(
        &mut self,
        attempts: &mut Attempts<'c>,
        config: &'c Loaded,
        upload: &Relay,
    ) -> Result<(Option<u32>, &'c [LimitIndex]), OwnAnswer> {
        let (own, started) = (attempts.pool(), attempts.started());
        if let Some(record) = &mut self.record {
            record.pool(&own.name);
        }
        let next = self.first(attempts, upload, started)?;
        if next.is_none()
            && let Some(place) = own.fallback.pool.as_ref().and_then(|name| config.place_of(name))
            && let Some(slot) = self.fall_back(attempts, config, place, upload)?
        {
            let limits = config.limits.as_deref();
            return Ok((Some(slot), limits.map_or(&[], |limits| limits.of_fallback(place))));
        }
        let of_backends = match (config.limits.as_deref(), attempts.prepared().destination) {
            (Some(limits), Destination::Pool(route, pool)) => limits.of_backends(route, pool),
            _ => &[],
        };
        // Where nobody else serves it, a client waits in line for its own.
        Ok((next.or(attempts.tie.own), of_backends))
    }

    #[cold]
    fn fall_back<'c>(
        &mut self,
        attempts: &mut Attempts<'c>,
        config: &'c Loaded,
        place: PoolIndex,
        upload: &Relay,
    ) -> Result<Option<u32>, OwnAnswer> {
        let (own, prepared, started) = (attempts.pool(), attempts.prepared(), attempts.started());
        let other = &config.pools[place];
        let Some(slot) = self.pick(other, prepared, &[], Some(upload), started) else {
            return Ok(None);
        };
        if let (Destination::Pool(route, _), Some(answering)) =
            (prepared.destination, &mut self.answering)
        {
            // It is this pool's answer from here on.
            let spare = config.counters_places.of_spare(route, place);
            answering.counters = spare.or(answering.counters);
        }
        if let (Some(keys), Some(limiter)) =
            (&prepared.counted.spare, self.limiter(config, started))
            && let Err(answer) = limiter.admit_by(keys)
        {
            self.trial = None;
            return Err(*answer);
        }
        own.fallen.to_pool.fetch_add(1, Relaxed);
        if let Some(record) = &mut self.record {
            record.fell_back(&other.name);
        }
        *attempts = Attempts::new(other, prepared, None, started);
        Ok(Some(slot))
    }
}

impl Limiter<'_> {
    /// What the limits of the pool that may take this one's place count a request by.
    #[cold]
    pub(super) fn spare(
        &self,
        own: &PoolConfig,
        config: &Config,
        asker: &Asker<'_, '_, '_>,
    ) -> Option<Box<[(LimitIndex, u64)]>> {
        let place = config.place_of(own.fallback.pool.as_ref()?)?;
        let asked = self.limits.of_requests_that_fall_back(place).iter();
        let key = |&index| Some((index, asker.key(self.limit(index))?));
        let keys: Box<[_]> = asked.filter_map(key).collect();
        (!keys.is_empty()).then_some(keys)
    }
}
