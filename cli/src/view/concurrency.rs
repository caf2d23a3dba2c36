//! How many requests may be in progress.

use lb_proto::v1 as pb;
use serde::Serialize;

use super::object::Fields;
use crate::format::{latency, setting};

/// The limits of one pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct ConcurrencyView {
    /// 0: no limit.
    pub(crate) max_in_flight: u32,
    pub(crate) adaptive_concurrency: bool,
    pub(crate) concurrency_min: u32,
    pub(crate) queue_length: u32,
    pub(crate) queue_timeout_ms: u32,
}

impl ConcurrencyView {
    /// The settings, named as their flags.
    pub(crate) fn fields(self) -> Fields {
        vec![
            ("max-in-flight", max_in_flight(self.max_in_flight)),
            ("adaptive-concurrency", self.adaptive_concurrency.to_string()),
            ("concurrency-min", self.concurrency_min.to_string()),
            ("queue-length", self.queue_length.to_string()),
            ("queue-timeout", setting(self.queue_timeout_ms)),
        ]
    }
}

/// A limit of requests in progress, as people read it.
pub(crate) fn max_in_flight(slots: u32) -> String {
    if slots == 0 { "off".to_owned() } else { slots.to_string() }
}

impl From<&pb::Pool> for ConcurrencyView {
    /// What comes from a control plane has every value.
    fn from(wire: &pb::Pool) -> Self {
        let adaptive = wire.adaptive_concurrency.unwrap_or_default();
        Self {
            max_in_flight: wire.max_in_flight,
            adaptive_concurrency: adaptive.enabled,
            concurrency_min: adaptive.min,
            queue_length: wire.queue_length.unwrap_or_default(),
            queue_timeout_ms: wire.queue_timeout_ms,
        }
    }
}

/// How the slots of a pool or a backend are shared.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct SlotsView {
    /// Requests in progress and waiting, over all proxies.
    pub(crate) in_use: u64,
    pub(crate) waiting: u64,
    pub(crate) proxies: Vec<SlotsShare>,
    /// Only of a pool with adaptive concurrency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) adaptive: Option<AdaptiveView>,
}

/// How the limit of a pool with adaptive concurrency is, and why.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct AdaptiveView {
    /// Requests that may wait for backends at once.
    pub(crate) limit: u64,
    /// Requests that hold a slot and do not wait for a backend.
    pub(crate) aside: u64,
    pub(crate) state: String,
    pub(crate) reason: String,
    /// The time of an answer without a queue; null before it was measured.
    pub(crate) unqueued_us: Option<u64>,
    /// The time of an answer in the last round; null before there was one.
    pub(crate) answer_us: Option<u64>,
}

impl AdaptiveView {
    /// In one line: the limit, what it follows from, and what it does.
    pub(crate) fn sentence(&self) -> String {
        let ms = |us| latency(Some(us));
        let times = match (self.unqueued_us, self.answer_us) {
            (Some(unqueued), Some(answer)) => format!(
                "answers take {}, {} without a queue: {} of waiting",
                ms(answer),
                ms(unqueued),
                ms(answer.saturating_sub(unqueued))
            ),
            (Some(unqueued), None) => format!("answers take {} without a queue", ms(unqueued)),
            (None, _) => "how long answers take without a queue is not known yet".to_owned(),
        };
        format!("{} ({}: {}); {times}", self.limit, self.state, self.reason)
    }
}

/// What one process of a proxy has of them.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct SlotsShare {
    /// Null if it is not heard any more.
    pub(crate) proxy_id: Option<String>,
    pub(crate) granted: u64,
    pub(crate) in_use: u64,
    pub(crate) waiting: u64,
}

impl SlotsView {
    /// In one line: how many are in use, who holds how many, and how many requests wait.
    pub(crate) fn sentence(&self, of: u32) -> String {
        let of = self.of(of);
        let mut text = format!("{} of {of} in use", self.in_use);
        if self.waiting > 0 {
            text += &format!(", {} waiting", self.waiting);
        }
        let held = self.proxies.iter().filter(|share| share.granted > 0 || share.in_use > 0);
        let held: Vec<String> = held
            .map(|share| {
                let proxy = share.proxy_id.as_deref().unwrap_or("a proxy that is gone");
                format!("{proxy} {}/{}", share.in_use, share.granted)
            })
            .collect();
        if !held.is_empty() {
            text += &format!("; {}", held.join(", "));
        }
        text
    }

    /// How many there are: `fixed` unless their number is found out.
    fn of(&self, fixed: u32) -> u64 {
        self.adaptive
            .as_ref()
            .map_or_else(|| fixed.into(), |adaptive| adaptive.limit + adaptive.aside)
    }
}

/// Requests in progress of those that may be, and those that wait, for a table.
pub(crate) fn slots(view: Option<&SlotsView>, of: u32) -> [String; 2] {
    match view {
        Some(view) => [format!("{}/{}", view.in_use, view.of(of)), view.waiting.to_string()],
        None => ["-", "-"].map(str::to_owned),
    }
}

impl From<pb::SlotsReport> for SlotsView {
    fn from(wire: pb::SlotsReport) -> Self {
        let share = |share: pb::SlotsShare| SlotsShare {
            proxy_id: Some(share.proxy_id).filter(|id| !id.is_empty()),
            granted: share.granted,
            in_use: share.in_use,
            waiting: share.waiting,
        };
        let proxies: Vec<SlotsShare> = wire.proxies.into_iter().map(share).collect();
        Self {
            in_use: proxies.iter().map(|share| share.in_use).sum(),
            waiting: proxies.iter().map(|share| share.waiting).sum(),
            proxies,
            adaptive: wire.adaptive.map(AdaptiveView::from),
        }
    }
}

impl From<pb::AdaptiveReport> for AdaptiveView {
    fn from(wire: pb::AdaptiveReport) -> Self {
        Self {
            limit: wire.limit,
            aside: wire.aside,
            state: wire.state,
            reason: wire.reason,
            unqueued_us: wire.unqueued_us,
            answer_us: wire.answer_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_slots_is_said_in_one_line() {
        let share = |id: &str, granted, in_use, waiting| pb::SlotsShare {
            proxy_id: id.to_owned(),
            granted,
            in_use,
            waiting,
        };
        let proxies = vec![share("p1", 6, 5, 2), share("p2", 0, 0, 1), share("", 4, 4, 0)];
        let mut view = SlotsView::from(pb::SlotsReport { proxies, adaptive: None });
        assert_eq!(
            view.sentence(10),
            "9 of 10 in use, 3 waiting; p1 5/6, a proxy that is gone 4/4"
        );
        let report = pb::AdaptiveReport {
            limit: 24,
            aside: 6,
            state: "falling".to_owned(),
            reason: "answers take too long".to_owned(),
            unqueued_us: Some(10_200),
            answer_us: Some(31_400),
        };
        view.adaptive = Some(report.into());
        assert!(view.sentence(0).starts_with("9 of 30 in use"), "{}", view.sentence(0));
        assert_eq!(
            view.adaptive.unwrap().sentence(),
            "24 (falling: answers take too long); answers take 31.4ms, 10.2ms without a queue: \
             21.2ms of waiting"
        );
    }
}
