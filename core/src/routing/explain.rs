//! Why a request takes a route and not another one.

use super::{RouteTable, name_of, path_of};
use crate::model::{ListenerName, Route};

/// What becomes of a request, and why.
#[derive(Clone, Debug)]
pub struct Explanation<'r> {
    /// The route that it takes.
    pub chosen: Option<&'r Route>,
    /// The others, in the order in which they were given.
    pub others: Vec<(&'r Route, Verdict)>,
}

/// Why a route is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is for another listener.
    OtherListener,
    /// The request's host is not one of its.
    HostDiffers,
    /// The host is, the path is not.
    PathDiffers,
    /// It matches, but its host is less specific than that of the chosen route.
    HostLessSpecific,
    /// It matches with the same host, but its path is less specific.
    PathLessSpecific,
    /// It matches the same requests, and its name comes later.
    SameMatch,
}

impl Verdict {
    /// Whether the listener and the host match.
    #[must_use]
    pub fn concerns_the_host(self) -> bool {
        !matches!(self, Self::OtherListener | Self::HostDiffers)
    }
}

/// Looks up a request as a proxy does, and judges every route.
#[must_use]
pub fn explain<'r>(
    routes: &[&'r Route],
    listener: &ListenerName,
    host: &str,
    target: &str,
) -> Explanation<'r> {
    let here = routes.iter().filter(|route| route.listener == *listener);
    let table = RouteTable::new(here.map(|&route| (route, route)));
    let chosen = table.find(host.as_bytes(), target.as_bytes()).copied();
    // Both cut a text at an ASCII character.
    let host = &host[..name_of(host.as_bytes()).len()].to_ascii_lowercase();
    let path = &target[..path_of(target.as_bytes()).len()];
    let judge = |route: &Route| {
        if route.listener != *listener {
            Verdict::OtherListener
        } else if !route.host.matches(host) {
            Verdict::HostDiffers
        } else if !route.path.matches(path) {
            Verdict::PathDiffers
        } else if chosen.is_some_and(|chosen| chosen.host != route.host) {
            Verdict::HostLessSpecific
        } else if chosen.is_some_and(|chosen| chosen.matched() != route.matched()) {
            Verdict::PathLessSpecific
        } else {
            Verdict::SameMatch
        }
    };
    let is_chosen = |route: &Route| chosen.is_some_and(|chosen| chosen.name == route.name);
    let others = routes.iter().filter(|route| !is_chosen(route));
    Explanation { chosen, others: others.map(|&route| (route, judge(route))).collect() }
}
