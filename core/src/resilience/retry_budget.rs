//! How many retries a proxy may send.
//!
//! Retries turn an overload into a collapse: each failure sends more work to backends
//! that fail because they have too much of it. So retries are a share of the requests
//! of the last ten seconds. A floor keeps them useful where there is next to no traffic;
//! since a floor adds up over proxies where a share does not, they divide it among
//! themselves.
//!
//! The sums are moved off the request path, four times a second. In between, each retry
//! takes one permit from an [`Allowance`], *before* it waits: retries that are still in
//! backoff count, so that a burst of failures cannot hide a burst of retries.
//!
//! **Bound.** With `N` proxies, retries of one proxy in any 10 s are at most the share
//! of its requests in the 10 s before the last tick (and one tick more, since what is
//! counted at a tick came since the one before) plus `10 s x floor / N`; both rounded
//! down together. Over the fleet that adds up to the share of all requests plus ten
//! seconds of the floor, whatever `N` is.
//!
//! All of it at once would double the load in the second in which everything begins to fail,
//! in all proxies together, and leave nothing for the seconds after. So it is handed out as it
//! comes in, a tenth of those ten seconds each second. What is not needed adds up to a *burst*:
//! what comes in within [`BURST`], or what the floor alone is worth in [`FLOOR_BURST`] (which is
//! the same for the whole fleet, whatever its traffic), or [`BURST_LEAST`], whichever is most.
//! **In any second** a proxy's retries are at most that burst and one and a quarter of the tenth.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use super::window::Window;
use crate::model::RetryPolicy;

/// What the share is taken of.
pub const SPAN: Duration = Duration::from_secs(10);
/// How often [`RetryBudget::tick`] is called.
pub const TICK: Duration = Duration::from_millis(250);

/// As much as comes in within this time can be had at once.
pub const BURST: Duration = Duration::from_secs(1);
/// Or what the floor brings within this time: a backend that dies has a few requests in progress
/// and a few kept connections, however seldom anybody asks.
pub const FLOOR_BURST: Duration = Duration::from_millis(7_500);
/// Or so many, where that is less: for proxies that have next to nothing of the floor.
pub const BURST_LEAST: u32 = 5;

/// Steps of a tick in [`SPAN`].
const STEPS: usize = 40;

/// What one proxy has spent of one pool's retries.
#[derive(Debug)]
pub struct RetryBudget {
    /// At most the last 10 s: requests that may be older pay for nothing.
    requests: Window<u64, STEPS>,
    /// At least the last 10 s: no retry is forgotten early.
    retries: Window<u64, { STEPS + 1 }>,
    /// What may be had at once, in thousandths.
    at_hand: u64,
    ticked_at: Instant,
    earned: u64,
}

impl RetryBudget {
    /// Nothing sent and nothing spent.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            requests: Window::new(TICK, now),
            retries: Window::new(TICK, now),
            at_hand: u64::MAX,
            ticked_at: now,
            earned: 0,
        }
    }

    /// Counts what was sent and retried since the last tick, and says how many retries
    /// may be sent until the next: what [`Allowance::renew`] is to be given.
    /// `requests` are first attempts only. `proxies` are those that are live, this one
    /// included.
    pub fn tick(
        &mut self,
        policy: &RetryPolicy,
        proxies: u32,
        now: Instant,
        requests: u64,
        retries: u64,
    ) -> u32 {
        self.requests.add(now, requests);
        self.retries.add(now, retries);
        let share = u128::from(self.requests.sum(now)) * u128::from(policy.budget_percent);
        let floor = u128::from(policy.budget_floor) * u128::from(SPAN.as_secs());
        let proxies = u128::from(proxies.max(1));
        // Rounded down once, over a common denominator.
        let earned = (share * proxies + floor * 100) / (100 * proxies);
        self.earned = u64::try_from(earned).unwrap_or(u64::MAX);
        let left = self.earned.saturating_sub(self.retries.sum(now));
        let floor_burst = u128::from(policy.budget_floor) * FLOOR_BURST.as_millis() / proxies;
        let least = u64::try_from(floor_burst).unwrap_or(u64::MAX);
        let at_hand = self.hand_out(now, retries, least, left) / 1000;
        u32::try_from(at_hand).unwrap_or(u32::MAX)
    }

    /// What may be had at once, in thousandths: what comes in evenly, less what was spent; and no
    /// more than is left of the ten seconds, so that nothing adds up while that is nothing.
    /// The burst is `least` thousandths or more.
    fn hand_out(&mut self, now: Instant, spent: u64, least: u64, left: u64) -> u64 {
        let elapsed = now.saturating_duration_since(std::mem::replace(&mut self.ticked_at, now));
        // What a tick that is late brings would come on top of the next ones.
        let new = self.within(elapsed.min(TICK));
        let burst = self.within(BURST).max(least).max(u64::from(BURST_LEAST) * 1000);
        let at_most = burst.min(left.saturating_mul(1000).saturating_add(999));
        let unspent = self.at_hand.saturating_sub(spent.saturating_mul(1000));
        self.at_hand = unspent.saturating_add(new).min(at_most);
        self.at_hand
    }

    /// Which part of the retries of ten seconds comes in within this time, in thousandths.
    fn within(&self, time: Duration) -> u64 {
        let part = u128::from(self.earned) * time.as_millis() * 1000 / SPAN.as_millis();
        u64::try_from(part).unwrap_or(u64::MAX)
    }

    /// Retries that may be sent in ten seconds, as of the last tick.
    #[must_use]
    pub fn earned(&self) -> u64 {
        self.earned
    }

    /// Retries of the last 10 s, as counted by ticks.
    #[must_use]
    pub fn spent(&self, now: Instant) -> u64 {
        self.retries.sum(now)
    }
}

