//! The requests that a client sends in one go, one after the other, and which backends are picked
//! for them.

use std::{rc::Rc, time::Instant};

use lb_core::{balance::HashKey, model::HttpLimits, resilience::probe::Fitness};

use super::{
    affinity::Bound,
    answering::Answering,
    connection::{Connection, Next},
    failure::Ended,
    prepare::{Prepared, counters, is_management},
    read::{EMPTY_LINE_BYTES_MAX, SETTLES_AFTER},
    record::Record,
    relay::Relay,
    respond::OwnAnswer,
    stream::Stream,
};
use crate::{
    leases::Permit,
    live::{Asked, PoolConfig, Trial},
    reason::Reason,
    worker::{Buffer, Guest, Loaded, Worker, now},
};

/// A head and a body that are shorter than this together are copied into one write.
pub(super) const ONE_WRITE_MAX: usize = 16 * 1024;

/// Answers the requests that a client sends in one go.
#[derive(Debug)]
pub(super) struct Exchange<'a, S> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) connection: &'a mut Connection<S>,
    pub(super) client_in: Buffer,
    /// What the access log will say of the request at hand, if there is such a log.
    pub(super) record: Option<Box<Record>>,
    /// The request at hand tries its backend, and nothing of an answer has come.
    pub(super) trial: Option<Trial>,
    /// The slots that the attempt at hand has, where a pool or a backend may have only so many.
    pub(super) permit: Option<Permit>,
    /// What is answered, once it is complete.
    pub(super) answering: Option<Answering>,
    /// Whether the request at hand is traffic, which is counted, and not management.
    pub(super) is_traffic: bool,
}

impl<'a, S: Stream> Exchange<'a, S> {
    pub(super) fn begin(worker: &'a Rc<Worker>, connection: &'a mut Connection<S>) -> Self {
        Self {
            worker,
            connection,
            client_in: worker.buffers.buffer(),
            record: None,
            trial: None,
            permit: None,
            answering: None,
            is_traffic: true,
        }
    }

    /// Answers requests for as long as they follow closely. From the first answer on, the
    /// `guest` is one who gives and takes.
    pub(super) async fn run<'w: 'a>(
        worker: &'w Rc<Worker>,
        connection: &'a mut Connection<S>,
        guest: &mut Guest<'w>,
    ) -> Next {
        let is_busy = connection.requests > 0
            && now().saturating_duration_since(connection.busy) < SETTLES_AFTER;
        let mut exchange = Self::begin(worker, connection);
        let mut pipelined = 0;
        loop {
            let stay = guest.asks();
            let next = exchange.one().await;
            exchange.end_record();
            match next {
                Next::Idle => drop(stay),
                // Neither a backend nor a slot is held for that.
                Next::Linger(left) => {
                    exchange.linger(left).await;
                    return Next::Close;
                }
                Next::Close | Next::Tunnel(_) => return next,
            }
            guest.is_answered();
            let mut waited = false;
            loop {
                // Some clients send an empty line behind a body, which begins nothing.
                exchange.skip_empty_lines();
                let lines_only = exchange.connection.skipped <= EMPTY_LINE_BYTES_MAX;
                if !exchange.client_in.is_empty() || !lines_only {
                    break;
                }
                if !is_busy {
                    return Next::Idle;
                }
                waited = true;
                if let Some(next) = exchange.wait_a_moment().await {
                    return next;
                }
            }
            if waited {
                pipelined = 0;
                continue;
            }
            pipelined += 1;
            let config = worker.config();
            if pipelined % exchange.limits(&config).pipelined_max == 0 {
                // Others have waited long enough.
                tokio::task::yield_now().await;
            }
        }
    }

