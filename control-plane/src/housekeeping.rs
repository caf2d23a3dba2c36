//! Forgets figures and names of what is gone for long.

use std::time::Duration;

use lb_core::departed::Departed;
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
            context.forget_figures(&id);
        }
        context.registry.read(|view| context.statistics.forget_removed(&view.catalog));
        let mut gone = context.counted_pools();
        context.registry.read(|view| {
            gone.retain(|pool| !view.catalog.pools().contains_key(pool));
        });
        context.forget_pools(&departed.overdue(gone, now()));
    }
}
