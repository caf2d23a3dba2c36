//! What is left to do for a process that was taken over: it follows no control plane any more,
//! and goes on to report, since a drain waits for what it has left.

use std::time::Duration;

use lb_core::backoff::Backoff;
use tokio::{sync::watch, time::timeout};

use super::{CONNECT_TIMEOUT, Connected, ControlPlane, STATS_PERIOD_MS};
use crate::worker::now;

/// Keeps a way for the statistics of a process that was taken over.
#[derive(Debug)]
pub(crate) struct Reporting {
    control_planes: Vec<ControlPlane>,
    connected: watch::Sender<Option<Connected>>,
}

impl Reporting {
    pub(super) fn new(
        control_planes: Vec<ControlPlane>,
        connected: watch::Sender<Option<Connected>>,
    ) -> Self {
        Self { control_planes, connected }
    }

    /// Finds a control plane whenever there is none. A connection that breaks is made anew by
    /// whoever uses it, so it is given up only where nothing is heard on it and there is another
    /// address to try.
    pub(crate) async fn keep(self) {
        let (mut backoff, mut rng) = (Backoff::default(), fastrand::Rng::new());
        for control_plane in self.control_planes.iter().cycle() {
            let current = self.connected.borrow().clone();
            if let Some(current) = current {
                if self.control_planes.len() == 1 {
                    return;
                }
                current.unheard.cancelled().await;
                self.connected.send_replace(None);
                backoff.reset();
            }
            let connecting = timeout(CONNECT_TIMEOUT, control_plane.endpoint().connect());
            if let Ok(Ok(channel)) = connecting.await {
                let stats_period = Duration::from_millis(STATS_PERIOD_MS);
                self.connected.send_replace(Some(Connected::new(channel, stats_period)));
            } else {
                tokio::time::sleep(backoff.next(now(), &mut rng)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn listening() -> (TcpListener, ControlPlane) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, ControlPlane::parse(&address).unwrap())
    }

    /// The next connection that is made.
    async fn next(connected: &mut watch::Receiver<Option<Connected>>) -> Connected {
        let found = connected.wait_for(|now| {
            now.as_ref().is_some_and(|connected| !connected.unheard.is_cancelled())
        });
        let found = timeout(Duration::from_secs(20), found).await.expect("one is found").unwrap();
        found.clone().expect("it is there")
    }

    #[tokio::test]
    async fn where_nothing_is_heard_the_next_control_plane_is_tried() {
        let ((first, one), (second, other)) = (listening().await, listening().await);
        let (sender, mut connected) = watch::channel(None);
        let keeping = tokio::spawn(Reporting::new(vec![one, other], sender).keep());
        for listener in [&first, &second] {
            let current = next(&mut connected).await;
            listener.accept().await.unwrap();
            current.unheard.cancel();
        }
        drop(second);
        for _ in 0..3 {
            let current = next(&mut connected).await;
            first.accept().await.unwrap();
            current.unheard.cancel();
        }
        keeping.abort();
    }

    #[tokio::test]
    async fn a_single_control_plane_is_not_given_up() {
        let (listener, only) = listening().await;
        let (sender, mut connected) = watch::channel(None);
        let keeping = tokio::spawn(Reporting::new(vec![only], sender.clone()).keep());
        next(&mut connected).await.unheard.cancel();
        listener.accept().await.unwrap();
        keeping.await.unwrap();
        assert!(sender.borrow().is_some());
    }
}
