//! Proxies without traffic, all in this process: real subscribers behind real streams, each
//! on a connection of its own.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lb_tests::{
    api::Api,
    scripted::{Proxy, Taken},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

/// Until all of them hold what they should.
const PATIENCE: Duration = Duration::from_secs(60);

/// Simulated proxies.
#[derive(Debug)]
pub(super) struct Followers {
    proxies: Vec<Proxy>,
    taken: mpsc::UnboundedReceiver<(usize, Arrival)>,
    held: Vec<u64>,
}

/// A configuration that reached a proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) taken: Taken,
    pub(super) at: Instant,
    /// Since the commit, by the wall clock of this machine.
    pub(super) after_commit: Duration,
}

impl Followers {
    /// Connects them, one after the other.
    pub(super) async fn connect(control_plane: SocketAddr, count: usize) -> Result<Self, String> {
        let (sender, taken) = mpsc::unbounded_channel();
        let mut proxies = Vec::with_capacity(count);
        for index in 0..count {
            let sender = sender.clone();
            let observe = move |taken: Taken| {
                let committed = UNIX_EPOCH + Duration::from_millis(taken.committed_unix_ms);
                let after_commit = wall_clock().duration_since(committed).unwrap_or_default();
                let arrival = Arrival { taken, at: Instant::now(), after_commit };
                // Nobody counts any more when the benchmark is at its end.
                sender.send((index, arrival)).ok();
            };
            let channel = Api::new(control_plane).channel();
            let id = format!("simulated-{index:04}");
            let proxy = Proxy::observed(channel, &id, |_| None, observe).await;
            proxies.push(proxy.map_err(|status| format!("{id} is not welcome: {status}"))?);
        }
        Ok(Self { proxies, taken, held: vec![0; count] })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.proxies.len()
    }

    /// Waits until each holds this revision or a later one; what arrived meanwhile.
    pub(super) async fn reach(&mut self, revision: u64) -> Result<Vec<Arrival>, String> {
        let mut arrivals = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while self.held.iter().any(|held| *held < revision) {
            let Ok(Some((index, arrival))) = timeout_at(deadline, self.taken.recv()).await else {
                let behind = self.held.iter().filter(|held| **held < revision).count();
                return Err(format!("{behind} proxies have not reached revision {revision}"));
            };
            self.held[index] = arrival.taken.revision;
            arrivals.push(arrival);
        }
        Ok(arrivals)
    }
}

#[expect(clippy::disallowed_methods, reason = "compared with the control plane's, on one machine")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
