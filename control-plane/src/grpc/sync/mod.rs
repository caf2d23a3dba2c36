//! The sync service: the shell around `lb_core::sync::Session`.
//!
//! A stream has two halves that share one [`ProxyStream`]. The transport asks the
//! [`Outgoing`] half for messages whenever the proxy can take more, and is woken by the
//! registry itself, so that a commit reaches the socket without a detour. A task listens: to
//! answers, heartbeats, the end of the lease, and the end of the stream. So a proxy that
//! reads slowly costs its own objects and holds up nobody, and is still noticed when it is
//! gone.

mod hello;
mod outgoing;
mod stream;

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use lb_proto::v1::{self as pb, proxy_message::Message as Up, sync_server};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_stream::{Stream, StreamExt as _, wrappers::WatchStream};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

use self::{
    hello::{Introduction, Peer},
    outgoing::{Outgoing, Shared},
    stream::ProxyStream,
};
use super::{Context, status};
use crate::fleet::Refusal;

/// Serves proxies.
#[derive(Debug)]
pub(super) struct SyncService {
    context: Arc<Context>,
}

impl SyncService {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl sync_server::Sync for SyncService {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<pb::ControlMessage, Status>> + Send>>;

    async fn stream(
        &self,
        message: Request<Streaming<pb::ProxyMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let peer = Peer { there: message.remote_addr(), here: message.local_addr() };
        let incoming = message.into_inner();
        let context = Arc::clone(&self.context);
        let shared = Arc::new(Shared::default());
        let room = Arc::clone(&context.snapshots);
        let outgoing = Outgoing::new(Arc::clone(&shared), context.registry.revisions(), room);
        // The Hello is read in the task, so that a proxy may wait for the response's
        // head before it speaks.
        self.context.tracker.spawn(async move {
            let ended = listen(&context, peer, incoming, &shared).await;
            if let Err(refusal) = &ended {
                debug!(code = ?refusal.code(), message = refusal.message(), "sync stream ended");
            }
            shared.end(ended.err());
        });
        Ok(Response::new(Box::pin(outgoing)))
    }
}

/// Listens to a proxy until its stream is to end. Whatever can be waited for is made once and
/// not anew for each message: with thousands of messages a second, arming timers and
/// enlisting with wakers would be most of the work.
async fn listen(
    context: &Arc<Context>,
    peer: Peer,
    mut incoming: Streaming<pb::ProxyMessage>,
    shared: &Shared,
) -> Result<(), Status> {
    let lease = context.lease;
    let Some(hello) = first_message(&mut incoming, lease).await? else { return Ok(()) };
    let mut members = WatchStream::from_changes(context.fleet.members());
    let stream = welcome(context, hello, peer)?;
    let id = stream.membership().id().clone();
    let replaced = stream.membership().replaced().clone();
    let consent = Arc::clone(stream.membership().consent());
    shared.open(stream);

    let mut heartbeat = interval(context.heartbeat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    // Not moved by each message; when it is over, it looks how long it must go on.
    let mut lease_end = pin!(sleep_until(heard + lease));
    let mut tune_at: Option<Instant> = None;
    let mut end = pin!(async {
        tokio::select! {
            () = shared.gone() => End::Gone,
            () = replaced.cancelled() => End::Replaced,
            () = context.stop.cancelled() => End::Stopping,
        }
    });
    loop {
        tokio::select! {
            // What happens most often is looked at first; nothing here is ready for ever.
            biased;
            message = incoming.message() => {
                let Some(message) = message? else { return Ok(()) };
                heard = Instant::now();
                let is_last = matches!(message.message, Some(Up::Farewell(_)));
                shared.with(|stream| stream.hear(message)).transpose()?;
                if is_last {
                    return Ok(());
                }
            }
            _ = heartbeat.tick() => drop(shared.with(ProxyStream::beat)),
            Some(_) = members.next() => {
                tune_at.get_or_insert_with(|| Instant::now() + context.tune_delay());
            }
            () = sleep_until(tune_at.unwrap_or(heard)), if tune_at.is_some() => {
                tune_at = None;
                shared.with(ProxyStream::tune);
            }
            () = consent.notified() => drop(shared.with(ProxyStream::consent)),
            () = &mut lease_end => {
                if heard + lease <= Instant::now() {
                    info!(proxy = %id, ?lease, "nothing heard within the lease");
                    return Err(Status::deadline_exceeded(format!(
                        "nothing was heard of proxy {id} for {lease:?}"
                    )));
                }
                lease_end.as_mut().reset(heard + lease);
            }
            end = &mut end => {
                return match end {
                    End::Gone => Ok(()),
                    End::Replaced => {
                        Err(Status::aborted("a newer stream of the same proxy took over"))
                    }
                    End::Stopping => {
                        shared.with(ProxyStream::say_goodbye);
                        Ok(())
                    }
                };
            }
        }
    }
}

/// Welcomes a proxy, or tells everybody why not: it serves by an old state until that is mended.
fn welcome(context: &Arc<Context>, hello: pb::Hello, peer: Peer) -> Result<ProxyStream, Status> {
    let who = peer.refusal(&hello);
    let stream = Introduction::read(hello, peer).and_then(|it| ProxyStream::open(context, it));
    if let Err(status) = &stream {
        let reason = status::reason_of(status);
        context.fleet.refuse(Refusal { reason, ..who });
    }
    stream
}

/// The Hello that a stream begins with; nothing when it ends instead.
async fn first_message(
    incoming: &mut Streaming<pb::ProxyMessage>,
    limit: Duration,
) -> Result<Option<pb::Hello>, Status> {
    match timeout(limit, incoming.message()).await {
        Ok(Ok(Some(pb::ProxyMessage { message: Some(Up::Hello(hello)) }))) => Ok(Some(hello)),
        Ok(Ok(Some(_))) => {
            Err(Status::invalid_argument("the first message of a proxy must be a Hello"))
        }
        Ok(Ok(None)) => Ok(None),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Status::deadline_exceeded(format!("no Hello came within {limit:?}"))),
    }
}

/// Why a stream ends that the proxy did not end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Nobody reads it any more.
    Gone,
    /// Another one took its place.
    Replaced,
    /// The control plane stops.
    Stopping,
}
