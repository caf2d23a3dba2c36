//! Counts what clients are answered, where the route of the request has its counters.

use std::time::Instant;

use super::{exchange::Exchange, stream::Stream};
use crate::{
    live::CountersIndex,
    reason::Reason,
    stats::AnswerCounters,
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
        self.worker.shard.count_status(status);
        self.counters().count(status, waited_us);
    }

    /// Notes why the proxy itself answered as it did.
    pub(super) fn count_own_answer(&self, status: u16, reason: Reason) {
        if !self.is_traffic {
            return;
        }
        self.worker.shard.count_own_answer(reason);
        if status >= 500 {
            self.counters().count_failure(reason);
        }
    }

    /// Notes why a response that has begun was not brought to its end. A client that left has
    /// not been failed.
    #[cold]
    pub(super) fn count_broken(&self, reason: Reason) {
        if self.is_traffic && reason != Reason::ClientAbort {
            self.counters().count_broken(reason);
        }
    }

    /// Where the answer to the request at hand is counted.
    fn counters(&self) -> &AnswerCounters {
        let Worker { shard, index, .. } = &**self.worker;
        let request = self.answering.as_ref();
        let counters = request.and_then(|request| {
            Some(request.config.route_counters.get(request.counters?)?.of(*index))
        });
        counters.unwrap_or(&shard.unrouted)
    }
}
