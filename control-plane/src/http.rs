//! The HTTP endpoint: is this process alive, and does it do its work?
//!
//! | path | answer |
//! |---|---|
//! | `GET /livez` | 200 while the process serves |
//! | `GET /readyz` | 200 when writes are taken and proxies served, else 503 |
//!
//! `?verbose` lists what was looked at, one line each. Anything else is 404 as JSON.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use crate::{grpc::Context, listen::Listener};

type Answer = Response<Full<Bytes>>;

/// Serves until the context is stopped.
pub(crate) async fn serve(listener: Listener, context: Arc<Context>) {
    let stop = context.stop.clone();
    loop {
        let accepted = match &listener {
            Listener::Tcp(listener) => stop.run_until_cancelled(listener.accept()).await.map(|a| {
                a.map(|(stream, _)| {
                    context.tracker.spawn(connection(stream, Arc::clone(&context)));
                })
            }),
            Listener::Unix(listener) => {
                stop.run_until_cancelled(listener.accept()).await.map(|a| {
                    a.map(|(stream, _)| {
                        context.tracker.spawn(connection(stream, Arc::clone(&context)));
                    })
                })
            }
        };
        match accepted {
            None => return,
            Some(Ok(())) => {}
            Some(Err(error)) => {
                // Out of descriptors, most likely; a pause keeps this from spinning.
                debug!(%error, "accepting failed");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection<S>(stream: S, context: Arc<Context>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stop = context.stop.clone();
    let service = service_fn(move |request| {
        let context = Arc::clone(&context);
        async move { Ok::<_, Infallible>(answer(&request, &context)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(std::time::Duration::from_secs(10))
        .serve_connection(TokioIo::new(stream), service);
    if let Some(Err(error)) = stop.run_until_cancelled(connection).await {
        debug!(%error, "http connection failed");
    }
}

fn answer(request: &Request<Incoming>, context: &Context) -> Answer {
    let path = request.uri().path();
    if !matches!(path, "/livez" | "/readyz") {
        return problem(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is nothing at this path; try /livez or /readyz",
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer =
            problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "use GET or HEAD");
        answer.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    let checks = if path == "/livez" { vec![("process", true)] } else { readiness(context) };
    let good = checks.iter().all(|(_, good)| *good);
    let verbose = request.uri().query().is_some_and(|q| q.split('&').any(|p| p == "verbose"));
    let mut body = String::new();
    if verbose || !good {
        for (name, good) in checks {
            body += &format!("[{}] {name}\n", if good { '+' } else { '-' });
        }
    }
    body += if good { "ok\n" } else { "not ready\n" };
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond(status, "text/plain; charset=utf-8", body)
}

fn readiness(context: &Context) -> Vec<(&'static str, bool)> {
    vec![
        ("store loaded and writable", context.registry.takes_writes()),
        ("serving proxies", !context.stop.is_cancelled()),
    ]
}

/// An error as JSON. Both texts are our own and need no escaping.
fn problem(status: StatusCode, code: &str, message: &str) -> Answer {
    let body = format!("{{\"error\":\"{code}\",\"message\":\"{message}\"}}\n");
    respond(status, "application/json", body)
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type)
        .header(CACHE_CONTROL, "no-store")
        .body(Full::from(body))
        .expect("constant headers are valid")
}
