//! The service of leases: one stream per proxy, on which either side speaks when it has
//! something to say.

use std::{pin::Pin, sync::Arc};

use lb_core::model::{InstanceId, ProxyId};
use lb_proto::v1::{self as pb, leases_server};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{Context, status};
use crate::leases::OUTBOX;

/// Takes reports, and sends grants.
#[derive(Debug)]
pub(super) struct LeasesService {
    context: Arc<Context>,
}

impl LeasesService {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl leases_server::Leases for LeasesService {
    type HoldStream = Pin<Box<dyn Stream<Item = Result<pb::LeaseGrants, Status>> + Send>>;

    async fn hold(
        &self,
        message: Request<Streaming<pb::LeaseReports>>,
    ) -> Result<Response<Self::HoldStream>, Status> {
        let mut incoming = message.into_inner();
        let Some(first) = incoming.message().await? else {
            return Err(Status::invalid_argument("the first message says who reports"));
        };
        let invalid = |invalid| status::of_invalid(&invalid);
        let proxy = ProxyId::new(&first.proxy_id).map_err(invalid)?;
        let instance = InstanceId::new(&first.instance_id).map_err(invalid)?.to_string();
        let (grants, mut outbox) = mpsc::channel(OUTBOX);
        self.context.leases.note(&instance, &self.context.registry).await;
        self.context.leases.open(&proxy, &instance, grants);
        self.context.leases.hear(&instance, &first);
        let (sender, receiver) = mpsc::channel(1);
        let context = Arc::clone(&self.context);
        self.context.tracker.spawn(async move {
            let hear = async {
                while let Ok(Some(message)) = incoming.message().await {
                    context.leases.hear(&instance, &message);
                    if message.leaves {
                        return;
                    }
                }
            };
            let tell = async {
                while let Some(grants) = outbox.recv().await {
                    if sender.send(Ok(grants)).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = hear => {}
                () = tell => {}
                () = context.stop.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
