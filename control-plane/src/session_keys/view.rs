//! The keys as people and programs are told of them, without their secrets; and their rotation.
//! gRPC and REST both come here.

use std::time::Duration;

use lb_core::{
    affinity::{KeyId, RingKey, Role, rotation::Consent},
    model::ProxyId,
};
use tokio::time::{Instant, timeout_at};

use crate::{
    fleet::Laggard,
    grpc::Context,
    registry::{KeyRequest, KeyStep, KeysWritten, WriteError},
};

/// A key without its secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct KeyView {
    pub(crate) id: KeyId,
    pub(crate) role: Role,
    /// In milliseconds since the Unix epoch; 0: not known.
    pub(crate) made_unix_ms: u64,
}

/// All keys, and what the next one waits for.
#[derive(Clone, Debug)]
pub(crate) struct KeysView {
    /// The active one first; none while no pool has ever had sessions.
    pub(crate) keys: Vec<KeyView>,
    /// At which they were last changed; 0 without any.
    pub(crate) revision: u64,
    /// Nothing, unless a key is announced.
    pub(crate) waits: Option<Waits>,
}

/// What a key that was announced waits for.
#[derive(Clone, Debug)]
pub(crate) struct Waits {
    /// At which the ring has it.
    pub(crate) revision: u64,
    /// Proxies that lack it, the lost ones too.
    pub(crate) lacking: Vec<Laggard>,
    /// For how long nobody can know of all proxies; only while nobody has asked for it.
    pub(crate) unsure_for: Duration,
}

impl KeyView {
    fn of(held: &RingKey) -> Self {
        let made_unix_ms = held.key.made_s().saturating_mul(1000);
        Self { id: held.key.id(), role: held.role, made_unix_ms }
    }

    /// Of a retired key: until when sessions that it signed are believed, in milliseconds since
    /// the Unix epoch.
    pub(crate) fn honoured_until_unix_ms(&self) -> Option<u64> {
        match self.role {
            Role::Retired { honoured_until_s } => Some(honoured_until_s.saturating_mul(1000)),
            Role::Active | Role::Next => None,
        }
    }
}

impl KeysView {
    /// The next key, if it waits for this proxy.
    pub(crate) fn awaited_of(&self, proxy: &ProxyId) -> Option<String> {
        let lacking = &self.waits.as_ref()?.lacking;
        lacking.iter().find(|laggard| laggard.proxy == *proxy)?;
        self.newest().map(|key| key.to_string())
    }

    /// The key that signs last: the next one, or else the active one.
    pub(crate) fn newest(&self) -> Option<KeyId> {
        let next = self.keys.iter().find(|key| key.role == Role::Next);
        next.or_else(|| self.keys.first()).map(|key| key.id)
    }
}

/// The keys at this moment.
pub(crate) fn view(context: &Context) -> KeysView {
    let (keys, revision) = context.registry.read(|view| match view.catalog.session_keys() {
        Some(stored) => {
            (stored.value.ring.keys().iter().map(KeyView::of).collect(), stored.revision)
        }
        None => (Vec::new(), 0),
    });
    let next = keys.iter().find(|key: &&KeyView| key.role == Role::Next);
    let waits = next.map(|next| Waits {
        revision,
        lacking: context.fleet.lacking(revision),
        unsure_for: context.rotation.unsure_for(next.id),
    });
    KeysView { keys, revision, waits }
}

/// What is wished of a rotation.
#[derive(Clone, Debug, Default)]
pub(crate) struct RotationRequest {
    /// Let the key sign although lost proxies lack it.
    pub(crate) force: bool,
    /// For how long to wait until it signs.
    pub(crate) limit: Duration,
    /// At which the keys were last changed; 0 does not care.
    pub(crate) expected_revision: u64,
    /// As of any write.
    pub(crate) idempotency: Option<(String, u128)>,
}

/// How far a rotation got.
#[derive(Clone, Debug)]
pub(crate) struct Rotated {
    /// The newest key.
    pub(crate) key: KeyId,
    /// At which the ring has it.
    pub(crate) revision: u64,
    /// Proxies that lack it.
    pub(crate) lacking: Vec<Laggard>,
}

/// Makes a new key, unless one is announced already, and asks for it to sign. Returns when it does,
/// or when the time is up. A repetition makes no further key, and asks for none but that which the
/// first has made.
pub(crate) async fn rotate(
    context: &Context,
    wish: RotationRequest,
) -> Result<Rotated, WriteError> {
    let RotationRequest { force, limit, expected_revision, idempotency } = wish;
    let mut revisions = context.registry.revisions();
    let request = KeyRequest { step: KeyStep::Announce, expected_revision, idempotency };
    let KeysWritten { revision, repeated } = context.registry.step_keys(request).await?;
    let deadline = Instant::now() + limit;
    // It may have come to sign before anybody looked.
    let keys = view(context);
    let Some(key) = keys.newest() else { return Err(WriteError::Stopping) };
    if repeated && keys.revision != revision {
        return Ok(Rotated { key, revision, lacking: context.fleet.lacking(revision) });
    }
    context.rotation.ask(key, if force { Consent::Forced } else { Consent::Asked });
    loop {
        revisions.mark_unchanged();
        if view(context).waits.is_none() {
            break;
        }
        if !matches!(timeout_at(deadline, revisions.changed()).await, Ok(Ok(()))) {
            break;
        }
    }
    Ok(Rotated { key, revision, lacking: context.fleet.lacking(revision) })
}
