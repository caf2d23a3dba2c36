//! Reads the head of a backend's response, and rewrites it for the client.

use lb_core::model::HttpLimits;

use super::{converse::Conversation, deliver::Received, failure::Ended, stream::Stream};
use crate::{
    h1::{
        Version,
        body::Framing,
        field_storage, lower_minor,
        response::{self, Delivery},
        scan::HeadScan,
    },
    upstream::Upstream,
    worker::Buffer,
};

/// A head of a backend's.
pub(super) enum Head {
    Final(Received),
    /// The backend changes to another protocol; what the client is told of it.
    Switched(Vec<u8>),
    /// What the client is told of an interim response; nothing of most.
    Interim(Vec<u8>),
}

impl<S: Stream> Conversation<'_, '_, '_, S> {
    /// Reads a head, and rewrites it for the client; `None` while it is not complete.
    /// One that comes in pieces is looked through by `scan`, each byte once.
    pub(super) fn read_head(
        &mut self,
        upstream: &mut Upstream,
        upstream_in: &mut Buffer,
        scan: &mut Option<HeadScan>,
    ) -> Result<Option<Head>, Ended> {
        let in_pieces = scan.is_some();
        if in_pieces && !self.is_head_complete(upstream_in, scan)? {
            return Ok(None);
        }
        let mut storage = field_storage();
        let request = &self.prepared.understood;
        let head = match response::parse(upstream_in.data(), request.method, &mut storage) {
            Ok(Some(head)) => head,
            Ok(None) if !in_pieces && !self.is_head_complete(upstream_in, scan)? => {
                return Ok(None);
            }
            Ok(None) => return Err(self.protocol_failure("the response head is malformed")),
            Err(bad) => {
                if lower_minor(upstream_in.data_mut()) {
                    *scan = None;
                    return self.read_head(upstream, upstream_in, scan);
                }
                return Err(self.protocol_failure(bad.0));
            }
        };
        *scan = None;
        let length = head.len();
        let delivery = Delivery {
            version: request.version,
            keep_alive: true,
            trailers: self.prepared.takes_trailers,
            date: None,
        };
        let head = match head.status {
            101 if !self
                .prepared
                .upgrade
                .as_deref()
                .is_some_and(|asked| head.switches_to_one_of(asked)) =>
            {
                return Err(self.protocol_failure("it switched protocols without being asked"));
            }
            101 if !self.upload.is_done() => {
                return Err(self.protocol_failure("it switched protocols before it was asked"));
            }
            101 => {
                let mut out = Vec::new();
                head.encode(delivery, &mut out);
                self.attempts.give_session(&head, &mut out);
                Head::Switched(out)
            }
            // HTTP/1.0 knows no interim responses, and 100 has been said to those who wait
            // for it.
            ..200 => {
                let mut out = Vec::new();
                let said = head.status == 100 && self.prepared.expects_continue;
                if !said && request.version == Version::Http11 {
                    head.encode(delivery, &mut out);
                }
                Head::Interim(out)
            }
            _ => {
                if let Some(seconds) = head.keep_alive_timeout {
                    upstream.set_idle_timeout(seconds);
                }
                let framing = head.framing(request.version);
                // Without a framing only the end of the connection ends the body; and a
                // body that is still coming in cannot be told from the next request. A
                // stop may have begun since the request came.
                let client_keeps = self.keep_alive
                    && framing.is_some()
                    && self.upload.is_done()
                    && !self.exchange.worker.is_draining();
                let mut out = self.exchange.worker.buffers.output();
                let date = head.lacks_date().then(|| self.exchange.worker.dates.field());
                let delivery = Delivery { keep_alive: client_keeps, date, ..delivery };
                head.encode(delivery, &mut out);
                self.attempts.give_session(&head, &mut out);
                if let (Some(told), Some(limits)) = (&self.prepared.counted.told, self.limits) {
                    told.add(limits, &self.exchange.worker.limit_copies, &mut out);
                }
                Head::Final(Received {
                    status: head.status,
                    body: head.body,
                    framing: framing.unwrap_or(Framing::Identity),
                    passes_trailers: delivery.trailers && head.names_no_fields(),
                    backend_keeps: head.keep_alive,
                    client_keeps,
                    head: out,
                })
            }
        };
        upstream_in.consume(length);
        Ok(Some(head))
    }

    fn is_head_complete(
        &self,
        upstream_in: &Buffer,
        scan: &mut Option<HeadScan>,
    ) -> Result<bool, Ended> {
        let scan = scan.get_or_insert_default();
        match scan.advance(upstream_in.data(), &HttpLimits::DEFAULT) {
            Ok(length) => Ok(length.is_some()),
            Err(_) => Err(self.protocol_failure("the response head is malformed")),
        }
    }
}
