//! Ends a client's connection so that its answer arrives.
//!
//! Many clients read an answer only when they have sent all of their request. Closing on such
//! a one resets the connection, and with it the answer that it has not read (RFC 9112, 9.6).

use std::{
    future::poll_fn,
    mem,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::AsyncWriteExt as _;

use super::{
    converse::Conversation,
    exchange::Exchange,
    relay::Waiting,
    stream::Stream,
    timing::{SILENT_FOR, STALLED_FOR},
};
use crate::{
    upstream::Upstream,
    worker::{Buffer, now, until},
};

/// Draining takes this many times the silence that ends it, at most.
const WHOLE: u32 = 5;
/// And this part of it, while others wait for a place.
const CROWDED: u32 = 2;

impl<S: Stream> Exchange<'_, S> {
    /// Says that nothing more comes, and reads on for as long as the client goes on sending,
    /// within bounds. While others want its place, there is one for the bytes, too.
    ///
    /// One of whose request so many bytes are `left` to come, and who has sent those and nothing
    /// behind them, keeps its place no longer when others want it.
    pub(super) async fn linger(&mut self, left: Option<u64>) {
        let config = self.worker.config();
        let limits = *self.limits(&config);
        let (worker, began) = (self.worker, now());
        if !self.shut_down(began, limits.drain_timeout).await {
            return;
        }
        let before = self.client_in.data().len();
        let mut drained = 0;
        loop {
            self.client_in.clear();
            let is_crowded = self.is_crowded(&config);
            if is_crowded && drained >= limits.drain_bytes_max as usize {
                return;
            }
            let at = now();
            let end = end(began, at, limits.drain_timeout, is_crowded);
            let is_whole = is_crowded && left == Some((before + drained) as u64);
            let (stream, buffer) = (&mut self.connection.stream, &mut self.client_in);
            let timer = &self.connection.timer;
            worker.wheel.arm(timer, at, end - at);
            let read = poll_fn(|context| match buffer.poll_fill(stream, context) {
                Poll::Pending if is_whole => Poll::Ready(Ok(0)),
                read => read,
            });
            match until(timer, read).await {
                Ok(Ok(count)) if count > 0 => drained += count,
                _ => return,
            }
            if now() >= end {
                return;
            }
        }
    }

    /// Says that nothing more comes; whether that went out in time.
    async fn shut_down(&mut self, began: Instant, within: Duration) -> bool {
        let connection = &mut *self.connection;
        self.worker.wheel.arm(&connection.timer, began, within);
        matches!(until(&connection.timer, connection.stream.shutdown()).await, Ok(Ok(())))
    }
}

/// When draining that began then ends, if nothing comes after `at`.
fn end(began: Instant, at: Instant, silence: Duration, is_crowded: bool) -> Instant {
    if is_crowded {
        return at.max(began + silence / CROWDED);
    }
    at.max((at + silence).min(began + silence * WHOLE))
}

impl<S: Stream> Conversation<'_, '_, '_, S> {
    /// Lets what is left of a request go on to a backend that has answered and reads on, until
    /// one of them has had enough. Its answer has been told whole, and it holds no slot that
    /// another request could use.
    pub(super) async fn send_rest(&mut self, upstream: &mut Upstream, upstream_in: &mut Buffer) {
        self.exchange.permit.take_if(|permit| !permit.is_aside());
        let drain_timeout = self.listener.limits.drain_timeout;
        if !self.exchange.shut_down(now(), drain_timeout).await {
            return;
        }
        let exchange = &mut *self.exchange;
        let worker = exchange.worker;
        // It has been answered.
        let _passing = self.backend.begin_passing(worker.index, false);
        let connection = &mut *exchange.connection;
        let upload = &mut *self.upload;
        upload.progressed = true;
        poll_fn(|context: &mut Context<'_>| {
            let client_in = &mut exchange.client_in;
            let sent =
                upload.poll(context, &mut connection.stream, client_in, &mut upstream.stream);
            // What it says now belongs to no request.
            let speaks = upstream.stream.poll_readable(context).is_ready()
                && upstream_in.poll_fill(&mut upstream.stream, context).is_ready();
            let longest = self.pool.request_timeout;
            let is_overdue =
                exchange.permit.as_ref().is_some_and(|permit| permit.is_overdue(longest));
            if sent.is_ready() || speaks || self.backend.is_cutting() || is_overdue {
                return Poll::Ready(());
            }
            if mem::take(&mut upload.progressed) {
                let at = now();
                let silence = match upload.waiting {
                    Waiting::Reader => SILENT_FOR.min(self.listener.body_idle_timeout),
                    // It may have stopped reading, and its client waits for nothing else.
                    Waiting::Writer => drain_timeout,
                };
                worker.wheel.arm(&connection.timer, at, silence);
                worker.wheel.mark_idle_after(&connection.timer, at, STALLED_FOR);
            }
            connection.timer.poll(context)
        })
        .await;
        connection.timer.mark_busy();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_lasts_while_the_client_sends_and_shorter_while_others_wait() {
        let (began, ms) = (now(), Duration::from_millis);
        let left = |at, silence, is_crowded| {
            end(began, began + ms(at), ms(silence), is_crowded) - (began + ms(at))
        };
        assert_eq!(left(0, 2000, false), ms(2000));
        assert_eq!(left(7999, 2000, false), ms(2000));
        assert_eq!(left(9000, 2000, false), ms(1000), "ten seconds in all");
        assert_eq!(left(10_000, 2000, false), ms(0));
        assert_eq!([left(0, 2000, true), left(900, 2000, true)], [ms(1000), ms(100)]);
        assert_eq!([left(0, 300, true), left(2000, 300, true)], [ms(150), ms(0)]);
    }
}
