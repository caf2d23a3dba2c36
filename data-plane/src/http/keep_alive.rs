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

    /// Whether it is for this client to make room for another one.
    fn passes_on_place(&self, config: &Loaded) -> bool {
        self.is_crowded(config) && {
            let max = self.connections_max(config);
            let places = self.worker.fleet.admission.places(max);
            let own = (places == max as usize).then_some(self.connection.listener);
            self.worker.passes_on_place(own, places, self.connection.requests == 1)
        }
    }

    /// Whether other clients wait until there is room for them, or soon will.
    pub(super) fn is_crowded(&self, config: &Loaded) -> bool {
        let (worker, listener) = (self.worker, self.connection.listener);
        let admission = &worker.fleet.admission;
        worker.closes_idle() || admission.is_full(listener, self.connections_max(config))
    }

    /// The same, of the configuration in use.
    pub(super) fn is_crowded_now(&self) -> bool {
        self.is_crowded(&self.worker.config())
    }

    fn connections_max(&self, config: &Loaded) -> u32 {
        let listener = &config.listeners[self.connection.listener];
        listener.as_ref().map_or(0, |config| config.listener.connections_max)
    }
}
