//! Refusals, as every route gives them: a status, a word for programs and a sentence for
//! people.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::CACHE_CONTROL},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::registry::WriteError;

/// A refusal.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Problem {
    #[serde(skip)]
    status: StatusCode,
    error: &'static str,
    message: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self { status, error, message: message.into() }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The word for programs.
    pub(super) fn word(&self) -> &'static str {
        self.error
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

/// A rule that holds in gRPC holds here, in the same words.
impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let (status, code) = match &error {
            WriteError::Invalid(_) | WriteError::Malformed(_) => {
                (StatusCode::BAD_REQUEST, "invalid")
            }
            WriteError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            WriteError::AlreadyExists(_) => (StatusCode::CONFLICT, "already_exists"),
            WriteError::RevisionConflict(_) => (StatusCode::CONFLICT, "revision_conflict"),
            WriteError::Precondition(_) => (StatusCode::CONFLICT, "precondition"),
            WriteError::Random(_) => (StatusCode::INTERNAL_SERVER_ERROR, "no_random"),
            WriteError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "store_failed"),
            WriteError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self)).into_response();
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // For who gives refusals another form.
        response.extensions_mut().insert(self);
        response
    }
}
