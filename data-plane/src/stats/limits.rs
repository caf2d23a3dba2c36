//! What limits came to, as it is reported.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use lb_core::model::{Incarnation, LimitName};
use lb_proto::v1 as pb;

use crate::live::{Basis, Config, LimitConfig, LimitSums};

/// A limit without traffic is told of this often, so that its share stays known.
const IDLE_PERIOD: Duration = Duration::from_secs(2);

/// Remembers what was reported.
#[derive(Debug, Default)]
pub(super) struct LimitReporter(HashMap<(LimitName, Incarnation), Sent>);

#[derive(Debug)]
struct Sent {
    sums: LimitSums,
    at: Option<Instant>,
}

impl LimitReporter {
    /// What is new of the limits of this configuration.
    pub(super) fn report(&mut self, config: &Config, now: Instant) -> Vec<pb::LimitReport> {
        let all = config.limits.as_deref().map(|limits| limits.all()).unwrap_or_default();
        let mut former = std::mem::take(&mut self.0);
        let mut reports = Vec::new();
        for limit in all {
            let key = (limit.limit.name.clone(), limit.limit.incarnation);
            let mut sent = former
                .remove(&key)
                .unwrap_or_else(|| Sent { sums: LimitSums::default(), at: None });
            reports.extend(sent.report(limit, now));
            self.0.insert(key, sent);
        }
        reports
    }
}

impl Sent {
    fn report(&mut self, limit: &LimitConfig, now: Instant) -> Option<pb::LimitReport> {
        let sums = limit.sums();
        let is_due = self.at.is_none_or(|at| now >= at + IDLE_PERIOD);
        if sums == self.sums && !is_due {
            return None;
        }
        self.at = Some(now);
        // What is given back lets a sum go down for a moment; it is told once it is up again.
        let new = |now: u64, sent: &mut u64| {
            let new = now.saturating_sub(*sent);
            *sent += new;
            new
        };
        let gauges = limit.gauges(now);
        Some(pb::LimitReport {
            limit: limit.limit.name.to_string(),
            incarnation: limit.limit.incarnation.0,
            admitted: new(sums.admitted, &mut self.sums.admitted),
            refused: new(sums.refused, &mut self.sums.refused),
            forgiven: new(sums.forgiven, &mut self.sums.forgiven),
            rate: gauges.rate,
            hot_keys: u32::try_from(gauges.hot_keys).unwrap_or(u32::MAX),
            basis: match gauges.basis {
                Basis::Own => pb::LimitBasis::Own,
                Basis::Leased => pb::LimitBasis::Leased,
                Basis::EvenShare => pb::LimitBasis::EvenShare,
                Basis::SafeShare => pb::LimitBasis::SafeShare,
            }
            .into(),
        })
    }
}
