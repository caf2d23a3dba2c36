//! What a pool with adaptive concurrency learns from its requests: how many were answered,
//! and after how long. Workers count, each for itself; the control thread tells the sums.
//!
//! A request is *aside* while it holds a slot without waiting for the backend: while its client
//! sends, and from the beginning of its answer on.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use lb_core::{resilience::concurrency::Sums, stats::whole_us};

use crate::{
    live::{Padded, bump},
    worker::now,
};

/// The counts of one pool.
#[derive(Debug)]
pub(super) struct Answers(Box<[Padded<Counts>]>);

#[derive(Debug, Default)]
struct Counts {
    answers: AtomicU64,
    answers_us: AtomicU64,
    given_up: AtomicU64,
    given_up_us: AtomicU64,
    aside: AtomicU64,
}

/// Where one request is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// It waits for the backend since then.
    Waiting(Instant),
    /// Counted as aside by this worker.
    Aside(usize),
}

impl Answers {
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Padded::default()).collect())
    }

    /// The sums of all workers.
    pub(super) fn sums(&self) -> Sums {
        let sum = |of: fn(&Counts) -> &AtomicU64| {
            self.0.iter().map(|counts| of(&counts.0).load(Relaxed)).sum()
        };
        Sums {
            answers: sum(|counts| &counts.answers),
            time_us: sum(|counts| &counts.answers_us),
            given_up: sum(|counts| &counts.given_up),
            given_up_us: sum(|counts| &counts.given_up_us),
        }
    }

    /// Requests that are aside.
    pub(super) fn aside(&self) -> u64 {
        self.0.iter().map(|counts| counts.0.aside.load(Relaxed)).sum()
    }

    /// The client begins to send, or the answer begins.
    pub(super) fn step_aside(&self, place: &mut Place, worker: usize) {
        if matches!(place, Place::Waiting(_)) {
            bump(&self.0[worker].0.aside, 1);
            *place = Place::Aside(worker);
        }
    }

    /// The client has sent all, and the request waits for the backend from now on.
    pub(super) fn ask(&self, place: &mut Place) {
        self.end(*place);
        *place = Place::Waiting(now());
    }

    /// Counts an answer.
    pub(super) fn count(&self, place: Place, worker: usize) {
        if let Place::Waiting(since) = place {
            bump(&self.0[worker].0.answers, 1);
            bump(&self.0[worker].0.answers_us, micros_since(since));
        }
    }

    /// Counts a request whose answer nobody waits for any longer.
    pub(super) fn give_up(&self, place: Place, worker: usize) {
        if let Place::Waiting(since) = place {
            bump(&self.0[worker].0.given_up, 1);
            bump(&self.0[worker].0.given_up_us, micros_since(since));
        }
    }

    /// The request ends, on the worker that it began on.
    pub(super) fn end(&self, place: Place) {
        if let Place::Aside(worker) = place {
            let aside = &self.0[worker].0.aside;
            aside.store(aside.load(Relaxed).saturating_sub(1), Relaxed);
        }
    }
}

fn micros_since(since: Instant) -> u64 {
    whole_us(now().saturating_duration_since(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_the_backend_is_told_apart_from_what_does_not() {
        let answers = Answers::new(2);
        let mut upload = Place::Waiting(now());
        let mut download = upload;
        answers.step_aside(&mut upload, 1);
        answers.give_up(upload, 1);
        answers.count(download, 0);
        answers.step_aside(&mut download, 0);
        answers.step_aside(&mut download, 0);
        assert_eq!((answers.aside(), answers.sums().answers, answers.sums().given_up), (2, 1, 0));
        answers.ask(&mut upload);
        answers.end(download);
        assert_eq!(answers.aside(), 0);
        answers.give_up(upload, 1);
        answers.end(upload);
        assert_eq!((answers.aside(), answers.sums().answers, answers.sums().given_up), (0, 1, 1));
    }
}
