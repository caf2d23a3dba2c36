//! `/v1/session-keys`: which keys there are, and their rotation. Never their secrets.

use axum::{
    http::{StatusCode, header::ETAG},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    answer::{json as answer, not_modified},
    condition::{Condition, etag},
    fault::Fault,
    objects::Asked,
    query::Query,
};
use crate::{
    clock::millis,
    fleet::Laggard,
    session_keys::{self, KeyView, KeysView, RotationRequest, Waits},
};

/// The keys that sign sessions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionKeys)]
pub(super) struct SessionKeysAnswer {
    /// At which they were last changed, also the ETag; 0 without any.
    revision: u64,
    /// The active one first; none while no pool has ever had sessions.
    keys: Vec<SessionKeyAnswer>,
    /// After how long a key is replaced by itself; 0: never.
    rotated_after_ms: u64,
    /// What the next key waits for before it signs; nothing without one.
    waits_for: Option<SessionKeyWaits>,
}

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionKey)]
pub(super) struct SessionKeyAnswer {
    /// Eight hexadecimal digits.
    id: String,
    /// `active`, `next` or `retired`.
    role: &'static str,
    made_unix_ms: u64,
    /// Of a retired key: until when sessions that it signed are believed.
    honoured_until_unix_ms: Option<u64>,
}

/// What the next key waits for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionKeyWaits {
    /// Connected proxies that lack it, and will have it in a moment, unless they refuse it.
    behind: Vec<SessionKeyLack>,
    /// Proxies that are cut off and may be serving without it: it does not sign before they are
    /// back, or have been lost for a day, unless it is forced.
    lost: Vec<SessionKeyLack>,
    /// For how long it does not sign by itself, because the control plane was restarted and cannot
    /// know of proxies that were cut off before; 0 once somebody has asked for it.
    unsure_for_ms: u64,
}

/// A proxy that lacks it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionKeyLack {
    proxy: String,
    /// Since it was last heard of.
    last_seen_ms: u64,
    /// Why it refuses the state that has the key; empty when it does not.
    refusal: String,
}

/// Those of a rotation.
const ROTATE: &[&str] = &["force", "wait"];

/// `GET /v1/session-keys`
pub(super) fn list(asked: &Asked) -> Result<Response, Fault> {
    Query::read(asked.uri.query(), &[])?;
    let condition = Condition::read(&asked.fields)?;
    let view = session_keys::view(&asked.context);
    if condition.holds(view.revision) {
        return Ok(not_modified(view.revision));
    }
    Ok(told(asked, view))
}

/// `POST /v1/session-keys/rotate`
pub(super) async fn rotate(asked: &Asked) -> Result<Response, Fault> {
    let query = Query::read(asked.uri.query(), ROTATE)?;
    let condition = Condition::read(&asked.fields)?;
    let idempotency = asked.idempotency(&query, "").map_err(|error| Fault::of(&error, false))?;
    let revision = session_keys::view(&asked.context).revision;
    let expected_revision = condition.expected((revision != 0).then_some(revision))?;
    let limit = query.wait.unwrap_or_default();
    let wish = RotationRequest { force: query.force, limit, expected_revision, idempotency };
    let rotated = session_keys::rotate(&asked.context, wish).await;
    rotated.map_err(|error| Fault::of(&error, condition.is_given()))?;
    Ok(told(asked, session_keys::view(&asked.context)))
}

fn told(asked: &Asked, view: KeysView) -> Response {
    let KeysView { keys, revision, waits } = view;
    let body = SessionKeysAnswer {
        revision,
        keys: keys.iter().map(SessionKeyAnswer::from).collect(),
        rotated_after_ms: millis(asked.context.session_key_age),
        waits_for: waits.map(SessionKeyWaits::from),
    };
    let mut response = answer(StatusCode::OK, &body);
    response.headers_mut().insert(ETAG, etag(revision));
    response
}

impl From<&KeyView> for SessionKeyAnswer {
    fn from(key: &KeyView) -> Self {
        Self {
            id: key.id.to_string(),
            role: key.role.name(),
            made_unix_ms: key.made_unix_ms,
            honoured_until_unix_ms: key.honoured_until_unix_ms(),
        }
    }
}

impl From<Waits> for SessionKeyWaits {
    fn from(Waits { lacking, unsure_for, .. }: Waits) -> Self {
        let (lost, behind): (Vec<Laggard>, Vec<Laggard>) =
            lacking.into_iter().partition(|laggard| laggard.lost);
        let told = |all: Vec<Laggard>| all.iter().map(SessionKeyLack::from).collect();
        Self { behind: told(behind), lost: told(lost), unsure_for_ms: millis(unsure_for) }
    }
}

impl From<&Laggard> for SessionKeyLack {
    fn from(laggard: &Laggard) -> Self {
        Self {
            proxy: laggard.proxy.to_string(),
            last_seen_ms: millis(laggard.last_seen.elapsed()),
            refusal: laggard.refusal.clone().unwrap_or_default(),
        }
    }
}
