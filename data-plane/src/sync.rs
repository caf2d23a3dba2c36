//! Follows a control plane: the shell around [`lb_core::sync::Subscriber`].
//!
//! A session begins with Hello, which says what is held. Whatever is received is
//! judged by the subscriber, compiled here, handed to all workers, and acknowledged
//! only when the last of them serves from it. Without a control plane nothing
//! changes: the proxy serves what it has, says since when, and tries again.

mod complaints;
mod management;
mod session;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use lb_core::{
    backoff::Backoff,
    model::{InstanceId, ProxyId},
    sync::Subscriber,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};

use crate::{
    clock::present, last_good::LastGood, live::Config, serving::Serving, status::Status,
    worker::now,
};
use complaints::Complaints;
use session::Ended;

/// Between two writes of the configuration to disk.
const SAVE_PERIOD: Duration = Duration::from_secs(1);
/// Until what could not be written is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(5);
/// For the connection, and for the first answer on it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

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
}

/// Follows control planes until it is asked to leave, or dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    introduction: Introduction,
    control_planes: Vec<Endpoint>,
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
    pub(crate) control_planes: Vec<Endpoint>,
    pub(crate) serving: Arc<Serving>,
    pub(crate) status: Arc<Status>,
    pub(crate) connected: watch::Sender<Option<Connected>>,
    pub(crate) leaving: CancellationToken,
}

/// The address of a control plane, checked.
pub(crate) fn endpoint(url: &str) -> Result<Endpoint, String> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let endpoint = Endpoint::from_shared(url.clone())
        .map_err(|error| format!("{url:?} is not a URL such as http://127.0.0.1:9400: {error}"))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true))
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
            let endpoint = self.control_planes[turn % self.control_planes.len()].clone();
            let ended = self.session(&endpoint, &mut backoff).await;
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
                    info!(control_plane = %endpoint.uri(), reason, "the control plane sends us away");
                    complaints.forget();
                    after
                }
                Ended::Failed(problem) => {
                    if complaints.nobody_answers(endpoint.uri()) {
                        warn!(
                            control_plane = %endpoint.uri(),
                            problem,
                            serving,
                            "no control plane answers there (--control-plane); serving goes on with what is held"
                        );
                    }
                    Duration::ZERO
                }
                Ended::Refused(problem) => {
                    if complaints.is_refused(endpoint.uri(), &problem) {
                        warn!(
                            control_plane = %endpoint.uri(),
                            problem,
                            serving,
                            "the control plane refuses this proxy, which hears of no change until that \
                             is mended; serving goes on with what is held"
                        );
                    }
                    Duration::ZERO
                }
                Ended::Lost(problem) => {
                    complaints.forget();
                    // That nobody answers there now goes without saying.
                    complaints.nobody_answers(endpoint.uri());
                    warn!(
                        control_plane = %endpoint.uri(),
                        problem,
                        "the control plane is lost; serving goes on with what is held"
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

    /// Compiles what the subscriber holds and waits until all workers serve from it.
    async fn apply(&mut self) {
        self.serving.apply().await;
        self.status.applied(self.serving.subscriber().held().map(|held| held.version));
        self.from_disk = false;
    }
}

/// Writes to disk what was applied, not more often than once a second: encoding thousands
/// of objects takes longer than applying a change of one.
pub(crate) async fn save(
    last_good: LastGood,
    held: Arc<Mutex<Subscriber>>,
    status: Arc<Status>,
    mut config: watch::Receiver<Arc<Config>>,
) {
    let mut failed = false;
    loop {
        // What could not be written is tried again, change or none.
        let again = async {
            match failed {
                true => tokio::time::sleep(SAVE_AGAIN).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = config.changed() => if changed.is_err() { return },
            () = again => {}
        }
        let (keeper, held) = (last_good.clone(), Arc::clone(&held));
        let proxies = status.proxies_told();
        let saved = tokio::task::spawn_blocking(move || keeper.save(&held, proxies)).await;
        let failed_before = std::mem::replace(&mut failed, matches!(saved, Ok(Err(_))));
        if failed_before && !failed {
            info!(path = %last_good.path().display(), "the configuration is kept on disk again");
        }
        if let Ok(Err(error)) = saved
            && !failed_before
        {
            warn!(
                path = %last_good.path().display(),
                %error,
                "the configuration cannot be kept on disk: a restart without a control plane would \
                 serve an older one; make its directory writable again"
            );
        }
        tokio::time::sleep(SAVE_PERIOD).await;
    }
}
