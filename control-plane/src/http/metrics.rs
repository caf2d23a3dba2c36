//! `GET /metrics`, as Prometheus wants it.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use lb_core::metrics::Format;
use tracing::warn;

use super::problem::Problem;
use crate::{grpc::Context, metrics::scrape};

pub(super) fn routes() -> Router<Arc<Context>> {
    Router::new().route("/metrics", get(answer))
}

async fn answer(State(context): State<Arc<Context>>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::wanted(accept.unwrap_or_default());
    // With very many backends it takes a while, in which others want their turn.
    let written = tokio::task::spawn_blocking(move || scrape(&context, format)).await;
    match written {
        Ok(Ok(text)) => {
            let fields = [(CONTENT_TYPE, format.content_type()), (CACHE_CONTROL, "no-store")];
            (fields, text).into_response()
        }
        failed => {
            warn!(?failed, "metrics could not be written");
            let message = "metrics could not be written; see the log of the control plane";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message.to_owned())
                .into_response()
        }
    }
}
