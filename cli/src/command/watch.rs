//! `watch`: events as they happen.

use std::{future::pending, time::Duration};

use lb_proto::v1 as pb;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tonic::Streaming;

use super::{Session, wait::RECONNECT};
use crate::{
    args::{Global, PAST_MAX, Watch},
    client::Client,
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

/// Prints events until its time is up, nobody reads them, or it is interrupted. A control plane that
/// goes away is waited for.
pub(super) async fn run(session: &Session, args: &Watch, global: &Global) -> Result<(), Failure> {
    let past = args.past.unwrap_or(if args.no_follow { PAST_MAX } else { 0 });
    let request = pb::WatchRequest { past, past_only: args.no_follow };
    // Without a time of its own, what there was is there within that of any answer.
    let time = global.timeout.or_else(|| args.no_follow.then(|| session.client.timeout()));
    let time_is_up = async {
        match time {
            Some(time) => sleep(time).await,
            None => pending().await,
        }
    };
    tokio::select! {
        ended = follow(session, request, &global.server) => ended,
        () = time_is_up => match args.no_follow {
            true => Err(Failure::new(
                Exit::TimedOut,
                "the control plane has not told all of its events in time; 'lbctl check' says how \
                 it is",
            )),
            false => Ok(()),
        },
        () = output::reader_is_gone() => Ok(()),
    }
}

async fn follow(
    session: &Session,
    request: pb::WatchRequest,
    servers: &[String],
) -> Result<(), Failure> {
    let mut client = session.client.clone();
    let mut process = Process::of(&client).await?;
    let mut events = client.call(client.fleet().watch(request)).await?;
    if session.screen.is_for_people() && request.past == 0 {
        output::note("watching; Ctrl-C ends it");
    }
    // Whoever wants no past ones does not want them when they are told again, either.
    let mut seen = if request.past == 0 { process.last_event } else { 0 };
    loop {
        match events.message().await {
            Ok(Some(event)) if event.sequence <= seen => continue,
            Ok(Some(event)) => {
                seen = event.sequence;
                let event = EventView::from(event);
                session.screen.item(&event, || line(&event, clock::unix_ms()))?;
                continue;
            }
            Ok(None) if request.past_only => return Ok(()),
            Ok(None) => {}
            Err(status) => {
                let failure = client.failure(&status);
                if failure.exit != Exit::Unreachable || request.past_only {
                    return Err(failure);
                }
            }
        }
        output::note("the control plane is away; watching goes on when it is back");
        let away = Instant::now();
        let (found, other, stream) = again(servers, client.timeout()).await;
        let after = format::duration(away.elapsed());
        let restarted = other.id != process.id;
        let how = if restarted { ", restarted: what happened since follows" } else { "" };
        output::note(&format!("the control plane is back after {after}{how}"));
        if restarted {
            // Each process counts its events from 1.
            seen = 0;
        }
        (client, process, events) = (found, other, stream);
    }
}

/// Looks for a control plane until there is one, and follows it from its first event on.
async fn again(servers: &[String], timeout: Duration) -> (Client, Process, Streaming<pb::Event>) {
    loop {
        if let Ok(client) = Client::connect(servers, timeout).await
            && let Ok(process) = Process::of(&client).await
        {
            let request = pb::WatchRequest { past: PAST_MAX, past_only: false };
            if let Ok(events) = client.call(client.fleet().watch(request)).await {
                return (client, process, events);
            }
        }
        sleep(RECONNECT).await;
    }
}

/// A control plane's process.
struct Process {
    id: String,
    last_event: u64,
}

impl Process {
    async fn of(client: &Client) -> Result<Self, Failure> {
        let status = client.call(client.fleet().get_status(pb::GetStatusRequest {})).await?;
        Ok(Self { id: status.server_id, last_event: status.last_event })
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
    // Control planes of former builds told faults of files one a line.
    line.trim_end().replace('\n', "; ")
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
    fn an_event_is_one_line_whatever_its_reason() {
        let reason = pb::Reason { code: "bad".to_owned(), message: "a\nb".to_owned() };
        let event = pb::Event { reason: Some(reason), ..pb::Event::default() };
        assert!(line(&event.into(), 0).ends_with("a; b (bad)"));
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
