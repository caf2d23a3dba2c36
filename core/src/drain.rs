//! When a drain ends, and when what is left is cut.
//!
//! A proxy that lives and has not said since it learned of the drain what it has left is
//! waited for like one that has something left: a drain must not end because a report is
//! missing. A proxy that is lost is not waited for.

use std::time::Duration;

use crate::model::Drain;

/// How long after the deadline proxies may take to say what they cut.
pub const CUT_GRACE: Duration = Duration::from_secs(10);

/// What is left of a backend's work, over the fleet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Left {
    /// Requests in flight, as far as they are known.
    pub requests: u32,
    /// Upgraded connections, as far as they are known.
    pub upgraded: u32,
    /// Proxies that are waited for because it is not known what they have.
    pub unheard: u32,
    /// Its clients' sessions are kept for now, whether or not they ask for something.
    pub keeps_sessions: bool,
}

impl Left {
    /// Requests and upgraded connections together.
    #[must_use]
    pub fn known(self) -> u32 {
        self.requests.saturating_add(self.upgraded)
    }

    /// Whether nothing is left anywhere, for certain.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// How long a drain has been under way, by a monotonic clock.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Elapsed {
    /// Since it began.
    pub running: Duration,
    /// Since proxies were told to cut what is left.
    pub cutting: Duration,
}

/// What is to be done about a drain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Nothing yet.
    Wait,
    /// The deadline has passed: cut what is left.
    Cut,
    /// It is over.
    End,
    /// It is over, and the backend is to be removed.
    Remove,
}

/// Decides about one drain.
#[must_use]
pub fn next(drain: &Drain, left: Left, elapsed: Elapsed) -> Step {
    match drain {
        Drain { ended: true, remove: true, .. } => Step::Remove,
        Drain { ended: true, .. } => Step::Wait,
        _ if left.is_nothing() => Step::End,
        // Somebody does not answer, and may not be able to.
        Drain { cutting: true, .. } if elapsed.cutting >= CUT_GRACE => Step::End,
        Drain { cutting: true, .. } => Step::Wait,
        _ if elapsed.running >= drain.timeout => Step::Cut,
        _ => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AdminState, DrainWish};

    const SECOND: Duration = Duration::from_secs(1);

    fn drain() -> Drain {
        let wish = DrainWish::new(Some(10 * SECOND), false).unwrap();
        Drain::settled(AdminState::Draining, None, wish, 0).unwrap()
    }

    fn running(seconds: u32) -> Elapsed {
        Elapsed { running: seconds * SECOND, cutting: Duration::ZERO }
    }

    const ONE: Left = Left { requests: 0, upgraded: 1, unheard: 0, keeps_sessions: false };
    const UNHEARD: Left = Left { requests: 0, upgraded: 0, unheard: 1, keeps_sessions: false };

    #[test]
    fn it_ends_as_soon_as_nothing_is_left() {
        assert_eq!(next(&drain(), ONE, running(1)), Step::Wait);
        assert_eq!(next(&drain(), Left::default(), running(1)), Step::End);
    }

    #[test]
    fn sessions_are_kept_until_a_little_before_the_deadline() {
        let kept = Left { keeps_sessions: true, ..Left::default() };
        assert_eq!(next(&drain(), kept, running(1)), Step::Wait);
        assert_eq!(next(&drain(), Left::default(), running(9)), Step::End);
        assert_eq!(drain().sessions_for(), 9 * SECOND);
        let long = DrainWish::new(Some(300 * SECOND), false).unwrap();
        let long = Drain::settled(AdminState::Draining, None, long, 0).unwrap();
        assert_eq!(long.sessions_for(), 290 * SECOND);
    }

    #[test]
    fn a_missing_report_is_not_taken_for_nothing() {
        assert_eq!(next(&drain(), UNHEARD, running(9)), Step::Wait);
        assert_eq!(next(&drain(), UNHEARD, running(10)), Step::Cut);
    }

    #[test]
    fn what_is_left_at_the_deadline_is_cut_and_then_it_ends() {
        assert_eq!(next(&drain(), ONE, running(10)), Step::Cut);
        let cutting = Drain { cutting: true, ..drain() };
        assert_eq!(next(&cutting, ONE, running(11)), Step::Wait);
        assert_eq!(next(&cutting, Left::default(), running(11)), Step::End);
    }

    #[test]
    fn a_proxy_that_says_nothing_holds_it_up_for_a_while_only() {
        let cutting = Drain { cutting: true, ..drain() };
        let elapsed = Elapsed { running: 30 * SECOND, cutting: CUT_GRACE };
        assert_eq!(next(&cutting, UNHEARD, elapsed), Step::End);
    }

    #[test]
    fn removal_comes_after_the_end() {
        let ended = Drain { ended: true, ..drain() };
        assert_eq!(next(&ended, Left::default(), running(99)), Step::Wait);
        let wanted = Drain { remove: true, ..ended };
        assert_eq!(next(&wanted, Left::default(), running(99)), Step::Remove);
    }
}
