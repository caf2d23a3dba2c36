//! A backend that changes to another protocol.

use lb_core::stats::whole_us;
use tokio::io::AsyncWriteExt as _;

use super::{
    connection::Next,
    converse::Conversation,
    failure::Ended,
    stream::Stream,
    tunnel::{Switched, Tunnel},
};
use crate::{
    upstream::Upstream,
    worker::{Buffer, now, until},
};

impl<S: Stream> Conversation<'_, '_, '_, S> {
    /// Tells the client that the protocol changes; what follows is a tunnel.
    pub(super) async fn switch(
        &mut self,
        head: &[u8],
        upstream: Upstream,
        upstream_in: Buffer,
    ) -> Ended {
        self.exchange.decide_trial(true);
        let exchange = &mut *self.exchange;
        let connection = &mut *exchange.connection;
        if !matches!(until(&connection.timer, connection.stream.write_all(head)).await, Ok(Ok(())))
        {
            return self.client_left();
        }
        let switched = now();
        let asked_at = exchange.asked_at();
        exchange.count_answer(101, asked_at.map(|asked_at| whole_us(switched - asked_at)));
        let latency = whole_us(switched - self.began);
        let index = exchange.worker.index;
        if let Some(permit) = &mut exchange.permit {
            permit.answered(101, index);
        }
        self.backend.count_end(index, None, Some(latency));
        self.backend.count_bytes(index, self.upload.written, head.len() as u64);
        if let Some(record) = &mut exchange.record {
            record.received(self.upload.written);
            record.attempt_answered(self.backend, 101, now());
            record.answered(101, head.len() as u64, now());
        }
        let by = self.pool.counted_by(exchange.worker.index);
        let empty = exchange.worker.buffers.buffer();
        let switched = Switched {
            upstream: upstream.stream,
            from_client: std::mem::replace(&mut exchange.client_in, empty),
            from_backend: upstream_in,
            idle_timeout: self.pool.connections.tunnel_idle_timeout,
            record: exchange.record.take(),
            permit: exchange.permit.take(),
            longest: self.pool.request_timeout,
        };
        let tunnel = Box::new(Tunnel::new(switched, self.backend, by));
        Ended::Answered { next: Next::Tunnel(tunnel), failed: false }
    }
}
