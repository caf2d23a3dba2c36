//! Everything that is judged, as the control plane tells it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_core::model::Route;
use lb_proto::v1::{self as pb, registry_server::SERVICE_NAME};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::{
    clock,
    command::{Session, get},
    exit::Failure,
    view::{BackendView, ObjectView, PoolView, ProxyView, RefusedView},
};

/// Everything that is judged.
#[derive(Debug)]
pub(in crate::command) struct Facts {
    pub(super) server: String,
    pub(super) build_version: String,
    /// Between the control plane's clock and this one; nothing if it tells no time.
    pub(super) skew: Option<Duration>,
    /// Whether its store does; nothing if it does not tell.
    pub(super) takes_writes: Option<bool>,
    pub(in crate::command) proxies: Vec<ProxyView>,
    /// Processes that are not let in.
    pub(super) refused: Vec<RefusedView>,
    pub(super) pools: Vec<PoolView>,
    pub(in crate::command) backends: Vec<BackendView>,
    pub(super) listeners: Vec<ObjectView>,
    pub(in crate::command) routes: Vec<Route>,
}

impl Facts {
    /// Asks for all of it.
    pub(in crate::command) async fn gather(session: &Session) -> Result<Self, Failure> {
        let client = &session.client;
        let mut fleet = client.fleet();
        let mut date = None;
        let status = client
            .call(async {
                let answer = fleet.get_status(pb::GetStatusRequest {}).await?;
                date =
                    answer.metadata().get("date").and_then(|date| date.to_str().ok()?.parse().ok());
                Ok(answer)
            })
            .await?;
        let here = UNIX_EPOCH + Duration::from_millis(clock::unix_ms());
        Ok(Self {
            server: client.server().to_owned(),
            build_version: status.build_version,
            skew: date.map(|there: httpdate::HttpDate| apart(there.into(), here)),
            takes_writes: takes_writes(session).await,
            proxies: status.proxies.into_iter().map(ProxyView::from).collect(),
            refused: status.refused.into_iter().map(RefusedView::from).collect(),
            pools: status.pools.into_iter().map(PoolView::from).collect(),
            backends: get::backends(session, "").await?,
            listeners: get::objects(session, "listener").await?,
            // One that this build cannot read is of a newer control plane, which judges it.
            routes: get::routes(session).await?.into_iter().flatten().collect(),
        })
    }

    pub(super) fn live_proxies(&self) -> impl Iterator<Item = &ProxyView> {
        self.proxies.iter().filter(|proxy| proxy.is_connected())
    }

    /// What answers while no backend of the pool can.
    pub(super) fn instead(&self, pool: &str) -> Option<String> {
        let found = self.pools.iter().find(|found| found.name == pool);
        found?.instead(|other| self.serves(other))
    }

    /// Whether some backend of the pool gets requests.
    pub(super) fn serves(&self, pool: &str) -> bool {
        self.backends.iter().any(|backend| backend.pool == pool && backend.serves())
    }
}

/// The registry stands for its store. What cannot be learnt is no failure.
async fn takes_writes(session: &Session) -> Option<bool> {
    let service = SERVICE_NAME.to_owned();
    let mut health = session.client.health();
    let answer = session.client.call(health.check(HealthCheckRequest { service })).await.ok()?;
    match answer.status() {
        ServingStatus::Serving => Some(true),
        ServingStatus::NotServing => Some(false),
        ServingStatus::Unknown | ServingStatus::ServiceUnknown => None,
    }
}

fn apart(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).or_else(|_| b.duration_since(a)).unwrap_or_default()
}
