//! How much came per second, lately.

use tokio::time::Instant;

/// Seconds over which rates are averaged.
const RATE_SECONDS: usize = 5;

/// Counts of the last seconds, one slot each.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// When the first slot's first second began.
    start: Option<Instant>,
    /// The second that was added to last.
    second: u64,
    slots: [u64; RATE_SECONDS + 1],
}

impl Rate {
    /// Counts what came at `now`.
    pub(super) fn add(&mut self, now: Instant, count: u64) {
        let start = *self.start.get_or_insert(now);
        // Whoever waited for his turn to count may come with an older moment.
        let second = now.duration_since(start).as_secs().max(self.second);
        // Seconds in which nothing came are empty.
        let skipped = (second - self.second).min(self.slots.len() as u64);
        for step in 1..=skipped {
            self.slots[Self::slot(self.second + step)] = 0;
        }
        self.second = second;
        self.slots[Self::slot(second)] += count;
    }

    /// The mean over the last whole seconds and the running one.
    pub(super) fn per_second(&self, now: Instant) -> f64 {
        let Some(start) = self.start else { return 0.0 };
        let elapsed = now.duration_since(start);
        let oldest = elapsed.as_secs().saturating_sub(RATE_SECONDS as u64);
        let covered = elapsed.as_secs_f64() - oldest as f64;
        self.lately(now) as f64 / covered.max(1.0)
    }

    /// What came in the last whole seconds and the running one.
    pub(super) fn lately(&self, now: Instant) -> u64 {
        let Some(start) = self.start else { return 0 };
        let second = now.duration_since(start).as_secs();
        let oldest = second.saturating_sub(RATE_SECONDS as u64);
        (oldest..=second.min(self.second)).map(|s| self.slots[Self::slot(s)]).sum()
    }

    fn slot(second: u64) -> usize {
        usize::try_from(second % (RATE_SECONDS as u64 + 1)).expect("less than the slots")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whoever_counts_late_takes_nothing_away() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        rate.add(start, 10);
        let later = start + Duration::from_secs(1);
        rate.add(later, 20);
        // It looked at the clock first, and was second to count.
        rate.add(later - Duration::from_millis(1), 30);
        assert_eq!(rate.lately(later), 60);
    }
}
