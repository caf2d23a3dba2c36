//! The table of all operations. The router and the description are both made from it, so
//! neither can have what the other has not.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{Method, request::Parts},
    response::Response,
    routing::{MethodFilter, MethodRouter, on},
};
use lb_core::model::AdminState;

use super::{
    apply::apply,
    collection::{BACKENDS, COLLECTIONS, Collection},
    events::events,
    fault::Fault,
    objects::{self, Asked},
    observe, session_keys,
};
use crate::grpc::Context;

/// One method of one path.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) method: Method,
    /// Below `/v1`.
    pub(super) path: &'static str,
    pub(super) handler: MethodRouter<Arc<Context>>,
    pub(super) about: About,
}

/// What the description says of an operation.
#[derive(Debug)]
pub(super) struct About {
    /// Unique, for generated clients.
    pub(super) id: String,
    pub(super) tag: &'static str,
    pub(super) summary: String,
    /// Names of parameters, of which [`openapi`](super::openapi) knows the rest.
    pub(super) parameters: Vec<&'static str>,
    /// Media type and schema of the body.
    pub(super) body: Option<Sent>,
    /// Status and schema of successes; none without a body.
    pub(super) successes: Vec<(u16, Option<Answered>)>,
    /// Statuses of refusals.
    pub(super) failures: Vec<u16>,
}

/// What a body is.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) media_types: &'static [&'static str],
    pub(super) schema: &'static str,
}

