//! When an operator is told that a limit refuses requests, and when that it has stopped.
//!
//! A limit that is doing its work refuses now and then, over many proxies. So what is told is
//! that it *began* to refuse, a moment later, when there are figures worth telling; and that it
//! refuses no more, once it has refused none for a while. A limit that goes to and fro has to be
//! quiet for longer each time: whatever happens, little is told.

use std::time::{Duration, Instant};

/// Whether one limit refuses requests, over all proxies.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    phase: Option<Phase>,
    /// How long it must have refused none, and when the last phase was told to have ended.
    before: Option<(Duration, Instant)>,
}

/// A time in which it refuses.
#[derive(Clone, Debug)]
struct Phase {
    began: Instant,
    last: Instant,
    is_told: bool,
    quiet: Duration,
    admitted: u64,
    refused: u64,
}

/// What an operator is to be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefusalNews {
    /// The limit refuses requests.
    Began(Tally),
    /// It has refused none for a while.
    Ended(Tally),
}

/// What a limit decided since it began to refuse.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tally {
    /// Requests that passed.
    pub admitted: u64,
    /// Requests that did not.
    pub refused: u64,
    /// From the first that it refused until now; at the end, until the last.
    pub lasted: Duration,
    /// At the end: for how long it has refused none.
    pub quiet: Duration,
}

impl Refusals {
    /// From the first refusal until that is told: a few reports of every proxy.
    pub const GATHER: Duration = Duration::from_secs(1);
    /// How long a limit has refused none when it is told that it refuses no more.
    pub const QUIET: Duration = Duration::from_secs(60);
    /// That, at most, when it began again and again within this time of the end.
    pub const QUIET_MAX: Duration = Duration::from_secs(16 * 60);

    /// Takes in what a proxy decided lately.
    pub fn count(&mut self, admitted: u64, refused: u64, now: Instant) {
        if self.phase.is_none() && refused > 0 {
            let quiet = match self.before {
                Some((quiet, ended)) if now < ended + Self::QUIET_MAX => {
                    (2 * quiet).min(Self::QUIET_MAX)
                }
                _ => Self::QUIET,
            };
            let (began, last) = (now, now);
            let phase = Phase { began, last, is_told: false, quiet, admitted: 0, refused: 0 };
            self.phase = Some(phase);
        }
        if let Some(phase) = &mut self.phase {
            phase.admitted += admitted;
            phase.refused += refused;
            if refused > 0 {
                phase.last = now;
            }
        }
    }

    /// What is to be told now. To be asked about once a second.
    pub fn news(&mut self, now: Instant) -> Option<RefusalNews> {
        let phase = self.phase.as_mut()?;
        let tally = |lasted, quiet| {
            let Phase { admitted, refused, .. } = *phase;
            Tally { admitted, refused, lasted, quiet }
        };
        if !phase.is_told {
            if now < phase.began + Self::GATHER {
                return None;
            }
            let lasted = now.saturating_duration_since(phase.began);
            let began = RefusalNews::Began(tally(lasted, Duration::ZERO));
            phase.is_told = true;
            return Some(began);
        }
        if now < phase.last + phase.quiet {
            return None;
        }
        let quiet = now.saturating_duration_since(phase.last);
        let ended = RefusalNews::Ended(tally(phase.last - phase.began, quiet));
        self.before = Some((phase.quiet, now));
        self.phase = None;
        Some(ended)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::epoch;

    const SECOND: Duration = Duration::from_secs(1);

    /// What is told when these many are refused in each second, and in which.
    fn told(seconds: impl IntoIterator<Item = u64>) -> Vec<(u32, RefusalNews)> {
        let (mut refusals, epoch) = (Refusals::default(), epoch());
        let step = |(second, refused): (u32, u64)| {
            refusals.count(10, refused, epoch + second * SECOND);
            let news = refusals.news(epoch + second * SECOND)?;
            Some((second, news))
        };
        (0..).zip(seconds).filter_map(step).collect()
    }

    #[test]
    fn it_is_told_when_it_begins_and_when_none_was_refused_for_a_while() {
        // Two seconds of nothing, then 5 and 7, then one more after a short pause, then none.
        let mut seconds = vec![0, 0, 5, 7, 0, 0, 3];
        seconds.resize(200, 0);
        let tally = |admitted, refused, lasted, quiet| Tally {
            admitted,
            refused,
            lasted: lasted * SECOND,
            quiet: quiet * SECOND,
        };
        let expected = [
            (3, RefusalNews::Began(tally(20, 12, 1, 0))),
            (66, RefusalNews::Ended(tally(650, 15, 4, 60))),
        ];
        assert_eq!(told(seconds), expected);
        assert_eq!(told([0; 100]), []);
    }

    #[test]
    fn one_that_refuses_now_and_then_is_told_of_ever_less_often() {
        // One in 90 seconds, which is more than the first quiet time and less than the second.
        let ends = |every: u32, seconds: u32| -> Vec<u32> {
            let told = told((0..seconds).map(|second| u64::from(second.is_multiple_of(every))));
            told.iter()
                .filter(|(_, news)| matches!(news, RefusalNews::Ended(_)))
                .map(|(second, _)| *second)
                .collect()
        };
        assert_eq!(ends(90, 10_000), [60], "then it is one long phase");
        assert_eq!(ends(300, 10_000), [60, 420, 840], "after 60 s, 120, 240, and never 480");
        // After a long time without any it is as good as new.
        assert_eq!(ends(1100, 5000), [60, 1160, 2260, 3360, 4460]);
    }

    proptest! {
        /// Beginning and end take turns, and there are few however it goes to and fro.
        #[test]
        fn there_are_few(refused in prop::collection::vec(0..3_u64, 0..4000)) {
            let seconds = refused.len();
            let told = told(refused);
            for (place, (_, news)) in told.iter().enumerate() {
                prop_assert_eq!(matches!(news, RefusalNews::Began(_)), place % 2 == 0);
            }
            prop_assert!(told.len() <= 2 + seconds / 30);
        }
    }
}
