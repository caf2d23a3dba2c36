//! When proxies are sent heartbeats.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Into how many turns a period is divided. All streams of a turn are seen to at once: most of
/// what a heartbeat costs is to be woken for it. There are enough turns that none keeps a change
/// waiting: with a thousand proxies, each sends to fifty.
const TURNS: u64 = 20;

/// The common clock of heartbeats.
#[derive(Debug)]
pub(crate) struct Beats {
    began: Instant,
    period: Duration,
}

impl Beats {
    /// Begins now.
    pub(crate) fn new(period: Duration) -> Self {
        Self { began: Instant::now(), period }
    }

    /// Those of the stream of this number: streams take turns.
    pub(super) fn of_stream(&self, number: u64) -> Interval {
        let mut beats = interval_at(self.first(number, Instant::now()), self.period);
        // One that comes late is followed by those of its turn.
        beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
        beats
    }

    fn first(&self, number: u64, now: Instant) -> Instant {
        let turn = u128::from(number % TURNS);
        let period = self.period.as_nanos();
        let since = now.saturating_duration_since(self.began).as_nanos();
        let turn_ns = period * turn / u128::from(TURNS);
        let to_turn = (turn_ns + period - since % period) % period;
        now + Duration::from_nanos(u64::try_from(to_turn).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_take_turns_within_a_period() {
        let period = Duration::from_secs(1);
        let beats = Beats::new(period);
        for after_ms in [0, 1, 49, 50, 51, 999, 1000, 123_456] {
            let now = beats.began + Duration::from_millis(after_ms);
            for number in 0..40 {
                let first = beats.first(number, now);
                assert!(first >= now && first < now + period);
                let since_ms = (first - beats.began).as_millis();
                assert_eq!(since_ms % 1000, u128::from(number % 20) * 50, "{after_ms}, {number}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_late_is_followed_by_those_of_its_turn() {
        let beats = Beats::new(Duration::from_secs(1));
        let mut third = beats.of_stream(3);
        assert_eq!(third.tick().await - beats.began, Duration::from_millis(150));
        tokio::time::advance(Duration::from_millis(2600)).await;
        third.tick().await;
        assert_eq!(beats.began.elapsed(), Duration::from_millis(2750), "late, and at once");
        third.tick().await;
        assert_eq!(beats.began.elapsed(), Duration::from_millis(3150));
    }
}
