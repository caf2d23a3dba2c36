//! Keeps on disk what changes in memory.

use std::{io, path::Path, time::Duration};

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

/// Between two writes, at least.
const PERIOD: Duration = Duration::from_secs(1);
/// At most.
const PERIOD_MAX: Duration = Duration::from_secs(5);
/// So many times as long as a write took is the pause after it: thousands of backends are encoded
/// and written in a time that requests have to do without.
const PAUSE_FACTOR: u32 = 50;
/// Until what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// What is kept, as logs have it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    /// For example "the configuration".
    pub(crate) name: &'static str,
    /// What a restart without a control plane would do with what is on disk now.
    pub(crate) otherwise: &'static str,
}

/// The pause after a write that took so long.
fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(PAUSE_FACTOR).clamp(PERIOD, PERIOD_MAX)
}

/// Writes after each change, one write at a time, and no more than one in a second, or in some
/// seconds where a write takes long; what could not be written is tried again, change or none. Ends
/// with the changes.
pub(crate) async fn keep<T, W>(
    subject: Subject,
    path: &Path,
    mut changes: watch::Receiver<T>,
    write: impl Fn(&T) -> W,
) where
    W: FnOnce() -> io::Result<()> + Send + 'static,
{
    let mut failed = false;
    loop {
        let changed = changes.changed();
        let is_over = match failed {
            true => matches!(timeout(AGAIN, changed).await, Ok(Err(_))),
            false => changed.await.is_err(),
        };
        if is_over {
            return;
        }
        let write = write(&changes.borrow_and_update());
        let began = Instant::now();
        let written = spawn_blocking(write).await;
        let pause = pause_after(began.elapsed());
        let failed_before = std::mem::replace(&mut failed, !matches!(written, Ok(Ok(()))));
        let path = path.display();
        match written {
            Ok(Ok(())) if failed_before => info!(%path, "{} kept on disk again", subject.name),
            Ok(Err(error)) if !failed_before => warn!(
                %path,
                %error,
                "{} cannot be kept on disk: {}; make the directory writable again",
                subject.name,
                subject.otherwise
            ),
            _ => {}
        }
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn what_takes_long_is_written_less_often() {
        let after_ms = |ms| pause_after(Duration::from_millis(ms));
        assert_eq!(after_ms(0), PERIOD);
        assert_eq!(after_ms(20), PERIOD);
        assert_eq!(after_ms(40), Duration::from_secs(2));
        assert_eq!(after_ms(10_000), PERIOD_MAX);
    }

    const SUBJECT: Subject = Subject { name: "a number", otherwise: "it would be lost" };

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_written_is_tried_again_and_the_last_is_written() {
        let (sender, changes) = watch::channel(0);
        // What the disk has, and how often it refuses.
        let disk = Arc::new(Mutex::new((Vec::new(), 2)));
        let on_disk = Arc::clone(&disk);
        let keeping = tokio::spawn(async move {
            keep(SUBJECT, Path::new("number"), changes, |number| {
                let (number, disk) = (*number, Arc::clone(&on_disk));
                move || {
                    let (written, refusals) = &mut *disk.lock().unwrap();
                    if *refusals > 0 {
                        *refusals -= 1;
                        return Err(io::ErrorKind::StorageFull.into());
                    }
                    written.push(number);
                    Ok(())
                }
            })
            .await;
        });
        sender.send_replace(1);
        sleep(3 * AGAIN).await;
        assert_eq!(disk.lock().unwrap().0, [1], "without a further change");
        for number in 2..=9 {
            sender.send_replace(number);
        }
        drop(sender);
        keeping.await.unwrap();
        assert_eq!(disk.lock().unwrap().0, [1, 9]);
    }
}
