//! What this proxy knows about itself: for `/readyz`, and for the control plane.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lb_core::{
    model::{Key, Version},
    moment::Moment,
    stats::{LatencyHistogram, whole_us},
    sync::Rejection,
};

use crate::overload::Standing;

/// Shared by the control thread's tasks.
#[derive(Debug, Default)]
pub(crate) struct Status {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    version: Option<Version>,
    connected: bool,
    /// Why the state of the control plane that is connected is refused as a whole.
    refused: Option<String>,
    stale_since: Option<Moment>,
    draining: bool,
    /// As a control plane told it last.
    proxies: Option<u32>,
    /// What is refused at present, with the revision that it would have come with.
    rejected: BTreeSet<(Key, u64)>,
    following: Following,
    overload: Standing,
}

/// What following control planes has come to so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Following {
    /// Sessions that were welcomed.
    pub(crate) sessions: u64,
    /// How long it took until all workers served from a new configuration.
    pub(crate) applies: LatencyHistogram,
    /// Configurations that were refused whole.
    pub(crate) refusals: u64,
    /// Objects that were refused so far, each of its values once.
    pub(crate) rejections: u64,
    /// Objects that keep their former value at present.
    pub(crate) rejected_objects: usize,
}

/// One line of `/readyz?verbose`.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) passed: bool,
    pub(crate) detail: String,
}

impl Status {
    /// All workers serve from this version.
    pub(crate) fn applied(&self, version: Option<Version>) {
        self.lock().version = version;
    }

    /// A control plane has welcomed this proxy.
    pub(crate) fn welcomed(&self) {
        self.lock().following.sessions += 1;
    }

    /// All workers serve from a new configuration, in which these objects are refused.
    /// Returns those that were not before.
    pub(crate) fn count_apply<'r>(
        &self,
        took: Duration,
        rejections: &'r [Rejection],
    ) -> Vec<&'r Rejection> {
        let mut inner = self.lock();
        let rejected = rejections.iter().map(|it| (it.key.clone(), it.revision)).collect();
        let before = std::mem::replace(&mut inner.rejected, rejected);
        let is_new = |it: &&Rejection| !before.contains(&(it.key.clone(), it.revision));
        let new: Vec<_> = rejections.iter().filter(is_new).collect();
        let following = &mut inner.following;
        following.applies.record(whole_us(took));
        following.rejections += new.len() as u64;
        following.rejected_objects = rejections.len();
        new
    }

    /// A configuration was refused whole.
    pub(crate) fn count_refusal(&self, why: &str) {
        let mut inner = self.lock();
        inner.following.refusals += 1;
        inner.refused = Some(why.to_owned());
    }

    /// What following control planes has come to so far.
    pub(crate) fn following(&self) -> Following {
        self.lock().following.clone()
    }

    /// A control plane has said how many proxies are live, this one included.
    pub(crate) fn told_proxies(&self, count: u32) {
        self.lock().proxies = Some(count);
    }

    /// How many proxies are live, as far as this one was told: itself at least.
    pub(crate) fn proxies(&self) -> u32 {
        self.proxies_told().unwrap_or(1)
    }

    /// How many proxies are live, if that was ever told.
    pub(crate) fn proxies_told(&self) -> Option<u32> {
        self.lock().proxies
    }

    /// What all workers serve from.
    pub(crate) fn version(&self) -> Option<Version> {
        self.lock().version
    }

    /// Whether a control plane is being followed.
    pub(crate) fn is_connected(&self) -> bool {
        self.lock().connected
    }

    /// What is served is what a live control plane wants.
    pub(crate) fn synced(&self) {
        let mut inner = self.lock();
        inner.connected = true;
        inner.refused = None;
        inner.stale_since = None;
    }

    /// From now on what is served cannot be confirmed.
    pub(crate) fn lost(&self, now: Moment) {
        let mut inner = self.lock();
        inner.connected = false;
        inner.refused = None;
        inner.stale_since.get_or_insert(now);
    }

    /// Since when the configuration could not be confirmed.
    pub(crate) fn stale_since(&self) -> Option<Moment> {
        self.lock().stale_since
    }

    /// What the proxy gives up for want of connections or memory, as of now.
    pub(crate) fn shows(&self, standing: Standing) {
        self.lock().overload = standing;
    }

    /// What it gave up as of the last reading.
    pub(crate) fn overload(&self) -> Standing {
        self.lock().overload.clone()
    }

    /// The process is stopping.
    pub(crate) fn drain(&self) {
        self.lock().draining = true;
    }

    /// A proxy is ready with a configuration, whether or not a control plane answers.
    pub(crate) fn checks(&self) -> [Check; 4] {
        let inner = self.lock();
        [
            Check {
                name: "config",
                passed: inner.version.is_some(),
                detail: match inner.version {
                    Some(version) => format!("revision {version}"),
                    None => "no configuration yet; is the control plane reachable?".to_owned(),
                },
            },
            Check {
                name: "serving",
                passed: !inner.draining,
                detail: if inner.draining { "stopping" } else { "accepting" }.to_owned(),
            },
            Check {
                name: "overload",
                // Whoever takes it out of service for this sends its load to the others.
                passed: true,
                detail: match &inner.overload.cause {
                    Some((_, cause)) => format!("{}: {cause}", inner.overload.stage.name()),
                    None => inner.overload.stage.name().to_owned(),
                },
            },
            Check {
                name: "control-plane",
                // Traffic does not depend on it.
                passed: true,
                detail: match (&inner.refused, inner.connected, inner.stale_since) {
                    (Some(why), ..) => format!("it answers, and its state is refused: {why}"),
                    (None, true, _) => "connected".to_owned(),
                    (None, false, Some(since)) => {
                        let away = since.age(crate::worker::now()).as_secs_f64();
                        format!("away; stale for {away:.1}s")
                    }
                    (None, false, None) => "not connected yet".to_owned(),
                },
            },
        ]
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one assignment: what a panicking thread left is consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
