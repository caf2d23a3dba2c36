//! Which keys of a limit need more than an even share, in one proxy.
//!
//! One thread of the proxy owns this. It hears from the workers which keys they refused,
//! opens those, reports about them, and gives the workers a pace for each; for all other
//! keys there is one pace.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Pace, burst_share};
use crate::lease::{Applied, Grant, Holder, RateShare, Refused, Report, Stages, Terms};

/// The keys of one limit that a proxy reports about.
#[derive(Debug)]
pub struct HotKeys {
    rate: u64,
    burst: u32,
    proxies: u32,
    keys_max: usize,
    /// When the number of proxies was told last.
    told_at: Instant,
    /// Another process has its even shares, except while the control plane counts both.
    is_retired: bool,
    /// Of every key that is not hot.
    cold: Pace,
    keys: BTreeMap<u64, Hot>,
}

#[derive(Debug)]
struct Hot {
    share: RateShare,
    asked: u64,
    opened_at: Instant,
    /// Its pace has been another than that of cold keys.
    was_leased: bool,
}

/// For how long a key is reported about that nothing is lent of: another refusal would
/// open it again.
const UNLEASED: Duration = Duration::from_secs(5);

/// How long a process that was taken over goes by what it was told: it is told again about once
/// a second.
const TOLD_FOR: Duration = Duration::from_millis(2500);

impl HotKeys {
    /// No key is hot. `rate` (in millionths of a token per second) and `burst` are those
    /// of the limit, which `proxies` share.
    #[must_use]
    pub fn new(rate: u64, burst: u32, proxies: u32, keys_max: usize, now: Instant) -> Self {
        let proxies = proxies.max(1);
        let cold = Pace::new(rate / u64::from(proxies), burst_share(burst, proxies), now);
        let cold = cold.reaching(rate);
        let (told_at, keys) = (now, BTreeMap::new());
        Self { rate, burst, proxies, keys_max, told_at, is_retired: false, cold, keys }
    }

    /// The control plane tells how many proxies there are. Whether the even share is another by
    /// that, or lasts longer.
    pub fn set_proxies(&mut self, proxies: u32, now: Instant) -> bool {
        self.told_at = now;
        let is_same = proxies.max(1) == self.proxies;
        if is_same && !self.is_retired {
            return false;
        }
        self.proxies = proxies.max(1);
        self.set_cold(now);
        true
    }

    /// Gives the even shares up to another process, which takes its place. As long as the
    /// control plane is heard it counts both, and each has its own.
    pub fn retire(&mut self, now: Instant) {
        self.is_retired = true;
        self.set_cold(now);
        self.keys.values_mut().for_each(|hot| hot.share.retire(now));
    }

    fn set_cold(&mut self, now: Instant) {
        let (burst, even) = (burst_share(self.burst, self.proxies), self.even_share());
        let cold = if self.is_retired {
            let until = self.told_at + TOLD_FOR;
            let stages =
                Stages { lease: even, lease_until: until, between: 0, safe_from: until, safe: 0 };
            self.cold.replaced(&stages, burst, now)
        } else {
            self.cold.steadied(even, burst, now)
        };
        // A key that needs more is hot within a second, and gets up to all of it.
        self.cold = cold.reaching(self.rate);
    }

    /// Changes the limit: the rate and the burst of every key.
    pub fn set_limit(&mut self, rate: u64, burst: u32, now: Instant) {
        if (self.rate, self.burst) == (rate, burst) {
            return;
        }
        (self.rate, self.burst) = (rate, burst);
        self.set_cold(now);
        for hot in self.keys.values_mut() {
            hot.share.set_burst(burst, now);
        }
    }

    /// How many proxies share the limit, as it was told last.
    #[must_use]
    pub fn proxies(&self) -> u32 {
        self.proxies
    }

    /// Reports about this key from now on: a worker refused it, or the control plane asks
    /// ([`crate::lease::KeyGranter::unheard`]). `false` if that is one too many.
    pub fn open(&mut self, key: u64, now: Instant) -> bool {
        if self.keys.contains_key(&key) {
            return true;
        }
        if self.keys.len() >= self.keys_max {
            return false;
        }
        let holder = Holder::with_safe_share(Terms::rate(), self.even_share(), self.proxies, now);
        let mut share = RateShare::following(&self.cold, holder, self.burst, now);
        if self.is_retired {
            share.retire(now);
        }
        let hot = Hot { share, asked: 0, opened_at: now, was_leased: false };
        self.keys.insert(key, hot);
        true
    }

    /// Counts what workers were asked for with this key, granted or not; nothing if the
    /// key is not hot.
    pub fn count(&mut self, key: u64, asked: u64) {
        if let Some(hot) = self.keys.get_mut(&key) {
            hot.asked += asked;
        }
    }

    /// What to send up, about each hot key.
    pub fn reports(&mut self, now: Instant) -> Vec<(u64, Report)> {
        let report = |(&key, hot): (&u64, &mut Hot)| {
            (key, hot.share.report(std::mem::take(&mut hot.asked), now))
        };
        self.keys.iter_mut().map(report).collect()
    }

    /// Takes a grant in.
    pub fn apply(&mut self, key: u64, grant: &Grant, now: Instant) -> Result<Applied, Refused> {
        match self.keys.get_mut(&key) {
            Some(hot) => {
                let applied = hot.share.apply(grant, now)?;
                hot.was_leased = true;
                Ok(applied)
            }
            None => Err(Refused::Unknown { answers: grant.answers }),
        }
    }

    /// Ends what is over: keys of which nothing has been lent for so long that they are
    /// back at their even share. Gives those for which [`super::Table::forget`] is to be
    /// called, because their buckets followed a pace of their own; what they owe is
    /// forgiven, at most a burst for each time that a key was lent.
    pub fn close(&mut self, now: Instant) -> Vec<u64> {
        let is_over = |hot: &Hot| {
            now >= hot.share.holder().stages().safe_from && now >= hot.opened_at + UNLEASED
        };
        let mut forgotten = Vec::new();
        self.keys.retain(|&key, hot| {
            let is_over = is_over(hot);
            if is_over && hot.was_leased {
                forgotten.push(key);
            }
            !is_over
        });
        forgotten
    }

    /// The paces of all hot keys, to be given to the workers.
    pub fn paces(&self) -> impl Iterator<Item = (u64, Pace)> {
        self.keys.iter().map(|(&key, hot)| (key, hot.share.pace()))
    }

    /// The pace of every other key.
    #[must_use]
    pub fn cold(&self) -> Pace {
        self.cold
    }

    fn even_share(&self) -> u64 {
        self.rate / u64::from(self.proxies)
    }
}
