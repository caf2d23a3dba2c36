//! All children of a `dev`: each has a task that restarts it when it dies, and that
//! stops it in the end.

use std::time::Duration;

use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    child::{Child, News},
    plan,
    printer::Printer,
    role::{Listening, Role},
};
use crate::{
    exit::{Exit, Failure},
    format,
    signal::StopSignals,
};

/// How long a child may take until it listens.
const START_MAX: Duration = Duration::from_secs(15);

/// Between a death and the next start; doubled with each death in a row.
const BACKOFF: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Who lived this long did not die of its start.
const PROVEN: Duration = Duration::from_secs(10);

/// How long proxies may drain, and how long the others may take after that: together
/// less than the five seconds in which everything is to be gone.
const PROXY_PATIENCE: Duration = Duration::from_millis(3300);
const OTHER_PATIENCE: Duration = Duration::from_millis(1200);

/// The children.
#[derive(Debug)]
pub(super) struct Household {
    printer: Printer,
    proxies: TaskTracker,
    others: TaskTracker,
    /// Counts the wishes for log files to be opened anew.
    reopen_logs: watch::Sender<u64>,
    stop_proxies: CancellationToken,
    stop_others: CancellationToken,
    kill: CancellationToken,
}

/// Why a child is not there.
struct NotStarted {
    code: Option<i32>,
    message: String,
}

impl Household {
    /// Nobody yet.
    pub(super) fn new(printer: Printer) -> Self {
        Self {
            printer,
            proxies: TaskTracker::new(),
            others: TaskTracker::new(),
            reopen_logs: watch::Sender::new(0),
            stop_proxies: CancellationToken::new(),
            stop_others: CancellationToken::new(),
            kill: CancellationToken::new(),
        }
    }

    /// Starts a child and waits until it listens. From then on it is restarted when it
    /// dies. A port of habit that was taken in the meantime is replaced by a free one.
    pub(super) async fn admit(&self, role: Role) -> Result<Listening, Failure> {
        let failed = match self.try_admit(role.clone()).await {
            Ok(listening) => return Ok(listening),
            Err(failed) => failed,
        };
        let in_use = Exit::AddressInUse as i32;
        let traffic_is_free = role.traffic().is_none_or(|traffic| plan::probe(traffic).is_ok());
        if failed.code == Some(in_use)
            && traffic_is_free
            && let Some(other) = role.give_way()
        {
            self.printer.line(&format!("{} takes free ports instead", role.name()));
            return self.try_admit(other).await.map_err(|failed| explain(&role, &failed));
        }
        Err(explain(&role, &failed))
    }

    async fn try_admit(&self, role: Role) -> Result<Listening, NotStarted> {
        let (ready, first) = oneshot::channel();
        let (tracker, stop, patience) = if role.is_proxy() {
            (&self.proxies, &self.stop_proxies, PROXY_PATIENCE)
        } else {
            (&self.others, &self.stop_others, OTHER_PATIENCE)
        };
        let keeper = Keeper {
            reopen_logs: role.is_proxy().then(|| self.reopen_logs.subscribe()),
            role,
            printer: self.printer.clone(),
            stop: stop.clone(),
            kill: self.kill.clone(),
            patience,
        };
        tracker.spawn(keeper.keep(ready));
        first.await.unwrap_or_else(|_| {
            Err(NotStarted { code: None, message: "was stopped before it listened".to_owned() })
        })
    }

    /// Makes the proxies open their log files anew, as after a rotation.
    pub(super) fn reopen_logs(&self) {
        self.reopen_logs.send_modify(|wishes| *wishes += 1);
    }

    /// Stops everything, proxies first, since they still talk to the others; a second
    /// signal kills.
    pub(super) async fn stop(&self, signals: &mut StopSignals) {
        self.proxies.close();
        self.others.close();
        let in_order = async {
            self.stop_proxies.cancel();
            self.proxies.wait().await;
            self.stop_others.cancel();
            self.others.wait().await;
        };
        tokio::select! {
            () = in_order => return,
            () = signals.next() => {}
        }
        self.kill.cancel();
        self.stop_proxies.cancel();
        self.stop_others.cancel();
        self.proxies.wait().await;
        self.others.wait().await;
    }
}

