//! What clients are told before the response: that they may send, and whatever else the
//! backend says in advance.

use tokio::io::AsyncWriteExt as _;

use super::{converse::Conversation, failure::Ended, stream::Stream};
use crate::worker::{now, until};

impl<S: Stream> Conversation<'_, '_, '_, S> {
    /// Tells a client that waits for it to send its body (RFC 9110, 10.1.1).
    pub(super) async fn continue_if_expected(&mut self) -> Result<(), Ended> {
        let exchange = &mut *self.exchange;
        let waits = self.prepared.expects_continue
            && !self.upload.invited
            && !self.upload.is_read()
            && !self.upload.has_begun()
            && exchange.client_in.is_empty();
        if waits {
            let connection = &mut *exchange.connection;
            self.upload.invited = true;
            exchange.worker.wheel.arm(&connection.timer, now(), self.pool.request_timeout);
            let interim = connection.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            if !matches!(until(&connection.timer, interim).await, Ok(Ok(()))) {
                return Err(self.client_left());
            }
        }
        Ok(())
    }

    /// Passes an interim response on.
    pub(super) async fn write_interim(&mut self, out: &[u8]) -> Result<(), Ended> {
        if out.is_empty() {
            return Ok(());
        }
        let connection = &mut *self.exchange.connection;
        match until(&connection.timer, connection.stream.write_all(out)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(self.client_left()),
        }
    }
}
