//! `/livez`, `/readyz` and `/metrics`, on an address of their own.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use lb_core::metrics::Format;
use tokio::{net::TcpListener, task::AbortHandle};
use tracing::{debug, warn};

use crate::metrics::Metrics;

const TEXT: &str = "text/plain; charset=utf-8";

/// For a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Of a request's head, and of what waits for a slow reader; the server's own is 400 KiB.
const BUFFER_MAX: usize = 16 * 1024;
/// Of the open files that the process may have, one in so many is for those who ask here.
const DESCRIPTORS_PART: usize = 16;
/// More are nobody's business.
const CONNECTIONS_MAX: usize = 128;

/// How many may be connected at once.
pub(crate) fn connections_max(descriptors: usize) -> usize {
    (descriptors / DESCRIPTORS_PART).clamp(4, CONNECTIONS_MAX)
}

/// Answers for as long as the process lives. Beyond `connections_max` the oldest connection
/// makes room for a new one: requests are short, so that it is most likely idle.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>, connections_max: usize) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "the admin address cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let metrics = Arc::clone(&metrics);
        open.retain(|connection| !connection.is_finished());
        while open.len() >= connections_max {
            open.pop_front().inspect(AbortHandle::abort);
        }
        let connection = tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &metrics);
                async { Ok::<_, Infallible>(response) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(BUFFER_MAX)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                debug!(%error, "an admin connection failed");
            }
        });
        open.push_back(connection.abort_handle());
    }
}

fn answer(request: &Request<Incoming>, metrics: &Arc<Metrics>) -> Response<Full<Bytes>> {
    let hosts = request.headers().get_all(HOST).iter().count();
    if hosts > 1 || hosts == 0 && request.version() != Version::HTTP_10 {
        let text = "a request has one Host field (RFC 9112, 3.2)\n".to_owned();
        return respond(StatusCode::BAD_REQUEST, TEXT, text);
    }
    let path = request.uri().path();
    if !matches!(path, "/livez" | "/readyz" | "/metrics") {
        let text = "not found; try /livez, /readyz, /readyz?verbose or /metrics\n";
        return respond(StatusCode::NOT_FOUND, TEXT, text.to_owned());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = "use GET or HEAD\n".to_owned();
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => {
            let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
            let format = Format::wanted(accept.unwrap_or_default());
            match metrics.scrape(format) {
                Ok(text) => respond(StatusCode::OK, format.content_type(), text),
                Err(error) => {
                    warn!(%error, "metrics could not be written");
                    let text = "metrics could not be written; see the log\n".to_owned();
                    respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, text)
                }
            }
        }
        "/readyz" => readiness(request, metrics),
        _ => respond(StatusCode::OK, TEXT, "ok\n".to_owned()),
    }
}

fn readiness(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    let verbose = query.split('&').any(|part| part == "verbose" || part.starts_with("verbose="));
    let checks = metrics.status.checks();
    let ready = checks.iter().all(|check| check.passed);
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let lines = checks.iter().filter(|check| verbose || !check.passed).map(|check| {
        let mark = if check.passed { "ok" } else { "not ok" };
        format!("{} {mark}: {}\n", check.name, check.detail)
    });
    let lines: String = lines.collect();
    respond(code, TEXT, if lines.is_empty() { "ok\n".to_owned() } else { lines })
}

fn respond(code: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
