//! Is this process alive, and does it do its work?
//!
//! | path | answer |
//! |---|---|
//! | `GET /livez` | 200 while the process serves |
//! | `GET /readyz` | 200 when writes are taken and proxies served, else 503 |
//!
//! `?verbose` lists what was looked at, one line each. Both are for orchestrators, which
//! ask by whatever name they know.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri, header::CACHE_CONTROL},
    response::IntoResponse,
    routing::get,
};

use crate::grpc::Context;

pub(super) fn routes() -> Router<Arc<Context>> {
    let live = get(async |uri: Uri| report(&uri, &[("process".to_owned(), true)]));
    let ready = get(async |State(context): State<Arc<Context>>, uri: Uri| {
        report(&uri, &readiness(&context))
    });
    Router::new().route("/livez", live).route("/readyz", ready)
}

fn readiness(context: &Context) -> [(String, bool); 2] {
    let mut store = "store loaded and writable".to_owned();
    if let Some(why) = &*context.registry.outages().borrow() {
        // A cause is one line by itself; whatever it is, the answer stays a list of lines.
        store += &format!(": it is opened again and again, and fails: {}", why.replace('\n', " "));
    }
    [
        (store, context.registry.takes_writes()),
        ("serving proxies".to_owned(), !context.stop.is_cancelled()),
    ]
}

fn report(uri: &Uri, checks: &[(String, bool)]) -> impl IntoResponse + use<> {
    let good = checks.iter().all(|(_, good)| *good);
    let verbose = uri.query().is_some_and(|q| q.split('&').any(|p| p == "verbose"));
    let mut body = String::new();
    if verbose || !good {
        for (name, good) in checks {
            body += &format!("[{}] {name}\n", if *good { '+' } else { '-' });
        }
    }
    body += if good { "ok\n" } else { "not ready\n" };
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(CACHE_CONTROL, "no-store")], body)
}
