//! How a pool meets failure.

use lb_proto::v1 as pb;
use serde::Serialize;

use super::object::Fields;
use crate::format::setting;

/// The policy of one pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ResilienceView {
    pub(crate) breaker_failures: u32,
    pub(crate) breaker_ratio_percent: u32,
    pub(crate) breaker_min_requests: u32,
    pub(crate) breaker_window_ms: u32,
    pub(crate) breaker_open_ms: u32,
    pub(crate) breaker_max_open_ms: u32,
    pub(crate) breaker_successes: u32,
    pub(crate) outlier_detection: bool,
    pub(crate) outlier_interval_ms: u32,
    pub(crate) outlier_ejection_ms: u32,
    pub(crate) outlier_max_ejection_ms: u32,
    pub(crate) outlier_success_rate: bool,
    pub(crate) outlier_failure_percent: u32,
    pub(crate) outlier_latency: bool,
    pub(crate) retries: u32,
    /// 0: off.
    pub(crate) try_timeout_ms: u32,
    pub(crate) retry_budget_percent: u32,
    pub(crate) retry_floor: u32,
    pub(crate) slow_start_ms: u32,
    pub(crate) panic_threshold_percent: u32,
}

impl ResilienceView {
    /// The settings, named as their flags.
    pub(crate) fn fields(&self) -> Fields {
        let mut fields = vec![
            ("breaker-failures", self.breaker_failures.to_string()),
            ("breaker-ratio", percent(self.breaker_ratio_percent)),
            ("breaker-min-requests", self.breaker_min_requests.to_string()),
            ("breaker-window", setting(self.breaker_window_ms)),
            ("breaker-open", setting(self.breaker_open_ms)),
            ("breaker-max-open", setting(self.breaker_max_open_ms)),
            ("breaker-successes", self.breaker_successes.to_string()),
            ("outlier-detection", self.outlier_detection.to_string()),
        ];
        if self.outlier_detection {
            fields.extend([
                ("outlier-interval", setting(self.outlier_interval_ms)),
                ("outlier-ejection", setting(self.outlier_ejection_ms)),
                ("outlier-max-ejection", setting(self.outlier_max_ejection_ms)),
                ("outlier-success-rate", self.outlier_success_rate.to_string()),
                ("outlier-failure-percentage", percent(self.outlier_failure_percent)),
                ("outlier-latency", self.outlier_latency.to_string()),
            ]);
        }
        fields.extend([
            ("retries", self.retries.to_string()),
            ("try-timeout", or_off(self.try_timeout_ms)),
            ("retry-budget", percent(self.retry_budget_percent)),
            ("retry-floor", format!("{}/s", self.retry_floor)),
            ("slow-start", or_off(self.slow_start_ms)),
            ("panic-threshold", percent(self.panic_threshold_percent)),
        ]);
        fields
    }
}

fn percent(percent: u32) -> String {
    format!("{percent}%")
}

fn or_off(ms: u32) -> String {
    if ms == 0 { "off".to_owned() } else { setting(ms) }
}

impl From<&pb::Pool> for ResilienceView {
    /// What comes from a control plane has every value.
    fn from(wire: &pb::Pool) -> Self {
        let breaker = wire.breaker.unwrap_or_default();
        let outlier = wire.outlier_detection.unwrap_or_default();
        let retries = wire.retries.unwrap_or_default();
        Self {
            breaker_failures: breaker.consecutive_failures.unwrap_or_default(),
            breaker_ratio_percent: breaker.failure_ratio_percent.unwrap_or_default(),
            breaker_min_requests: breaker.min_requests,
            breaker_window_ms: breaker.window_ms,
            breaker_open_ms: breaker.open_ms,
            breaker_max_open_ms: breaker.max_open_ms,
            breaker_successes: breaker.successes,
            outlier_detection: outlier.enabled.unwrap_or_default(),
            outlier_interval_ms: outlier.interval_ms,
            outlier_ejection_ms: outlier.ejection_ms,
            outlier_max_ejection_ms: outlier.max_ejection_ms,
            outlier_success_rate: outlier.success_rate.unwrap_or_default(),
            outlier_failure_percent: outlier.failure_percent.unwrap_or_default(),
            outlier_latency: outlier.latency.unwrap_or_default(),
            retries: retries.retries.unwrap_or_default(),
            try_timeout_ms: retries.try_timeout_ms,
            retry_budget_percent: retries.budget_percent.unwrap_or_default(),
            retry_floor: retries.budget_floor.unwrap_or_default(),
            slow_start_ms: wire.slow_start_ms.unwrap_or_default(),
            panic_threshold_percent: wire.panic_threshold_percent.unwrap_or_default(),
        }
    }
}
