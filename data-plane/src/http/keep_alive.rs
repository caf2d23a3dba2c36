//! Whether a client's connection stays open after a request.

use super::{exchange::Exchange, stream::Stream};
use crate::worker::Loaded;

impl<S: Stream> Exchange<'_, S> {
    /// Whether the client's connection stays open after this request.
    pub(super) fn keeps_connection(&self, wanted: bool, config: &Loaded) -> bool {
        let requests_max = config.listeners[self.connection.listener]
            .as_ref()
            .map_or(u32::MAX, |config| config.listener.requests_max);
        wanted
            && !self.worker.is_draining()
            && self.connection.requests < requests_max
            && !self.passes_on_place(config)
    }

    /// Whether other clients wait until there is room for them, or soon will, and it is for
    /// this one to make some.
    fn passes_on_place(&self, config: &Loaded) -> bool {
        let listener = self.connection.listener;
        let max =
            config.listeners[listener].as_ref().map_or(0, |config| config.listener.connections_max);
        let (worker, admission) = (self.worker, &self.worker.fleet.admission);
        let is_crowded = worker.closes_idle() || admission.is_full(listener, max);
        is_crowded && worker.passes_on_place(admission.places(max))
    }
}