    async fn one(&mut self) -> Next {
        self.is_traffic = true;
        self.answering = None;
        let mut outcome = None;
        let read = self.read_request(&mut outcome).await;
        let (read, outcome) = match (read, &outcome) {
            (Ok(Some(read)), Some(outcome)) => (read, outcome),
            (Ok(_), _) => {
                // Nothing was asked, or nobody is there to be told.
                if let Some(record) = self.record.take() {
                    record.discard();
                }
                return Next::Close;
            }
            (Err(answer), _) => {
                self.begin_record(now());
                return self.refuse(&answer, None).await;
            }
        };
        self.connection.requests += 1;
        self.connection.skipped = 0;
        self.is_traffic = !is_management(outcome);
        if self.is_traffic {
            self.worker.shard.count_request();
        }
        self.answering = Some(Answering {
            config: Rc::clone(&read.config),
            counters: counters(outcome),
            started: read.started,
        });
        match outcome {
            Ok(prepared) => self.forward(prepared, read.head, &read.config, read.started).await,
            Err(refused) => {
                self.worker.buffers.return_output(read.head);
                match &refused.request {
                    Some(understood) => {
                        self.answer(&refused.answer, understood, &read.config).await
                    }
                    None => self.refuse(&refused.answer, None).await,
                }
            }
        }
    }

    /// The bounds of this listener's requests.
    pub(super) fn limits<'c>(&self, config: &'c Loaded) -> &'c HttpLimits {
        config.listeners[self.connection.listener]
            .as_ref()
            .map_or(&HttpLimits::DEFAULT, |config| &config.listener.limits)
    }

    /// Notes that the client is gone before it was answered.
    pub(super) fn client_left(&mut self) {
        if self.is_traffic {
            self.worker.shard.count_client_abort();
        }
        if let Some(record) = &mut self.record {
            record.reason(Reason::ClientAbort);
        }
    }

    /// Picks a backend for a request that has not been to any of the `tried`. What there is
    /// of the request is told for its first pick only.
    pub(super) fn pick(
        &mut self,
        pool: &PoolConfig,
        prepared: &Prepared,
        tried: &[u32],
        upload: Option<&Relay>,
        now: Instant,
    ) -> Option<u32> {
        self.worker.release_held(now);
        let rng = &mut self.worker.rng.borrow_mut();
        let key = match prepared.bound.as_deref() {
            Some(Bound::Value(Some(value))) => HashKey::Value(value),
            Some(_) | None => HashKey::Client(prepared.client),
        };
        let left_out;
        let tried = if upload.is_some() || self.worker.serves_from(pool) {
            tried
        } else {
            // Time has passed, and the pool is not what it was.
            left_out = tried.iter().copied().chain(pool.closed()).collect::<Vec<_>>();
            &left_out
        };
        let Some(caution) = &pool.caution else { return pool.pick(key, tried, rng) };
        let is_idempotent = prepared.understood.method.is_idempotent();
        let fitness = match upload {
            Some(upload) if !upload.is_read() => Fitness::Uploading,
            Some(upload) if is_idempotent && upload.is_replayable() => Fitness::Repeatable,
            _ => Fitness::Whole,
        };
        let (slot, trial) = pool.pick_with(caution, Asked { key, tried, fitness, now }, rng)?;
        // Whoever is left for another backend is still to be judged.
        if trial.is_some() {
            self.trial = trial;
        }
        if caution.is_helping(slot)
            && let Some(record) = &mut self.record
        {
            record.reason(Reason::PoolPanic);
        }
        Some(slot)
    }

    /// The backend that is tried has answered with a status that says so, or has failed.
    pub(super) fn decide_trial(&mut self, succeeded: bool) {
        if let Some(trial) = self.trial.take() {
            trial.end(succeeded, now(), &mut self.worker.rng.borrow_mut());
        }
    }

    /// Ends a trial that no answer has decided: the backend failed, or nothing is known.
    pub(super) fn end_trial(&mut self, ended: &Ended) {
        if let Ended::Failed(failure) | Ended::Left(failure, _) = ended
            && failure.counts()
        {
            self.decide_trial(false);
        }
        self.trial = None;
    }

    pub(super) fn begin_record(&mut self, now: Instant) {
        if self.record.is_none()
            && let Some(log) = &self.worker.access_log
        {
            let connection = &self.connection;
            self.record = Some(log.begin(connection.peer, connection.listener, now));
        }
    }

    fn end_record(&mut self) {
        if let (Some(record), Some(log)) = (self.record.take(), &self.worker.access_log) {
            log.finish(*record, now());
        }
    }

    /// Answers a connection before it has asked for anything, and ends it.
    pub(super) async fn turn_away(mut self, answer: &OwnAnswer) {
        self.begin_record(now());
        self.refuse(answer, None).await;
        self.end_record();
    }
}
