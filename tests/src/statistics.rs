//! The statistics of a scripted control plane: what proxies report, and the tokens that a test
//! gives them in answer.

use std::{
    collections::{HashMap, HashSet},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use lb_proto::v1::{self as pb, stats_server};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::PATIENCE;

/// Proxies whose next report is refused.
type Refused = Arc<Mutex<HashSet<String>>>;
type Tokens = Arc<Mutex<HashMap<String, Vec<pb::ProbeToken>>>>;

/// What all proxies report.
#[derive(Debug)]
pub struct Statistics {
    reports: mpsc::UnboundedReceiver<pb::StatsReport>,
    tokens: Tokens,
    refused: Refused,
}

impl Statistics {
    /// The test's end, and the service for the server.
    pub(crate) fn new() -> (Self, stats_server::StatsServer<Service>) {
        let (sender, reports) = mpsc::unbounded_channel();
        let (tokens, refused) = (Tokens::default(), Refused::default());
        let service =
            Service { reports: sender, tokens: Arc::clone(&tokens), refused: Arc::clone(&refused) };
        (Self { reports, tokens, refused }, stats_server::StatsServer::new(service))
    }

    /// Refuses the next report of a proxy as one that cannot be understood, and ends its stream.
    pub fn refuse(&self, proxy: &str) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(proxy.to_owned());
    }

    /// Gives a token to a proxy, in the answer to its next report.
    pub fn grant(&self, proxy: &str, token: pb::ProbeToken) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.entry(proxy.to_owned()).or_default().push(token);
    }

    /// Whether a proxy has been sent all tokens that it was given.
    #[must_use]
    pub fn is_granted(&self, proxy: &str) -> bool {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(proxy).is_none_or(Vec::is_empty)
    }

    /// The next report of any proxy.
    pub async fn report(&mut self) -> pb::StatsReport {
        let report = timeout(PATIENCE, self.reports.recv()).await;
        report.expect("a proxy reports").expect("the server lives")
    }

    /// The next of which the function finds something.
    pub async fn find<T>(&mut self, look: impl Fn(&pb::StatsReport) -> Option<T>) -> T {
        loop {
            if let Some(found) = look(&self.report().await) {
                return found;
            }
        }
    }

    /// The next word about a probe whose request has ended.
    pub async fn probe(&mut self) -> pb::ProbeReport {
        let running = i32::from(pb::ProbeOutcome::Running);
        self.find(|report| report.probes.iter().find(|probe| probe.outcome != running).cloned())
            .await
    }
}

/// Hears the reports.
#[derive(Debug)]
pub(crate) struct Service {
    reports: mpsc::UnboundedSender<pb::StatsReport>,
    tokens: Tokens,
    refused: Refused,
}

#[tonic::async_trait]
impl stats_server::Stats for Service {
    type ReportStream = Pin<Box<dyn Stream<Item = Result<pb::StatsReply, Status>> + Send>>;

    async fn report(
        &self,
        request: Request<Streaming<pb::StatsReport>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let mut up = request.into_inner();
        let (down, replies) = mpsc::channel(4);
        let (reports, tokens) = (self.reports.clone(), Arc::clone(&self.tokens));
        let refused = Arc::clone(&self.refused);
        tokio::spawn(async move {
            while let Ok(Some(report)) = up.message().await {
                let given = tokens
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&report.proxy_id)
                    .unwrap_or_default();
                let sequence = report.sequence;
                // A test that looks at no reports does not hear them.
                let refuses =
                    refused.lock().unwrap_or_else(PoisonError::into_inner).remove(&report.proxy_id);
                reports.send(report).ok();
                if refuses {
                    let refusal = Status::invalid_argument("this report cannot be understood");
                    down.send(Err(refusal)).await.ok();
                    return;
                }
                let reply =
                    pb::StatsReply { sequence, period_ms: 0, probes: given, ..Default::default() };
                if down.send(Ok(reply)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(replies))))
    }
}
