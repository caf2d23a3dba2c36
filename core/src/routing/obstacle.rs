//! Why a route can never be taken, whatever is asked for.

use crate::model::{Route, Unmatched};

/// What keeps a route from ever being taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Obstacle<'r> {
    /// Its host has a port, and hosts are compared without theirs.
    HostHasPort,
    /// Its path has a part that no path has that routes see.
    PathHas(Unmatched),
    /// This one matches the same requests, and its name comes first.
    SameMatch(&'r Route),
}

/// What keeps `route` from being taken among `routes`, if anything does. Less specific
/// than others is no obstacle: there is always a request that is left to it.
#[must_use]
pub fn obstacle<'r>(
    routes: impl IntoIterator<Item = &'r Route>,
    route: &Route,
) -> Option<Obstacle<'r>> {
    if route.host.has_port() {
        return Some(Obstacle::HostHasPort);
    }
    if let Some(unmatched) = route.path.unmatched() {
        return Some(Obstacle::PathHas(unmatched));
    }
    let twins = routes.into_iter().filter(|other| other.matched() == route.matched());
    let first = twins.min_by_key(|twin| &twin.name).filter(|twin| twin.name < route.name);
    first.map(Obstacle::SameMatch)
}
