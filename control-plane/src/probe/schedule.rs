//! The life of one backend's check.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use lb_core::{
    health::CheckState,
    model::{AdminState, Backend, BackendStatus, CheckProtocol, Health, Host, Reason, Standing},
};
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::{Shared, Target, http, lanes::is_overdue, resolve::Addresses, tcp};
use crate::{
    clock::{present, unix_ms},
    resilience::Checked,
};

/// How long a name of a backend without checks may take to resolve.
const LOOKUP: Duration = Duration::from_secs(5);

/// How long the first check waits until it is told where a name leads.
const LOCATED_WITHIN: Duration = Duration::from_millis(500);

/// Checks a backend, beginning with what is known about it, until it is dropped.
///
/// `asked_anew` says that somebody has just changed what is checked, or enabled the
/// backend: what was down by the old check is then looked at at once, and one pass is
/// enough. What was up stays so until the new check fails. The old check may have told
/// something that is not `known` yet, so the first thing that is found out is told in any case.
/// `is_alone` says that nobody else in the pool may serve: then it is told where it is before it is
/// checked, so that proxies may try it.
pub(super) async fn run(
    target: Target,
    known: Option<BackendStatus>,
    asked_anew: bool,
    is_alone: bool,
    shared: Arc<Shared>,
) {
    let mut hasher = DefaultHasher::new();
    target.backend.id.hash(&mut hasher);
    let seed = hasher.finish();
    let state = match &known {
        Some(status) if !asked_anew || status.health == Health::Up => {
            CheckState::resumed(status.health, status.was_up, seed)
        }
        _ => CheckState::new(seed),
    };
    let addresses = known.as_ref().map(|status| status.addresses.clone()).unwrap_or_default();
    let mut check = Check {
        target,
        known,
        shared,
        state,
        addresses: Addresses::resumed(addresses),
        is_untold: asked_anew,
        failing_since: None,
        hangs: false,
    };
    match (check.target.policy.protocol(), check.target.backend.admin_state) {
        (CheckProtocol::None, _) => check.trust().await,
        (_, AdminState::Disabled) => check.rest().await,
        _ => {
            if is_alone && check.known.is_none() {
                check.locate().await;
            }
            check.probe_for_ever(asked_anew).await;
        }
    }
}

#[derive(Debug)]
struct Check {
    target: Target,
    /// What was sent to the registry last, or found there.
    known: Option<BackendStatus>,
    shared: Arc<Shared>,
    state: CheckState,
    addresses: Addresses,
    /// Another verdict than the known one may be on its way to the registry.
    is_untold: bool,
    /// When the first of the failures in a row was.
    failing_since: Option<std::time::Instant>,
    /// Whether its last probe failed, and not soon.
    hangs: bool,
}

impl Check {
    /// Without checks, every backend whose address is known counts as up.
    async fn trust(&mut self) {
        loop {
            let address = &self.target.backend.address;
            let resolved =
                self.addresses.refresh(&self.shared.prober.resolver, address, LOOKUP).await;
            let (result, pause) = match resolved {
                Ok(()) => {
                    let message = "the pool has no checks; every backend counts as up";
                    let reason = Reason::new("no_checks", message);
                    self.tell(Health::Up, &reason).await;
                    (reason, self.addresses.due_in())
                }
                Err(reason) => (reason, self.addresses.due_in()),
            };
            // A literal address never changes, and is never due.
            let pause = if pause.is_zero() { self.target.policy.interval() } else { pause };
            let resolution = self.addresses.resolution(&self.target.backend.address);
            self.shared.prober.checks.update(&self.target.backend.id, |report| {
                report.last_result = result;
                report.awaited = false;
                report.resolution = resolution;
                report.next_check = None;
            });
            sleep(pause).await;
        }
    }

    /// A disabled backend is not probed. Once its verdict is older than an interval it
    /// is forgotten, so that the backend must pass a check when it is enabled again.
    async fn rest(&mut self) {
        self.shared
            .prober
            .checks
            .update(&self.target.backend.id, |report| report.next_check = None);
        sleep(self.target.policy.interval()).await;
        let is_known = |known: &BackendStatus| known.health != Health::Unknown;
        if self.is_untold || self.known.as_ref().is_some_and(is_known) {
            let message = "disabled backends are not checked; one check must pass after enabling";
            self.tell(Health::Unknown, &Reason::new("not_checked", message)).await;
        }
    }

    /// Tells where a name leads; a literal address is known anyway.
    async fn locate(&mut self) {
        let address = &self.target.backend.address;
        if matches!(address.host(), Host::Name(_))
            && let resolver = &self.shared.prober.resolver
            && self.addresses.refresh(resolver, address, LOCATED_WITHIN).await.is_ok()
        {
            let reason = Reason::not_checked(self.target.backend.admin_state);
            self.tell(Health::Unknown, &reason).await;
        }
    }

