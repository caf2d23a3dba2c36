//! Reading and writing single objects of the five kinds.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode, Uri,
        header::{ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION},
    },
    response::Response,
};
use lb_core::{
    model::{AdminState, DrainWish, Kind, PoolName, Resource},
    sync::Object,
};
use lb_proto::document;
use serde_json::{Map, Value, json};

use super::{
    answer::{self, AppliedAnswer, Found, not_modified},
    body::{self, Declared},
    collection::Collection,
    condition::{Condition, etag},
    fault::Fault,
    query::{DRAIN, Query, WRITE},
};
use crate::{
    grpc::{Applied, Context},
    registry::{Item, PutMode, Stored, WriteError, WriteRequest, Written},
};

/// How often a change is tried again when somebody else was faster.
const ATTEMPTS_MAX: u32 = 20;
/// Of an idempotency key, in bytes.
const KEY_MAX: usize = 255;

/// A request without its body.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) context: Arc<Context>,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) fields: HeaderMap,
}

/// `GET /v1/KIND`
pub(super) fn list(asked: &Asked, collection: &Collection) -> Result<Response, Fault> {
    let known: &[&str] = if collection.kind == Kind::Backend { &["pool"] } else { &[] };
    let query = Query::read(asked.uri.query(), known)?;
    let condition = Condition::read(&asked.fields)?;
    let (found, revision) = asked.context.registry.read(|view| {
        let catalog = &view.catalog;
        let stored: Vec<Stored<Resource>> = match &query.pool {
            Some(pool) => {
                let pool = PoolName::new(pool).map_err(|invalid| Fault::from(&invalid))?;
                if !catalog.pools().contains_key(&pool) {
                    return Err(missing("pool", pool.as_str(), &catalog.names(Kind::Pool)));
                }
                let of_pool = catalog.backends_of(Some(&pool)).into_iter();
                of_pool
                    .map(|stored| Stored {
                        value: Resource::Backend(stored.value.clone()),
                        revision: stored.revision,
                    })
                    .collect()
            }
            None => {
                let names = catalog.names(collection.kind).into_iter();
                names.filter_map(|name| catalog.find(collection.kind, name)).collect()
            }
        };
        let found: Vec<Found> =
            stored.into_iter().map(|stored| Found::new(catalog, stored)).collect();
        Ok((found, view.publisher.version().revision))
    })?;
    if condition.holds(revision) {
        return Ok(not_modified(revision));
    }
    let totals = asked.context.statistics.pools();
    let items: Vec<Map<String, Value>> =
        found.into_iter().map(|found| found.into_fields(&asked.context, &totals)).collect();
    let body = json!({ "items": items, "revision": revision });
    let mut response = answer::json(StatusCode::OK, &body);
    response.headers_mut().insert(ETAG, etag(revision));
    Ok(response)
}

/// `GET /v1/KIND/NAME`
pub(super) fn get(asked: &Asked, collection: &Collection, name: &str) -> Result<Response, Fault> {
    Query::read(asked.uri.query(), &[])?;
    let condition = Condition::read(&asked.fields)?;
    let found = find(&asked.context, collection.kind, name)?;
    if condition.holds(found.revision()) {
        return Ok(not_modified(found.revision()));
    }
    Ok(found.into_response(&asked.context, StatusCode::OK, None, None))
}

/// `POST /v1/KIND`: creates.
pub(super) async fn post(
    asked: &Asked,
    collection: &Collection,
    body: Body,
) -> Result<Response, Fault> {
    let query = Query::read(asked.uri.query(), WRITE)?;
    let text = body::text(body).await?;
    let declared = body::read(collection, None, &text)?;
    let assign_id = declared.without_id;
    let resource = Box::new(declared.resource);
    let item = Item::Put { resource, mode: PutMode::Create, assign_id };
    let (written, applied) = asked
        .write(&query, item, declared.revision, &text)
        .await
        .map_err(|error| Fault::of(&error, declared.revision != 0))?;
    answer(asked, &query, collection, StatusCode::CREATED, &written, applied)
}

