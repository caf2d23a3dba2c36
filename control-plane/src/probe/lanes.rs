//! How many probes are under way at once, such that backends that hang hold up only each other.
//!
//! A probe of a backend that accepts and never answers lasts as long as its timeout allows, a
//! hundred or a thousand times as long as one of a backend that is well. If all queued for the
//! same permits, a few hundred of the former would decide how soon the death of the latter is
//! seen. So a probe has a permit of its own kind only while it is young; one that is overdue
//! gives it up. And a backend whose last probe was overdue and failed queues with its like.

use std::{pin::pin, time::Duration};

use tokio::{sync::Semaphore, time::timeout};

/// Probes that have just begun.
const PROMPT_MAX: usize = 256;
/// A probe that takes longer is overdue. Health checks that are well take a few milliseconds,
/// over the widest network a few hundred.
const PROMPT_FOR: Duration = Duration::from_millis(500);
/// Probes that are overdue. Beyond that they keep the permits that they have.
const OVERDUE_MAX: usize = 1024;
/// Probes of backends whose last one was overdue and failed.
const HANGING_MAX: usize = 1024;

/// Permits for probes; each stands for a few descriptors at most.
#[derive(Debug)]
pub(super) struct Lanes {
    prompt: Semaphore,
    overdue: Semaphore,
    hanging: Semaphore,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            prompt: Semaphore::new(PROMPT_MAX),
            overdue: Semaphore::new(OVERDUE_MAX),
            hanging: Semaphore::new(HANGING_MAX),
        }
    }
}

impl Lanes {
    /// Probes once there is room; `hangs` is what [`is_overdue`] said of the last probe, if that
    /// failed.
    pub(super) async fn run<T>(&self, hangs: bool, probe: impl Future<Output = T>) -> T {
        if hangs {
            let _permit = self.hanging.acquire().await;
            return probe.await;
        }
        let prompt = self.prompt.acquire().await;
        let mut probe = pin!(probe);
        if let Ok(result) = timeout(PROMPT_FOR, &mut probe).await {
            return result;
        }
        let overdue = self.overdue.try_acquire();
        if overdue.is_ok() {
            drop(prompt);
        }
        probe.await
    }
}

/// Whether a probe that took so long was held up by its backend.
pub(super) fn is_overdue(took: Duration) -> bool {
    took >= PROMPT_FOR
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use tokio::time::{Instant, sleep};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);

    /// Backends that accept and never answer, each probed again and again.
    fn hang(lanes: &Arc<Lanes>, backends: usize, under_way: &Arc<AtomicUsize>) {
        for _ in 0..backends {
            let (lanes, under_way) = (Arc::clone(lanes), Arc::clone(under_way));
            tokio::spawn(async move {
                let mut hangs = false;
                loop {
                    let probe = async {
                        under_way.fetch_add(1, Relaxed);
                        sleep(TIMEOUT).await;
                        under_way.fetch_sub(1, Relaxed);
                    };
                    lanes.run(hangs, probe).await;
                    hangs = is_overdue(TIMEOUT);
                    sleep(Duration::from_secs(1)).await;
                }
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn backends_that_hang_hold_up_only_each_other() {
        let (lanes, under_way) = (Arc::new(Lanes::default()), Arc::default());
        hang(&lanes, 5000, &under_way);
        let mut waits = Vec::new();
        for _ in 0..60 {
            let began = Instant::now();
            lanes.run(false, sleep(Duration::from_millis(2))).await;
            waits.push(began.elapsed());
            let bound = PROMPT_MAX + OVERDUE_MAX + HANGING_MAX;
            assert!(under_way.load(Relaxed) <= bound, "{under_way:?}");
            sleep(Duration::from_secs(1)).await;
        }
        // All of them are new at first, and nobody can know that they hang.
        let last = &waits[15..];
        assert!(last.iter().all(|wait| *wait < Duration::from_millis(10)), "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_that_begin_to_hang_at_once_delay_the_others_by_little() {
        let (lanes, under_way) = (Arc::new(Lanes::default()), Arc::default());
        hang(&lanes, 1000, &under_way);
        sleep(Duration::from_millis(1)).await;
        let began = Instant::now();
        lanes.run(false, sleep(Duration::from_millis(2))).await;
        assert!(began.elapsed() <= 4 * PROMPT_FOR, "{:?}", began.elapsed());
    }
}
