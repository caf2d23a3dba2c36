//! Watches over connections and memory, and tells the workers what to give up: the shell
//! around [`lb_core::overload`].
//!
//! It runs on the control thread. A request meets nothing of it but its worker's own note of
//! the stage.

use std::{sync::Arc, time::Duration};

use lb_core::{
    overload::{Change, Places, Policy, Reading, Resource, Shedder, Stage, Usage},
    size::size_text,
};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::{
    error::RunError,
    memory::{Memory, Origin},
    status::Status,
    worker::{Fleet, Mail, now},
};

/// Between two readings.
const PERIOD: Duration = Duration::from_millis(250);

/// How a proxy stands, for those who tell of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Standing {
    pub(crate) stage: Stage,
    /// What led to the stage, in words; nothing in normal times.
    pub(crate) cause: Option<(Resource, String)>,
    /// As of the last reading.
    pub(crate) memory: Usage,
}

/// Takes readings, and acts on them.
#[derive(Debug)]
pub(crate) struct Watch {
    shedder: Shedder,
    places: Places,
    memory: Memory,
    fleet: Arc<Fleet>,
    status: Arc<Status>,
}

impl Watch {
    pub(crate) fn new(memory: Memory, fleet: Arc<Fleet>, status: Arc<Status>) -> Self {
        let shedder = Shedder::new(Policy::default());
        Self { shedder, places: Places::default(), memory, fleet, status }
    }

    /// Takes a first reading: a bound that the process reaches before it serves anybody is an
    /// error if a flag names it, and a warning if the container has it.
    pub(crate) fn check(memory: &Memory) -> Result<(), RunError> {
        let policy = Policy::default();
        let Usage { used, limit } = memory.usage();
        let leave = u64::from(policy.memory[0].leave_percent);
        if limit > 0 && used / leave >= limit / 100 {
            let wanted = 2 * used;
            let whole = |bytes: u64| size_text(bytes.next_multiple_of(1 << 20));
            match memory.origin {
                Origin::Flag => {
                    return Err(RunError::Usage(format!(
                        "--max-memory {} is too little: this process has {} in use before it \
                         serves anybody. Give it {} at least",
                        size_text(limit),
                        whole(used),
                        whole(wanted)
                    )));
                }
                Origin::Container | Origin::Nobody => warn!(
                    limit,
                    used,
                    "the container leaves little memory to serve with; give it {wanted} bytes at \
                     least, or name another bound with --max-memory"
                ),
            }
        }
        Ok(())
    }

    /// Takes a reading every now and then, for as long as it is polled.
    pub(crate) async fn run(mut self) {
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            self.observe();
        }
    }

    fn observe(&mut self) {
        let admission = &self.fleet.admission;
        let reading = Reading {
            connections: Usage {
                used: admission.open() as u64,
                limit: admission.open_max() as u64,
            },
            memory: self.memory.usage(),
        };
        let change = self.shedder.observe(&reading, now());
        if let Some(change) = &change {
            tell(change);
        }
        let bound = self.places.observe(&self.shedder, &reading);
        let bound = usize::try_from(bound).unwrap_or(usize::MAX);
        admission.set_bound(bound);
        let surplus = usize::try_from(self.shedder.surplus(&reading)).unwrap_or(usize::MAX);
        if change.is_some() || self.shedder.stage() != Stage::Normal {
            self.shed(surplus, bound);
        }
        self.status.shows(Standing {
            stage: self.shedder.stage(),
            cause: self.shedder.cause().map(|cause| (cause.resource, cause.to_string())),
            memory: reading.memory,
        });
    }

    /// Tells each worker its part, by the connections that it has.
    fn shed(&self, surplus: usize, bound: usize) {
        let stage = self.shedder.stage();
        let places = bound.div_ceil(self.fleet.workers.len());
        let all = self.fleet.admission.open().max(1);
        for worker in &self.fleet.workers {
            let own = worker.connections.0.load(std::sync::atomic::Ordering::Relaxed);
            let close = surplus.min(all).saturating_mul(own).div_ceil(all);
            // A worker that ended serves nothing any more.
            drop(worker.mail.send(Mail::Shed { stage, close, places }));
        }
    }
}

/// What a stage means for clients.
fn consequence(stage: Stage) -> &'static str {
    match stage {
        Stage::Normal => "nothing is given up any more",
        Stage::CloseIdle => "idle connections of clients are closed",
        Stage::RefuseConnections => "new connections wait",
        Stage::RefuseRequests => "new requests that there is no memory for are answered 503",
    }
}

fn tell(change: &Change) {
    let Change { from, to, cause } = change;
    let means = consequence(*to);
    if to < from {
        info!(stage = to.name(), "less is given up than before: {means}");
        return;
    }
    let remedy = match cause.resource {
        Resource::Connections => {
            "raise --max-connections and the limit of open files, or add a proxy"
        }
        Resource::Memory => {
            "raise --max-memory or the container's limit, lower --max-connections, or add a proxy"
        }
    };
    warn!(stage = to.name(), "overloaded: {cause}, so that {means}; {remedy}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        stats::Shard,
        worker::{Admission, WorkerHandle},
    };
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use tokio::sync::{Notify, mpsc};

    /// Workers with so many connections each, and their mail.
    fn fleet(
        open_max: usize,
        connections: &[usize],
    ) -> (Arc<Fleet>, Vec<mpsc::UnboundedReceiver<Mail>>) {
        let admission = Admission::new(open_max, 1);
        let (workers, mails) = connections
            .iter()
            .map(|count| {
                (0..*count).for_each(|_| admission.enter(0));
                let (mail, receiver) = mpsc::unbounded_channel();
                let handle = WorkerHandle {
                    mail,
                    shard: Arc::new(Shard::default()),
                    applied: Default::default(),
                    connections: Default::default(),
                };
                handle.connections.0.store(*count, Relaxed);
                (handle, receiver)
            })
            .collect::<(Vec<_>, _)>();
        let fleet = Fleet {
            workers: workers.into(),
            changed: Notify::new(),
            asked_for_room: Default::default(),
            running: AtomicUsize::new(0),
            admission,
            pipes_max: 1,
            replays_max: 0,
            access_log: None,
        };
        (Arc::new(fleet), mails)
    }

    #[test]
    fn workers_close_what_is_too_much_by_what_they_have() {
        let (fleet, mut mails) = fleet(100, &[60, 35]);
        let status = Arc::new(Status::default());
        let memory = Memory::new(Some(0));
        let mut watch = Watch::new(memory, Arc::clone(&fleet), Arc::clone(&status));
        watch.observe();
        let standing = status.overload();
        assert_eq!(standing.stage, Stage::CloseIdle);
        let told = "95 of 100 connections are in use (95 %)";
        assert_eq!(standing.cause, Some((Resource::Connections, told.to_owned())));
        let closes: Vec<usize> = mails
            .iter_mut()
            .map(|mail| match mail.try_recv() {
                Ok(Mail::Shed { stage: Stage::CloseIdle, close, places: 50 }) => close,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(closes, [11, 6], "16 in all, rounded up");
    }

    #[test]
    fn a_bound_that_cannot_be_kept_is_refused_at_once() {
        let error = Watch::check(&Memory::new(Some(1 << 20))).unwrap_err().to_string();
        assert!(error.contains("--max-memory 1MiB is too little"), "{error}");
        assert!(Watch::check(&Memory::new(Some(1 << 40))).is_ok());
    }
}
