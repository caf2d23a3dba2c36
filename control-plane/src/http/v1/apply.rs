//! `POST /v1/apply`: what `lbctl apply` does, in one request.

use axum::{body::Body, http::StatusCode, response::Response};
use lb_core::model::{Kind, Resource};
use lb_proto::document::{self, Action, Change, Declaration, Format, Source};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    answer::{self, AppliedAnswer},
    body::{TOML, faults, media_type, text},
    condition::{Condition, etag},
    fault::Fault,
    objects::Asked,
    query::{BATCH, Query},
};
use crate::{
    declared::objects,
    grpc::Applied,
    registry::{Item, PutMode, WriteError, WriteRequest, Written},
};

/// How often the document is compared again when the state changed meanwhile.
const ATTEMPTS_MAX: u32 = 20;

/// What became of a document.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApplyAnswer {
    /// Of the store afterwards.
    revision: u64,
    /// Whether anything was changed, or would be.
    changed: bool,
    /// Whether it was only asked what would be.
    dry_run: bool,
    /// One for each declared object, and for each that is removed.
    changes: Vec<ChangeAnswer>,
    /// Of a request that waits, and that changed something.
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<AppliedAnswer>,
}

/// What becomes of one object.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChangeAnswer {
    kind: &'static str,
    name: String,
    /// `created`, `changed`, `unchanged` or `removed`.
    action: &'static str,
    /// The keys that change; of a new object, those that differ from the defaults.
    fields: Vec<FieldAnswer>,
}

/// A key that changes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FieldAnswer {
    key: String,
    /// Not given when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<Value>,
    /// Not given when there is none from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<Value>,
}

pub(super) async fn apply(asked: &Asked, body: Body) -> Result<Response, Fault> {
    let query = Query::read(asked.uri.query(), BATCH)?;
    let condition = Condition::read(&asked.fields)?;
    let format = if media_type(&asked.fields) == TOML { Format::Toml } else { Format::Json };
    let text = text(body).await?;
    let source = Source { name: "body".to_owned(), text, format };
    let mut attempt = 1;
    loop {
        let (revision, current) = asked
            .context
            .registry
            .read(|view| (view.publisher.version().revision, objects(&view.catalog)));
        let expected = match condition.expected(Some(revision))? {
            0 => revision,
            given => given,
        };
        let known = |kind: Kind, name: &str| {
            current.iter().any(|object| object.kind() == kind && object.name() == name)
        };
        let declared = Declaration::read(std::slice::from_ref(&source), known)
            .map_err(|problems| faults(&problems, &source, &source.text, 0))?;
        let changes = document::changes(&declared, &current, query.prune);
        match write(asked, &query, &source, expected, &changes).await {
            Ok((written, applied)) => {
                let answer = ApplyAnswer {
                    revision: written.revision,
                    changed: written.changed,
                    dry_run: query.dry_run,
                    changes: told(changes, &written),
                    applied: applied.map(AppliedAnswer::from),
                };
                let mut response = answer::json(StatusCode::OK, &answer);
                response.headers_mut().insert(axum::http::header::ETAG, etag(written.revision));
                return Ok(response);
            }
            Err(WriteError::RevisionConflict(_))
                if !condition.is_given() && attempt < ATTEMPTS_MAX =>
            {
                attempt += 1;
            }
            Err(error) => return Err(Fault::of(&error, condition.is_given())),
        }
    }
}

async fn write(
    asked: &Asked,
    query: &Query,
    source: &Source,
    expected_revision: u64,
    changes: &[Change],
) -> Result<(Written, Option<Applied>), WriteError> {
    let idempotency = asked.idempotency(query, &source.text)?;
    let items: Vec<Item> = changes
        .iter()
        .filter(|change| change.is_needed())
        .map(|change| match &change.resource {
            Some(resource) => Item::Put {
                resource: Box::new(resource.clone()),
                mode: PutMode::Upsert,
                assign_id: change.without_id,
            },
            None => Item::Delete { kind: change.kind, name: change.name.clone() },
        })
        .collect();
    let request = WriteRequest {
        items,
        expected_revision,
        force: query.force,
        dry_run: query.dry_run,
        batch: true,
        idempotency,
        ..WriteRequest::default()
    };
    asked.context.write(request, query.wait).await
}

/// The changes as they are answered; new backends by the ids that they got.
fn told(changes: Vec<Change>, written: &Written) -> Vec<ChangeAnswer> {
    let mut stored = written.objects.iter().map(|stored| &stored.value);
    let answers = changes.into_iter().map(|change| {
        let put =
            (change.is_needed() && change.resource.is_some()).then(|| stored.next()).flatten();
        let name = put.map(Resource::name).filter(|_| change.without_id);
        ChangeAnswer {
            kind: change.kind.name(),
            name: name.map_or(change.name, str::to_owned),
            action: Action::name(change.action),
            fields: change
                .fields
                .into_iter()
                .map(|field| FieldAnswer { key: field.key, old: field.old, new: field.new })
                .collect(),
        }
    });
    answers.collect()
}