/// `PUT /v1/KIND/NAME`: creates or replaces.
pub(super) async fn put(
    asked: &Asked,
    collection: &Collection,
    name: &str,
    body: Body,
) -> Result<Response, Fault> {
    let query = Query::read(asked.uri.query(), WRITE)?;
    let condition = Condition::read(&asked.fields)?;
    let text = body::text(body).await?;
    let Declared { resource, revision: of_body, .. } = body::read(collection, Some(name), &text)?;
    let creates = condition.creates()?;
    if let Some((written, applied)) = asked.repeated(&query, &text).await? {
        return answer(asked, &query, collection, StatusCode::OK, &written, applied);
    }
    let mut attempt = 1;
    loop {
        let former = asked.revision_of(collection.kind, name);
        let of_field = condition.expected(former)?;
        if of_field != 0 && of_body != 0 && of_field != of_body {
            return Err(Fault::bad(format!(
                "If-Match names revision {of_field} and the body {of_body}; give one of them"
            )));
        }
        // What is created and what is replaced is told apart by the status, so it is decided
        // here, and again if somebody comes between.
        let mode = if former.is_some() && !creates { PutMode::Replace } else { PutMode::Create };
        let resource = Box::new(resource.clone());
        let item = Item::Put { resource, mode, assign_id: false };
        let expected = if of_field == 0 { of_body } else { of_field };
        match asked.write(&query, item, expected, &text).await {
            Ok((written, applied)) => {
                let status = if former.is_some() { StatusCode::OK } else { StatusCode::CREATED };
                return answer(asked, &query, collection, status, &written, applied);
            }
            Err(_)
                if attempt < ATTEMPTS_MAX
                    && asked.revision_of(collection.kind, name).is_some() != former.is_some() =>
            {
                attempt += 1;
            }
            Err(error @ WriteError::AlreadyExists(_)) if creates && former.is_some() => {
                return Err(Fault::stale(error.to_string()));
            }
            Err(error) => return Err(Fault::of(&error, condition.is_given() || of_body != 0)),
        }
    }
}

/// `PATCH /v1/KIND/NAME`: changes some keys.
pub(super) async fn patch(
    asked: &Asked,
    collection: &Collection,
    name: &str,
    body: Body,
) -> Result<Response, Fault> {
    let query = Query::read(asked.uri.query(), WRITE)?;
    let condition = Condition::read(&asked.fields)?;
    let text = body::text(body).await?;
    if let Some((written, applied)) = asked.repeated(&query, &text).await? {
        return answer(asked, &query, collection, StatusCode::OK, &written, applied);
    }
    let mut attempt = 1;
    loop {
        let stored = asked.context.registry.read(|view| {
            let found = view.catalog.find(collection.kind, name);
            found.ok_or_else(|| {
                missing(collection.kind.name(), name, &view.catalog.names(collection.kind))
            })
        })?;
        let of_field = condition.expected(Some(stored.revision))?;
        let declared = body::patch(collection, &stored.value, &text)?;
        let conditional = condition.is_given() || declared.revision != 0;
        // The keys that the patch leaves alone were read just now: they must still be so.
        let given = [of_field, declared.revision].into_iter().find(|revision| *revision != 0);
        let expected = given.unwrap_or(stored.revision);
        let resource = Box::new(declared.resource);
        let item = Item::Put { resource, mode: PutMode::Replace, assign_id: false };
        match asked.write(&query, item, expected, &text).await {
            Ok((written, applied)) => {
                return answer(asked, &query, collection, StatusCode::OK, &written, applied);
            }
            Err(WriteError::RevisionConflict(_)) if !conditional && attempt < ATTEMPTS_MAX => {
                attempt += 1;
            }
            Err(error) => return Err(Fault::of(&error, conditional)),
        }
    }
}

/// `DELETE /v1/KIND/NAME`
pub(super) async fn delete(
    asked: &Asked,
    collection: &Collection,
    name: &str,
) -> Result<Response, Fault> {
    let query = Query::read(asked.uri.query(), WRITE)?;
    let condition = Condition::read(&asked.fields)?;
    let expected = match asked.revision_of(collection.kind, name) {
        Some(found) => condition.expected(Some(found))?,
        // The registry says so best, with the names that there are.
        None => 0,
    };
    let item = Item::Delete { kind: collection.kind, name: name.to_owned() };
    let (written, applied) = asked
        .write(&query, item, expected, "")
        .await
        .map_err(|error| Fault::of(&error, condition.is_given()))?;
    let mut body = json!({
        "kind": collection.kind.name(),
        "name": name,
        "removed": true,
        "revision": written.revision,
    });
    if let Some(applied) = applied {
        body["applied"] = serde_json::to_value(AppliedAnswer::from(applied)).unwrap_or_default();
    }
    Ok(answer::json(StatusCode::OK, &body))
}

/// `POST /v1/backends/ID/enable` and its like.
pub(super) async fn set_state(
    asked: &Asked,
    collection: &Collection,
    id: &str,
    state: AdminState,
) -> Result<Response, Fault> {
    let known = if state == AdminState::Draining { DRAIN } else { WRITE };
    let query = Query::read(asked.uri.query(), known)?;
    let drain = DrainWish::new(query.timeout, query.remove)
        .map_err(|invalid| Fault::of(&invalid.into(), false))?;
    let condition = Condition::read(&asked.fields)?;
    let expected = match asked.revision_of(Kind::Backend, id) {
        Some(found) => condition.expected(Some(found))?,
        None => 0,
    };
    let item = Item::SetState { id: id.to_owned(), state, drain };
    let (written, applied) = asked
        .write(&query, item, expected, "")
        .await
        .map_err(|error| Fault::of(&error, condition.is_given()))?;
    answer(asked, &query, collection, StatusCode::OK, &written, applied)
}

