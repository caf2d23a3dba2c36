//! What came in the last seconds.
//!
//! Reports tell what was counted since the last one, mostly a quarter of a second ago. One that
//! comes after a while, because nobody listened meanwhile, has all of that in it: it is spread
//! over the time in which it was counted, so that no second looks busier than it was.

use std::time::Duration;

use tokio::time::Instant;

/// Seconds over which rates and answers of the last seconds are told.
pub(super) const RECENT_SECONDS: usize = 10;

/// Something that adds up, and can be spread over time.
pub(super) trait Count: Default {
    /// Adds what was counted elsewhere.
    fn add(&mut self, other: &Self);

    /// What falls between two of the parts that it is counted in: all such add up to the whole.
    fn part(&self, from: u64, until: u64, parts: u64) -> Self;
}

/// Counts of the last seconds, one slot each.
#[derive(Debug)]
pub(super) struct Recent<T, const SECONDS: usize = RECENT_SECONDS> {
    /// When the first count came.
    start: Option<Instant>,
    /// For how long it had been counted by then.
    before: Duration,
    /// The second that was added to last; the first one has the number of the slots, so that
    /// there are some before it.
    second: u64,
    /// None before the first count.
    slots: Vec<T>,
}

/// Counts of single things.
pub(super) type Rate<const SECONDS: usize = RECENT_SECONDS> = Recent<u64, SECONDS>;

impl<T, const SECONDS: usize> Default for Recent<T, SECONDS> {
    fn default() -> Self {
        Self { start: None, before: Duration::ZERO, second: 0, slots: Vec::new() }
    }
}

impl<T: Count, const SECONDS: usize> Recent<T, SECONDS> {
    const SLOTS: u64 = SECONDS as u64 + 1;

    /// Counts what came at `now` and was counted for so long.
    pub(super) fn add(&mut self, now: Instant, counted_for: Duration, count: &T) {
        let start = *self.start.get_or_insert(now);
        let elapsed = now.duration_since(start);
        self.before = self.before.max(counted_for.saturating_sub(elapsed));
        if self.slots.is_empty() {
            self.slots.resize_with(SECONDS + 1, T::default);
            self.second = Self::SLOTS;
        }
        // Whoever waited for his turn to count may come with an older moment.
        let second = (elapsed.as_secs() + Self::SLOTS).max(self.second);
        // Seconds in which nothing came are empty.
        let skipped = (second - self.second).min(Self::SLOTS);
        for step in 1..=skipped {
            *self.slot(self.second + step) = T::default();
        }
        self.second = second;
        let all_ms = u64::try_from(counted_for.as_millis()).unwrap_or(u64::MAX);
        // Backwards from now: what fell into the running second, and into those before it.
        let (mut from, mut until) = (0, u64::from(elapsed.subsec_millis()));
        if all_ms <= until {
            return self.slot(second).add(count);
        }
        for back in 0..Self::SLOTS {
            self.slot(second - back).add(&count.part(from, until, all_ms));
            if until == all_ms {
                return;
            }
            (from, until) = (until, (until + 1000).min(all_ms));
        }
    }

    /// How long the last whole seconds and the running one are together, as far as anything was
    /// counted in them; a second at least.
    pub(super) fn window(&self, now: Instant) -> Duration {
        let elapsed = self.start.map_or(Duration::ZERO, |start| now.duration_since(start));
        let running = Duration::from_nanos(elapsed.subsec_nanos().into());
        let whole = Duration::from_secs(SECONDS as u64);
        (elapsed + self.before).min(whole + running).max(Duration::from_secs(1))
    }

    /// What came in the last whole seconds and the running one.
    pub(super) fn lately(&self, now: Instant) -> T {
        let mut sum = T::default();
        let Some(start) = self.start else { return sum };
        let second = now.duration_since(start).as_secs() + Self::SLOTS;
        let oldest = second - SECONDS as u64;
        for second in oldest..=second.min(self.second) {
            sum.add(&self.slots[Self::place(second)]);
        }
        sum
    }

    fn slot(&mut self, second: u64) -> &mut T {
        &mut self.slots[Self::place(second)]
    }

    fn place(second: u64) -> usize {
        usize::try_from(second % Self::SLOTS).expect("less than the slots")
    }
}

impl<const SECONDS: usize> Rate<SECONDS> {
    /// The mean over the last whole seconds and the running one.
    pub(super) fn per_second(&self, now: Instant) -> f64 {
        self.lately(now) as f64 / self.window(now).as_secs_f64()
    }
}

impl Count for u64 {
    fn add(&mut self, other: &Self) {
        *self += other;
    }

    fn part(&self, from: u64, until: u64, parts: u64) -> Self {
        let before = |part: Self| u128::from(*self) * u128::from(part) / u128::from(parts.max(1));
        // Not more than the whole.
        Self::try_from(before(until) - before(from)).unwrap_or(*self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: Duration = Duration::from_millis(250);

    #[test]
    fn whoever_counts_late_takes_nothing_away() {
        let (mut rate, start) = (<Rate>::default(), Instant::now());
        rate.add(start, PERIOD, &10);
        let later = start + Duration::from_secs(1);
        rate.add(later, PERIOD, &20);
        // It looked at the clock first, and was second to count.
        rate.add(later - Duration::from_millis(1), PERIOD, &30);
        assert_eq!(rate.lately(later), 60);
    }

    #[test]
    fn what_was_counted_while_nobody_listened_makes_no_second_busier() {
        let (mut rate, start) = (<Rate>::default(), Instant::now());
        // Seven thousand a second all the time, of which the first three seconds come at once.
        rate.add(start, Duration::from_secs(3), &21_000);
        for period in 1..80 {
            let now = start + PERIOD * period;
            rate.add(now, PERIOD, &1750);
            let told = rate.per_second(now);
            assert!((6990.0..=7010.0).contains(&told), "{told} after {period} periods");
        }
    }

    #[test]
    fn of_what_is_older_than_the_last_seconds_only_their_part_counts() {
        let (mut rate, start) = (<Rate>::default(), Instant::now());
        rate.add(start, Duration::from_secs(600), &600_000);
        let told = rate.per_second(start);
        assert!((990.0..=1010.0).contains(&told), "{told}");
    }

    proptest! {
        #[test]
        fn parts_add_up(count in 0u64..1 << 48, parts in 1u64..1000) {
            let part = |from| count.part(from, from + 1, parts);
            prop_assert_eq!((0..parts).map(part).sum::<u64>(), count);
        }

        #[test]
        fn nothing_of_the_last_seconds_is_lost(
            steps in prop::collection::vec((0u64..3000, 0u64..1000), 1..60),
        ) {
            let (mut rate, start) = (<Rate>::default(), Instant::now());
            let mut told = Vec::new();
            let mut now = start;
            rate.add(now, PERIOD, &0);
            for (ms, count) in steps {
                now += Duration::from_millis(ms);
                rate.add(now, PERIOD, &count);
                told.push((now.duration_since(start).as_secs(), count));
            }
            let second = now.duration_since(start).as_secs();
            let since = |seconds: u64| -> u64 {
                let recent = told.iter().filter(|(at, _)| at + seconds >= second);
                recent.map(|(_, count)| count).sum()
            };
            // What comes at the beginning of a second was counted in the one before it, too.
            let all = since(RECENT_SECONDS as u64 - 1)..=since(RECENT_SECONDS as u64);
            prop_assert!(all.contains(&rate.lately(now)), "{} of {all:?}", rate.lately(now));
        }
    }
}
