//! Which problems with control planes were told: each once, until one is followed.
//!
//! A proxy tries again for as long as it lives, so that a line for each attempt would fill its
//! log; but a problem that is *another* one must be told, or a proxy that is refused would
//! look like one that waits for its control plane to start.

use std::collections::BTreeSet;

/// Problems that are remembered; more are told each time. A control plane has a few ways to
/// refuse a proxy.
const REMEMBERED_MAX: usize = 64;

/// What was told since a control plane was followed last.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    /// By address; without a text: that nobody answers there. What keeps a connection from
    /// coming about may change with each attempt, and is the same to whoever reads it.
    told: BTreeSet<(String, Option<String>)>,
}

impl Complaints {
    /// A control plane was followed: whatever comes now is news.
    pub(super) fn forget(&mut self) {
        self.told.clear();
    }

    /// Notes that nobody answers at an address; whether that is to be told.
    pub(super) fn nobody_answers(&mut self, at: &str) -> bool {
        self.note(at, None)
    }

    /// Notes that whoever answers at an address refuses this proxy; whether that is to be told.
    pub(super) fn is_refused(&mut self, at: &str, problem: &str) -> bool {
        self.note(at, Some(problem.to_owned()))
    }

    fn note(&mut self, at: &str, problem: Option<String>) -> bool {
        let is_news = !self.told.contains(&(at.to_string(), problem.clone()));
        if self.told.len() < REMEMBERED_MAX {
            self.told.insert((at.to_string(), problem));
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_once_and_another_one_again() {
        let (a, b) = ("http://a:9400", "http://b:9400");
        let mut complaints = Complaints::default();
        assert!(complaints.nobody_answers(a));
        assert!(!complaints.nobody_answers(a));
        assert!(complaints.nobody_answers(b), "another control plane");
        assert!(complaints.is_refused(a, "the id is in use"));
        assert!(!complaints.is_refused(a, "the id is in use"));
        assert!(complaints.is_refused(a, "no common version"));
        assert!(!complaints.nobody_answers(a), "known before it was refused");
        complaints.forget();
        assert!(complaints.nobody_answers(a));
        assert!(complaints.is_refused(a, "the id is in use"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let at = "http://a:9400";
        let mut complaints = Complaints::default();
        for number in 0..10 * REMEMBERED_MAX {
            assert!(complaints.is_refused(at, &number.to_string()));
        }
        assert_eq!(complaints.told.len(), REMEMBERED_MAX);
    }
}
