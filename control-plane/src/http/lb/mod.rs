//! The management routes that small balancers in one process have, `/lb/...`: what their
//! users typed goes on working, now for a whole fleet.
//!
//! | route | answer |
//! |---|---|
//! | `GET /lb/health` | 200, or 503 when no backend can serve |
//! | `GET /lb/stats` | counts and times over all proxies |
//! | `GET /lb/backends` | every backend, as an array |
//! | `GET /lb/config` | the settings in force |
//! | `POST /lb/backends/add` | 201 and the backend |
//! | `POST /lb/backends/ID/enable`, `/disable` | 200 and the backend |
//! | `DELETE /lb/backends/ID/remove` | 200 |
//!
//! A thin façade over the registry and the statistics that gRPC uses: a rule that holds
//! there holds here. Backends are added to the pool `default`.

mod config;
mod read;
mod shape;
mod wait;
mod write;

use std::sync::Arc;

use axum::{
    Router,
    routing::{delete, get, post},
};

use crate::grpc::Context;

pub(super) fn routes() -> Router<Arc<Context>> {
    Router::new()
        .route("/lb/health", get(read::health))
        .route("/lb/stats", get(read::stats))
        .route("/lb/backends", get(read::backends))
        .route("/lb/config", get(config::config))
        .route("/lb/backends/add", post(write::add))
        .route("/lb/backends/{id}/enable", post(write::enable))
        .route("/lb/backends/{id}/disable", post(write::disable))
        .route("/lb/backends/{id}/remove", delete(write::remove))
}
