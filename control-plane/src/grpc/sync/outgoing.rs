//! The half of a stream that the transport asks for messages.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use lb_proto::frame::Frame;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_stream::{Stream, wrappers::WatchStream};
use tokio_util::sync::{CancellationToken, DropGuard, PollSemaphore};
use tonic::Status;

use super::ProxyStream;

/// What both halves of a stream work on.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// The transport has dropped its half.
    gone: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// Between the Hello and the end.
    stream: Option<ProxyStream>,
    /// What the stream had still to send when it ended.
    farewell: VecDeque<Frame>,
    ended: bool,
    refusal: Option<Status>,
    /// Of the transport, when it waits for a message.
    waker: Option<Waker>,
    /// Since when something waits to be taken by the transport; nothing if nothing waits. Begins
    /// anew with each part that is taken.
    waits_since: Option<Instant>,
}

impl Shared {
    /// Begins to send.
    pub(super) fn open(&self, stream: ProxyStream) {
        let mut state = self.lock();
        state.stream = Some(stream);
        state.note_queue(false);
        state.wake();
    }

    /// Runs on the stream, and has what comes of it sent; `None` when there is no stream.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut ProxyStream) -> R) -> Option<R> {
        let mut state = self.lock();
        let stream = state.stream.as_mut()?;
        let result = act(stream);
        stream.prepare();
        let is_wanted = !stream.outgoing().is_empty() || stream.wants_room();
        state.note_queue(false);
        if is_wanted {
            state.wake();
        }
        Some(result)
    }

    /// Since when the proxy has not taken anything of what it is to be sent.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.lock().waits_since
    }

    /// Whether there is a whole state to be sent once there is room for it.
    fn wants_room(&self) -> bool {
        self.lock().stream.as_ref().is_some_and(ProxyStream::wants_room)
    }

    /// Ends the stream, once what is queued has left; after a refusal nothing more of that does,
    /// for a proxy that does not read would have it kept. The proxy is lost at once.
    pub(super) fn end(&self, refusal: Option<Status>) {
        let mut state = self.lock();
        if let Some(mut stream) = state.stream.take().filter(|_| refusal.is_none()) {
            state.farewell = std::mem::take(stream.outgoing());
        }
        state.ended = true;
        state.refusal = refusal;
        state.wake();
    }

    /// Returns when the transport has dropped its half.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Shared {
    /// A stream that has ended, with this left to be sent.
    pub(super) fn ended(farewell: Vec<Frame>, refusal: Option<Status>) -> Self {
        let state = State { farewell: farewell.into(), ended: true, refusal, ..State::default() };
        Self { state: Mutex::new(state), gone: CancellationToken::new() }
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn next(&mut self) -> Option<Frame> {
        if let Some(stream) = &mut self.stream {
            stream.prepare();
        }
        self.queued()
    }

    fn queued(&mut self) -> Option<Frame> {
        let frame = match &mut self.stream {
            Some(stream) => stream.outgoing().pop_front(),
            None => self.farewell.pop_front(),
        };
        self.note_queue(true);
        frame
    }

    /// Notes whether something waits, after something was `taken`, or may have been queued.
    fn note_queue(&mut self, taken: bool) {
        let waits = self.stream.as_mut().is_some_and(|stream| !stream.outgoing().is_empty());
        self.waits_since = match self.waits_since {
            Some(since) if waits && !taken => Some(since),
            _ => waits.then(Instant::now),
        };
    }
}

/// The messages to a proxy, for the transport. It asks only when the proxy can take more.
#[derive(Debug)]
pub(super) struct Outgoing {
    shared: Arc<Shared>,
    /// Of the registry: each is a reason to look for something to send.
    revisions: WatchStream<u64>,
    /// Whole states that are under way.
    snapshots: Arc<Semaphore>,
    /// Of this stream, when it waits to send one.
    room: Option<PollSemaphore>,
    _gone: DropGuard,
}

impl Outgoing {
    pub(super) fn new(
        shared: Arc<Shared>,
        revisions: watch::Receiver<u64>,
        snapshots: Arc<Semaphore>,
    ) -> Self {
        let gone = shared.gone.clone().drop_guard();
        let revisions = WatchStream::from_changes(revisions);
        Self { shared, revisions, snapshots, room: None, _gone: gone }
    }

    /// What is queued behind the last message.
    pub(super) fn queued(&self) -> Option<Frame> {
        self.shared.lock().queued()
    }

    /// The transport has taken a part of a message.
    pub(super) fn note_part(&self) {
        self.shared.lock().note_queue(true);
    }

    /// Waits for room, if it is wanted; whether there is now.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.shared.wants_room() {
            self.room = None;
            return false;
        }
        let room = self.room.get_or_insert_with(|| PollSemaphore::new(Arc::clone(&self.snapshots)));
        let Poll::Ready(Some(permit)) = room.poll_acquire(cx) else { return false };
        self.room = None;
        self.shared.with(|stream| stream.give_room(permit));
        true
    }
}

impl Stream for Outgoing {
    type Item = Result<Frame, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let mut state = this.shared.lock();
            if let Some(message) = state.next() {
                return Poll::Ready(Some(Ok(message)));
            }
            if state.ended {
                return Poll::Ready(state.refusal.take().map(Err));
            }
            state.waker = Some(cx.waker().clone());
            drop(state);
            // What a revision changed is looked for anew, since it may have come after the look.
            match Pin::new(&mut this.revisions).poll_next(cx) {
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) | Poll::Pending if this.poll_room(cx) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}
