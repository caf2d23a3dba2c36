//! Which processes may have something, as the next start of this control plane is to know it.
//!
//! A process is noted on disk before its first report is taken in, and is struck out when nothing
//! is counted for it any more. So the list names everybody who may have had something when
//! this process ended, however it ended, and [`lb_core::lease::Census`] need not wait for longer
//! than those take to report. While this start itself does not know of all, the list has
//! a name on it that never reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use lb_core::model::InstanceId;

/// Nobody's name: processes have random ones.
const SOMEBODY: &str = "somebody-unknown";
/// For how long a process is expected to report that has opened its stream and has not reported
/// yet.
const JOINS_FOR: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Notes {
    /// Those on disk; nothing before anything was written in this term.
    noted: Option<BTreeSet<Arc<str>>>,
    /// About to be heard for the first time, and since when.
    joining: BTreeMap<Arc<str>, Instant>,
    /// Who may have something of earlier starts.
    former: BTreeSet<Arc<str>>,
}

impl Notes {
    /// After a start that left this list, if any.
    pub(super) fn new(former: Option<&[InstanceId]>) -> Self {
        let former = match former {
            Some(former) => former.iter().map(Into::into).collect(),
            None => BTreeSet::from([SOMEBODY.into()]),
        };
        Self { noted: None, joining: BTreeMap::new(), former }
    }

    /// Somebody was heard of who was not on the list, or may have been.
    pub(super) fn spoil(&mut self) {
        self.former.insert(SOMEBODY.into());
    }

    /// A process is about to be heard for the first time. Whether it is to be noted before.
    pub(super) fn join(&mut self, instance: &str, now: Instant) -> bool {
        self.joining.insert(instance.into(), now);
        !self.is_noted(instance)
    }

    pub(super) fn is_noted(&self, instance: &str) -> bool {
        self.noted.as_ref().is_some_and(|noted| noted.contains(instance))
    }

    /// What is to be on disk, if it is not. `known` have something or report; `carries` says that
    /// leases of earlier starts may still be in force.
    pub(super) fn due(
        &mut self,
        known: BTreeSet<Arc<str>>,
        carries: bool,
        now: Instant,
    ) -> Option<BTreeSet<Arc<str>>> {
        if !carries {
            self.former.clear();
        }
        self.joining
            .retain(|instance, since| !known.contains(instance) && now < *since + JOINS_FOR);
        let joining = self.joining.keys().cloned();
        let wanted: BTreeSet<_> =
            known.into_iter().chain(joining).chain(self.former.iter().cloned()).collect();
        (self.noted.as_ref() != Some(&wanted)).then_some(wanted)
    }

    /// These are on disk.
    pub(super) fn written(&mut self, noted: BTreeSet<Arc<str>>) {
        self.noted = Some(noted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    fn names(names: &[&str]) -> BTreeSet<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    #[test]
    fn those_who_join_are_noted_before_they_are_heard_and_struck_out_when_nothing_is_counted() {
        let (mut notes, now) = (Notes::new(Some(&[])), now());
        assert_eq!(notes.due(names(&[]), false, now), Some(names(&[])), "of another term");
        notes.written(names(&[]));
        assert!(notes.join("a", now) && notes.join("b", now));
        let both = notes.due(names(&[]), false, now).unwrap();
        assert_eq!(both, names(&["a", "b"]));
        notes.written(both);
        assert!(!notes.join("a", now));
        assert_eq!(notes.due(names(&["a", "b"]), false, now), None);
        assert_eq!(notes.due(names(&["b"]), false, now), Some(names(&["b"])));
        notes.written(names(&["b"]));
        assert!(notes.join("c", now));
        assert_eq!(notes.due(names(&["b"]), false, now + JOINS_FOR), None, "it never came");
    }

    #[test]
    fn who_was_there_before_stays_until_nothing_of_it_can_be_in_force() {
        let former = [InstanceId::new("a").unwrap()];
        let (mut notes, now) = (Notes::new(Some(&former)), now());
        assert_eq!(notes.due(names(&["b"]), true, now), Some(names(&["a", "b"])));
        assert_eq!(notes.due(names(&["b"]), false, now), Some(names(&["b"])));
        let mut notes = Notes::new(None);
        assert_eq!(notes.due(names(&["b"]), true, now), Some(names(&["b", SOMEBODY])));
        assert_eq!(notes.due(names(&["b"]), false, now), Some(names(&["b"])));
        notes.spoil();
        assert_eq!(notes.due(names(&["b"]), true, now), Some(names(&["b", SOMEBODY])));
    }
}
