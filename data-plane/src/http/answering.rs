//! Counts what clients are answered, where the route of the request has its counters.

use std::time::Instant;

use super::{exchange::Exchange, stream::Stream};
use crate::{
    live::CountersIndex,
    worker::{Loaded, Worker},
};

/// Where the answer to a request is counted, and since when its client waits.
#[derive(Debug)]
pub(super) struct Answering {
    /// The request's own: a later one may have the route's counters elsewhere.
    pub(super) config: Loaded,
    pub(super) counters: Option<CountersIndex>,
    pub(super) started: Instant,
}

impl<S: Stream> Exchange<'_, S> {
    /// When the head of the request at hand was complete.
    pub(super) fn asked_at(&self) -> Option<Instant> {
        Some(self.answering.as_ref()?.started)
    }

    /// Notes what the client is answered, and for how many microseconds it has waited for it, if
    /// its request was complete.
    pub(super) fn count_answer(&self, status: u16, waited_us: Option<u64>) {
        if !self.is_traffic {
            return;
        }
        let Worker { shard, index, .. } = &**self.worker;
        shard.count_status(status);
        let request = self.answering.as_ref();
        let counters = request.and_then(|request| {
            Some(request.config.route_counters.get(request.counters?)?.of(*index))
        });
        counters.unwrap_or(&shard.unrouted).count(status, waited_us);
    }
}
