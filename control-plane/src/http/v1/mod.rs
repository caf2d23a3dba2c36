//! REST: `/v1/...`, one façade over the functions that gRPC calls.
//!
//! | module | does |
//! |---|---|
//! | [`operation`] | the table of all paths and methods: served and described from it |
//! | [`objects`] | reads and writes pools, backends, listeners, routes and limits |
//! | [`apply`] | makes the state what a document declares |
//! | [`observe`], [`events`] | proxies, status, traffic; what happens |
//! | [`session_keys`] | the keys of sessions, without their secrets |
//! | [`collection`] | how the kinds are called |
//! | [`body`], [`query`], [`condition`] | what a request says |
//! | [`answer`], [`plight`], [`limits`], [`fault`] | what it is answered |
//! | [`openapi`] | writes `/openapi.json` |

mod answer;
mod apply;
mod body;
mod collection;
mod condition;
mod events;
mod fault;
mod limits;
mod objects;
mod observe;
mod openapi;
mod operation;
mod plight;
mod query;
mod session_keys;
mod slots;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri},
    middleware::{Next, from_fn, map_response},
    response::IntoResponse as _,
    routing::get,
};

use serde_json::{Value, json};

use self::fault::Fault;
use super::guard;
use crate::grpc::Context;

/// Marks the answer of a request that stored nothing.
const DRY_RUN: HeaderName = HeaderName::from_static("dry-run");

/// `/v1` and everything below it.
pub(super) fn routes() -> Router<Arc<Context>> {
    // The router takes a slash at the end for another path, and that path for none below.
    let with_slash = get(index).fallback(wrong_method).layer(map_response(fault::in_this_form));
    Router::new().nest("/v1", below()).route("/v1/", with_slash)
}

fn below() -> Router<Arc<Context>> {
    let mut router = Router::new().route("/", get(index));
    for operation in operation::all() {
        let known: Arc<[&str]> = operation.about.parameters.into();
        let check = from_fn(move |request: Request, next: Next| {
            let unknown = condition::unknown(&request, &known);
            let is_dry = query::is_dry_run(request.uri().query());
            async move {
                let mut response = match unknown {
                    Some(fault) => fault.into_response(),
                    None => next.run(request).await,
                };
                // An object that is not stored looks like one that is.
                if is_dry && response.status().is_success() {
                    response.headers_mut().insert(DRY_RUN, HeaderValue::from_static("true"));
                }
                response
            }
        });
        router = router.route(operation.path, operation.handler.route_layer(check));
    }
    router
        .method_not_allowed_fallback(wrong_method)
        .fallback(nothing_there)
        .layer(from_fn(body::declared_type))
        .layer(from_fn(guard::same_site))
        .layer(map_response(fault::in_this_form))
}

/// `/openapi.json`: for everybody, since it tells nothing of what is managed.
pub(super) fn description() -> Router<Arc<Context>> {
    Router::new().route("/openapi.json", get(async || Json(openapi::document())))
}

/// What there is, for those who look around.
async fn index() -> Json<Value> {
    let mut paths: Vec<String> =
        operation::all().iter().map(|operation| format!("/v1{}", operation.path)).collect();
    paths.sort_unstable();
    paths.dedup();
    Json(json!({ "description": "/openapi.json", "paths": paths }))
}

async fn nothing_there(uri: Uri) -> Fault {
    let path: String = uri.path().chars().take(80).collect();
    // The router took the prefix off.
    Fault::not_found(format!(
        "there is nothing at /v1{path}; GET /openapi.json describes all there is, such as \
         /v1/pools, /v1/backends, /v1/listeners, /v1/routes, /v1/limits, /v1/session-keys, \
         /v1/proxies and /v1/status"
    ))
}

/// The router adds Allow.
async fn wrong_method(method: Method, uri: Uri) -> Fault {
    let path = uri.path().strip_prefix("/v1").unwrap_or_else(|| uri.path());
    let path: String = path.chars().take(80).collect();
    Fault::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("/v1{path} does not take {method}; the header Allow says what it takes"),
    )
}
