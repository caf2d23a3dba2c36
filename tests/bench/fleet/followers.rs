//! Proxies without traffic, all in this process: real subscribers behind real streams, each
//! on a connection of its own.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lb_core::sync::Subscriber;
use lb_tests::{
    api::Api,
    scripted::{Proxy, Taken},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout_at},
};

/// Until all of them hold what they should.
const PATIENCE: Duration = Duration::from_secs(60);

/// Simulated proxies.
#[derive(Debug)]
pub(super) struct Followers {
    control_plane: SocketAddr,
    proxies: Vec<Proxy>,
    sender: mpsc::UnboundedSender<(usize, Arrival)>,
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
            let fresh = Subscriber::new(lb_proto::convert::decode_object);
            proxies.push(follow(control_plane, index, fresh, &sender).await?);
        }
        Ok(Self { control_plane, proxies, sender, taken, held: vec![0; count] })
    }

    /// Waits until the control plane is gone for all of them; what they hold then.
    pub(super) async fn orphaned(&mut self) -> Vec<Subscriber> {
        let mut held = Vec::with_capacity(self.proxies.len());
        for proxy in self.proxies.drain(..) {
            held.push(proxy.ended().await);
        }
        held
    }

    /// Connects them all at once, each with what it held.
    pub(super) async fn return_with(&mut self, held: Vec<Subscriber>) -> Result<(), String> {
        let mut connecting = JoinSet::new();
        for (index, subscriber) in held.into_iter().enumerate() {
            let (control_plane, sender) = (self.control_plane, self.sender.clone());
            connecting
                .spawn(async move { follow(control_plane, index, subscriber, &sender).await });
        }
        while let Some(connected) = connecting.join_next().await {
            self.proxies.push(connected.map_err(|error| error.to_string())??);
        }
        Ok(())
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

async fn follow(
    control_plane: SocketAddr,
    index: usize,
    subscriber: Subscriber,
    sender: &mpsc::UnboundedSender<(usize, Arrival)>,
) -> Result<Proxy, String> {
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
    let proxy = Proxy::resumed(channel, &id, subscriber, |_| None, observe).await;
    proxy.map_err(|status| format!("{id} is not welcome: {status}"))
}

#[expect(clippy::disallowed_methods, reason = "compared with the control plane's, on one machine")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
