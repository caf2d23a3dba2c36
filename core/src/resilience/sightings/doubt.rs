//! Failures that may be one proxy's own affair.
//!
//! Each waits until everybody else has told what they saw since. Then it counts, or is set aside:
//! it counts after all if the same proxy, or another, fails later and nobody is served any more.
//! A response that begins meanwhile changes nothing of that.

use std::{collections::VecDeque, time::Instant};

use super::Outcomes;

/// Of one proxy.
#[derive(Clone, Debug, Default)]
pub(super) struct Doubts {
    /// In the order in which they were heard of.
    waiting: VecDeque<Doubt>,
    /// Failures in a row that were found to be its own affair.
    aside: u64,
}

/// What one report told of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    /// When it was heard of: it happened before that.
    pub(super) at: Instant,
    /// Since when its proxy had got nothing but such failures then.
    pub(super) failing_since: Instant,
    /// No successes are among them.
    pub(super) failures: Outcomes,
    /// Those in a row.
    pub(super) run: u32,
}

/// What waits: one that failed so often meanwhile avoids the backend by itself. Beyond that the
/// last one takes up what comes.
const WAITING_MAX: usize = 64;

impl Doubts {
    pub(super) fn add(&mut self, doubt: Doubt) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(doubt);
        } else if let Some(last) = self.waiting.back_mut() {
            last.at = doubt.at;
            last.failing_since = doubt.failing_since;
            last.failures += doubt.failures;
            last.run = last.run.saturating_add(doubt.run);
        }
    }

    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next one that was heard of until then; it waits no longer.
    pub(super) fn next(&mut self, until: Instant) -> Option<Doubt> {
        self.waiting.pop_front_if(|doubt| doubt.at <= until)
    }

    /// It is its proxy's own affair.
    pub(super) fn set_aside(&mut self, doubt: Doubt) {
        self.aside = self.aside.saturating_add(doubt.run.into());
    }

    /// Failures in a row that were set aside.
    pub(super) fn take_aside(&mut self) -> u64 {
        std::mem::take(&mut self.aside)
    }

    /// All that wait, and the failures in a row among them. What was set aside stays there: that
    /// was judged by what others saw.
    pub(super) fn take(&mut self) -> (Outcomes, u64) {
        let (mut failures, mut run) = (Outcomes::default(), 0);
        for doubt in self.waiting.drain(..) {
            failures += doubt.failures;
            run += u64::from(doubt.run);
        }
        (failures, run)
    }

    pub(super) fn end_run(&mut self) {
        self.aside = 0;
        self.waiting.iter_mut().for_each(|doubt| doubt.run = 0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::epoch;

    #[test]
    fn what_comes_when_too_much_waits_is_kept_with_the_last_one() {
        let (start, mut doubts) = (epoch(), Doubts::default());
        let at = |number: usize| start + Duration::from_millis(number as u64);
        let failure = Outcomes { transport: 1, ..Outcomes::default() };
        for number in 1..=WAITING_MAX + 10 {
            let doubt = Doubt { at: at(number), failing_since: start, failures: failure, run: 1 };
            doubts.add(doubt);
        }
        let last = at(WAITING_MAX + 10);
        let mut told = Vec::new();
        while let Some(doubt) = doubts.next(at(WAITING_MAX + 9)) {
            told.push(doubt.run);
        }
        assert_eq!(told, vec![1; WAITING_MAX - 1], "the last one has just happened");
        let doubt = doubts.next(last).unwrap();
        assert_eq!((doubt.run, doubt.failures.transport), (11, 11));
        assert!(!doubts.are_waiting());
    }
}
