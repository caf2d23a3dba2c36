//! Requests of which a backend answers none.

use std::time::Duration;

use lb_proto::v1 as pb;
use serde::Serialize;

use super::Traffic;
use crate::format;

/// A shorter silence says nothing: many an honest answer takes seconds.
const SILENT_MIN: Duration = Duration::from_secs(10);

/// Requests that wait for the beginning of a response, upgraded connections left out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct UnansweredView {
    pub(crate) requests: u32,
    /// For so long the backend has begun no response while such requests were there.
    pub(crate) silent_ms: u64,
}

impl UnansweredView {
    /// Whether that is long for a backend whose requests took what `traffic` says: where most
    /// answers take longer, as of long polls, nothing is wrong.
    pub(crate) fn is_long(&self, traffic: &Traffic) -> bool {
        let silent = Duration::from_millis(self.silent_ms);
        let usual = Duration::from_micros(traffic.latency_p50_us.unwrap_or_default());
        silent >= SILENT_MIN.max(2 * usual)
    }

    /// `6 requests in progress, none answered in the last 12s`
    pub(crate) fn sentence(&self) -> String {
        let requests = format::count(self.requests as usize, "request", "requests");
        // Whole seconds: it grows while one reads.
        let silent = format::duration(Duration::from_secs(self.silent_ms / 1000));
        format!("{requests} in progress, none answered in the last {silent}")
    }
}

impl From<pb::UnansweredReport> for UnansweredView {
    fn from(wire: pb::UnansweredReport) -> Self {
        Self { requests: wire.requests, silent_ms: wire.silent_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_long_by_what_answers_usually_take() {
        let silent = |silent_ms| UnansweredView { requests: 6, silent_ms };
        let polls = Traffic { latency_p50_us: Some(25_000_000), ..Traffic::default() };
        let quick = Traffic { latency_p50_us: Some(3_000), ..Traffic::default() };
        for traffic in [Traffic::default(), quick] {
            assert!(!silent(9_999).is_long(&traffic));
            assert!(silent(10_000).is_long(&traffic));
        }
        assert!(!silent(49_000).is_long(&polls));
        assert!(silent(50_000).is_long(&polls));
    }

    #[test]
    fn a_silence_is_told_in_whole_seconds() {
        let told = UnansweredView { requests: 1, silent_ms: 75_900 }.sentence();
        assert_eq!(told, "1 request in progress, none answered in the last 1m15s");
    }
}
