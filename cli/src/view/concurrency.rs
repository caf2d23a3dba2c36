//! How many requests may be in progress.

use lb_proto::v1 as pb;
use serde::Serialize;

use super::object::Fields;
use crate::format::setting;

/// The limits of one pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct ConcurrencyView {
    /// 0: no limit.
    pub(crate) max_in_flight: u32,
    pub(crate) queue_length: u32,
    pub(crate) queue_timeout_ms: u32,
}

impl ConcurrencyView {
    /// The settings, named as their flags.
    pub(crate) fn fields(self) -> Fields {
        vec![
            ("max-in-flight", max_in_flight(self.max_in_flight)),
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
        Self {
            max_in_flight: wire.max_in_flight,
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
        let view = SlotsView::from(pb::SlotsReport { proxies });
        assert_eq!(
            view.sentence(10),
            "9 of 10 in use, 3 waiting; p1 5/6, a proxy that is gone 4/4"
        );
    }
}
