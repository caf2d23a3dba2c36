//! The drain of a backend: what is left, and on which proxy.

use std::time::Duration;

use lb_proto::v1 as pb;
use serde::Serialize;

use crate::format;

/// How the drain of a backend goes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct DrainView {
    pub(crate) since_unix_ms: u64,
    pub(crate) timeout_ms: u32,
    /// Until what is left is cut.
    pub(crate) time_left_ms: u64,
    pub(crate) remove: bool,
    pub(crate) cutting: bool,
    pub(crate) drained: bool,
    /// Requests and upgraded connections that did not end by themselves.
    pub(crate) cut: u32,
    /// The control plane was restarted, and proxies may still be on their way back to it.
    pub(crate) awaits_proxies: bool,
    pub(crate) requests_left: u32,
    pub(crate) upgraded_left: u32,
    /// Why it does not go on although it could.
    pub(crate) held_up: Option<String>,
    pub(crate) proxies: Vec<DrainShareView>,
    /// Until its clients' sessions are given other backends; 0 without any, or when they were.
    pub(crate) sessions_left_ms: u64,
    /// Requests that such sessions brought it in the last five seconds.
    pub(crate) session_requests: u64,
}

/// What one proxy has left.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct DrainShareView {
    pub(crate) proxy_id: String,
    /// told, unheard or lost.
    pub(crate) state: String,
    pub(crate) requests: u32,
    pub(crate) upgraded: u32,
}

impl DrainView {
    /// Both parts of what the control plane tells; nothing for a backend that does not
    /// drain.
    pub(super) fn read(stored: Option<pb::Drain>, report: Option<pb::DrainReport>) -> Option<Self> {
        let (stored, report) = (stored?, report?);
        let proxies: Vec<DrainShareView> =
            report.proxies.into_iter().map(DrainShareView::from).collect();
        let heard = || proxies.iter().filter(|proxy| proxy.state != "lost");
        Some(Self {
            since_unix_ms: stored.since_unix_ms,
            timeout_ms: stored.timeout_ms,
            time_left_ms: report.left_ms,
            remove: stored.remove,
            cutting: stored.cutting,
            drained: stored.ended,
            cut: stored.cut,
            awaits_proxies: report.awaits_proxies,
            requests_left: heard().map(|proxy| proxy.requests).sum(),
            upgraded_left: heard().map(|proxy| proxy.upgraded).sum(),
            held_up: Some(report.held_up).filter(|why| !why.is_empty()),
            proxies,
            sessions_left_ms: report.sessions_left_ms,
            session_requests: report.session_requests,
        })
    }

    /// `draining (3 left)`, `drained`.
    pub(crate) fn state(&self) -> String {
        if self.drained {
            return "drained".to_owned();
        }
        let left = self.requests_left + self.upgraded_left;
        match self.proxies.iter().filter(|proxy| proxy.state == "unheard").count() {
            0 if self.awaits_proxies => format!("draining ({left} left, proxies awaited)"),
            0 => format!("draining ({left} left)"),
            unheard => format!(
                "draining ({left} left, {} unheard)",
                format::count(unheard, "proxy", "proxies")
            ),
        }
    }

    /// What is left on each proxy that has something left or of which that is not known:
    /// `proxy-1 2 requests, 1 upgraded; proxy-2 not heard yet`.
    pub(crate) fn left(&self) -> String {
        let mut parts: Vec<String> =
            self.proxies.iter().filter_map(|share| share.left(self.cutting)).collect();
        if self.awaits_proxies {
            parts.push("proxies may still come back after the control plane's restart".to_owned());
        }
        if self.sessions_left_ms > 0 {
            let left = format::duration(Duration::from_millis(self.sessions_left_ms));
            parts.push(format!(
                "its sessions stay for {left} ({} of them in the last 5s)",
                format::count(
                    usize::try_from(self.session_requests).unwrap_or(usize::MAX),
                    "request",
                    "requests"
                )
            ));
        }
        if parts.is_empty() { "nothing".to_owned() } else { parts.join("; ") }
    }

    /// How it ended.
    pub(crate) fn outcome(&self) -> String {
        match self.cut {
            0 => "nothing was cut".to_owned(),
            cut => format!("{cut} cut at the deadline"),
        }
    }
}

impl DrainShareView {
    /// What it has, unless that is nothing; once what is left is `cutting`, every proxy is asked
    /// again.
    fn left(&self, cutting: bool) -> Option<String> {
        let Self { proxy_id, requests, upgraded, .. } = self;
        let numbers = format!(
            "{}, {upgraded} upgraded",
            format::count(*requests as usize, "request", "requests")
        );
        match (&*self.state, requests + upgraded) {
            ("lost", 0) => Some(format!("{proxy_id} is lost, and what it has is unknown")),
            ("lost", _) => Some(format!("{proxy_id} is lost, and had {numbers} when last heard")),
            ("unheard", 0) if cutting => Some(format!("{proxy_id} is asked once more")),
            ("unheard", 0) => Some(format!("{proxy_id} has not told yet")),
            (_, 0) => None,
            _ => Some(format!("{proxy_id} {numbers}")),
        }
    }
}

impl From<pb::DrainShare> for DrainShareView {
    fn from(wire: pb::DrainShare) -> Self {
        let pb::DrainShare { proxy_id, state, requests, upgraded } = wire;
        Self { proxy_id, state, requests, upgraded }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A drain of a minute of which 48 s are left.
    pub(crate) fn drain(shares: &[(&str, &str, u32, u32)]) -> DrainView {
        let stored = pb::Drain { since_unix_ms: 1, timeout_ms: 60_000, ..pb::Drain::default() };
        let share = |(id, state, requests, upgraded): &(&str, &str, u32, u32)| pb::DrainShare {
            proxy_id: (*id).to_owned(),
            state: (*state).to_owned(),
            requests: *requests,
            upgraded: *upgraded,
        };
        let report = pb::DrainReport {
            left_ms: 48_000,
            awaits_proxies: false,
            proxies: shares.iter().map(share).collect(),
            ..pb::DrainReport::default()
        };
        DrainView::read(Some(stored), Some(report)).unwrap()
    }

    #[test]
    fn what_is_left_is_told_proxy_by_proxy() {
        let view = drain(&[
            ("proxy-1", "told", 2, 1),
            ("proxy-2", "unheard", 0, 0),
            ("proxy-3", "lost", 0, 4),
            ("proxy-4", "told", 0, 0),
        ]);
        assert_eq!(view.state(), "draining (3 left, 1 proxy unheard)");
        insta::assert_snapshot!(view.left(), @"proxy-1 2 requests, 1 upgraded; proxy-2 has not told yet; proxy-3 is lost, and had 0 requests, 4 upgraded when last heard");
    }

    #[test]
    fn who_has_told_and_is_asked_again_at_the_deadline_has_not_told_nothing() {
        let mut view = drain(&[("proxy-1", "unheard", 0, 0), ("proxy-2", "told", 0, 1)]);
        view.cutting = true;
        assert_eq!(view.left(), "proxy-1 is asked once more; proxy-2 0 requests, 1 upgraded");
    }

    #[test]
    fn nothing_left_is_said() {
        let view = drain(&[("proxy-1", "told", 0, 0)]);
        assert_eq!((view.state().as_str(), view.left().as_str()), ("draining (0 left)", "nothing"));
        assert_eq!(DrainView { drained: true, ..view }.state(), "drained");
    }
}
