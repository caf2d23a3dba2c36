//! Follows a control plane: the shell around [`lb_core::sync::Subscriber`].
//!
//! A session begins with Hello, which says what is held. Whatever is received is
//! judged by the subscriber, compiled here, handed to all workers, and acknowledged
//! only when the last of them serves from it. Without a control plane nothing
//! changes: the proxy serves what it has, says since when, and tries again.

mod complaints;
mod endpoint;
mod management;
mod reporting;
mod session;

use std::{sync::Arc, time::Duration};

use lb_core::{
    backoff::Backoff,
    model::{InstanceId, ProxyId},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{info, warn};

pub(crate) use self::{endpoint::ControlPlane, reporting::Reporting};
use crate::{clock::present, serving::Serving, status::Status, worker::now};
use complaints::Complaints;
use session::Ended;

/// For the connection, and for the first answer on it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Between reports in milliseconds, unless the control plane wishes otherwise.
const STATS_PERIOD_MS: u64 = 250;

/// Who this proxy is, as it introduces itself.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    pub(crate) id: ProxyId,
    pub(crate) instance: InstanceId,
    /// The instance that this one took over from; empty for none.
    pub(crate) replaces: String,
    pub(crate) listen_addresses: Vec<(String, String)>,
    pub(crate) admin_address: String,
    pub(crate) workers: usize,
    pub(crate) writes_access_log: bool,
}

/// A connection to a control plane that welcomed this proxy.
#[derive(Clone, Debug)]
pub(crate) struct Connected {
    pub(crate) channel: Channel,
    pub(crate) stats_period: Duration,
    /// Cancelled when reports have not been taken there for some time.
    pub(crate) unheard: CancellationToken,
}

impl Connected {
    fn new(channel: Channel, stats_period: Duration) -> Self {
        Self { channel, stats_period, unheard: CancellationToken::new() }
    }
}

/// Follows control planes until it is asked to leave, or dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    introduction: Introduction,
    control_planes: Vec<ControlPlane>,
    serving: Arc<Serving>,
    status: Arc<Status>,
    /// The connection for statistics.
    connected: watch::Sender<Option<Connected>>,
    /// Asks it to say goodbye and to end.
    leaving: CancellationToken,
    from_disk: bool,
}

/// What a follower works with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) introduction: Introduction,
    pub(crate) control_planes: Vec<ControlPlane>,
    pub(crate) serving: Arc<Serving>,
    pub(crate) status: Arc<Status>,
    pub(crate) connected: watch::Sender<Option<Connected>>,
    pub(crate) leaving: CancellationToken,
}

impl Follower {
    pub(crate) fn new(parts: Parts) -> Self {
        let from_disk = parts.serving.subscriber().held().is_some();
        Self {
            introduction: parts.introduction,
            control_planes: parts.control_planes,
            serving: parts.serving,
            status: parts.status,
            connected: parts.connected,
            leaving: parts.leaving,
            from_disk,
        }
    }

    /// Tries the control planes in turn, and follows whichever answers, until it is asked to leave.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut rng = fastrand::Rng::new();
        let mut complaints = Complaints::default();
        for turn in 0usize.. {
            let control_plane = self.control_planes[turn % self.control_planes.len()].clone();
            let url = control_plane.url();
            let ended = self.session(&control_plane, &mut backoff).await;
            self.connected.send_replace(None);
            self.status.lost(present());
            self.serving.lose().await;
            if self.leaving.is_cancelled() {
                return;
            }
            let serving = self.serving.subscriber().held().map(|held| held.version.to_string());
            let pause = match ended {
                Ended::Left => return,
                Ended::Goaway { reason, after } => {
                    info!(control_plane = url, reason, "the control plane sends us away");
                    complaints.forget();
                    after
                }
                Ended::Failed(problem) => {
                    if complaints.nobody_answers(url) {
                        warn!(
                            control_plane = url,
                            problem,
                            serving,
                            "no control plane answers there (--control-plane); {}",
                            meanwhile(serving.is_some())
                        );
                    }
                    Duration::ZERO
                }
                Ended::Refused(problem) => {
                    if complaints.is_refused(url, &problem) {
                        warn!(
                            control_plane = url,
                            problem,
                            serving,
                            "the control plane refuses this proxy, which hears of no change until that \
                             is mended; {}",
                            meanwhile(serving.is_some())
                        );
                    }
                    Duration::ZERO
                }
                Ended::Lost(problem) => {
                    complaints.forget();
                    // That nobody answers there now goes without saying.
                    complaints.nobody_answers(url);
                    warn!(
                        control_plane = url,
                        problem, "the control plane is lost; serving goes on with what is held"
                    );
                    Duration::ZERO
                }
            };
            let delay = backoff.next(now(), &mut rng).max(pause);
            let pause = tokio::time::sleep(delay);
            if self.leaving.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    /// What is left to do for one that follows no more: see [`Reporting`].
    pub(crate) fn reporting(&self) -> Reporting {
        Reporting::new(self.control_planes.clone(), self.connected.clone())
    }

    /// Compiles what the subscriber holds and waits until all workers serve from it.
    async fn apply(&mut self) {
        self.serving.apply().await;
        self.status.applied(self.serving.subscriber().held().map(|held| held.version));
        self.from_disk = false;
    }
}

/// What the proxy does until a control plane answers.
fn meanwhile(holds: bool) -> &'static str {
    if holds {
        "serving goes on with what is held"
    } else {
        "this proxy has no configuration, and answers 503 until one comes"
    }
}