/// The retries that may be sent until the next tick, shared by all workers.
///
/// A tick learns from what is left how many were spent, and grants anew
/// ([`Self::renew`]). Permits that are taken in between come out of the new grant, so that
/// no retry finds nothing because a tick is under way.
#[derive(Debug, Default)]
pub struct Allowance {
    left: AtomicU32,
}

impl Allowance {
    /// Takes one permit, if there is one; to be called before the retry waits.
    pub fn take(&self) -> bool {
        self.left
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
    }

    /// How many are left. Others may take some at the same moment.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.left.load(Ordering::Relaxed)
    }

    /// Replaces what is left. `tick` is told how many of the last grant were spent, and says
    /// how many permits there are from now on. What counts as this grant is returned, for the
    /// next call.
    pub fn renew(&self, granted: u32, tick: impl FnOnce(u32) -> u32) -> u32 {
        let before = self.left.load(Ordering::Relaxed);
        let permits = tick(granted - before);
        let left_of = |left: u32| permits.saturating_sub(before - left);
        let left = self.left.update(Ordering::Relaxed, Ordering::Relaxed, left_of);
        // More may have been taken meanwhile than there are now: the next tick hears of all.
        permits.max(before - left)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::epoch;

    fn policy() -> RetryPolicy {
        RetryPolicy::default()
    }

    /// One proxy as its shell runs it.
    struct Proxy {
        budget: RetryBudget,
        allowance: Allowance,
        granted: u32,
        /// When requests and retries were sent, in milliseconds.
        requests: Vec<u64>,
        retries: Vec<u64>,
        fresh: u64,
    }

    impl Proxy {
        fn new(start: Instant) -> Self {
            Self {
                budget: RetryBudget::new(start),
                allowance: Allowance::default(),
                granted: 0,
                requests: Vec::new(),
                retries: Vec::new(),
                fresh: 0,
            }
        }

        fn tick(&mut self, proxies: u32, start: Instant, at: u64) {
            let now = start + Duration::from_millis(at);
            let fresh = std::mem::take(&mut self.fresh);
            let budget = &mut self.budget;
            self.granted = self.allowance.renew(self.granted, |spent| {
                budget.tick(&policy(), proxies, now, fresh, spent.into())
            });
        }

        fn request(&mut self, at: u64) {
            self.requests.push(at);
            self.fresh += 1;
        }

        fn retry(&mut self, at: u64) -> bool {
            let may = self.allowance.take();
            if may {
                self.retries.push(at);
            }
            may
        }
    }

    /// How many of these moments are in `[from, to]`.
    fn count(moments: &[u64], from: u64, to: u64) -> u64 {
        let below = |limit| moments.partition_point(|&at| at < limit);
        (below(to + 1) - below(from)) as u64
    }

    fn simulate(seed: u64, proxies: u32) -> Result<(), TestCaseError> {
        let (start, mut rng) = (epoch(), fastrand::Rng::with_seed(seed));
        let mut fleet: Vec<Proxy> = (0..proxies).map(|_| Proxy::new(start)).collect();
        let mut busy = 0;
        let mut next_tick = vec![0; fleet.len()];
        for at in (0..40_000).step_by(10) {
            if at % 2_000 == 0 {
                busy = [0, 1, 3, 20][rng.usize(..4)];
            }
            for (proxy, next) in fleet.iter_mut().zip(&mut next_tick) {
                if at >= *next {
                    proxy.tick(proxies, start, at);
                    // Seldom a tick is very late.
                    *next = at + if rng.u8(..20) == 0 { rng.u64(250..3_000) } else { 250 };
                }
                for _ in 0..rng.u32(..=busy) {
                    proxy.request(at);
                }
                // Everything fails, and is retried as often as it may be.
                for _ in 0..rng.u32(..=2 * busy + 1) {
                    proxy.retry(at);
                }
            }
        }
        // A tick is up to 3 s late. What is spent rests on the last one, which may be as long
        // ago, and counts what was sent since the one before: the window of requests is
        // wider by both.
        for proxy in &fleet {
            for &end in &proxy.retries {
                let from = end.saturating_sub(9_999);
                let spent = count(&proxy.retries, from, end);
                let requests = count(&proxy.requests, from.saturating_sub(6_010), end);
                let bound = requests as f64 * 0.2 + 100.0 / f64::from(proxies);
                prop_assert!(spent as f64 <= bound, "{spent} retries, {bound} at {end}");
                let from = end.saturating_sub(999);
                let spent = count(&proxy.retries, from, end);
                let requests = count(&proxy.requests, from.saturating_sub(16_010), end);
                let a_second = requests as f64 * 0.02 + 10.0 / f64::from(proxies);
                let floor = 75.0 / f64::from(proxies);
                let burst = a_second.max(floor).max(f64::from(BURST_LEAST));
                let bound = burst + 1.25 * a_second;
                prop_assert!(spent as f64 <= bound, "{spent} in a second, {bound} at {end}");
            }
        }
        Ok(())
    }

    #[test]
    fn without_traffic_the_fleet_shares_the_floor() {
        for proxies in [1, 3, 8, 64, 300] {
            let start = epoch();
            let mut budget = RetryBudget::new(start);
            let at_once = budget.tick(&policy(), proxies, start, 0, 0);
            assert_eq!(budget.earned(), u64::from(100 / proxies));
            assert_eq!(at_once, (75 / proxies).max(5).min(100 / proxies), "of {proxies}");
        }
    }

    #[test]
    fn a_share_of_what_was_sent_comes_on_top_and_is_spent_once() {
        let mut now = epoch();
        let mut budget = RetryBudget::new(now);
        let mut permits = budget.tick(&policy(), 10, now, 100, 0);
        assert_eq!((permits, budget.earned()), (7, 30));
        // Whatever is handed out is spent.
        let mut ticks = 0;
        while budget.spent(now) < 30 {
            now += TICK;
            ticks += 1;
            permits = budget.tick(&policy(), 10, now, 0, permits.into());
        }
        assert_eq!(ticks, 31, "three a second after the first seven and a half");
        assert_eq!(permits, 0);
        now += SPAN;
        // The requests are forgotten; the retries may be.
        assert_eq!((budget.tick(&policy(), 10, now, 0, 0), budget.earned()), (1, 10));
    }

    #[test]
    fn nothing_is_allowed_by_a_policy_without_share_and_floor() {
        let none = RetryPolicy { budget_percent: 0, budget_floor: 0, ..policy() };
        assert_eq!(RetryBudget::new(epoch()).tick(&none, 1, epoch(), 1_000, 0), 0);
    }

    /// 320 requests a second, of which each fails from the twelfth second on.
    #[test]
    fn a_sudden_outage_is_no_burst_of_retries() {
        let start = epoch();
        let mut proxy = Proxy::new(start);
        for at in 0..40_000 {
            if at % 250 == 0 {
                proxy.tick(1, start, at);
            }
            if at % 25 < 8 {
                proxy.request(at);
                if at >= 12_000 {
                    proxy.retry(at);
                }
            }
        }
        let seconds = (12_000..40_000).step_by(1_000);
        let spent: Vec<u64> = seconds.map(|from| count(&proxy.retries, from, from + 999)).collect();
        assert!((120..=167).contains(&spent[0]), "{spent:?}");
        assert!(spent[1..].iter().all(|spent| (15..=80).contains(spent)), "{spent:?}");
    }

    #[test]
    fn a_steady_outage_keeps_near_its_share() {
        let start = epoch();
        let mut proxy = Proxy::new(start);
        for at in 0..60_000 {
            if at % 250 == 0 {
                proxy.tick(1, start, at);
            }
            proxy.request(at);
            proxy.retry(at);
        }
        let spent = count(&proxy.retries, 40_000, 59_999) as f64 / 20_000.0;
        assert!((0.19..=0.21).contains(&spent), "{spent} retries a request");
    }

    proptest! {
        // Forty seconds of several proxies each.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn no_ten_seconds_and_no_second_hold_more_than_their_bounds(seed: u64, proxies in 1_u32..6) {
            simulate(seed, proxies)?;
        }
    }

    #[test]
    fn workers_that_take_at_once_never_take_more_than_was_granted() {
        let allowance = Allowance::default();
        assert_eq!(allowance.renew(0, |_| 1_000), 1_000);
        let taken: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..900).filter(|_| allowance.take()).count()))
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!((taken, allowance.left()), (1_000, 0));
    }

    #[test]
    fn a_permit_can_be_taken_while_a_tick_is_under_way() {
        let allowance = Allowance::default();
        let granted = allowance.renew(0, |_| 3);
        assert!(allowance.take());
        let tick = |spent| {
            assert_eq!(spent, 1);
            assert!(allowance.take() && allowance.take() && !allowance.take());
            1
        };
        let granted = allowance.renew(granted, tick);
        assert_eq!(allowance.left(), 0);
        let granted = allowance.renew(granted, |spent| 10 - spent);
        assert_eq!((granted, allowance.left()), (8, 8), "both were told");
    }
}