/// What an answer is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answered {
    /// An object of this schema.
    One(&'static str),
    /// Items of this schema, and the revision of the store.
    List(&'static str),
    /// A stream of events of this schema.
    Stream(&'static str),
}

/// Every operation there is.
pub(super) fn all() -> Vec<Operation> {
    let mut all: Vec<Operation> = COLLECTIONS.into_iter().flat_map(of_collection).collect();
    for (path, action, state) in [
        ("/backends/{id}/enable", "enable", AdminState::Enabled),
        ("/backends/{id}/disable", "disable", AdminState::Disabled),
        ("/backends/{id}/drain", "drain", AdminState::Draining),
    ] {
        let handler = named(&Method::POST, move |asked, id, _| async move {
            objects::set_state(&asked, &BACKENDS, &id, state).await
        });
        let about = About::new(
            &format!("{action}Backend"),
            "backends",
            match state {
                AdminState::Enabled => "Lets a backend serve when it is healthy",
                AdminState::Disabled => "Takes a backend out at once",
                AdminState::Draining => {
                    "Lets a backend finish what it has, and gives it nothing new. `wait` waits \
                     until the proxies send it nothing new, not until nothing is left: for that, \
                     read `status.drain` or follow the events"
                }
            },
        );
        all.push(Operation {
            method: Method::POST,
            path,
            handler,
            about: about
                .parameters(match state {
                    AdminState::Enabled | AdminState::Disabled => {
                        &["id", "dry_run", "wait", "If-Match", "Idempotency-Key"]
                    }
                    AdminState::Draining => &[
                        "id",
                        "timeout",
                        "remove",
                        "dry_run",
                        "wait",
                        "If-Match",
                        "Idempotency-Key",
                    ],
                })
                .success(200, Answered::One(BACKENDS.stored_schema))
                .failures(&[400, 403, 404, 409, 412, 500, 503]),
        });
    }
    all.extend(others());
    all
}

fn of_collection(collection: Collection) -> Vec<Operation> {
    let Collection { plural, name_key, schema, stored_schema, .. } = collection;
    let (paths, one): ([&'static str; 2], &'static str) = match plural {
        "pools" => (["/pools", "/pools/{name}"], "a pool"),
        "backends" => (["/backends", "/backends/{id}"], "a backend"),
        "listeners" => (["/listeners", "/listeners/{name}"], "a listener"),
        "routes" => (["/routes", "/routes/{name}"], "a route"),
        _ => (["/limits", "/limits/{name}"], "a limit"),
    };
    let [many_path, one_path] = paths;
    let about = |id: &str, summary: String| About::new(id, plural, &summary);
    let json = Sent { media_types: &["application/json"], schema };
    let filter: &[&str] =
        if name_key == "id" { &["pool", "If-None-Match"] } else { &["If-None-Match"] };
    let stored = Answered::One(stored_schema);
    vec![
        Operation {
            method: Method::GET,
            path: many_path,
            handler: plain(&Method::GET, move |asked, _| async move {
                objects::list(&asked, &collection)
            }),
            about: about(&format!("list{schema}s"), format!("Lists {plural}"))
                .parameters(filter)
                .success(200, Answered::List(stored_schema))
                .empty(304)
                .failures(if name_key == "id" { &[400, 403, 404] } else { &[400, 403] }),
        },
        Operation {
            method: Method::POST,
            path: many_path,
            handler: plain(&Method::POST, move |asked, body| async move {
                objects::post(&asked, &collection, body).await
            }),
            about: about(&format!("create{schema}"), format!("Creates {one}"))
                .parameters(&["dry_run", "wait", "Idempotency-Key"])
                .body(json)
                .success(201, stored)
                .failures(&[400, 403, 408, 409, 412, 413, 415, 500, 503]),
        },
        Operation {
            method: Method::GET,
            path: one_path,
            handler: named(&Method::GET, move |asked, name, _| async move {
                objects::get(&asked, &collection, &name)
            }),
            about: about(&format!("get{schema}"), format!("Shows {one}"))
                .parameters(&[name_key, "If-None-Match"])
                .success(200, stored)
                .empty(304)
                .failures(&[400, 403, 404]),
        },
        Operation {
            method: Method::PUT,
            path: one_path,
            handler: named(&Method::PUT, move |asked, name, body| async move {
                objects::put(&asked, &collection, &name, body).await
            }),
            about: about(&format!("put{schema}"), format!("Creates or replaces {one}"))
                .parameters(&[
                    name_key,
                    "dry_run",
                    "wait",
                    "If-Match",
                    "If-None-Match",
                    "Idempotency-Key",
                ])
                .body(Sent { media_types: &["application/json"], schema })
                .success(200, stored)
                .success(201, stored)
                .failures(&[400, 403, 408, 409, 412, 413, 415, 500, 503]),
        },
        Operation {
            method: Method::PATCH,
            path: one_path,
            handler: named(&Method::PATCH, move |asked, name, body| async move {
                objects::patch(&asked, &collection, &name, body).await
            }),
            about: about(&format!("patch{schema}"), format!("Changes some keys of {one}"))
                .parameters(&[name_key, "dry_run", "wait", "If-Match", "Idempotency-Key"])
                .body(Sent {
                    media_types: &["application/merge-patch+json", "application/json"],
                    schema: "Patch",
                })
                .success(200, stored)
                .failures(&[400, 403, 404, 408, 409, 412, 413, 415, 500, 503]),
        },
        Operation {
            method: Method::DELETE,
            path: one_path,
            handler: named(&Method::DELETE, move |asked, name, _| async move {
                objects::delete(&asked, &collection, &name).await
            }),
            about: about(&format!("delete{schema}"), format!("Removes {one}"))
                .parameters(&[name_key, "dry_run", "wait", "If-Match", "Idempotency-Key"])
                .success(200, Answered::One("Removed"))
                .failures(&[400, 403, 404, 409, 412, 500, 503]),
        },
    ]
}

fn others() -> Vec<Operation> {
    vec![
        Operation {
            method: Method::POST,
            path: "/apply",
            handler: plain(&Method::POST, async |asked, body| apply(&asked, body).await),
            about: About::new("apply", "state", "Makes the state what a document declares")
                .parameters(&["dry_run", "force", "prune", "wait", "If-Match", "Idempotency-Key"])
                .body(Sent {
                    media_types: &["application/json", "application/toml"],
                    schema: "Document",
                })
                .success(200, Answered::One("ApplyAnswer"))
                .failures(&[400, 403, 408, 409, 412, 413, 415, 500, 503]),
        },
        Operation {
            method: Method::GET,
            path: "/proxies",
            handler: plain(&Method::GET, async |asked, _| observe::proxies(&asked)),
            about: About::new(
                "listProxies",
                "proxies",
                "Lists proxies, lost ones for a day and stopped ones for an hour",
            )
            .success(200, Answered::List("Proxy"))
            .failures(&[400, 403]),
        },
        Operation {
            method: Method::GET,
            path: "/proxies/{id}",
            handler: named(&Method::GET, async |asked, id, _| observe::proxy(&asked, &id)),
            about: About::new("getProxy", "proxies", "Shows a proxy")
                .parameters(&["id"])
                .success(200, Answered::One("Proxy"))
                .failures(&[400, 403, 404]),
        },
        Operation {
            method: Method::POST,
            path: "/proxies/{id}/adopt-store",
            handler: named(&Method::POST, async |asked, id, _| observe::adopt_store(&asked, &id)),
            about: About::new(
                "adoptStore",
                "proxies",
                "Has a proxy take the state of this store that it refuses, because it holds another \
                 store's, by which it can serve pools that are silent here",
            )
            .parameters(&["id"])
            .success(200, Answered::One("Proxy"))
            .failures(&[400, 403, 404]),
        },
        Operation {
            method: Method::DELETE,
            path: "/proxies/{id}",
            handler: named(&Method::DELETE, async |asked, id, _| {
                observe::forget_proxy(&asked, &id).await
            }),
            about: About::new(
                "forgetProxy",
                "proxies",
                "Forgets a proxy that is not connected and will not come back: it is no longer \
                 listed, nor waited for",
            )
            .parameters(&["id", "dry_run", "Idempotency-Key"])
            .success(200, Answered::One("Removed"))
            .failures(&[400, 403, 404, 409, 500, 503]),
        },
        Operation {
            method: Method::GET,
            path: "/session-keys",
            handler: plain(&Method::GET, async |asked, _| session_keys::list(&asked)),
            about: About::new(
                "listSessionKeys",
                "session-keys",
                "Lists the keys that sign sessions, without their secrets",
            )
            .parameters(&["If-None-Match"])
            .success(200, Answered::One("SessionKeys"))
            .empty(304)
            .failures(&[400, 403]),
        },
        Operation {
            method: Method::POST,
            path: "/session-keys/rotate",
            handler: plain(&Method::POST, async |asked, _| session_keys::rotate(&asked).await),
            about: About::new(
                "rotateSessionKeys",
                "session-keys",
                "Makes a new key, which signs once every proxy knows it, the lost ones included. \
                 While one is announced, no further one is made",
            )
            .parameters(&["force", "wait", "If-Match", "Idempotency-Key"])
            .success(200, Answered::One("SessionKeys"))
            .failures(&[400, 403, 409, 412, 500, 503]),
        },
        Operation {
            method: Method::GET,
            path: "/status",
            handler: plain(&Method::GET, async |asked, _| observe::status(&asked)),
            about: About::new("getStatus", "state", "Shows the control plane in numbers")
                .success(200, Answered::One("Status"))
                .failures(&[400, 403]),
        },
        Operation {
            method: Method::GET,
            path: "/stats",
            handler: plain(&Method::GET, async |asked, _| observe::stats(&asked)),
            about: About::new("getStats", "state", "Shows the traffic of the fleet")
                .success(200, Answered::One("Stats"))
                .failures(&[400, 403]),
        },
        Operation {
            method: Method::GET,
            path: "/events",
            handler: plain(&Method::GET, async |asked, _| events(&asked)),
            about: About::new("followEvents", "state", "Follows what happens")
                .parameters(&["past"])
                .success(200, Answered::Stream("Event"))
                .failures(&[400, 403]),
        },
    ]
}

impl About {
    fn new(id: &str, tag: &'static str, summary: &str) -> Self {
        Self {
            id: id.to_owned(),
            tag,
            summary: summary.to_owned(),
            parameters: Vec::new(),
            body: None,
            successes: Vec::new(),
            failures: Vec::new(),
        }
    }

    fn parameters(self, parameters: &[&'static str]) -> Self {
        Self { parameters: parameters.to_vec(), ..self }
    }

    fn body(self, body: Sent) -> Self {
        Self { body: Some(body), ..self }
    }

    fn success(mut self, status: u16, answered: Answered) -> Self {
        self.successes.push((status, Some(answered)));
        self
    }

    fn empty(mut self, status: u16) -> Self {
        self.successes.push((status, None));
        self
    }

    fn failures(self, failures: &[u16]) -> Self {
        Self { failures: failures.to_vec(), ..self }
    }
}

/// A handler of a path without a name in it.
fn plain<F, A>(method: &Method, answer: F) -> MethodRouter<Arc<Context>>
where
    F: Fn(Asked, Body) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Response, Fault>> + Send + 'static,
{
    on(filter(method), async move |State(context): State<Arc<Context>>, request: Request| {
        let (asked, body) = asked(context, request);
        answer(asked, body).await
    })
}

/// A handler of a path with a name in it.
fn named<F, A>(method: &Method, answer: F) -> MethodRouter<Arc<Context>>
where
    F: Fn(Asked, String, Body) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Response, Fault>> + Send + 'static,
{
    on(
        filter(method),
        async move |State(context): State<Arc<Context>>,
                    name: Result<Path<String>, axum::extract::rejection::PathRejection>,
                    request: Request| {
            let Path(name) = name.map_err(|_| Fault::bad("the name in the path is no text"))?;
            let (asked, body) = asked(context, request);
            answer(asked, name, body).await
        },
    )
}

fn asked(context: Arc<Context>, request: Request) -> (Asked, Body) {
    let (parts, body) = request.into_parts();
    let Parts { method, uri, headers: fields, .. } = parts;
    (Asked { context, method, uri, fields }, body)
}

/// Every method of the table.
fn filter(method: &Method) -> MethodFilter {
    MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE)
}
