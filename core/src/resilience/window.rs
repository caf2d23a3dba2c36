//! Sums over the last moments.

use std::{
    ops::AddAssign,
    time::{Duration, Instant},
};

/// Sums over the last `N` steps of time, the running one included: what was added in the
/// last `N - 1` steps is always in it, what is older than `N` steps never.
#[derive(Clone, Debug)]
pub(super) struct Window<T, const N: usize> {
    slots: [T; N],
    step: Duration,
    /// Where the running step is.
    newest: usize,
    /// When the running step began.
    began: Instant,
}

impl<T: AddAssign + Copy + Default, const N: usize> Window<T, N> {
    /// An empty one; `step` must not be zero.
    pub(super) fn new(step: Duration, now: Instant) -> Self {
        debug_assert!(!step.is_zero() && N > 0, "steps have a length");
        Self { slots: [T::default(); N], step, newest: 0, began: now }
    }

    /// How long one step is.
    pub(super) fn step(&self) -> Duration {
        self.step
    }

    /// Adds what came at `now`. A clock that stands still, or is late, adds to the
    /// running step.
    pub(super) fn add(&mut self, now: Instant, value: T) {
        let steps = self.steps_until(now);
        for _ in 0..steps.min(N) {
            self.newest = (self.newest + 1) % N;
            self.slots[self.newest] = T::default();
        }
        if steps > 0 {
            let elapsed = now.saturating_duration_since(self.began).as_nanos();
            let into = elapsed % self.step.as_nanos();
            self.began = now - Duration::from_nanos(u64::try_from(into).unwrap_or(0));
        }
        self.slots[self.newest] += value;
    }

    /// What is in it at `now`.
    pub(super) fn sum(&self, now: Instant) -> T {
        let passed = self.steps_until(now).min(N);
        let mut sum = T::default();
        for age in passed..N {
            // Oldest first: the running step is the last of them.
            sum += self.slots[(self.newest + 1 + age) % N];
        }
        sum
    }

    fn steps_until(&self, now: Instant) -> usize {
        let elapsed = now.saturating_duration_since(self.began).as_nanos();
        usize::try_from(elapsed / self.step.as_nanos()).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::epoch;

    proptest! {
        /// Against a list of everything that was ever added.
        #[test]
        fn it_holds_the_last_steps_and_nothing_older(
            waits in prop::collection::vec(0_u64..4_000, 1..60),
        ) {
            let (step, start) = (Duration::from_secs(1), epoch());
            let mut window: Window<u32, 5> = Window::new(step, start);
            let (mut now, mut all) = (start, Vec::new());
            for wait in waits {
                now += Duration::from_millis(wait);
                window.add(now, 1);
                all.push(now);
                let sum = window.sum(now) as usize;
                let within = |span: Duration| {
                    all.iter().filter(|&&at| now.duration_since(at) < span).count()
                };
                prop_assert!(within(4 * step) <= sum && sum <= within(5 * step));
                let later = now + Duration::from_millis(2_500);
                prop_assert!(window.sum(later) as usize <= sum);
                prop_assert_eq!(window.sum(now + 5 * step), 0);
            }
        }
    }
}
