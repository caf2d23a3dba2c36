//! How long an attempt may take.

use std::time::Duration;

use super::{converse::Conversation, stream::Stream};

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
}
