//! The sync service as the transport calls it: what the contract's compiler would generate, but
//! for the [body](super::body) of the response.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use lb_proto::{
    codec::CompactCodec,
    v1::{self as pb, sync_server},
};
use tonic::{
    Request, Status, Streaming,
    body::Body,
    codec::Codec as _,
    codegen::{Service, http},
    metadata::{GRPC_CONTENT_TYPE, MetadataMap},
    server::NamedService,
};

use super::{Context, body::Messages};
use crate::grpc::SYNC_MESSAGE_MAX;

const STREAM_PATH: &str = "/lb.v1.Sync/Stream";
/// Says how a client compresses its messages.
const ENCODING: &str = "grpc-encoding";

/// Serves proxies.
#[derive(Clone, Debug)]
pub(in crate::grpc) struct SyncService {
    context: Arc<Context>,
}

impl SyncService {
    pub(in crate::grpc) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    fn stream(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let path = request.uri().path();
        if path != STREAM_PATH {
            return Err(Status::unimplemented(format!("there is no method {path}")));
        }
        let encoding = request.headers().get(ENCODING);
        if encoding.is_some_and(|encoding| encoding != "identity") {
            let message = "messages are not to be compressed: nothing but identity is understood";
            return Err(Status::unimplemented(message));
        }
        let (head, body) = request.into_parts();
        let decoder = CompactCodec::<pb::ControlMessage, pb::ProxyMessage>::default().decoder();
        let messages = Streaming::new_request(decoder, body, None, Some(SYNC_MESSAGE_MAX));
        let request = Request::from_parts(MetadataMap::new(), head.extensions, messages);
        let outgoing = super::open(&self.context, request);
        let mut response = http::Response::new(Body::new(Messages::new(outgoing)));
        response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
        Ok(response)
    }
}

impl NamedService for SyncService {
    const NAME: &'static str = sync_server::SERVICE_NAME;
}

impl Service<http::Request<Body>> for SyncService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        ready(Ok(self.stream(request).unwrap_or_else(Status::into_http)))
    }
}
