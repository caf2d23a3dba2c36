//! The drain of a backend: it gets nothing new, and ends when nothing is left or at its
//! deadline.

use std::{ops::RangeInclusive, time::Duration};

use super::{AdminState, Invalid};

/// How the drain of one backend goes. It is stored with the backend, so that a control
/// plane that was restarted carries it on.
///
/// ```text
///            nothing left
///   running --------------> ended
///      |                      ^
///      | deadline             | nothing left, or nothing more was heard
///      +-----> cutting -------+
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Drain {
    /// When it began. Shown to people; only a control plane that was restarted reckons by
    /// it what remains.
    pub since_unix_ms: u64,
    /// What is left after so long is cut.
    pub timeout: Duration,
    /// Remove the backend when the drain has ended.
    pub remove: bool,
    /// The deadline has passed: proxies close what is left.
    pub cutting: bool,
    /// Nothing is left.
    pub ended: bool,
    /// Requests and upgraded connections that did not end by themselves: while cutting,
    /// those known to be left at the deadline, afterwards those that were cut.
    pub cut: u32,
}

/// What is asked of a drain.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DrainWish {
    timeout: Option<Duration>,
    remove: bool,
}

impl DrainWish {
    /// What [`Drain::timeout`] may be.
    pub const TIMEOUT: RangeInclusive<Duration> =
        Duration::from_millis(1)..=Duration::from_secs(24 * 3600);

    /// Checks the timeout; none means as it is, or the default.
    pub fn new(timeout: Option<Duration>, remove: bool) -> Result<Self, Invalid> {
        match timeout {
            Some(timeout) if !Self::TIMEOUT.contains(&timeout) => Err(Invalid::value(
                "drain.timeout",
                format!("a drain's timeout of {timeout:?} is outside 1ms to 24h"),
            )),
            _ => Ok(Self { timeout, remove }),
        }
    }

    /// Whether anything is asked that a drain would do by itself.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the backend is to be removed afterwards.
    #[must_use]
    pub fn removes(&self) -> bool {
        self.remove
    }
}

impl Drain {
    /// How long a drain may take unless told: as long as a load balancer of a large cloud
    /// lets its targets finish.
    pub const TIMEOUT: Duration = Duration::from_secs(300);

    /// The longest time before the deadline at which sessions move on.
    const SESSIONS_MOVE_BEFORE: Duration = Duration::from_secs(10);

    /// For how long from its beginning the backend keeps its clients' sessions: a tenth of its
    /// time, at most 10 s, is left for what they have asked until then, so that it is not cut.
    #[must_use]
    pub fn sessions_for(&self) -> Duration {
        self.timeout - (self.timeout / 10).min(Self::SESSIONS_MOVE_BEFORE)
    }

    /// The drain of a backend that is to be in `state`: none unless it is draining. One
    /// that is under way goes on, with what else is wished.
    #[must_use]
    pub fn settled(
        state: AdminState,
        former: Option<Self>,
        wish: DrainWish,
        now_unix_ms: u64,
    ) -> Option<Self> {
        if state != AdminState::Draining {
            return None;
        }
        let drain = former.unwrap_or(Self {
            since_unix_ms: now_unix_ms,
            timeout: Self::TIMEOUT,
            remove: false,
            cutting: false,
            ended: false,
            cut: 0,
        });
        Some(Self {
            timeout: wish.timeout.unwrap_or(drain.timeout),
            remove: wish.remove || drain.remove,
            ..drain
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(seconds: u64, remove: bool) -> DrainWish {
        DrainWish::new(Some(Duration::from_secs(seconds)), remove).unwrap()
    }

    #[test]
    fn a_drain_has_a_deadline_from_its_beginning() {
        let begun = Drain::settled(AdminState::Draining, None, DrainWish::default(), 7).unwrap();
        assert_eq!((begun.since_unix_ms, begun.timeout), (7, Drain::TIMEOUT));
        assert!(!begun.remove && !begun.cutting && !begun.ended);
    }

    #[test]
    fn a_second_wish_changes_a_drain_and_does_not_begin_it_again() {
        let begun = Drain::settled(AdminState::Draining, None, wish(60, false), 7);
        let changed = Drain::settled(AdminState::Draining, begun, wish(20, true), 9).unwrap();
        assert_eq!((changed.since_unix_ms, changed.timeout.as_secs()), (7, 20));
        let same = Drain::settled(AdminState::Draining, Some(changed), DrainWish::default(), 11);
        assert_eq!(same, Some(changed));
    }

    #[test]
    fn whoever_enables_or_disables_a_backend_ends_its_drain() {
        let begun = Drain::settled(AdminState::Draining, None, DrainWish::default(), 7);
        for state in [AdminState::Enabled, AdminState::Disabled] {
            assert_eq!(Drain::settled(state, begun, DrainWish::default(), 9), None);
        }
    }

    #[test]
    fn a_timeout_is_neither_nothing_nor_for_ever() {
        for bad in [Duration::ZERO, Duration::from_secs(24 * 3600 + 1)] {
            let message = DrainWish::new(Some(bad), false).unwrap_err().message;
            assert!(message.contains("1ms to 24h"), "{message}");
        }
    }
}
