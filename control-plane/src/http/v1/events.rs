//! `GET /v1/events`: what happens, as server-sent events.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;

use super::{fault::Fault, objects::Asked, query::Query};
use crate::events::{EVENTS_MAX, Event};

/// Events that may wait for a slow reader.
const STREAM_BUFFER: usize = 16;

/// While nothing happens, something is sent so often: that a client is gone without a word is
/// only seen when it does not take what it is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Something that happened; the data of one server-sent event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventAnswer {
    /// Counts the events of this process, from 1; also the event's id.
    sequence: u64,
    /// Of several that became one, the last.
    at_unix_ms: u64,
    /// How many events alike became this one, because the log was full; mostly 1.
    count: u64,
    /// When the first of them happened.
    first_unix_ms: u64,
    /// `object_changed`, `backend_down`, `proxy_lost` and so on; also the event's name.
    #[serde(rename = "type")]
    what: &'static str,
    /// `pool`, `backend`, `listener`, `route`, `limit`, `proxy`, `config` or `store`.
    kind: &'static str,
    name: String,
    /// Of the state that it belongs to.
    revision: u64,
    reason_code: String,
    reason: String,
}

pub(super) fn events(asked: &Asked) -> Result<Response, Fault> {
    let query = Query::read(asked.uri.query(), &["past"])?;
    let past = query.past.unwrap_or(0).min(EVENTS_MAX);
    let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(STREAM_BUFFER);
    let (log, stop) = (Arc::clone(&asked.context.events), asked.context.stop.clone());
    asked.context.tracker.spawn(async move {
        let mut reader = log.reader(past);
        let follow = async {
            // So that a reader knows at once that it is being served.
            if sender.send(Ok(Bytes::from_static(b": events\n\n"))).await.is_err() {
                return;
            }
            loop {
                let messages = match timeout(KEEP_ALIVE, reader.next()).await {
                    Ok(events) => events.into_iter().map(written).collect(),
                    // A comment, which clients skip.
                    Err(_) => vec![Bytes::from_static(b": nothing new\n\n")],
                };
                for message in messages {
                    if sender.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
            }
        };
        tokio::select! {
            () = follow => {}
            () = sender.closed() => {}
            () = stop.cancelled() => {}
        }
    });
    let body = Body::from_stream(ReceiverStream::new(receiver));
    let fields = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((fields, body).into_response())
}

fn written(event: Event) -> Bytes {
    let what = event.what.name();
    let sequence = event.sequence;
    let data = EventAnswer {
        sequence,
        at_unix_ms: event.at_unix_ms,
        count: event.count,
        first_unix_ms: event.first_unix_ms,
        what,
        kind: event.kind,
        name: event.name,
        revision: event.revision,
        reason_code: event.reason.code,
        reason: event.reason.message,
    };
    // JSON has no line ends outside of its texts, and escapes those in them.
    let data = serde_json::to_string(&data).unwrap_or_default();
    format!("id: {sequence}\nevent: {what}\ndata: {data}\n\n").into()
}
