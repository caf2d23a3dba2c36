//! Whether all who may have something of a former granter were heard.
//!
//! A granter that follows another lends nothing new before what that lent must have ended. If
//! it knows which processes that lent to, because each was noted durably before the first
//! grant to it, it need not wait for longer than they take to report.

use std::collections::BTreeMap;

use super::{Report, Term};

/// The processes, named by `P`, that a former granter may have lent something of one quantity.
#[derive(Clone, Debug)]
pub struct Census<P> {
    /// Whether each was heard, and will apply no grant of the former granter any more.
    former: BTreeMap<P, bool>,
    /// One of them says that the former granter answered it not long ago.
    is_recent: bool,
    /// Nothing comes of it any more: it is complete, or the list turned out not to be.
    is_over: bool,
}

impl<P: Ord> Census<P> {
    /// Waits for these. Every process to which the former granter may have lent, or may have
    /// had to count for, is among them.
    #[must_use]
    pub fn new(former: impl IntoIterator<Item = P>) -> Self {
        let former = former.into_iter().map(|process| (process, false)).collect();
        Self { former, is_recent: false, is_over: false }
    }

    /// Takes in what a process reports to the granter of term `own`. `true` once: when this
    /// makes it complete, so that [`super::Granter::former_is_accounted_for`] may be called.
    ///
    /// A process counts when it has applied a grant of the new granter: that fences what may
    /// still be on its way from the former, and what it reports with it is all that it has.
    /// Beyond those that are named, a process that began while there was no granter may use a
    /// safe share that it remembers, though not before `counted_for` is over. So one of those
    /// named has to say that less time has gone by ([`Report::is_recent`]).
    #[must_use]
    pub fn hear(&mut self, from: &P, report: &Report, own: Term) -> bool {
        if self.is_over {
            return false;
        }
        match self.former.get_mut(from) {
            Some(is_heard) if report.term == own => *is_heard = true,
            Some(_) => self.is_recent |= report.is_recent,
            // It has had a grant and is not on the list: others may be missing, too.
            None => self.is_over = report.term != Term(0) && report.term < own,
        }
        let is_complete = self.is_recent && self.former.values().all(|is_heard| *is_heard);
        self.is_over |= is_complete;
        is_complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Term = Term(7);

    fn report(term: u64, is_recent: bool) -> Report {
        Report {
            seq: 1,
            term: Term(term),
            applied: 1,
            holds: 1,
            safe: 1,
            in_use: 0,
            demand: 0,
            is_recent,
        }
    }

    #[test]
    fn it_is_complete_when_all_have_applied_a_grant_of_the_new_granter() {
        let mut census = Census::new(["a", "b"]);
        assert!(!census.hear(&"a", &report(6, true), OWN));
        assert!(!census.hear(&"a", &report(7, true), OWN));
        assert!(!census.hear(&"c", &report(0, false), OWN), "a newcomer has nothing");
        assert!(!census.hear(&"b", &report(0, false), OWN), "something may be on its way");
        assert!(census.hear(&"b", &report(7, false), OWN));
        assert!(!census.hear(&"b", &report(7, false), OWN), "it is told once");
    }

    #[test]
    fn a_process_that_is_not_on_the_list_spoils_it() {
        let mut census = Census::new(["a"]);
        assert!(!census.hear(&"b", &report(6, true), OWN));
        assert!(!census.hear(&"a", &report(6, true), OWN));
        assert!(!census.hear(&"a", &report(7, true), OWN));
    }

    #[test]
    fn after_a_long_time_others_may_use_what_they_remember() {
        let mut census = Census::new(["a"]);
        assert!(!census.hear(&"a", &report(6, false), OWN));
        assert!(!census.hear(&"a", &report(7, true), OWN), "that is of the new granter");
    }
}
