//! What a report says of one backend.

use std::sync::Arc;

use lb_core::stats::BackendCounters;
use lb_proto::{convert, v1 as pb};

use crate::live::BackendState;

/// What one backend has counted, and what was told of it.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) state: Arc<BackendState>,
    sent: BackendCounters,
    sessions: u64,
    begun: u64,
    activity: u64,
    /// As it was told last.
    pub(super) in_flight: u32,
    /// Whether the present configuration has it.
    pub(super) configured: bool,
    avoided: bool,
}

impl Tracked {
    /// Of which nothing was told yet.
    pub(super) fn new(state: &Arc<BackendState>) -> Self {
        Self {
            state: Arc::clone(state),
            sent: BackendCounters::default(),
            sessions: 0,
            begun: 0,
            activity: 0,
            in_flight: 0,
            configured: true,
            avoided: false,
        }
    }

    /// What is new since the last report, if anything is.
    pub(super) fn report(&mut self) -> Option<pb::BackendReport> {
        let (activity, in_flight) = (self.state.activity(), self.state.in_flight());
        let avoided = self.state.is_avoided();
        let unchanged =
            activity == self.activity && in_flight == self.in_flight && avoided == self.avoided;
        // What is in flight is told each time, because a silent gauge expires; and so is
        // what is avoided.
        if unchanged && in_flight == 0 && !avoided {
            return None;
        }
        self.avoided = avoided;
        self.activity = activity;
        self.in_flight = in_flight;
        let counters = self.state.counters();
        let new = difference(&counters, &self.sent);
        self.sent = counters;
        let sessions = self.state.sessions();
        let new_sessions = sessions - std::mem::replace(&mut self.sessions, sessions);
        let begun = self.state.begun();
        let new_begun = begun - std::mem::replace(&mut self.begun, begun);
        let identity = &self.state.identity;
        // Without a success the run may be older than this period.
        let trailing_failures =
            u64::from(self.state.failures_in_a_row()).min(new.failures.consecutive());
        Some(pb::BackendReport {
            pool: self.state.pool.to_string(),
            backend: identity.id.to_string(),
            incarnation: identity.incarnation.0,
            in_flight,
            upgraded: self.state.upgraded(),
            cut: self.state.cut(),
            sessions: new_sessions,
            trailing_failures,
            avoided,
            begun: new_begun,
            unanswered: self.state.unanswered().min(in_flight),
            ..convert::counters_to_wire(&new)
        })
    }
}

fn difference(now: &BackendCounters, before: &BackendCounters) -> BackendCounters {
    let mut failures = now.failures;
    failures.connect -= before.failures.connect;
    failures.reset -= before.failures.reset;
    failures.timeout -= before.failures.timeout;
    failures.protocol -= before.failures.protocol;
    failures.status_5xx -= before.failures.status_5xx;
    failures.status_gateway -= before.failures.status_gateway;
    BackendCounters {
        requests: now.requests - before.requests,
        successes: now.successes - before.successes,
        failures,
        retries: now.retries - before.retries,
        bytes_to_backend: now.bytes_to_backend - before.bytes_to_backend,
        bytes_from_backend: now.bytes_from_backend - before.bytes_from_backend,
        latency: now.latency.since(&before.latency),
    }
}
