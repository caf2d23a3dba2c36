//! Who may ask for management.
//!
//! Nothing here is authenticated: on loopback every user of the machine is trusted, and
//! other addresses need `--insecure`. What must not happen is that a browser on the
//! machine is made to send requests for somebody else. Whoever reaches a Unix socket may
//! use it: no page can.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, StatusCode, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use lb_core::cross_site;

use super::problem::Problem;

/// Over what a request came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Transport {
    Tcp,
    Unix,
}

/// Refuses what another site's page asked for.
pub(super) async fn same_site(request: Request, next: Next) -> Response {
    if request.extensions().get() == Some(&Transport::Unix) {
        return next.run(request).await;
    }
    let headers = request.headers();
    let host = request
        .uri()
        .authority()
        .map(|authority| authority.as_str())
        .or_else(|| field(headers, &header::HOST));
    match cross_site::check(host, field(headers, &header::ORIGIN)) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            Problem::new(StatusCode::FORBIDDEN, "forbidden", refusal.to_string()).into_response()
        }
    }
}

/// Refuses a request that does not say once for whom it is (RFC 9112, 3.2).
pub(super) async fn one_host(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts == 1 || hosts == 0 && request.version() == Version::HTTP_10 {
        return next.run(request).await;
    }
    let message = format!("a request has one Host field, and this one has {hosts}");
    Problem::new(StatusCode::BAD_REQUEST, "invalid", message).into_response()
}

/// A field's value; what is no text, or is there twice, is nobody's.
fn field<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().unwrap_or_default();
    Some(if values.next().is_some() { "" } else { value })
}
