//! The sync service: the shell around `lb_core::sync::Session`.
//!
//! Three share one [`ProxyStream`]. The transport asks [`Outgoing`] for messages whenever the
//! proxy can take more, and is woken by the registry itself, so that a commit reaches the socket
//! without a detour. A task listens to answers and heartbeats, and another one waits for
//! everything else: the time of the next heartbeat, the end of the lease, and the end of the
//! stream. So a proxy that reads slowly costs its own objects and holds up nobody, and is still
//! noticed when it is gone, or reads nothing at all.

mod beats;
mod body;
mod encoded;
mod hello;
mod outgoing;
mod service;
mod stream;

use std::{pin::pin, sync::Arc, time::Duration};

use lb_proto::v1::{self as pb, proxy_message::Message as Up};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::{StreamExt as _, wrappers::WatchStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Status, Streaming};
use tracing::{debug, info};

pub(super) use self::service::SyncService;
pub(crate) use self::{beats::Beats, encoded::Encoded};
use self::{
    hello::{Introduction, Peer},
    outgoing::{Outgoing, Shared},
    stream::ProxyStream,
};
use super::{Context, status};
use crate::fleet::Refusal;

/// A proxy that takes nothing of what it is sent for so many leases is not waited for, though it
/// goes on to say that it is there: it would keep room for a whole state from the others.
const LEASES_TO_READ: u32 = 2;
/// To read what a proxy said before its connection ended: it is there, and its end behind it.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Begins a stream; what is sent on it.
fn open(context: &Arc<Context>, message: Request<Streaming<pb::ProxyMessage>>) -> Outgoing {
    let peer = Peer { there: message.remote_addr(), here: message.local_addr() };
    let incoming = message.into_inner();
    let context = Arc::clone(context);
    let shared = Arc::new(Shared::default());
    let room = Arc::clone(&context.snapshots);
    let outgoing = Outgoing::new(Arc::clone(&shared), context.registry.revisions(), room);
    let tracker = context.tracker.clone();
    // The Hello is read in the task, so that a proxy may wait for the response's head before it
    // speaks.
    tracker.spawn(async move {
        let ended = attend(&context, peer, incoming, &shared).await;
        if let Err(refusal) = &ended {
            debug!(code = ?refusal.code(), message = refusal.message(), "sync stream ended");
        }
        shared.end(ended.err());
    });
    outgoing
}

/// Attends to a proxy until its stream is to end: whatever comes with time, and from others. To
/// the proxy itself listens a task of its own, which is woken by that alone: among thousands of
/// streams, each thing that is looked at in vain is fetched from memory for it.
async fn attend(
    context: &Arc<Context>,
    peer: Peer,
    mut incoming: Streaming<pb::ProxyMessage>,
    shared: &Arc<Shared>,
) -> Result<(), Status> {
    let lease = context.lease;
    let Some(hello) = first_message(&mut incoming, lease).await? else { return Ok(()) };
    let mut members = WatchStream::from_changes(context.fleet.members());
    let stream = welcome(context, hello, peer)?;
    let id = stream.membership().id().clone();
    let replaced = stream.membership().replaced().clone();
    let consent = Arc::clone(stream.membership().consent());
    shared.open(stream);

    let listening = context.tracker.spawn(listen(incoming, Arc::clone(shared)));
    let mut listening = AbortOnDropHandle::new(listening);
    let mut heartbeat = context.beats.of_stream(context.fleet.streams_opened());
    // Not moved by each message; when it is over, it looks how long it must go on.
    let mut lease_end = pin!(sleep(lease));
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
            // What happens most often is looked at first. Only ends are ready for ever.
            biased;
            _ = heartbeat.tick() => drop(shared.with(ProxyStream::beat)),
            Some(_) = members.next() => {
                tune_at.get_or_insert_with(|| Instant::now() + context.tune_delay());
            }
            () = sleep_until(tune_at.unwrap_or_else(Instant::now)), if tune_at.is_some() => {
                tune_at = None;
                shared.with(ProxyStream::tune);
            }
            () = consent.notified() => drop(shared.with(ProxyStream::consent)),
            () = &mut lease_end => {
                let limit = lease * LEASES_TO_READ;
                if shared.waits_since().is_some_and(|since| since + limit <= Instant::now()) {
                    info!(proxy = %id, ?limit, "it reads nothing of what it is sent");
                    return Err(Status::deadline_exceeded(format!(
                        "proxy {id} has read nothing of what it is sent for {limit:?}"
                    )));
                }
                let heard = shared.with(|stream| stream.heard()).unwrap_or_else(Instant::now);
                if heard + lease <= Instant::now() {
                    info!(proxy = %id, ?lease, "nothing heard within the lease");
                    return Err(Status::deadline_exceeded(format!(
                        "nothing was heard of proxy {id} for {lease:?}"
                    )));
                }
                lease_end.as_mut().reset(heard + lease);
            }
            ended = &mut listening => {
                return ended.unwrap_or_else(|_| Err(Status::internal("listening ended")));
            }
            end = &mut end => {
                return match end {
                    // What it said before is still to be read, and may be that it goes.
                    End::Gone => match timeout(LAST_WORDS, listening).await {
                        Ok(Ok(ended)) => ended,
                        Ok(Err(_)) | Err(_) => Ok(()),
                    },
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

/// Listens to a proxy until it has said its last.
async fn listen(
    mut incoming: Streaming<pb::ProxyMessage>,
    shared: Arc<Shared>,
) -> Result<(), Status> {
    while let Some(message) = incoming.message().await? {
        let is_last = matches!(message.message, Some(Up::Farewell(_)));
        shared.with(|stream| stream.hear(message)).transpose()?;
        if is_last {
            break;
        }
    }
    Ok(())
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
