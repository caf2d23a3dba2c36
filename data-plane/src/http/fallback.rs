//! The pool that serves a request: its own, or the one that takes its place when that has no
//! backend to pick, or none more for a request that has failed and may be sent again. The limits of that
//! pool count it then, beside those that have counted it in its own.

use std::{
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use super::{
    attempts::{Again, Attempts},
    exchange::Exchange,
    limited::{Asker, Limiter},
    prepare::{Destination, Prepared},
    relay::Relay,
    respond::OwnAnswer,
    stream::Stream,
};
use crate::{
    live::{Config, LimitIndex, PoolConfig, PoolIndex},
    worker::{Loaded, now},
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
            return Ok((Some(slot), of_backends_there(config, place)));
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
        self.answers_for(place, config, prepared);
        if let Err(answer) = self.admit_there(prepared, config, started) {
            self.trial = None;
            return Err(*answer);
        }
        self.note_fallen(own, other);
        *attempts = Attempts::new(other, prepared, None, started);
        Ok(Some(slot))
    }

    /// It is this pool's answer from here on.
    fn answers_for(&mut self, place: PoolIndex, config: &Config, prepared: &Prepared) {
        if let (Destination::Pool(route, _), Some(answering)) =
            (prepared.destination, &mut self.answering)
        {
            let spare = config.counters_places.of_spare(route, place);
            answering.counters = spare.or(answering.counters);
        }
    }

    fn note_fallen(&mut self, own: &PoolConfig, other: &PoolConfig) {
        own.fallen.to_pool.fetch_add(1, Relaxed);
        if let Some(record) = &mut self.record {
            record.fell_back(&other.name);
        }
    }

    /// The pool that would take a request that has failed in its own and may be sent again: the
    /// fallback of that, if it has a backend to pick. The way is one step long, and who may have no
    /// backend but one has no other here either.
    pub(super) fn spare(&self, attempts: &Attempts<'_>) -> Option<PoolIndex> {
        let pool = attempts.pool();
        let name = pool.fallback.pool.as_ref()?;
        let config = &self.answering.as_ref()?.config;
        let Destination::Pool(_, own) = attempts.prepared().destination else { return None };
        if attempts.tie.is_strict || !std::ptr::eq(&*config.pools[own], pool) {
            return None;
        }
        let place = config.place_of(name)?;
        (!config.pools[place].picker.is_empty()).then_some(place)
    }

    /// Picks a backend of that pool for a request whose retry is decided, and that finds no other
    /// backend in its own. Where a limit of that pool refuses it, or it has no time left by that
    /// pool's account, there is no retry.
    #[cold]
    pub(super) fn again_elsewhere(
        &mut self,
        attempts: &Attempts<'_>,
        wait: Duration,
        at: Instant,
    ) -> Option<Again> {
        /// No backend has this slot: it has been elsewhere, has risked enough to try nobody, and
        /// takes no turn of those that come here first.
        const ELSEWHERE: u32 = u32::MAX;
        let (place, prepared) = (self.spare(attempts)?, attempts.prepared());
        let config = Rc::clone(&self.answering.as_ref()?.config);
        let other = &config.pools[place];
        if at - attempts.started() + wait >= other.request_timeout {
            return None;
        }
        let slot = self.pick(other, prepared, &[ELSEWHERE], None, at)?;
        self.admit_there(prepared, &config, at).ok()?;
        Some(Again { slot, wait, spare: Some(place) })
    }

    /// Moves a request there. Told is which limits hold for each backend of that pool.
    #[cold]
    pub(super) fn go_on_in<'c>(
        &mut self,
        attempts: &mut Attempts<'c>,
        config: &'c Loaded,
        place: PoolIndex,
    ) -> &'c [LimitIndex] {
        let (own, other) = (attempts.pool(), &*config.pools[place]);
        self.answers_for(place, config, attempts.prepared());
        self.note_fallen(own, other);
        // There it is sent for the first time.
        other.retries.count_request(self.worker.index);
        attempts.move_to(other, now());
        of_backends_there(config, place)
    }

    /// Asks the limits of the pool that takes its own one's place.
    fn admit_there(
        &self,
        prepared: &Prepared,
        config: &Loaded,
        at: Instant,
    ) -> Result<(), Box<OwnAnswer>> {
        match (&prepared.counted.spare, self.limiter(config, at)) {
            (Some(keys), Some(limiter)) => limiter.admit_by(keys),
            _ => Ok(()),
        }
    }
}

/// The limits of each backend of a pool for requests that come to it from another one.
fn of_backends_there(config: &Loaded, place: PoolIndex) -> &[LimitIndex] {
    config.limits.as_deref().map_or(&[], |limits| limits.of_fallback(place))
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
