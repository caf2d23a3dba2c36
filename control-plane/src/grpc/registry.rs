//! The registry service.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use lb_core::{
    model::{Invalid, Key, Kind, PoolName, Resource},
    sync::Object,
};
use lb_proto::{
    convert,
    document::missing,
    v1::{self as pb, registry_server},
};
use prost::Message;
use tonic::{Request, Response, Status};

use super::{Context, status, wire};
use crate::registry::{Item, PutMode, UNASSIGNED, WriteRequest};

/// When a wait names no limit.
pub(super) const WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// The longest wait.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(3600);
/// Of an idempotency key, in bytes.
const KEY_MAX: usize = 255;

/// Answers lbctl and other automation.
#[derive(Debug)]
pub(super) struct RegistryService {
    context: Arc<Context>,
}

impl RegistryService {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    async fn write(
        &self,
        request: WriteRequest,
        wait: Option<pb::Wait>,
    ) -> Result<Response<pb::WriteResponse>, Status> {
        let limit = wait.map(|wait| wait_limit(wait.timeout_ms));
        let written = self.context.write(request, limit).await;
        let (written, applied) = written.map_err(|error| status::of_write(&error))?;
        let mut response = wire::written(&written);
        response.progress =
            applied.map(|applied| wire::apply_progress(applied.progress, applied.elapsed));
        Ok(Response::new(response))
    }
}

/// 0 means the default.
pub(super) fn wait_limit(timeout_ms: u32) -> Duration {
    match timeout_ms {
        0 => WAIT_DEFAULT,
        ms => Duration::from_millis(u64::from(ms)).min(WAIT_MAX),
    }
}

/// The common part of all writes. `content` is the request without its options.
pub(super) fn request(
    rpc: &str,
    content: &impl Message,
    options: &pb::WriteOptions,
) -> Result<WriteRequest, Status> {
    let key = &options.idempotency_key;
    if key.len() > KEY_MAX {
        return Err(Status::invalid_argument(format!(
            "the idempotency key has {} bytes; at most {KEY_MAX} are allowed",
            key.len()
        )));
    }
    let mut request = wire::write_options(options);
    // A dry run is no write: it neither finds nor leaves an answer.
    if !key.is_empty() && !options.dry_run {
        let payload: Bytes = content.encode_to_vec().into();
        let object =
            Object { key: Key::new(rpc, ""), revision: options.expected_revision, payload };
        request.idempotency = Some((key.clone(), object.hash().0));
    }
    Ok(request)
}

fn put_item(object: pb::Object, mode: PutMode) -> Result<Item, Invalid> {
    let mut object = object;
    let mut assign_id = false;
    if let Some(pb::object::Object::Backend(backend)) = &mut object.object
        && backend.id.is_empty()
    {
        UNASSIGNED.clone_into(&mut backend.id);
        assign_id = true;
    }
    let resource = Box::new(convert::object_from_wire(object)?);
    Ok(Item::Put { resource, mode, assign_id })
}

fn delete_item(kind: &str, name: String) -> Result<Item, Status> {
    Ok(Item::Delete { kind: known_kind(kind)?, name })
}

/// The kinds that clients may name.
fn known_kind(kind: &str) -> Result<Kind, Status> {
    match kind.parse().map_err(|invalid| status::of_invalid(&invalid))? {
        Kind::Status => Err(Status::invalid_argument(
            "a status is part of its backend; ask Fleet.ListBackends for it",
        )),
        Kind::SessionKeys => Err(Status::invalid_argument(
            "session keys are told to proxies only; Sessions.ListKeys tells of them",
        )),
        kind => Ok(kind),
    }
}

#[tonic::async_trait]
impl registry_server::Registry for RegistryService {
    async fn put(
        &self,
        message: Request<pb::PutRequest>,
    ) -> Result<Response<pb::WriteResponse>, Status> {
        let mut message = message.into_inner();
        let options = message.options.take().unwrap_or_default();
        let mut write = request("put", &message, &options)?;
        let mode = match pb::PutMode::try_from(message.mode) {
            Ok(pb::PutMode::Upsert) => PutMode::Upsert,
            Ok(pb::PutMode::Create) => PutMode::Create,
            Ok(pb::PutMode::Replace) => PutMode::Replace,
            Err(_) => {
                return Err(Status::invalid_argument(format!(
                    "unknown put mode {}; known are upsert (0), create (1), replace (2)",
                    message.mode
                )));
            }
        };
        let item = put_item(message.object.unwrap_or_default(), mode);
        write.items = vec![item.map_err(|invalid| status::of_invalid(&invalid))?];
        self.write(write, options.wait).await
    }

