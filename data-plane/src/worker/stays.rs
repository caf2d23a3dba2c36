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

/// What a worker knows of its connections of one listener.
#[derive(Debug, Default)]
pub(crate) struct Stays {
    /// How many there are.
    here: Cell<usize>,
    /// Those that had an answer.
    answered: Cell<usize>,
    /// Of these, those with another request, by the period in which it began.
    recent: [Cell<u32>; PERIODS as usize],
    /// Those whose request began before.
    long: Cell<u32>,
    period: Cell<u32>,
}

/// A connection, until this is dropped.
#[derive(Debug)]
pub(crate) struct Guest<'a> {
    stays: &'a Stays,
    had_answer: bool,
}

/// A further request of a connection that had an answer, until this is dropped.
#[derive(Debug)]
pub(crate) struct Stay<'a> {
    stays: &'a Stays,
    since: u32,
}

impl Stays {
    /// A connection has come.
    pub(crate) fn arrive(&self) -> Guest<'_> {
        self.here.set(self.here.get() + 1);
        Guest { stays: self, had_answer: false }
    }

    /// Begins another period.
    pub(super) fn next_period(&self) {
        let period = self.period.get().wrapping_add(1);
        self.period.set(period);
        let oldest = self.recent[(period % PERIODS) as usize].take();
        self.long.set(self.long.get() + oldest);
    }

    /// How many connections there are.
    pub(super) fn here(&self) -> usize {
        self.here.get()
    }

    /// How many connections do not give their places back soon: those that have never had an
    /// answer, and those that have waited long for another.
    pub(super) fn owing(&self) -> usize {
        self.here.get() - self.answered.get() + self.long.get() as usize
    }

    fn change(&self, since: u32, by: i32) {
        let is_recent = self.period.get().wrapping_sub(since) < PERIODS;
        let count = if is_recent { &self.recent[(since % PERIODS) as usize] } else { &self.long };
        count.set(count.get().wrapping_add_signed(by));
    }
}

impl<'a> Guest<'a> {
    /// It has a request: another one, unless it has had no answer yet.
    pub(crate) fn asks(&self) -> Option<Stay<'a>> {
        let (stays, since) = (self.stays, self.stays.period.get());
        self.had_answer.then(|| {
            stays.change(since, 1);
            Stay { stays, since }
        })
    }

    /// It has had an answer.
    pub(crate) fn is_answered(&mut self) {
        if !std::mem::replace(&mut self.had_answer, true) {
            self.stays.answered.set(self.stays.answered.get() + 1);
        }
    }

    /// It has come to stay: no answer ends what it does now.
    pub(crate) fn settles(&mut self) {
        if std::mem::take(&mut self.had_answer) {
            self.stays.answered.set(self.stays.answered.get() - 1);
        }
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.settles();
        self.stays.here.set(self.stays.here.get() - 1);
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
        let (mut first, mut second) = (stays.arrive(), stays.arrive());
        assert!(first.asks().is_none());
        assert_eq!(stays.owing(), 2);
        first.is_answered();
        let again = first.asks();
        assert_eq!(stays.owing(), 1, "it has just asked");
        (1..PERIODS).for_each(|_| stays.next_period());
        assert_eq!(stays.owing(), 1);
        stays.next_period();
        assert_eq!(stays.owing(), 2);
        drop(again);
        assert_eq!(stays.owing(), 1);
        drop(first);
        second.is_answered();
        assert_eq!(stays.owing(), 0);
        second.settles();
        assert_eq!(stays.owing(), 1, "a tunnel");
        drop(second);
        assert_eq!(stays.owing(), 0);
    }

    proptest! {
        /// As a list of all that are there has it.
        #[test]
        fn the_counts_are_those_of_a_list(steps in prop::collection::vec(0_usize..40, 0..200)) {
            let stays = Stays::default();
            stays.period.set(u32::MAX - 20);
            let mut guest = stays.arrive();
            guest.is_answered();
            let mut there: Vec<(Option<Stay<'_>>, u32)> = Vec::new();
            let mut period = 0;
            for step in steps {
                match step {
                    0..15 => there.push((guest.asks(), period)),
                    15..25 => {
                        stays.next_period();
                        period += 1;
                    }
                    which if !there.is_empty() => drop(there.swap_remove(which % there.len())),
                    _ => {}
                }
                let long = there.iter().filter(|(_, since)| period - since >= PERIODS);
                prop_assert_eq!(stays.owing(), long.count());
            }
        }
    }
}
