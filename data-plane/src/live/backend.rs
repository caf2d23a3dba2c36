//! The live state of one backend in this process: what outlives configurations.

mod passing;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use lb_core::{
    model::PoolName,
    stats::{BackendCounters, Failures, LATENCY_BUCKETS, LatencyHistogram},
};

use super::{Identity, Padded, trial::Trials, trouble::Trouble};

/// Counters, requests in flight and addresses of one backend.
#[derive(Debug)]
pub(crate) struct BackendState {
    pub(crate) identity: Identity,
    pub(crate) pool: PoolName,
    /// Unique in this process's life: keys the workers' connection pools.
    pub(crate) serial: u64,
    /// The most promising first; changes make a new state that shares `live`.
    pub(crate) addresses: Box<[SocketAddr]>,
    pub(super) live: Arc<Live>,
}

/// What is counted, shared by all states of one backend.
#[derive(Debug)]
pub(super) struct Live {
    /// Requests that pickers of all workers must see at once.
    in_flight: Padded<AtomicU32>,
    /// One writer each; the control thread reads them all.
    workers: Box<[Padded<WorkerCounters>]>,
    /// Failures since the last success, of all workers. Written only while something fails,
    /// so that reading it is cheap.
    pub(super) failures_in_a_row: AtomicU32,
    /// So many of them are reason to avoid it; 0 for never.
    avoid_after: AtomicU32,
    pub(super) trials: Trials,
    pub(super) trouble: Arc<Trouble>,
    /// Upgraded connections among those in flight.
    upgraded: AtomicU32,
    /// The deadline of its drain has passed: what is in flight is cut.
    cutting: AtomicBool,
    /// It gets nothing new, whatever an older configuration says.
    closed: AtomicBool,
    /// Requests and upgraded connections that were cut for that.
    cut: AtomicU32,
    /// A bucket's number for each time that a worker's 32 bits of it were full. Whoever
    /// reads buckets holds it, so that none is seen empty without its carry.
    carries: Mutex<Vec<u32>>,
}

#[derive(Debug)]
struct WorkerCounters {
    /// Requests of this worker that no picker looks at.
    /// Pickers of other workers read it for each candidate, far more often than it changes where
    /// they do: it lies apart from what each request changes.
    in_flight: Padded<AtomicU32>,
    requests: AtomicU64,
    /// Of these, those whose client's session keeps it here.
    sessions: AtomicU64,
    /// Responses below 500 whose body was not complete at once.
    begun: AtomicU64,
    /// Responses, of whatever status, that have begun and are not at their end.
    passing: AtomicU32,
    successes: AtomicU64,
    connect: AtomicU64,
    reset: AtomicU64,
    timeout: AtomicU64,
    protocol: AtomicU64,
    status_5xx: AtomicU64,
    status_gateway: AtomicU64,
    retries: AtomicU64,
    bytes_to_backend: AtomicU64,
    bytes_from_backend: AtomicU64,
    latency_sum_us: AtomicU64,
    latency: [AtomicU32; LATENCY_BUCKETS],
}

/// Where a request counts as in flight. A cache line that all workers write to is dear;
/// only a picker that looks at requests in flight needs it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CountedBy {
    /// For all workers.
    All,
    /// For reports only, by the worker that serves it.
    Worker(usize),
}

/// Why a request to a backend failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FailureKind {
    Connect,
    Reset,
    Timeout,
    Protocol,
    /// 502, 503 or 504.
    StatusGateway,
    /// Another 5xx status.
    Status5xx,
}

impl FailureKind {
    /// What a status of a response says against the backend.
    pub(crate) fn of_status(status: u16) -> Option<Self> {
        match status {
            502..=504 => Some(Self::StatusGateway),
            500.. => Some(Self::Status5xx),
            _ => None,
        }
    }
}

impl BackendState {
    pub(crate) fn new(
        identity: Identity,
        pool: PoolName,
        serial: u64,
        addresses: Box<[SocketAddr]>,
        workers: usize,
        trouble: &Arc<Trouble>,
    ) -> Self {
        let live = Arc::new(Live {
            in_flight: Padded::default(),
            workers: (0..workers).map(|_| Padded(WorkerCounters::new())).collect(),
            failures_in_a_row: AtomicU32::new(0),
            avoid_after: AtomicU32::new(0),
            trials: Trials::default(),
            trouble: Arc::clone(trouble),
            upgraded: AtomicU32::new(0),
            cutting: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            cut: AtomicU32::new(0),
            carries: Mutex::default(),
        });
        Self { identity, pool, serial, addresses, live }
    }

    /// The same backend at other resolved addresses.
    pub(crate) fn at(&self, pool: PoolName, serial: u64, addresses: Box<[SocketAddr]>) -> Self {
        let live = Arc::clone(&self.live);
        Self { identity: self.identity.clone(), pool, serial, addresses, live }
    }

    /// Requests in flight from this proxy, held errors included.
    pub(crate) fn in_flight(&self) -> u32 {
        self.live.in_flight()
    }