fn explain(role: &Role, failed: &NotStarted) -> Failure {
    let exit = match failed.code {
        Some(9) => Exit::AddressInUse,
        Some(78) => Exit::BadConfiguration,
        _ => Exit::Failed,
    };
    Failure::new(
        exit,
        format!(
            "{} {}, so the load balancer cannot start; its own messages are above",
            role.name(),
            failed.message
        ),
    )
}

/// Never completes for those without log files.
async fn wish(wishes: &mut Option<watch::Receiver<u64>>) {
    let more = match wishes {
        Some(wishes) => wishes.changed().await.is_ok(),
        None => false,
    };
    if !more {
        std::future::pending().await
    }
}

/// Keeps one child alive.
struct Keeper {
    role: Role,
    printer: Printer,
    /// Nothing for those without log files.
    reopen_logs: Option<watch::Receiver<u64>>,
    stop: CancellationToken,
    kill: CancellationToken,
    patience: Duration,
}

impl Keeper {
    async fn keep(mut self, ready: oneshot::Sender<Result<Listening, NotStarted>>) {
        let Some(mut child) = self.first_start(ready).await else { return };
        let mut backoff = BACKOFF;
        let mut started = Instant::now();
        loop {
            let news = tokio::select! {
                news = child.next() => news,
                () = wish(&mut self.reopen_logs) => {
                    child.reopen_logs();
                    continue;
                }
                () = self.stop.cancelled() => return child.stop(self.patience, &self.kill).await,
            };
            let name = self.role.name();
            match news {
                News::Listens(_) => self.printer.line(&format!("{name} is back")),
                News::Ended(how) => {
                    if started.elapsed() >= PROVEN {
                        backoff = BACKOFF;
                    }
                    let pause = format::duration(backoff);
                    self.printer.line(&format!("{name} {how}; restarting in {pause}"));
                    match self.start_again(&mut backoff).await {
                        Some(next) => child = next,
                        None => return,
                    }
                    started = Instant::now();
                }
            }
        }
    }

    /// Reports the first start; there is no second one if it fails.
    async fn first_start(
        &mut self,
        ready: oneshot::Sender<Result<Listening, NotStarted>>,
    ) -> Option<Child> {
        let mut child = match Child::start(&self.role, &self.printer) {
            Ok(child) => child,
            Err(error) => {
                let message = format!("cannot be started: {error}");
                // Without a listener, the whole start was given up.
                drop(ready.send(Err(NotStarted { code: None, message })));
                return None;
            }
        };
        let failed = tokio::select! {
            news = child.next() => match news {
                News::Listens(listening) => {
                    self.role.settle(&listening);
                    drop(ready.send(Ok(listening)));
                    return Some(child);
                }
                News::Ended(how) => NotStarted { code: child.exit_code(), message: how },
            },
            () = self.stop.cancelled() => {
                child.stop(self.patience, &self.kill).await;
                return None;
            }
            () = sleep(START_MAX) => {
                child.stop(OTHER_PATIENCE, &self.kill).await;
                let message = format!("did not listen within {}", format::duration(START_MAX));
                NotStarted { code: None, message }
            }
        };
        drop(ready.send(Err(failed)));
        None
    }

    /// Starts it again after a pause that grows; `None` when all is to stop.
    async fn start_again(&self, backoff: &mut Duration) -> Option<Child> {
        loop {
            tokio::select! {
                () = sleep(*backoff) => {}
                () = self.stop.cancelled() => return None,
            }
            *backoff = (*backoff * 2).min(BACKOFF_MAX);
            match Child::start(&self.role, &self.printer) {
                Ok(child) => return Some(child),
                Err(error) => {
                    let name = self.role.name();
                    self.printer.line(&format!("{name} cannot be started again: {error}"));
                }
            }
        }
    }
}
