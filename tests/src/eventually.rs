//! Waiting for what has no event of its own.

use std::{fmt::Display, time::Duration};

use tokio::time::{Instant, sleep};

use crate::PATIENCE;

/// Looks again and again, less and less often, until `look` finds what it wants; panics
/// with the last reason why not when the patience is over.
pub async fn eventually<T, E: Display>(
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(5);
    loop {
        match look().await {
            Ok(found) => return found,
            Err(why) if Instant::now() >= deadline => {
                panic!("{what}: not within {PATIENCE:?}; last seen: {why}")
            }
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
