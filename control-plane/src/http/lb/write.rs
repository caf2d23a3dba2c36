//! What is changed.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use lb_core::model::{
    Address, AdminState, Backend, BackendId, DrainWish, Incarnation, Invalid, Kind, Labels,
    PoolName, Resource, Weight,
};
use serde::{Deserialize, Serialize};

use super::{
    shape::BackendAnswer,
    wait::{Spread, Wait},
};
use crate::{
    grpc::{Applied, Context},
    http::{body::Body, problem::Problem},
    registry::{Item, PutMode, UNASSIGNED, WriteRequest, Written},
};

/// The body of `POST /lb/backends/add`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBackend {
    host: String,
    port: u16,
    #[serde(default = "default_weight")]
    weight: u32,
}

fn default_weight() -> u32 {
    Weight::default().get().into()
}

/// A changed backend, and who knows of the change.
#[derive(Debug, Serialize)]
struct Changed {
    message: String,
    #[serde(flatten)]
    backend: BackendAnswer,
    #[serde(flatten)]
    spread: Option<Spread>,
}

#[derive(Debug, Serialize)]
struct Removed {
    message: String,
    id: String,
    #[serde(flatten)]
    spread: Option<Spread>,
}

/// `POST /lb/backends/add`
pub(super) async fn add(
    State(context): State<Arc<Context>>,
    wait: Wait,
    Body(new): Body<NewBackend>,
) -> Result<Response, Problem> {
    let backend = new
        .read()
        .map_err(|invalid| Problem::new(StatusCode::BAD_REQUEST, "invalid", invalid.to_string()))?;
    let resource = Box::new(Resource::Backend(backend));
    let item = Item::Put { resource, mode: PutMode::Create, assign_id: true };
    let (written, applied) = change(&context, item, wait).await?;
    changed(&context, StatusCode::CREATED, &written, applied, |id| {
        format!("{id} is added; it gets requests once a check has passed")
    })
}

/// `POST /lb/backends/ID/enable`
pub(super) async fn enable(
    State(context): State<Arc<Context>>,
    wait: Wait,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    set_state(&context, id, AdminState::Enabled, wait).await
}

/// `POST /lb/backends/ID/disable`
pub(super) async fn disable(
    State(context): State<Arc<Context>>,
    wait: Wait,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    set_state(&context, id, AdminState::Disabled, wait).await
}

/// `DELETE /lb/backends/ID/remove`
pub(super) async fn remove(
    State(context): State<Arc<Context>>,
    wait: Wait,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id = named(id)?;
    let item = Item::Delete { kind: Kind::Backend, name: id.clone() };
    let (_, applied) = change(&context, item, wait).await?;
    let message = format!("{id} is removed");
    Ok(Json(Removed { message, id, spread: applied.map(Spread::from) }).into_response())
}

async fn set_state(
    context: &Context,
    id: Result<Path<String>, PathRejection>,
    state: AdminState,
    wait: Wait,
) -> Result<Response, Problem> {
    let item = Item::SetState { id: named(id)?, state, drain: DrainWish::default() };
    let (written, applied) = change(context, item, wait).await?;
    changed(context, StatusCode::OK, &written, applied, |id| format!("{id} is {}", state.name()))
}

async fn change(
    context: &Context,
    item: Item,
    Wait(limit): Wait,
) -> Result<(Written, Option<Applied>), Problem> {
    let request = WriteRequest { items: vec![item], ..WriteRequest::default() };
    let limit = (!limit.is_zero()).then_some(limit);
    Ok(context.write(request, limit).await?)
}

fn changed(
    context: &Context,
    status: StatusCode,
    written: &Written,
    applied: Option<Applied>,
    message: impl FnOnce(&BackendId) -> String,
) -> Result<Response, Problem> {
    let Some(Resource::Backend(backend)) = written.objects.first().map(|stored| &stored.value)
    else {
        let message = "the change was stored, but what was stored is no backend";
        return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message));
    };
    let answer = BackendAnswer::of(context, backend);
    let message = message(&backend.id);
    let spread = applied.map(Spread::from);
    Ok((status, Json(Changed { message, backend: answer, spread })).into_response())
}

fn named(id: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    id.map(|Path(id)| id).map_err(|_| {
        let message = "the backend's id in the path is no text; GET /lb/backends lists the ids";
        Problem::new(StatusCode::BAD_REQUEST, "invalid", message)
    })
}

impl NewBackend {
    fn read(&self) -> Result<Backend, Invalid> {
        let host = &self.host;
        let address: Address = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]:{}", self.port).parse()?
        } else {
            format!("{host}:{}", self.port).parse()?
        };
        Ok(Backend {
            id: BackendId::new(UNASSIGNED)?,
            pool: PoolName::default_pool(),
            address,
            weight: Weight::new(self.weight)?,
            admin_state: AdminState::Enabled,
            labels: Labels::default(),
            source: None,
            drain: None,
            max_in_flight: None,
            incarnation: Incarnation::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Backend, String> {
        let new: NewBackend = serde_json::from_str(json).map_err(|error| error.to_string())?;
        new.read().map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn hosts_of_every_form_are_read() {
        for (host, address) in
            [("localhost", "localhost:8004"), ("10.0.0.1", "10.0.0.1:8004"), ("::1", "[::1]:8004")]
        {
            let backend = read(&format!(r#"{{"host":"{host}","port":8004}}"#)).unwrap();
            assert_eq!(backend.address.to_string(), address);
            assert_eq!(backend.weight, Weight::default());
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, part) in [
            (r#"{"host":"a","port":0}"#, "port 0"),
            (r#"{"host":"a","port":70000}"#, "70000"),
            (r#"{"host":"","port":1}"#, "host is empty"),
            (r#"{"host":"http://a","port":1}"#, "HOST:PORT"),
            (r#"{"host":"a"}"#, "missing field `port`"),
            (r#"{"host":"a","port":1,"weight":257}"#, "0..=256"),
            (r#"{"host":"a","port":1,"wieght":2}"#, "unknown field `wieght`"),
            (r#"{"host":"a","port":1"#, "line 1 column 20"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
