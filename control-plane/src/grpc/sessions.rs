//! The sessions service: keys without their secrets, and what one session is.

use std::{sync::Arc, time::Duration};

use lb_core::{
    affinity::{
        BackendState, Decision, Fitness, Inspected, KeyRing, Met, NewReason, Presented, Refusal,
        Session, decision::resolve,
    },
    health::candidates,
    model::{Backend, BackendEntry, BackendId, Pool, PoolEntry, PoolName},
};
use lb_proto::v1::{self as pb, sessions_server};
use tonic::{Request, Response, Status};

use super::{Context, registry, status, wire};
use crate::{
    clock::{millis, now, unix_ms},
    drain,
    fleet::Laggard,
    registry::{Catalog, Stored},
    session_keys::{self, KeyView, KeysView, Rotated, RotationRequest, Waits},
};

/// Of what is sent as a cookie; the fields of a request are no longer.
const COOKIE_BYTES_MAX: usize = 64 << 10;

/// Answers lbctl and other automation.
#[derive(Debug)]
pub(super) struct SessionsService {
    context: Arc<Context>,
}

impl SessionsService {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    fn ring(&self) -> Option<KeyRing> {
        let registry = &self.context.registry;
        registry.read(|view| Some(view.catalog.session_keys()?.value.ring.clone()))
    }

    fn keys(view: &KeysView) -> Vec<pb::SessionKeyStatus> {
        view.keys.iter().map(key_status).collect()
    }

    /// Who lacks a ring.
    fn progress(&self, revision: u64, lacking: Vec<Laggard>) -> pb::ApplyProgress {
        let mut progress = self.context.fleet.progress(revision);
        progress.proxies = progress.applied + u32::try_from(lacking.len()).unwrap_or(u32::MAX);
        progress.done = lacking.is_empty();
        // Those that are lost lack it, too.
        progress.lost.clear();
        progress.laggards = lacking;
        wire::apply_progress(progress, Duration::ZERO)
    }
}

#[tonic::async_trait]
impl sessions_server::Sessions for SessionsService {
    async fn list_keys(
        &self,
        _: Request<pb::ListKeysRequest>,
    ) -> Result<Response<pb::ListKeysResponse>, Status> {
        let view = session_keys::view(&self.context);
        let unsure_for = view.waits.as_ref().map_or(Duration::ZERO, |waits| waits.unsure_for);
        Ok(Response::new(pb::ListKeysResponse {
            keys: Self::keys(&view),
            rotated_after_ms: millis(self.context.session_key_age),
            progress: view
                .waits
                .map(|Waits { revision, lacking, .. }| self.progress(revision, lacking)),
            unsure_for_ms: millis(unsure_for),
        }))
    }

    async fn rotate_keys(
        &self,
        message: Request<pb::RotateKeysRequest>,
    ) -> Result<Response<pb::RotateKeysResponse>, Status> {
        let pb::RotateKeysRequest { timeout_ms, force, expected_revision, idempotency_key } =
            message.into_inner();
        let options =
            pb::WriteOptions { expected_revision, idempotency_key, ..pb::WriteOptions::default() };
        let content = pb::RotateKeysRequest { force, ..pb::RotateKeysRequest::default() };
        let request = registry::request("RotateKeys", &content, &options)?;
        let wish = RotationRequest {
            force,
            limit: Duration::from_millis(timeout_ms.into()),
            expected_revision,
            idempotency: request.idempotency,
        };
        let rotated = session_keys::rotate(&self.context, wish).await;
        let Rotated { key, revision, lacking } =
            rotated.map_err(|error| status::of_write(&error))?;
        let view = session_keys::view(&self.context);
        Ok(Response::new(pb::RotateKeysResponse {
            id: key.to_string(),
            active: view.waits.is_none(),
            keys: Self::keys(&view),
            progress: Some(self.progress(revision, lacking)),
        }))
    }

