//! `/livez` and `/readyz`, on an address of their own.

use std::{convert::Infallible, sync::Arc};

use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tracing::{debug, warn};

use crate::status::Status;

/// Answers for as long as the process lives.
pub(crate) async fn serve(listener: TcpListener, status: Arc<Status>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "the admin address cannot accept");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let status = Arc::clone(&status);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &status);
                async { Ok::<_, Infallible>(response) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(std::time::Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                debug!(%error, "an admin connection failed");
            }
        });
    }
}

fn answer(request: &Request<Incoming>, status: &Status) -> Response<Full<Bytes>> {
    let verbose = request.uri().query().is_some_and(|query| query.contains("verbose"));
    let (code, text) = match request.uri().path() {
        "/livez" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => {
            let checks = status.checks();
            let ready = checks.iter().all(|check| check.passed);
            let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let lines = checks.iter().filter(|check| verbose || !check.passed).map(|check| {
                let mark = if check.passed { "ok" } else { "not ok" };
                format!("{} {mark}: {}\n", check.name, check.detail)
            });
            let lines: String = lines.collect();
            (code, if lines.is_empty() { "ok\n".to_owned() } else { lines })
        }
        _ => (
            StatusCode::NOT_FOUND,
            "not found; try /livez, /readyz or /readyz?verbose\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    response
}
