//! The HTTP port.
//!
//! | module | does |
//! |---|---|
//! | [`health`] | `/livez` and `/readyz` |
//! | [`guard`] | keeps requests of other sites' pages out of management |
//! | [`body`] | reads JSON |
//! | [`lb`] | the management routes of small balancers, `/lb/...` |
//! | [`metrics`] | `/metrics` |
//! | [`v1`] | REST, `/v1/...`, and its description, `/openapi.json` |
//! | [`problem`] | refusals, as JSON |
//!
//! Every answer that is no success is `{"error": ..., "message": ...}`, and under `/v1` a
//! problem as RFC 9457 has it.

mod body;
mod guard;
mod health;
mod lb;
mod metrics;
mod problem;
mod v1;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::DefaultBodyLimit,
    http::{Method, Request, StatusCode, Uri},
    middleware::from_fn,
    response::IntoResponse,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tracing::debug;

use self::{guard::Transport, problem::Problem};
use crate::{
    connections::{Connections, Handshake, Watched, linger},
    grpc::Context,
    listen::Listener,
};

/// For a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For its body, from the end of its head.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a request's head, and of what waits for a slow reader; the server's own is 400 KiB.
const BUFFER_MAX: usize = 16 * 1024;
/// The first byte has the time of a head, which is watched elsewhere.
const HANDSHAKE: Handshake = Handshake { bytes: 0, limit: HEAD_TIMEOUT };

/// Serves until the context is stopped.
pub(crate) async fn serve(listener: Listener, connections_max: usize, context: Arc<Context>) {
    let routes = routes(&context);
    let transport = match &listener {
        Listener::Tcp(_) => Transport::Tcp,
        Listener::Unix(_) => Transport::Unix,
    };
    let connections = Connections::new("http", connections_max);
    let accept = async {
        loop {
            let stream = connections.next(&listener, HANDSHAKE).await;
            let connection = connection(stream, transport, routes.clone());
            let stop = context.stop.clone();
            context.tracker.spawn(async move { stop.run_until_cancelled(connection).await });
        }
    };
    context.stop.run_until_cancelled::<_>(accept).await.unwrap_or(());
}

/// Everything that is answered here. What manages is guarded; health and
/// metrics are for everybody, because scrapers ask by whatever name they know.
fn routes(context: &Arc<Context>) -> Router {
    let management = Router::new()
        .merge(lb::routes())
        .layer(from_fn(body::json_only))
        .layer(DefaultBodyLimit::max(body::BODY_MAX))
        .layer(from_fn(guard::same_site));
    Router::new()
        .merge(health::routes())
        .merge(metrics::routes())
        .merge(management)
        .merge(v1::description())
        .merge(v1::routes())
        .method_not_allowed_fallback(wrong_method)
        .fallback(nothing_there)
        .layer(from_fn(guard::one_host))
        .with_state(Arc::clone(context))
}

async fn connection(stream: Watched, transport: Transport, routes: Router) {
    let routes = TowerToHyperService::new(routes);
    let peer = stream.peer();
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut head, body) = request.into_parts();
        head.extensions.insert(transport);
        let (body, begun) = peer.begin(body, Some(BODY_TIMEOUT));
        let request = Request::from_parts(head, Body::new(body));
        let answer = hyper::service::Service::call(&routes, request);
        async move { Ok::<_, Infallible>(begun.answer(answer.await?)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match connection.without_shutdown().await {
        Ok(parts) => linger(parts.io.into_inner(), u64::MAX).await,
        Err(error) => debug!(%error, "http connection failed"),
    }
}

async fn nothing_there(uri: Uri) -> impl IntoResponse {
    let path: String = uri.path().chars().take(80).collect();
    // By a proxy that exposes /lb/, the other paths lead to backends.
    let there_are = if path.starts_with("/lb/") {
        "/lb/health, /lb/stats, /lb/backends and /lb/config"
    } else {
        "/v1 (see /openapi.json), /lb/health, /lb/stats, /lb/backends, /lb/config, /livez, /readyz \
         and /metrics"
    };
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        format!("there is nothing at {path}; there are {there_are}"),
    )
}

/// The router adds Allow.
async fn wrong_method(method: Method, uri: Uri) -> impl IntoResponse {
    let path: String = uri.path().chars().take(80).collect();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{path} does not take {method}; the header Allow says what it takes"),
    )
}