    async fn probe_for_ever(&mut self, asked_anew: bool) {
        let mut rng = fastrand::Rng::new();
        // Whoever has just changed what is checked may be waiting to hear of it.
        let mut delay = match asked_anew {
            true => self.state.soon(),
            false => self.state.first_delay(&self.target.policy),
        };
        loop {
            self.shared.prober.checks.update(&self.target.backend.id, |report| {
                report.next_check = Some(present().after(delay));
            });
            sleep(delay).await;
            let (result, took) = self.round().await;
            let passed = result.is_ok();
            let transition = self.state.record(&self.target.policy, passed);
            let began = (Instant::now() - took).into_std();
            self.failing_since = (!passed).then(|| self.failing_since.unwrap_or(began));
            let reason = result.unwrap_or_else(|reason| reason);
            self.note(passed, took, &reason);
            match &self.known {
                _ if transition.is_some() => self.tell(self.state.health(), &reason).await,
                // The verdict stands; what it rests on may be other addresses now, or
                // a check instead of trust.
                Some(known)
                    if passed
                        && (known.addresses != self.addresses.known()
                            || known.reason.code == "no_checks") =>
                {
                    let reason =
                        if known.health == Health::Up { reason } else { known.reason.clone() };
                    self.tell(self.state.health(), &reason).await;
                }
                // In the words that are known, so that nothing is stored if it is.
                Some(known) if passed && self.is_untold => {
                    let reason = known.reason.clone();
                    self.tell(self.state.health(), &reason).await;
                }
                _ => {}
            }
            delay = self.state.next_delay(&self.target.policy, &mut rng);
        }
    }

    /// Probes, once there is room for a probe.
    async fn round(&mut self) -> (Result<Reason, Reason>, Duration) {
        let shared = Arc::clone(&self.shared);
        let (result, took) = shared.lanes.run(self.hangs, self.try_addresses()).await;
        self.hangs = result.is_err() && is_overdue(took);
        (result, took)
    }

    /// Tries the addresses in turn until one passes.
    async fn try_addresses(&mut self) -> (Result<Reason, Reason>, Duration) {
        let Self { target: Target { backend, policy, .. }, shared, addresses, .. } = self;
        let start = Instant::now();
        let limit = policy.timeout();
        if let Err(reason) =
            addresses.refresh(&shared.prober.resolver, &backend.address, limit).await
        {
            return (Err(reason), start.elapsed());
        }
        let mut worst: Option<Reason> = None;
        for address in addresses.known().to_vec() {
            let result = match policy.protocol() {
                CheckProtocol::Http { path } => {
                    http::probe(address, &backend.address, path, limit).await
                }
                CheckProtocol::Tcp | CheckProtocol::None => tcp::probe(address, limit).await,
            };
            match result {
                Ok(reason) => {
                    addresses.prefer(address);
                    return (Ok(reason), start.elapsed());
                }
                // Of several failures the one that got furthest says most.
                Err(reason) => {
                    if worst.as_ref().is_none_or(|worst| distance(&reason) > distance(worst)) {
                        worst = Some(reason);
                    }
                }
            }
        }
        let reason = worst.unwrap_or_else(|| Reason::new("dns_failure", "no address is known"));
        (Err(reason), start.elapsed())
    }

    fn note(&self, passed: bool, took: Duration, reason: &Reason) {
        debug!(backend = %self.target.backend.id, passed, reason.message, "checked");
        self.shared.prober.checks.count(&self.target.backend.pool, passed, took);
        let Backend { id, incarnation, .. } = &self.target.backend;
        self.shared.prober.resilience.probed(id, *incarnation, passed);
        self.shared.prober.checks.update(&self.target.backend.id, |report| {
            let now = Some(present());
            report.passes_in_a_row = self.state.passes_in_a_row();
            report.failures_in_a_row = self.state.failures_in_a_row();
            report.last_check = now;
            if passed {
                report.last_success = now;
            }
            report.checked_revision = self.target.revision;
            report.awaited = false;
            report.last_duration = took;
            report.last_result = reason.clone();
            report.resolution = self.addresses.resolution(&self.target.backend.address);
            report.checks_total += 1;
            report.failures_total += u64::from(!passed);
        });
    }

    /// Sends a verdict to the registry, if it says anything new.
    async fn tell(&mut self, health: Health, reason: &Reason) {
        let since_unix_ms = match &self.known {
            Some(known) if known.health == health => known.since_unix_ms,
            _ => unix_ms(),
        };
        let status = BackendStatus {
            backend: self.target.backend.id.clone(),
            incarnation: self.target.backend.incarnation,
            health,
            addresses: self.addresses.known().to_vec(),
            reason: reason.clone(),
            since_unix_ms,
            was_up: BackendStatus::was_up_by(health, self.known.as_ref()),
            standing: Standing::default(),
        };
        if self.known.as_ref() == Some(&status) && !self.is_untold {
            return;
        }
        self.is_untold = false;
        self.known = Some(status.clone());
        // An error means that the control plane is stopping; the next one checks again.
        let word = Checked { status, failing_since: self.failing_since };
        self.shared.prober.checked.send(word).await.ok();
    }
}

/// How far a probe got before it failed.
fn distance(reason: &Reason) -> u8 {
    match reason.code.as_str() {
        "dns_failure" => 0,
        "backend_connect_refused" => 1,
        "backend_connect_timeout" => 2,
        "backend_reset" => 3,
        "backend_timeout" => 4,
        _ => 5,
    }
}