impl Asked {
    async fn write(
        &self,
        query: &Query,
        item: Item,
        expected_revision: u64,
        text: &str,
    ) -> Result<(Written, Option<Applied>), WriteError> {
        let request = WriteRequest {
            items: vec![item],
            expected_revision,
            dry_run: query.dry_run,
            idempotency: self.idempotency(query, text)?,
            ..WriteRequest::default()
        };
        self.context.write(request, query.wait).await
    }

    /// What this request was answered when it was made before, with the same key: whatever has
    /// changed since, so that this is found before anything else is looked at.
    pub(super) async fn repeated(
        &self,
        query: &Query,
        text: &str,
    ) -> Result<Option<(Written, Option<Applied>)>, Fault> {
        let found = async {
            let Some((key, fingerprint)) = self.idempotency(query, text)? else { return Ok(None) };
            self.context.registry.answered(key, fingerprint).await
        };
        let found = found.await.map_err(|error| Fault::of(&error, false))?;
        let Some(written) = found else { return Ok(None) };
        let applied = self.context.wait_applied(written.revision, query.wait).await;
        Ok(Some((written, applied)))
    }

    /// The key of `Idempotency-Key`, and what tells this request from others with it: the
    /// method, the path with what the query wishes, the condition and the body. A dry run is no write: it neither finds nor leaves an
    /// answer.
    pub(super) fn idempotency(
        &self,
        query: &Query,
        text: &str,
    ) -> Result<Option<(String, u128)>, WriteError> {
        let Some(value) = self.fields.get("idempotency-key") else { return Ok(None) };
        let key = value.to_str().unwrap_or_default().trim().trim_matches('"').to_owned();
        if key.is_empty() || key.len() > KEY_MAX {
            return Err(WriteError::Malformed(format!(
                "the header Idempotency-Key must have 1 to {KEY_MAX} visible characters; use a \
                 new UUID for each change"
            )));
        }
        if query.dry_run {
            return Ok(None);
        }
        let said = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let condition = self.fields.get(IF_MATCH).map(said).unwrap_or_default();
        let mut subject = format!("{} {condition} {}", self.uri.path(), query.prune);
        // What is not said leaves no trace: what a former build has answered is found again.
        for (name, said) in [
            ("force", query.force.then(String::new)),
            ("remove", query.remove.then(String::new)),
            ("timeout", query.timeout.map(|timeout| format!("{timeout:?}"))),
            ("if-none-match", self.fields.get(IF_NONE_MATCH).map(said)),
        ] {
            if let Some(said) = said {
                subject.push_str(&format!(" {name}={said}"));
            }
        }
        let subject = lb_core::model::Key::new(self.method.as_str(), &subject);
        let payload = bytes::Bytes::copy_from_slice(text.as_bytes());
        let content = Object { key: subject, revision: 0, payload };
        Ok(Some((key, content.hash().0)))
    }

    fn revision_of(&self, kind: Kind, name: &str) -> Option<u64> {
        self.context
            .registry
            .read(|view| view.catalog.find(kind, name).map(|stored| stored.revision))
    }
}

fn find(context: &Context, kind: Kind, name: &str) -> Result<Found, Fault> {
    context.registry.read(|view| {
        let stored = view.catalog.find(kind, name);
        let stored = stored.ok_or_else(|| missing(kind.name(), name, &view.catalog.names(kind)))?;
        Ok(Found::new(&view.catalog, stored))
    })
}

/// 404, with the names that there are.
pub(super) fn missing(kind: &str, name: &str, known: &[&str]) -> Fault {
    Fault::not_found(document::missing(kind, name, known))
}

fn answer(
    asked: &Asked,
    query: &Query,
    collection: &Collection,
    status: StatusCode,
    written: &Written,
    applied: Option<Applied>,
) -> Result<Response, Fault> {
    let Some(stored) = written.objects.first() else {
        // Only the repetition of a write with an idempotency key finds nothing.
        return Err(Fault::new(
            StatusCode::CONFLICT,
            "conflict",
            format!(
                "this write was made before, at revision {}, and what it wrote was removed since; \
                 use a new Idempotency-Key to write it again",
                written.revision
            ),
        ));
    };
    let found = asked.context.registry.read(|view| Found::new(&view.catalog, stored.clone()));
    let location = (status == StatusCode::CREATED).then_some(collection);
    let mut response = found.into_response(&asked.context, status, applied, location);
    if query.dry_run {
        // Nothing is there, and nothing has that revision.
        response.headers_mut().remove(ETAG);
        response.headers_mut().remove(LOCATION);
    }
    Ok(response)
}
