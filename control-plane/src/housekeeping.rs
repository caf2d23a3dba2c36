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
    let mut departed = Departed::default();
    while context.stop.run_until_cancelled(tick.tick()).await.is_some() {
        for id in context.fleet.forget_long_gone() {
            info!(proxy = %id, "gone for long; no longer listed");
        }
        for id in unlisted(context) {
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

/// Proxies of which there are figures, though they are not listed and no process of theirs goes
/// on: one that was taken over goes on for as long as its connections last. Looked for among all
/// that report, since a last report may come after its proxy was forgotten, or be of one that
/// never joined.
fn unlisted(context: &Context) -> Vec<ProxyId> {
    let mut ids = context.statistics.proxies();
    ids.retain(|id| context.fleet.member(id).is_none());
    if !ids.is_empty() {
        let processes = context.statistics.processes(context.lease).into_iter();
        let heard: BTreeSet<ProxyId> = processes.map(|(proxy, _)| proxy).collect();
        ids.retain(|id| !heard.contains(id));
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, start, stats::tests::report};

    #[tokio::test(start_paused = true)]
    async fn figures_of_who_is_not_listed_go_once_no_process_of_it_goes_on() {
        let running = start(Config::in_memory()).await.unwrap();
        let context = running.context();
        let goes_on = report("never-joined", 1, 10, 1);
        let tell = || {
            context.registry.read(|view| {
                context.statistics.count(&goes_on, None, &view.catalog);
            });
        };
        tell();
        assert!(unlisted(context).is_empty(), "it is heard");
        tokio::time::sleep(2 * HOUSEKEEPING + context.lease).await;
        assert!(context.statistics.proxy(&goes_on.proxy).is_none(), "nobody asks for it any more");
        // As one that was taken over does, after an operator had its proxy forgotten.
        tell();
        context.forget_figures(&goes_on.proxy, None);
        tell();
        assert!(context.statistics.proxy(&goes_on.proxy).is_some());
        tokio::time::sleep(2 * HOUSEKEEPING + context.lease).await;
        assert!(context.statistics.proxy(&goes_on.proxy).is_none());
    }
}
