//! Bodies of requests: JSON, of at most 1 MiB, and nothing in it that nobody reads.

use std::error::Error;

use axum::{
    body::{Bytes, HttpBody as _},
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use lb_proto::document::in_words;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::connections::TooSlow;

/// Of a request's body, in bytes.
pub(super) const BODY_MAX: usize = 1 << 20;

/// Refuses bodies that do not say that they are JSON: forms of foreign pages cannot. One
/// that is announced as too long is refused before it is sent.
pub(super) async fn json_only(request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > BODY_MAX as u64 {
        return too_large().into_response();
    }
    if request.body().is_end_stream() || is_json(request.headers()) {
        return next.run(request).await;
    }
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "the body must be JSON and say so: add the header Content-Type: application/json",
    )
    .into_response()
}

/// A body, read.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| unreadable(&rejection))?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "invalid",
                format!("the body is no JSON: {}", json_fault(&error)),
            )
        })
    }
}

/// Where a text stops being JSON, and how.
pub(super) fn json_fault(error: &serde_json::Error) -> String {
    let (line, column) = (error.line().max(1), error.column());
    let why = in_words(error);
    format!("{why}, in line {line} at column {column}")
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

fn too_large() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("the body is longer than the {BODY_MAX} bytes that are taken here"),
    )
}

/// What is said of a body that did not come in in time.
pub(super) const TOO_SLOW: &str =
    "the body was not complete in time; send it at once, and the whole length that is announced";

/// Whether the body did not come in in time.
pub(super) fn is_too_slow(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn unreadable(rejection: &BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ if is_too_slow(rejection) => {
            Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", TOO_SLOW)
        }
        _ => Problem::new(
            StatusCode::BAD_REQUEST,
            "invalid",
            format!("the body did not arrive whole: {}", rejection.body_text()),
        ),
    }
}
