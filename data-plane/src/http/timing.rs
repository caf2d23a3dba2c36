//! How long an attempt may take, and a client that is waited for.

use std::time::{Duration, Instant};

use super::{converse::Conversation, relay::Waiting, stream::Stream};
use crate::worker::now;

/// How long the answer for a client that says no more may take. Nobody can tell whether it
/// listens (nginx and Envoy take it to have left at once, HAProxy to be there): this is enough
/// for most answers, and those who have left cost a backend no more than that.
const FINISHED_FOR: Duration = Duration::from_secs(1);

/// How long nothing may come of a response that has begun for such a client: it has shown that it
/// waits, and a pause is not rare in the middle.
pub(super) const SILENT_FOR: Duration = Duration::from_secs(10);

/// While connections are scarce, a client that has sent nothing of its body for so long makes
/// room for others: its request is not being worked on.
pub(super) const STALLED_FOR: Duration = Duration::from_secs(5);

/// A client that has sent nothing of its body, or taken nothing of its response, for so long may
/// be why a backend ends the connection. Backends have their own time for that, and clients
/// could otherwise have any of them taken for failing.
const AWAITED_FOR: Duration = Duration::from_secs(1);

/// How long a client has had its backend wait.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Since when it is the client that is waited for.
    since: Option<Instant>,
    was_long: bool,
}

impl Patience {
    /// Something has moved, and this is what is waited for next.
    pub(super) fn note(&mut self, waiting: Waiting, now: Instant) {
        self.was_long = self.was_slow(now);
        self.since = (waiting == Waiting::Writer).then_some(now);
    }

    /// Whether the client has lately been waited for long enough to be why a backend ends the
    /// connection.
    pub(super) fn was_slow(&self, now: Instant) -> bool {
        self.since.map_or(self.was_long, |since| now - since >= AWAITED_FOR)
    }
}

impl<S: Stream> Conversation<'_, '_, '_, S> {
    /// Whether it is the client that has been waited for lately.
    pub(super) fn awaits_client(&self) -> bool {
        let since = self.upload.moved.unwrap_or(self.began);
        self.upload.waiting == Waiting::Reader && now() - since >= AWAITED_FOR
    }

    /// How long connecting may take. Nothing was written then, so any request can go to
    /// another backend.
    pub(super) fn connect_timeout(&self) -> Duration {
        let whole = self.pool.connect_timeout;
        match self.pool.retry.try_timeout {
            Some(of_attempt) if self.attempts.may_follow() || self.has_spare() => {
                whole.min(of_attempt)
            }
            _ => whole,
        }
    }

    /// How long this attempt may take until its response's head, if it has a time of its own.
    pub(super) fn try_timeout(&self, is_whole: bool) -> Option<Duration> {
        self.attempts.try_timeout(is_whole, || self.has_spare())
    }

    /// Whether another pool would take the request if this attempt failed.
    fn has_spare(&self) -> bool {
        self.exchange.spare(self.attempts).is_some()
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
        let try_timeout = self.try_timeout(is_whole);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_slow_when_it_was_waited_for_last_and_long() {
        let (start, ms) = (now(), Duration::from_millis);
        let mut client = Patience::default();
        assert!(!client.was_slow(start + ms(9000)), "the backend was waited for");
        client.note(Waiting::Writer, start);
        assert!(!client.was_slow(start + ms(999)) && client.was_slow(start + ms(1000)));
        client.note(Waiting::Reader, start + ms(1500));
        assert!(client.was_slow(start + ms(1600)), "what it did not take came late");
        client.note(Waiting::Writer, start + ms(1700));
        client.note(Waiting::Reader, start + ms(1800));
        assert!(!client.was_slow(start + ms(1900)), "it takes what comes");
    }
}
