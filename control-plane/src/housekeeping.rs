//! Forgets figures and names of what is gone for long.

use std::{collections::BTreeSet, time::Duration};

use lb_core::{departed::Departed, model::ProxyId};
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use crate::{clock::now, grpc::Context};

/// Between looks for what can be forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// Forgets what nobody needs any more.
pub(crate) async fn run(context: &Context) {
    let mut tick = interval(HOUSEKEEPING);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut unlisted, mut departed) = (Unlisted::default(), Departed::default());
    while context.stop.run_until_cancelled(tick.tick()).await.is_some() {
        for id in context.fleet.forget_long_gone() {
            info!(proxy = %id, "gone for long; no longer listed");
            unlisted.0.insert(id);
        }
        for id in unlisted.overdue(context) {
            context.forget_figures(&id, None);
        }
        context.registry.read(|view| context.statistics.forget_removed(&view.catalog));
        let mut gone = context.counted_pools();
        context.registry.read(|view| {
            gone.retain(|pool| !view.catalog.pools().contains_key(pool));
        });
        context.forget_pools(&departed.overdue(gone, now()));
    }
}

/// Proxies that are no longer listed, and whose figures are kept: a process of theirs may go on
/// that was taken over, for as long as its connections last.
#[derive(Debug, Default)]
struct Unlisted(BTreeSet<ProxyId>);

impl Unlisted {
    /// Takes those of which no process goes on, and leaves out those that are back.
    fn overdue(&mut self, context: &Context) -> Vec<ProxyId> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let listed = context.fleet.list().into_iter().map(|view| view.info.id);
        let heard = context.statistics.processes(context.lease).into_iter();
        self.overdue_among(&listed.collect(), &heard.map(|(proxy, _)| proxy).collect())
    }

    fn overdue_among(
        &mut self,
        listed: &BTreeSet<ProxyId>,
        heard: &BTreeSet<ProxyId>,
    ) -> Vec<ProxyId> {
        self.0.retain(|id| !listed.contains(id));
        self.0.extract_if(.., |id| !heard.contains(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> BTreeSet<ProxyId> {
        names.iter().map(|name| ProxyId::new(name).unwrap()).collect()
    }

    #[test]
    fn figures_are_kept_while_a_process_goes_on_or_the_proxy_is_back() {
        let mut unlisted = Unlisted(ids(&["back", "goes-on", "over"]));
        let overdue = unlisted.overdue_among(&ids(&["back", "p"]), &ids(&["back", "goes-on"]));
        assert_eq!(overdue, [ProxyId::new("over").unwrap()]);
        assert_eq!(unlisted.0, ids(&["goes-on"]));
        let overdue = unlisted.overdue_among(&ids(&["back"]), &ids(&[]));
        assert_eq!(overdue, [ProxyId::new("goes-on").unwrap()]);
        assert!(unlisted.0.is_empty());
    }
}