    async fn describe_session(
        &self,
        message: Request<pb::DescribeSessionRequest>,
    ) -> Result<Response<pb::DescribeSessionResponse>, Status> {
        let cookie = message.into_inner().cookie;
        if cookie.len() > COOKIE_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "a cookie of {} bytes is none of ours; give the value of one",
                cookie.len()
            )));
        }
        let now_s = unix_ms() / 1000;
        let ring = self.ring();
        let read = |value| Inspected::read(value, ring.as_ref(), now_s).map(|read| (value, read));
        let Some((value, inspected)) = values(cookie.as_bytes()).find_map(read) else {
            let verdict = Refusal::Malformed.name().to_owned();
            return Ok(Response::new(pb::DescribeSessionResponse {
                verdict,
                ..Default::default()
            }));
        };
        let mut answer = pb::DescribeSessionResponse {
            key_id: inspected.key.to_string(),
            pool: inspected.pool.clone(),
            backend: inspected.backend.clone(),
            incarnation: inspected.incarnation.0,
            expires_unix_ms: inspected.expires_s.saturating_mul(1000),
            ..Default::default()
        };
        let pool = PoolName::new(&inspected.pool).ok();
        let found = self.context.registry.read(|view| {
            let pool = view.catalog.pools().get(&pool?)?.value.clone();
            let entry = pool_entry(&view.catalog, &pool);
            let backend = BackendId::new(&inspected.backend).ok();
            let stored = backend.and_then(|id| view.catalog.backends().get(&id).cloned());
            let has_spare = view.catalog.has_spare(&pool);
            Some((pool, entry, has_spare, stored))
        });
        let policy = found.as_ref().and_then(|(pool, ..)| pool.affinity.cookie());
        let (Some(ring), None, Some((pool, entry, has_spare, stored)), Some(policy)) =
            (&ring, inspected.refusal, &found, policy)
        else {
            // Genuine, and its pool is gone or has no sessions any more.
            let refusal = inspected.refusal.unwrap_or(Refusal::WrongPool);
            refusal.name().clone_into(&mut answer.verdict);
            return Ok(Response::new(answer));
        };
        let verified = Session::verify(value, ring, &pool.name, now_s, policy.ttl);
        let stored = stored.as_ref().filter(|stored| stored.value.pool == pool.name);
        let state = stored.and_then(|stored| self.state(entry, *has_spare, stored));
        let presented = Presented::from(verified);
        let met = match resolve(&presented, state.as_ref(), policy.strict, now()) {
            Decision::Keep(_) => Met::Kept,
            // Nobody here knows who is at a cap.
            Decision::Elsewhere(_) => Met::New(NewReason::AtCap),
            Decision::New(reason) | Decision::Refuse { reason, .. } => Met::New(reason),
        };
        met.name().clone_into(&mut answer.verdict);
        answer.strict = policy.strict;
        answer.address = stored.map(|s| s.value.address.to_string()).unwrap_or_default();
        Ok(Response::new(answer))
    }
}

impl SessionsService {
    /// A backend as the proxies know it, but for what each of them sees by itself.
    fn state(
        &self,
        pool: &PoolEntry,
        has_spare: bool,
        stored: &Stored<Backend>,
    ) -> Option<BackendState> {
        let backend = &stored.value;
        let candidates = candidates::by_the_fleet(&pool.pool, has_spare, pool.members());
        let slot = pool.backends.keys().position(|id| *id == backend.id)?;
        let entry = pool.backends.get(&backend.id)?;
        let report = drain::report(&self.context, backend, stored.revision);
        Some(BackendState {
            slot: 0,
            incarnation: backend.incarnation,
            admin_state: backend.admin_state,
            drain_deadline: report.map(|report| now() + report.sessions_left),
            fitness: Fitness::of(entry, candidates.places[slot], false),
        })
    }
}

fn pool_entry(catalog: &Catalog, pool: &Pool) -> PoolEntry {
    let entry = |backend: &Backend| BackendEntry {
        backend: backend.clone(),
        status: catalog.status(backend).cloned(),
    };
    let backends = catalog.backends_of(Some(&pool.name)).into_iter();
    PoolEntry {
        pool: pool.clone(),
        backends: backends.map(|stored| Arc::new(entry(&stored.value))).collect(),
    }
}

/// All that may be the value of a cookie in what somebody has copied: a value, a pair, or a
/// whole field.
fn values(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let pairs = text.split(|byte| matches!(byte, b';' | b' ' | b'\t' | b'\r' | b'\n'));
    pairs.map(|pair| {
        let value = pair.splitn(2, |byte| *byte == b'=').last().unwrap_or(pair);
        value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
    })
}

fn key_status(key: &KeyView) -> pb::SessionKeyStatus {
    pb::SessionKeyStatus {
        id: key.id.to_string(),
        role: key.role.name().to_owned(),
        made_unix_ms: key.made_unix_ms,
        honoured_until_unix_ms: key.honoured_until_unix_ms().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_in_whatever_was_copied() {
        for text in [
            "VALUE",
            "lb_session=VALUE",
            "Cookie: a=1; lb_session=VALUE",
            "Set-Cookie: x=VALUE; Path=/",
        ] {
            assert!(values(text.as_bytes()).any(|value| value == b"VALUE"), "{text}");
        }
    }
}
