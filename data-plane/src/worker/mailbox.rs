//! What is sent to workers, and what they say back.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use lb_core::overload::Stage;
use tokio::sync::{Notify, mpsc};

use super::Admission;
use crate::{
    access_log::AccessLog,
    live::{Config, Padded},
    stats::Shard,
};

/// A message to a worker.
#[derive(Debug)]
pub(crate) enum Mail {
    /// Serve from this from now on.
    Config(Arc<Config>),
    /// A connection that another worker accepted.
    Connection(Accepted),
    /// Give up so much, close so many connections that are idle, and refuse requests beyond
    /// so many connections if it comes to that.
    Shed { stage: Stage, close: usize, places: usize },
    /// Tell clients to close after their next answer, but keep accepting.
    Drain,
    /// Accept no more, because another process does; answers tell clients to close.
    Retire,
    /// Everything that waits looks at its backend again: what it has there may be cut, or its
    /// slot may be lost.
    LookAgain,
    /// Close some of what is open and not in use: another worker has run out of descriptors.
    MakeRoom,
    /// End at once, with everything that is going on.
    Abort,
    /// Stop accepting, close idle connections, and end when the last one does.
    Stop,
}

/// An accepted connection that no runtime knows yet.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: SocketAddr,
    /// The process's number of the listener.
    pub(crate) listener: usize,
}

/// One worker, as others see it.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    pub(crate) mail: mpsc::UnboundedSender<Mail>,
    pub(crate) shard: Arc<Shard>,
    /// The serial of the configuration in use.
    pub(crate) applied: Padded<AtomicU64>,
    /// Open client connections.
    pub(crate) connections: Padded<AtomicUsize>,
}

/// All workers of the process.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) workers: Box<[WorkerHandle]>,
    /// A worker has applied a configuration, or has ended.
    pub(crate) changed: Notify,
    /// A worker has been asked to make room, and has not yet.
    pub(crate) asked_for_room: AtomicBool,
    /// Workers that run.
    pub(crate) running: AtomicUsize,
    pub(crate) admission: Admission,
    /// Pipes that each worker may have open.
    pub(crate) pipes_max: usize,
    /// Bytes of bodies that each worker may keep to send them again.
    pub(crate) replays_max: usize,
    pub(crate) access_log: Option<Arc<AccessLog>>,
}

impl Fleet {
    /// Hands a configuration to all workers and returns once the last one serves
    /// from it.
    pub(crate) async fn apply(&self, config: Arc<Config>) {
        let serial = config.serial;
        for worker in &self.workers {
            // A worker that ended serves nothing any more.
            drop(worker.mail.send(Mail::Config(Arc::clone(&config))));
        }
        loop {
            let changed = self.changed.notified();
            if self.workers.iter().all(|worker| worker.has_applied(serial)) {
                return;
            }
            changed.await;
        }
    }

    /// Sends the same to all workers.
    pub(crate) fn tell(&self, mail: impl Fn() -> Mail) {
        for worker in &self.workers {
            drop(worker.mail.send(mail()));
        }
    }

    /// Asks for descriptors that another worker has in connections that are idle: the one with most
    /// of them, as it said last.
    pub(super) fn ask_for_room(&self, asking: usize) {
        if self.asked_for_room.swap(true, Ordering::Relaxed) {
            return;
        }
        let others = self.workers.iter().enumerate();
        let others = others.filter(|(index, worker)| *index != asking && worker.shard.idle() > 0);
        let most = others.max_by_key(|(_, worker)| worker.shard.idle());
        if most.is_none_or(|(_, worker)| worker.mail.send(Mail::MakeRoom).is_err()) {
            self.asked_for_room.store(false, Ordering::Relaxed);
        }
    }

    /// Returns when a worker has ended: what its sockets are given nobody accepts.
    pub(crate) async fn any_ended(&self) {
        loop {
            let changed = self.changed.notified();
            if self.running.load(Ordering::Acquire) < self.workers.len() {
                return;
            }
            changed.await;
        }
    }

    /// Returns when the last worker has ended.
    pub(crate) async fn ended(&self) {
        loop {
            let changed = self.changed.notified();
            if self.running.load(Ordering::Acquire) == 0 {
                return;
            }
            changed.await;
        }
    }

    /// The worker for a connection that `index` accepted, in whose count it is from now
    /// on: another one only when this one has more than an eighth and `slack` more than the
    /// calmest, because a hand-over costs two system calls and wakes a thread.
    pub(crate) fn enter_calmest(&self, index: usize, slack: usize) -> usize {
        let count = |worker: &WorkerHandle| worker.connections.0.load(Ordering::Relaxed);
        loop {
            let own = count(&self.workers[index]);
            let least = self.workers.iter().map(count).enumerate().min_by_key(|(_, count)| *count);
            let (chosen, expected) = match least {
                // Few connections are spread exactly, many roughly.
                Some((other, least)) if own > least + slack.max(least / 8) => (other, least),
                _ => (index, own),
            };
            // Another worker may have chosen the same one meanwhile: look again.
            let entered = self.workers[chosen].connections.0.compare_exchange(
                expected,
                expected + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if entered.is_ok() {
                return chosen;
            }
        }
    }
}

impl WorkerHandle {
    fn has_applied(&self, serial: u64) -> bool {
        self.applied.0.load(Ordering::Acquire) >= serial || self.mail.is_closed()
    }
}
