//! Why a route can never be taken, whatever is asked for.

use super::path_of;
use crate::model::Route;

/// What keeps a route from ever being taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Obstacle<'r> {
    /// Its host has a port, and hosts are compared without theirs.
    HostHasPort,
    /// Its path has a query, and paths are compared without theirs.
    PathHasQuery,
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
    let path = route.path.stem().as_bytes();
    if path_of(path).len() < path.len() {
        return Some(Obstacle::PathHasQuery);
    }
    let twins = routes.into_iter().filter(|other| other.matched() == route.matched());
    let first = twins.min_by_key(|twin| &twin.name).filter(|twin| twin.name < route.name);
    first.map(Obstacle::SameMatch)
}
