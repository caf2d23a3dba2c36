//! What is changed.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use lb_core::model::{
    Address, AdminState, Backend, BackendId, DrainWish, Invalid, Kind, PoolName, Resource, Weight,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    shape::BackendAnswer,
    wait::{Spread, Wait},
};
use crate::{
    grpc::{Applied, Context},
    http::{body::Body, problem::Problem},
    registry::{Item, PutMode, UNASSIGNED, WriteRequest, Written},
};

/// What the body of `POST /lb/backends/add` looks like.
const EXAMPLE: &str = r#"{"host": "localhost", "port": 8004, "weight": 1}"#;

/// The body of `POST /lb/backends/add`, in values that have yet to be read: what is wrong with
/// them is said in the words of this interface.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct NewBackend(Value);

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
    let backend =
        new.read().map_err(|why| Problem::new(StatusCode::BAD_REQUEST, "invalid", why))?;
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
    fn read(&self) -> Result<Backend, String> {
        let in_words = |invalid: Invalid| invalid.to_string();
        let Value::Object(fields) = &self.0 else {
            return Err(format!("the body is no JSON object; send {EXAMPLE}"));
        };
        const KNOWN: [&str; 3] = ["host", "port", "weight"];
        if let Some(unknown) = fields.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(format!("{unknown} is unknown; known are host, port and weight"));
        }
        let host = match fields.get("host") {
            Some(Value::String(host)) => host,
            Some(other) => return Err(format!("host is {other}; send a name or an IP as text")),
            None => return Err(format!("host is missing; send {EXAMPLE}")),
        };
        let port = match fields.get("port") {
            // Whatever else it is: the reader of addresses has the words.
            Some(port @ Value::Number(_)) => port,
            Some(other) => return Err(format!("port is {other}; send a number, 1 to 65535")),
            None => return Err(format!("port is missing; send {EXAMPLE}")),
        };
        let address = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let address: Address = address.parse().map_err(in_words)?;
        let weight = match fields.get("weight") {
            None => Weight::default(),
            Some(weight) => match weight.as_u64().and_then(|weight| u32::try_from(weight).ok()) {
                Some(weight) => Weight::new(weight).map_err(in_words)?,
                None => return Err(format!("weight {weight} is outside 0 to 256")),
            },
        };
        Ok(Backend {
            weight,
            ..Backend::new(
                BackendId::new(UNASSIGNED).map_err(in_words)?,
                PoolName::default_pool(),
                address,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Backend, String> {
        let new: NewBackend = serde_json::from_str(json).map_err(|error| error.to_string())?;
        new.read()
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
            (r#"{"host":"a"}"#, "port is missing"),
            (r#"{"host":"a","port":"1"}"#, "port is \"1\"; send a number, 1 to 65535"),
            (r#"{"host":7,"port":1}"#, "host is 7; send"),
            (r#"{"host":"a","port":1,"weight":257}"#, "outside 0 to 256"),
            (r#"{"host":"a","port":1,"weight":-1}"#, "weight -1 is outside 0 to 256"),
            (r#"{"host":"a","port":1,"wieght":2}"#, "wieght is unknown; known are host,"),
            ("[]", "the body is no JSON object; send {"),
            (r#"{"host":"a","port":1"#, "line 1 column 20"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
