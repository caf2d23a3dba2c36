//! The sessions service: keys without their secrets, and what one session is.

use std::{sync::Arc, time::Duration};

use lb_core::{
    affinity::{
        BackendState, Decision, Fitness, Inspected, KeyRing, Met, NewReason, Presented, Refusal,
        RingKey, Role, Session, decision::resolve,
    },
    health::candidates::{self, is_ejected},
    model::{Backend, BackendEntry, BackendId, Pool, PoolEntry, PoolName},
};
use lb_proto::v1::{self as pb, sessions_server};
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::{Context, status, wire};
use crate::{
    clock::{millis, now, unix_ms},
    drain,
    registry::{Catalog, KeyStep, Stored},
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

    fn ring(&self) -> Option<(KeyRing, u64)> {
        self.context.registry.read(|view| {
            let stored = view.catalog.session_keys()?;
            Some((stored.value.ring.clone(), stored.revision))
        })
    }

    fn keys(&self) -> Vec<pb::SessionKeyStatus> {
        let ring = self.ring();
        ring.iter().flat_map(|(ring, _)| ring.keys()).map(key_status).collect()
    }

    /// How far a ring got.
    fn progress(&self, revision: u64) -> pb::ApplyProgress {
        wire::apply_progress(self.context.fleet.progress(revision), Duration::ZERO)
    }
}

#[tonic::async_trait]
impl sessions_server::Sessions for SessionsService {
    async fn list_keys(
        &self,
        _: Request<pb::ListKeysRequest>,
    ) -> Result<Response<pb::ListKeysResponse>, Status> {
        let announced = self.ring().filter(|(ring, _)| ring.next().is_some());
        Ok(Response::new(pb::ListKeysResponse {
            keys: self.keys(),
            rotated_after_ms: millis(self.context.session_key_age),
            progress: announced.map(|(_, revision)| self.progress(revision)),
        }))
    }

    async fn rotate_keys(
        &self,
        message: Request<pb::RotateKeysRequest>,
    ) -> Result<Response<pb::RotateKeysResponse>, Status> {
        let limit = Duration::from_millis(message.into_inner().timeout_ms.into());
        let registry = &self.context.registry;
        let mut revisions = registry.revisions();
        let announced = registry.step_keys(KeyStep::Announce).await;
        let revision = announced.map_err(|error| status::of_write(&error))?;
        let deadline = Instant::now() + limit;
        let mut new = None;
        loop {
            revisions.mark_unchanged();
            let Some((ring, _)) = self.ring() else { break };
            let next = ring.next().map(|key| key.id());
            // It may have come to sign before anybody looked.
            new = new.or(next).or_else(|| Some(ring.active().id()));
            if next.is_none() {
                break;
            }
            if !matches!(timeout_at(deadline, revisions.changed()).await, Ok(Ok(()))) {
                break;
            }
        }
        let keys = self.keys();
        Ok(Response::new(pb::RotateKeysResponse {
            id: new.map(|id| id.to_string()).unwrap_or_default(),
            active: keys.iter().all(|key| key.role != Role::Next.name()),
            keys,
            progress: Some(self.progress(revision)),
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
        let ring = self.ring().map(|(ring, _)| ring);
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
            Some((pool, entry, stored))
        });
        let policy = found.as_ref().and_then(|(pool, ..)| pool.affinity.cookie());
        let (Some(ring), None, Some((pool, entry, stored)), Some(policy)) =
            (&ring, inspected.refusal, &found, policy)
        else {
            // Genuine, and its pool is gone or has no sessions any more.
            let refusal = inspected.refusal.unwrap_or(Refusal::WrongPool);
            refusal.name().clone_into(&mut answer.verdict);
            return Ok(Response::new(answer));
        };
        let verified = Session::verify(value, ring, &pool.name, now_s, policy.ttl);
        let stored = stored.as_ref().filter(|stored| stored.value.pool == pool.name);
        let state = stored.and_then(|stored| self.state(entry, stored));
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
    fn state(&self, pool: &PoolEntry, stored: &Stored<Backend>) -> Option<BackendState> {
        let backend = &stored.value;
        let candidates = candidates::of(pool, |_, entry| is_ejected(entry));
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
        backends: backends
            .map(|stored| (stored.value.id.clone(), Arc::new(entry(&stored.value))))
            .collect(),
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

fn key_status(held: &RingKey) -> pb::SessionKeyStatus {
    pb::SessionKeyStatus {
        id: held.key.id().to_string(),
        role: held.role.name().to_owned(),
        made_unix_ms: held.key.made_s().saturating_mul(1000),
        honoured_until_unix_ms: match held.role {
            Role::Retired { honoured_until_s } => honoured_until_s.saturating_mul(1000),
            Role::Active | Role::Next => 0,
        },
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
