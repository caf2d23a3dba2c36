//! Whose places do not come back soon.
//!
//! Where others wait for places, clients give theirs up after an answer ([`super::turns`]). Who
//! sends half a request and is silent, reads nothing, or takes long for what it asked for never
//! comes to that point. If places went to such clients at the same pace, they would soon have all
//! of them, and whoever gives and takes would be outside. So the worker knows how many there are.
//!
//! Requests are counted by the period in which they began. What is older than a few periods is
//! counted together.

use std::cell::Cell;

/// Periods that are told apart. With two a second, a request is long after two seconds.
const PERIODS: u32 = 4;

/// What a worker knows of its connections that had an answer.
#[derive(Debug, Default)]
pub(crate) struct Stays {
    /// How many there are.
    answered: Cell<usize>,
    /// Those with another request, by the period in which it began.
    recent: [Cell<u32>; PERIODS as usize],
    /// Those whose request began before.
    long: Cell<u32>,
    period: Cell<u32>,
}

/// A connection that has had an answer, until this is dropped.
#[derive(Debug)]
pub(crate) struct Answered<'a>(&'a Stays);

/// A further request of such a connection, until this is dropped.
#[derive(Debug)]
pub(crate) struct Stay<'a> {
    stays: &'a Stays,
    since: u32,
}

impl Stays {
    /// A connection has had its first answer.
    pub(crate) fn answered(&self) -> Answered<'_> {
        self.answered.set(self.answered.get() + 1);
        Answered(self)
    }

    /// A connection that has had an answer has another request.
    pub(crate) fn again(&self) -> Stay<'_> {
        let since = self.period.get();
        self.change(since, 1);
        Stay { stays: self, since }
    }

    /// Begins another period.
    pub(super) fn next_period(&self) {
        let period = self.period.get().wrapping_add(1);
        self.period.set(period);
        let oldest = self.recent[(period % PERIODS) as usize].take();
        self.long.set(self.long.get() + oldest);
    }

    /// How many of the worker's `connections` do not give their places back soon: those that have
    /// never had an answer, and those that have waited long for another.
    pub(super) fn owing(&self, connections: usize) -> usize {
        connections.saturating_sub(self.answered.get()) + self.long.get() as usize
    }

    fn change(&self, since: u32, by: i32) {
        let is_recent = self.period.get().wrapping_sub(since) < PERIODS;
        let count = if is_recent { &self.recent[(since % PERIODS) as usize] } else { &self.long };
        count.set(count.get().wrapping_add_signed(by));
    }
}

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        self.0.answered.set(self.0.answered.get() - 1);
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.stays.change(self.since, -1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_never_had_an_answer_and_who_takes_long_is_counted() {
        let stays = Stays::default();
        assert_eq!(stays.owing(2), 2);
        let first = stays.answered();
        let again = stays.again();
        assert_eq!(stays.owing(2), 1, "it has just asked");
        (1..PERIODS).for_each(|_| stays.next_period());
        assert_eq!(stays.owing(2), 1);
        stays.next_period();
        assert_eq!(stays.owing(2), 2);
        drop(again);
        assert_eq!(stays.owing(2), 1);
        drop(first);
        assert_eq!(stays.owing(1), 1);
    }

    proptest! {
        /// As a list of all that are there has it.
        #[test]
        fn the_counts_are_those_of_a_list(steps in prop::collection::vec(0_usize..40, 0..200)) {
            let stays = Stays::default();
            stays.period.set(u32::MAX - 20);
            let _answered = stays.answered();
            let mut there: Vec<(Stay<'_>, u32)> = Vec::new();
            let mut period = 0;
            for step in steps {
                match step {
                    0..15 => there.push((stays.again(), period)),
                    15..25 => {
                        stays.next_period();
                        period += 1;
                    }
                    which if !there.is_empty() => drop(there.swap_remove(which % there.len())),
                    _ => {}
                }
                let long = there.iter().filter(|(_, since)| period - since >= PERIODS);
                prop_assert_eq!(stays.owing(1), long.count());
            }
        }
    }
}
