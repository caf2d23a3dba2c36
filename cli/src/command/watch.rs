//! `watch`: events as they happen.

use lb_proto::v1 as pb;
use serde::Serialize;

use super::Session;
use crate::{
    args::Watch,
    clock,
    exit::{Exit, Failure},
    format, output,
    view::ReasonView,
};

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct EventView {
    pub(crate) sequence: u64,
    pub(crate) at_unix_ms: u64,
    at: String,
    #[serde(rename = "type")]
    pub(crate) event_type: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) revision: u64,
    pub(crate) reason: ReasonView,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) repeated: Option<RepeatedView>,
}

/// Events alike that became one, because the control plane's log was full.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RepeatedView {
    count: u64,
    first_unix_ms: u64,
    first_at: String,
}

impl EventView {
    /// The reason; of several events also how many they were, and since when.
    pub(crate) fn sentence(&self, now_unix_ms: u64) -> String {
        let mut parts = vec![self.reason.sentence()];
        if let Some(RepeatedView { count, first_unix_ms, .. }) = self.repeated {
            let since = format::clock(first_unix_ms, now_unix_ms);
            parts.push(format!("[{count} times since {since}]"));
        }
        parts.retain(|part| !part.is_empty());
        parts.join(" ")
    }
}

/// Prints events until it is interrupted or the control plane ends the stream.
pub(super) async fn run(session: &Session, args: &Watch) -> Result<(), Failure> {
    let client = &session.client;
    let request = pb::WatchRequest { past: args.past };
    let mut events = client.call(client.fleet().watch(request)).await?;
    if session.screen.is_for_people() && args.past == 0 {
        output::note("watching; Ctrl-C ends it");
    }
    loop {
        match events.message().await {
            Ok(Some(event)) => {
                let event = EventView::from(event);
                session.screen.item(&event, || line(&event, clock::unix_ms()))?;
            }
            Ok(None) => {
                return Err(Failure::new(
                    Exit::Unreachable,
                    "the control plane ended the stream of events, probably because it is \
                     stopping; 'lbctl watch --past 20' catches up when it is back",
                ));
            }
            Err(status) => return Err(client.failure(&status)),
        }
    }
}

fn line(event: &EventView, now_unix_ms: u64) -> String {
    let clock = format::clock(event.at_unix_ms, now_unix_ms);
    let name = format!("{}/{}", event.kind, event.name);
    let line = format!(
        "{clock}  {:<20}  {name:<24}  revision {:<6}  {}",
        event.event_type,
        event.revision,
        event.sentence(now_unix_ms)
    );
    line.trim_end().to_owned()
}

impl From<pb::Event> for EventView {
    fn from(wire: pb::Event) -> Self {
        let first_unix_ms = wire.first_unix_ms;
        let first_at = || format::timestamp(first_unix_ms);
        let repeated = (wire.count > 1).then(|| RepeatedView {
            count: wire.count,
            first_unix_ms,
            first_at: first_at(),
        });
        Self {
            repeated,
            sequence: wire.sequence,
            at_unix_ms: wire.at_unix_ms,
            at: format::timestamp(wire.at_unix_ms),
            event_type: wire.r#type,
            kind: wire.kind,
            name: wire.name,
            revision: wire.revision,
            reason: wire.reason.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_that_became_one_say_how_many_they_were() {
        let event = EventView::from(pb::Event {
            sequence: 700,
            at_unix_ms: 1_795_384_331_000,
            r#type: "proxy_lost".to_owned(),
            kind: "proxy".to_owned(),
            name: "p1".to_owned(),
            revision: 118,
            count: 12,
            first_unix_ms: 1_795_380_000_000,
            ..pb::Event::default()
        });
        insta::assert_snapshot!(line(&event, 1_795_384_331_000), @"21:52:11  proxy_lost            proxy/p1                  revision 118     [12 times since 20:40:00]");
        let json = serde_json::to_string(&event).unwrap();
        insta::assert_snapshot!(json, @r#"{"sequence":700,"at_unix_ms":1795384331000,"at":"2026-11-22T21:52:11.000Z","type":"proxy_lost","kind":"proxy","name":"p1","revision":118,"reason":{"code":"","message":""},"count":12,"first_unix_ms":1795380000000,"first_at":"2026-11-22T20:40:00.000Z"}"#);
    }

    #[test]
    fn an_event_is_a_line_with_its_reason() {
        let event = EventView::from(pb::Event {
            sequence: 1,
            at_unix_ms: 1_795_384_331_000,
            r#type: "backend_down".to_owned(),
            kind: "backend".to_owned(),
            name: "backend2".to_owned(),
            revision: 118,
            reason: Some(pb::Reason {
                code: "backend_connect_refused".to_owned(),
                message: "connection refused".to_owned(),
            }),
            ..pb::Event::default()
        });
        insta::assert_snapshot!(line(&event, 1_795_384_331_000), @"21:52:11  backend_down          backend/backend2          revision 118     connection refused (backend_connect_refused)");
        let json = serde_json::to_string(&event).unwrap();
        insta::assert_snapshot!(json, @r#"{"sequence":1,"at_unix_ms":1795384331000,"at":"2026-11-22T21:52:11.000Z","type":"backend_down","kind":"backend","name":"backend2","revision":118,"reason":{"code":"backend_connect_refused","message":"connection refused"}}"#);
    }
}
