//! How long an attempt may take.

use std::time::Duration;

use super::{converse::Conversation, stream::Stream};
use crate::worker::now;

/// How long the answer for a client that says no more may take. Nobody can tell whether it
/// listens (nginx and Envoy take it to have left at once, HAProxy to be there): this is enough
/// for most answers, and those who have left cost a backend no more than that.
const FINISHED_FOR: Duration = Duration::from_secs(1);

impl<S: Stream> Conversation<'_, '_, '_, S> {
    /// How long connecting may take. Nothing was written then, so any request can go to
    /// another backend.
    pub(super) fn connect_timeout(&self) -> Duration {
        let whole = self.pool.connect_timeout;
        match self.pool.retry.try_timeout {
            Some(of_attempt) if self.attempts.may_follow() => whole.min(of_attempt),
            _ => whole,
        }
    }

    /// The client has said everything, or nobody listens to it any more: the request's time
    /// begins, which until then was its client's. Gives the time of the attempt, if that has one.
    pub(super) fn begin_backends_time(&mut self) -> Option<Duration> {
        let now = now();
        self.attempts.begin_time(now);
        if let Some(permit) = &mut self.exchange.permit {
            permit.has_uploaded();
        }
        let is_whole = self.upload.is_read() && self.upload.is_replayable();
        let try_timeout = self.attempts.try_timeout(is_whole);
        let longest = self.pool.request_timeout;
        let timer = &self.exchange.connection.timer;
        self.exchange.worker.wheel.arm(timer, now, try_timeout.unwrap_or(longest).min(longest));
        try_timeout
    }

    /// Sets the time until the response's head: the request's, or the attempt's own.
    pub(super) fn arm_until_head(&self, try_timeout: Option<Duration>) {
        let timer = &self.exchange.connection.timer;
        let wheel = &self.exchange.worker.wheel;
        let started = self.attempts.started();
        match try_timeout {
            Some(own) if self.began - started + own < self.pool.request_timeout => {
                wheel.arm(timer, self.began, own);
            }
            _ => wheel.arm(timer, started, self.pool.request_timeout),
        }
    }

    /// Sets the time until a client that says no more is taken to have left, at most the
    /// request's.
    pub(super) fn arm_for_finished(&self) {
        let now = now();
        let left = self.pool.request_timeout.saturating_sub(now - self.attempts.started());
        let timer = &self.exchange.connection.timer;
        self.exchange.worker.wheel.arm(timer, now, left.min(FINISHED_FOR));
    }
}