    async fn delete(
        &self,
        message: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::WriteResponse>, Status> {
        let mut message = message.into_inner();
        let options = message.options.take().unwrap_or_default();
        let mut write = request("delete", &message, &options)?;
        write.items = vec![delete_item(&message.kind, message.name)?];
        self.write(write, options.wait).await
    }

    async fn set_backend_state(
        &self,
        message: Request<pb::SetBackendStateRequest>,
    ) -> Result<Response<pb::WriteResponse>, Status> {
        let mut message = message.into_inner();
        let options = message.options.take().unwrap_or_default();
        let mut write = request("set_backend_state", &message, &options)?;
        let state = wire::admin_state(message.state)?;
        let drain = wire::drain_wish(state, message.drain_timeout_ms, message.remove_when_drained)?;
        write.items = vec![Item::SetState { id: message.id, state, drain }];
        self.write(write, options.wait).await
    }

    async fn apply(
        &self,
        message: Request<pb::ApplyRequest>,
    ) -> Result<Response<pb::WriteResponse>, Status> {
        let mut message = message.into_inner();
        let options = message.options.take().unwrap_or_default();
        let mut write = request("apply", &message, &options)?;
        write.batch = true;
        for (number, item) in (1..).zip(message.items) {
            use pb::apply_item::Change;
            let item = match item.change {
                Some(Change::Put(object)) => put_item(object, PutMode::Upsert)
                    .map_err(|invalid| status::of_invalid(&invalid)),
                Some(Change::Delete(name)) => delete_item(&name.kind, name.name),
                None => Err(Status::invalid_argument("it neither puts nor deletes anything")),
            };
            write.items.push(item.map_err(|error| {
                Status::new(error.code(), format!("item {number}: {}", error.message()))
            })?);
        }
        self.write(write, options.wait).await
    }

    async fn get(
        &self,
        message: Request<pb::GetRequest>,
    ) -> Result<Response<pb::GetResponse>, Status> {
        let pb::GetRequest { kind: kind_name, name } = message.into_inner();
        let kind = known_kind(&kind_name)?;
        self.context.registry.read(|view| {
            let stored = view.catalog.find(kind, &name).ok_or_else(|| {
                Status::not_found(missing(&kind_name, &name, &view.catalog.names(kind)))
            })?;
            Ok(Response::new(pb::GetResponse {
                object: Some(wire::object(&stored)),
                store_revision: view.publisher.version().revision,
            }))
        })
    }

    async fn list(
        &self,
        message: Request<pb::ListRequest>,
    ) -> Result<Response<pb::ListResponse>, Status> {
        let pb::ListRequest { kind, pool } = message.into_inner();
        // No kind at all means everything, in an order in which it could be applied.
        let kinds = if kind.is_empty() {
            vec![Kind::Pool, Kind::Backend, Kind::Listener, Kind::Route, Kind::Limit]
        } else {
            vec![known_kind(&kind)?]
        };
        self.context.registry.read(|view| {
            let pool = existing_pool(&view.catalog, &pool)?;
            let mut objects = Vec::new();
            for kind in kinds {
                if kind == Kind::Backend {
                    let backends = view.catalog.backends_of(pool.as_ref());
                    objects.extend(backends.into_iter().map(|stored| {
                        let resource = Resource::Backend(stored.value.clone());
                        convert::object_to_wire(&resource, stored.revision)
                    }));
                } else {
                    let names = view.catalog.names(kind);
                    let found = names.iter().filter_map(|name| view.catalog.find(kind, name));
                    objects.extend(found.map(|stored| wire::object(&stored)));
                }
            }
            let store_revision = view.publisher.version().revision;
            Ok(Response::new(pb::ListResponse { objects, store_revision }))
        })
    }
}

/// The pool of a filter; none for an empty name, an error for an unknown one.
pub(super) fn existing_pool(
    catalog: &crate::registry::Catalog,
    name: &str,
) -> Result<Option<PoolName>, Status> {
    if name.is_empty() {
        return Ok(None);
    }
    let pool = PoolName::new(name).map_err(|invalid| status::of_invalid(&invalid))?;
    if !catalog.pools().contains_key(&pool) {
        return Err(Status::not_found(missing("pool", name, &catalog.names(Kind::Pool))));
    }
    Ok(Some(pool))
}