    /// One more request, counted where `by` says.
    pub(crate) fn enter(&self, by: CountedBy) {
        match by {
            CountedBy::All => {
                self.live.in_flight.0.fetch_add(1, Relaxed);
            }
            CountedBy::Worker(worker) => {
                let count = &self.live.workers[worker].0.in_flight.0;
                count.store(count.load(Relaxed) + 1, Relaxed);
            }
        }
    }

    /// One less, where it was counted.
    pub(crate) fn leave(&self, by: CountedBy) {
        match by {
            CountedBy::All => {
                self.live.in_flight.0.fetch_sub(1, Relaxed);
            }
            CountedBy::Worker(worker) => {
                let count = &self.live.workers[worker].0.in_flight.0;
                count.store(count.load(Relaxed) - 1, Relaxed);
            }
        }
    }

    /// Notes that a worker gave a request to the backend.
    pub(crate) fn count_request(&self, worker: usize) {
        bump(&self.live.workers[worker].0.requests, 1);
    }

    /// Notes that a session brought a request here.
    pub(crate) fn count_session(&self, worker: usize) {
        bump(&self.live.workers[worker].0.sessions, 1);
    }

    /// Requests that sessions brought here.
    pub(crate) fn sessions(&self) -> u64 {
        self.live.workers.iter().map(|worker| worker.0.sessions.load(Relaxed)).sum()
    }

    /// Notes bytes on the backend's connections.
    pub(crate) fn count_bytes(&self, worker: usize, to_backend: u64, from_backend: u64) {
        let counters = &self.live.workers[worker].0;
        bump(&counters.bytes_to_backend, to_backend);
        bump(&counters.bytes_from_backend, from_backend);
    }

    /// Notes that a request was moved to another backend.
    pub(crate) fn count_retry(&self, worker: usize) {
        bump(&self.live.workers[worker].0.retries, 1);
    }

    /// Notes how a request ended, and after how long if there was a response.
    pub(crate) fn count_end(
        &self,
        worker: usize,
        failure: Option<FailureKind>,
        latency_us: Option<u64>,
    ) {
        let counters = &self.live.workers[worker].0;
        let counter = match failure {
            None => &counters.successes,
            Some(FailureKind::Connect) => &counters.connect,
            Some(FailureKind::Reset) => &counters.reset,
            Some(FailureKind::Timeout) => &counters.timeout,
            Some(FailureKind::Protocol) => &counters.protocol,
            Some(FailureKind::Status5xx | FailureKind::StatusGateway) => &counters.status_5xx,
        };
        bump(counter, 1);
        self.note_run(worker, failure);
        if let Some(us) = latency_us {
            bump(&counters.latency_sum_us, us);
            let number = LatencyHistogram::bucket_of(us);
            let bucket = &counters.latency[number];
            match bucket.load(Relaxed).checked_add(1) {
                Some(count) => bucket.store(count, Relaxed),
                None => self.live.carry(number, bucket),
            }
        }
    }

    /// Counts failures in a row. The application may answer 500 to single requests, which
    /// says neither that it serves nor that it does not.
    fn note_run(&self, worker: usize, failure: Option<FailureKind>) {
        let run = &self.live.failures_in_a_row;
        match failure {
            None => {
                if run.load(Relaxed) != 0 {
                    run.store(0, Relaxed);
                }
            }
            Some(FailureKind::Status5xx) => {}
            Some(kind) => {
                if kind == FailureKind::StatusGateway {
                    bump(&self.live.workers[worker].0.status_gateway, 1);
                }
                let failures = run.fetch_add(1, Relaxed).saturating_add(1);
                self.live.trouble.note_failure();
                if failures == self.live.avoid_after.load(Relaxed) {
                    self.live.trouble.look.notify_one();
                }
            }
        }
    }

    /// Has it looked anew at which backends are picked.
    pub(super) fn ask_for_a_look(&self) {
        self.live.trouble.look.notify_one();
    }

    /// Sets how many failures in a row are reason to avoid it; 0 for never.
    pub(super) fn set_avoid_after(&self, failures: u32) {
        // Workers read it with each answer: what is so already is not written again.
        if self.live.avoid_after.load(Relaxed) != failures {
            self.live.avoid_after.store(failures, Relaxed);
        }
    }

    /// Whether it has failed so often in a row that it should be avoided.
    pub(super) fn is_failing(&self) -> bool {
        let after = self.live.avoid_after.load(Relaxed);
        after > 0 && self.failures_in_a_row() >= after
    }

    /// Failures since the last success, as this proxy saw them.
    pub(crate) fn failures_in_a_row(&self) -> u32 {
        self.live.failures_in_a_row.load(Relaxed)
    }

