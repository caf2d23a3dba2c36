//! Refusals as `application/problem+json` (RFC 9457): one sentence for people, a type for
//! programs, and every single fault with its place in the body.

use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use lb_core::model::Invalid;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{http::problem::Problem, registry::WriteError};

/// Why a request was refused. Nothing was changed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Fault {
    /// A word for programs: `urn:problem-type:lb:` and `invalid`, `not_found`,
    /// `already_exists`, `stale`, `conflict`, `forbidden` and so on.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: &'static str,
    /// The status of this answer.
    status: u16,
    /// What happened, why, and what to do next.
    detail: String,
    /// All faults of the body, if it is the body that has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<BodyFault>,
}

/// One fault of a body.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BodyFault {
    /// Which value: a JSON pointer (RFC 6901); empty for the body as a whole.
    pub(super) pointer: String,
    /// Of the value in the body, from 1; not given when the body does not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<usize>,
    /// In characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) column: Option<usize>,
    /// What is wrong with it, and the remedy.
    pub(super) detail: String,
}

impl Fault {
    pub(super) fn new(status: StatusCode, word: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:problem-type:lb:{word}"),
            title: status.canonical_reason().unwrap_or("Refused"),
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// 400 without a place.
    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    /// 404.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 412.
    pub(super) fn stale(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "stale", detail)
    }

    /// 400 for a body with these faults; never none.
    pub(super) fn body(errors: Vec<BodyFault>) -> Self {
        let detail = match errors.as_slice() {
            [only] => only.detail.clone(),
            several => format!(
                "the body has {} faults, nothing of it was stored; see errors",
                several.len()
            ),
        };
        Self { errors, ..Self::bad(detail) }
    }

    /// A rule that holds in gRPC holds here, in the same words. Who named a revision gets
    /// 412 when it is not the newest.
    pub(super) fn of(error: &WriteError, conditional: bool) -> Self {
        let detail = error.to_string();
        match error {
            WriteError::Invalid(invalid) => Self::from(invalid),
            WriteError::Malformed(_) => Self::bad(detail),
            WriteError::NotFound(_) => Self::not_found(detail),
            WriteError::AlreadyExists(_) => {
                Self::new(StatusCode::CONFLICT, "already_exists", detail)
            }
            WriteError::RevisionConflict(_) if conditional => Self::stale(detail),
            WriteError::RevisionConflict(_) | WriteError::Precondition(_) => {
                Self::new(StatusCode::CONFLICT, "conflict", detail)
            }
            WriteError::Random(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "no_random", detail)
            }
            WriteError::Store(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", detail)
            }
            WriteError::Stopping => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
            }
        }
    }
}

impl From<&Invalid> for Fault {
    fn from(invalid: &Invalid) -> Self {
        let key = invalid.field.rsplit_once('.').map_or(invalid.field, |(_, key)| key);
        Self::body(vec![BodyFault {
            pointer: format!("/{key}"),
            line: None,
            column: None,
            detail: invalid.message.clone(),
        }])
    }
}

/// What is refused before it gets here, in the form of this face.
impl From<&Problem> for Fault {
    fn from(problem: &Problem) -> Self {
        Self::new(problem.status(), problem.word(), problem.message())
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Rewrites the refusals of what all management shares: the guard, for one.
pub(super) async fn in_this_form(response: Response) -> Response {
    match response.extensions().get::<Problem>() {
        Some(problem) => Fault::from(problem).into_response(),
        None => response,
    }
}
