//! An explanation, as it is shown and as programs read it.

use lb_core::{
    model::{ListenerName, Route},
    routing::{Explanation, Verdict, without_port},
};
use lb_proto::v1 as pb;
use serde::Serialize;

use super::request::Asked;
use crate::view::{RouteView, ShareView};

/// So few routes are all shown.
const FEW: usize = 12;
/// Beyond that, those whose host matches, up to here.
const SHOWN_MAX: usize = 24;

/// What a request takes, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ExplainView {
    pub(super) method: String,
    pub(super) host: String,
    pub(super) target: String,
    pub(super) listener: String,
    pub(super) route: Option<RouteView>,
    pub(super) pools: Vec<PoolShare>,
    pub(super) not_taken: Vec<NotTaken>,
    pub(super) not_shown: Vec<NotShown>,
}

/// Where requests of the route go.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::command) struct PoolShare {
    #[serde(flatten)]
    pub(in crate::command) share: ShareView,
    pub(in crate::command) backends: usize,
    /// Those that get requests.
    pub(in crate::command) serving: usize,
    /// Those of them that are not well: the pool is in panic mode.
    pub(in crate::command) helping: usize,
    /// What answers while no backend of the pool can; nothing if its requests are answered 503.
    pub(in crate::command) instead: Option<String>,
}

/// A route that the request does not take.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct NotTaken {
    pub(super) route: RouteView,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Further routes that the request does not take, for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct NotShown {
    pub(super) reason: &'static str,
    pub(super) routes: usize,
}

impl ExplainView {
    pub(super) fn new(
        asked: &Asked,
        listener: &ListenerName,
        explanation: &Explanation<'_>,
        pools: Vec<PoolShare>,
    ) -> Self {
        let chosen = explanation.chosen;
        let few = explanation.others.len() <= FEW;
        let mut not_taken = Vec::new();
        let mut not_shown: Vec<NotShown> = Vec::new();
        for &(route, verdict) in &explanation.others {
            let reason = reason(verdict);
            if few || (verdict.concerns_the_host() && not_taken.len() < SHOWN_MAX) {
                let message = message(verdict, route, chosen);
                not_taken.push(NotTaken { route: view(route), reason, message });
                continue;
            }
            match not_shown.iter_mut().find(|known| known.reason == reason) {
                Some(known) => known.routes += 1,
                None => not_shown.push(NotShown { reason, routes: 1 }),
            }
        }
        Self {
            method: asked.method.clone(),
            host: asked.host.clone(),
            target: asked.target.clone(),
            listener: listener.to_string(),
            route: chosen.map(view),
            pools,
            not_taken,
            not_shown,
        }
    }

    /// The flags of a route that would match.
    pub(super) fn flags_of_a_route(&self) -> String {
        let mut flags = String::new();
        if self.listener != "default" {
            flags += &format!(" --listener {}", self.listener);
        }
        let host = &self.host[..without_port(self.host.as_bytes()).len()];
        if !host.is_empty() {
            flags += &format!(" --host '{}'", host.replace('\'', "'\\''"));
        }
        flags
    }
}

fn view(route: &Route) -> RouteView {
    pb::Route::from(route).into()
}

fn reason(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::OtherListener => "other_listener",
        Verdict::HostDiffers => "host_differs",
        Verdict::PathDiffers => "path_differs",
        Verdict::HostLessSpecific => "host_less_specific",
        Verdict::PathLessSpecific => "path_less_specific",
        Verdict::SameMatch => "same_match",
    }
}

fn message(verdict: Verdict, route: &Route, chosen: Option<&Route>) -> String {
    let than = chosen.map(|chosen| chosen.name.as_str()).unwrap_or_default();
    match verdict {
        Verdict::OtherListener => format!("it is for listener {}", route.listener),
        Verdict::HostDiffers => "the host differs".to_owned(),
        Verdict::PathDiffers => "the path differs".to_owned(),
        Verdict::HostLessSpecific => format!("its host is less specific than that of {than}"),
        Verdict::PathLessSpecific => format!("its path is less specific than that of {than}"),
        Verdict::SameMatch => format!("it matches the same as {than}, whose name comes first"),
    }
}