    /// Whether the other one goes on with the counts of this one.
    pub(crate) fn continues(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.live, &other.live)
    }

    /// Notes a connection that has changed to another protocol, beside its being in flight.
    pub(crate) fn enter_upgraded(&self) {
        self.live.upgraded.fetch_add(1, Relaxed);
    }

    /// Notes its end.
    pub(crate) fn leave_upgraded(&self) {
        self.live.upgraded.fetch_sub(1, Relaxed);
    }

    /// Upgraded connections among those in flight.
    pub(crate) fn upgraded(&self) -> u32 {
        self.live.upgraded.load(Relaxed)
    }

    /// Says whether what is in flight is to be cut. Whoever waits for this backend looks
    /// when it is woken.
    pub(crate) fn set_cutting(&self, cutting: bool) {
        if self.live.cutting.swap(cutting, Relaxed) && !cutting {
            // What another drain will cut is counted anew.
            self.live.cut.store(0, Relaxed);
        }
    }

    /// Whether what is in flight is to be cut.
    pub(crate) fn is_cutting(&self) -> bool {
        self.live.cutting.load(Relaxed)
    }

    /// Says whether it gets nothing new: it is disabled, drained or removed.
    pub(crate) fn set_closed(&self, closed: bool) {
        self.live.closed.store(closed, Relaxed);
    }

    /// Whether it gets nothing new but what its own clients ask: for whoever has waited since
    /// an older configuration.
    pub(crate) fn is_closed(&self) -> bool {
        self.live.closed.load(Relaxed)
    }

    /// Notes a request or an upgraded connection that was cut.
    pub(crate) fn count_cut(&self) {
        self.live.cut.fetch_add(1, Relaxed);
    }

    /// How many were cut.
    pub(crate) fn cut(&self) -> u32 {
        self.live.cut.load(Relaxed)
    }

    /// Grows with every request that begins or ends: cheaper to read than
    /// [`Self::counters`], and enough to see that nothing happened.
    pub(crate) fn activity(&self) -> u64 {
        let ended = |counters: &WorkerCounters| {
            [
                &counters.requests,
                &counters.successes,
                &counters.connect,
                &counters.reset,
                &counters.timeout,
                &counters.protocol,
                &counters.status_5xx,
                &counters.retries,
            ]
            .iter()
            .map(|counter| counter.load(Relaxed))
            .sum::<u64>()
        };
        self.live.workers.iter().map(|worker| ended(&worker.0)).sum()
    }

    /// The sums over all workers.
    pub(crate) fn counters(&self) -> BackendCounters {
        let mut sum = BackendCounters::default();
        self.live.add_to(&mut sum);
        sum
    }
}

impl Live {
    pub(super) fn in_flight(&self) -> u32 {
        let own = self.workers.iter().map(|worker| worker.0.in_flight.0.load(Relaxed));
        self.in_flight.0.load(Relaxed) + own.sum::<u32>()
    }

    pub(super) fn add_to(&self, sum: &mut BackendCounters) {
        let carries = self.carries.lock().unwrap_or_else(PoisonError::into_inner);
        for worker in &self.workers {
            sum.add(&worker.0.read());
        }
        let carried = carries.iter().map(|bucket| (*bucket, 1 << 32));
        sum.latency.add(&LatencyHistogram::from_sparse(carried, 0));
    }

    /// Counts one more than fits: days pass until then.
    #[cold]
    fn carry(&self, number: usize, bucket: &AtomicU32) {
        let mut carries = self.carries.lock().unwrap_or_else(PoisonError::into_inner);
        carries.extend(u32::try_from(number));
        bucket.store(0, Relaxed);
    }
}

impl WorkerCounters {
    fn new() -> Self {
        Self {
            in_flight: Padded::default(),
            requests: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            passing: AtomicU32::new(0),
            successes: AtomicU64::new(0),
            connect: AtomicU64::new(0),
            reset: AtomicU64::new(0),
            timeout: AtomicU64::new(0),
            protocol: AtomicU64::new(0),
            status_5xx: AtomicU64::new(0),
            status_gateway: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            bytes_to_backend: AtomicU64::new(0),
            bytes_from_backend: AtomicU64::new(0),
            latency_sum_us: AtomicU64::new(0),
            latency: [const { AtomicU32::new(0) }; LATENCY_BUCKETS],
        }
    }

    fn read(&self) -> BackendCounters {
        let pairs = (0u32..).zip(&self.latency).filter_map(|(bucket, count)| {
            let count = count.load(Relaxed);
            (count > 0).then_some((bucket, u64::from(count)))
        });
        BackendCounters {
            requests: self.requests.load(Relaxed),
            successes: self.successes.load(Relaxed),
            failures: Failures {
                connect: self.connect.load(Relaxed),
                reset: self.reset.load(Relaxed),
                timeout: self.timeout.load(Relaxed),
                protocol: self.protocol.load(Relaxed),
                status_5xx: self.status_5xx.load(Relaxed),
                status_gateway: self.status_gateway.load(Relaxed),
            },
            retries: self.retries.load(Relaxed),
            bytes_to_backend: self.bytes_to_backend.load(Relaxed),
            bytes_from_backend: self.bytes_from_backend.load(Relaxed),
            latency: LatencyHistogram::from_sparse(pairs, self.latency_sum_us.load(Relaxed)),
        }
    }
}

/// Adds to a counter that this thread alone writes: no locked instruction.
pub(crate) fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}
