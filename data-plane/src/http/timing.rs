//! How long an attempt may take.

use std::time::Duration;

use super::{converse::Conversation, stream::Stream};
use crate::worker::now;

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

    /// Lets the request's time begin now: until then it was its client that took it.
    pub(super) fn begin_time(&mut self) {
        self.started = now();
        self.attempts.begin_time(self.started);
    }

    /// Sets the time until the response's head: the request's, or the attempt's own.
    pub(super) fn arm_until_head(&self, try_timeout: Option<Duration>) {
        let timer = &self.exchange.connection.timer;
        let wheel = &self.exchange.worker.wheel;
        match try_timeout {
            Some(own) if self.began - self.started + own < self.pool.request_timeout => {
                wheel.arm(timer, self.began, own);
            }
            _ => wheel.arm(timer, self.started, self.pool.request_timeout),
        }
    }
}
