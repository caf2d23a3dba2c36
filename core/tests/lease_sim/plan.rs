//! What one run is about.

use std::time::Duration;

use fastrand::Rng;
use lb_core::lease::{OnLoss, Terms};

/// What happens in a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Faults {
    /// Nothing; the network is quick.
    None,
    /// Only the control plane goes away and comes back, and proxies join: the bound must
    /// hold with safe shares.
    Outages,
    /// Everything.
    All,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: Faults,
    pub(crate) on_loss: OnLoss,
    pub(crate) terms: Terms,
    pub(crate) is_rate: bool,
    pub(crate) proxies: usize,
    /// Tokens per second, or slots.
    pub(crate) quantity: u64,
    pub(crate) burst: u32,
    pub(crate) report_every_ms: u64,
    /// When faults end.
    pub(crate) calm_ms: u64,
    pub(crate) end_ms: u64,
    /// Requests per second of each proxy, in turn; drawn if empty.
    pub(crate) demands: &'static [f64],
    /// Requests know nothing of one another (a Poisson process).
    pub(crate) at_random: bool,
    /// How long requests hold a slot.
    pub(crate) service_ms: (u64, u64),
}

/// How long a request may hold a slot.
const HOLD: Duration = Duration::from_millis(600);

impl Plan {
    pub(crate) fn drawn(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0xa5a5);
        let is_rate = (seed / 3).is_multiple_of(2);
        let proxies = rng.usize(1..6);
        let quantity = if is_rate { rng.u64(20..150) } else { rng.u64(1..12) };
        let share = match is_rate {
            true => OnLoss::SafeShare,
            false => OnLoss::OneEach { of: quantity },
        };
        let (faults, on_loss) = match seed % 3 {
            0 => (Faults::All, OnLoss::Nothing),
            1 => (Faults::All, share),
            _ => (Faults::Outages, share),
        };
        Self {
            seed,
            faults,
            on_loss,
            terms: if is_rate { Terms::rate() } else { Terms::slots(HOLD) },
            is_rate,
            proxies,
            quantity,
            burst: rng.u32(1..200),
            report_every_ms: rng.u64(100..=250),
            calm_ms: 6_000,
            end_ms: 14_000,
            demands: &[],
            at_random: false,
            service_ms: (5, 580),
        }
    }
}

/// What runs came across, to see that they cover what they claim.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) runs: u64,
    pub(crate) steps: u64,
    pub(crate) applied: u64,
    pub(crate) carried: u64,
    pub(crate) refused_grants: u64,
    pub(crate) stale_reports: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) late: u64,
    pub(crate) kills: u64,
    pub(crate) joins: u64,
    pub(crate) partitions: u64,
    pub(crate) outages: u64,
    /// Frames that spelled nothing out, and those that rested on something unknown.
    pub(crate) repeated: u64,
    pub(crate) unmatched: u64,
    /// Reports that were asked for, because a grant was lost.
    pub(crate) asked_for: u64,
    /// Control planes that heard all who could have something of the one before.
    pub(crate) accounted: u64,
    pub(crate) quantities: u64,
    /// Milliseconds that proxies spent without a lease.
    pub(crate) unleased_ms: u64,
    pub(crate) asked: u64,
    pub(crate) admitted: u64,
}

impl Report {
    fn fields(&mut self) -> [(&'static str, &mut u64); 21] {
        [
            ("runs", &mut self.runs),
            ("steps", &mut self.steps),
            ("applied", &mut self.applied),
            ("carried", &mut self.carried),
            ("refused grants", &mut self.refused_grants),
            ("stale reports", &mut self.stale_reports),
            ("lost", &mut self.lost),
            ("doubled", &mut self.doubled),
            ("late", &mut self.late),
            ("kills", &mut self.kills),
            ("joins", &mut self.joins),
            ("partitions", &mut self.partitions),
            ("outages", &mut self.outages),
            ("repeated", &mut self.repeated),
            ("unmatched", &mut self.unmatched),
            ("asked for", &mut self.asked_for),
            ("accounted", &mut self.accounted),
            ("quantities", &mut self.quantities),
            ("unleased ms", &mut self.unleased_ms),
            ("asked", &mut self.asked),
            ("admitted", &mut self.admitted),
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let mut other = *other;
        for ((_, sum), (_, one)) in self.fields().into_iter().zip(other.fields()) {
            *sum += *one;
        }
    }

    pub(crate) fn check_that_all_happened(mut self) {
        for (what, count) in self.fields() {
            assert!(*count >= 100, "these seeds had too few {what}: {count}");
        }
    }
}
