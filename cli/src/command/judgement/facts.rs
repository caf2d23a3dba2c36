//! Everything that is judged, as the control plane tells it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_core::model::{Route, natural_order};
use lb_proto::v1::{self as pb, registry_server::SERVICE_NAME};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::{
    clock,
    command::{Session, get},
    exit::Failure,
    view::{BackendView, ObjectView, PoolView, ProxyView, RecentView, RefusedView},
};

/// Everything that is judged.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) server: String,
    pub(crate) build_version: String,
    /// Between the control plane's clock and this one; nothing if it tells no time.
    pub(crate) skew: Option<Duration>,
    /// Whether its store does; nothing if it does not tell.
    pub(crate) takes_writes: Option<bool>,
    pub(crate) proxies: Vec<ProxyView>,
    /// A file of declared state that was read again and refused.
    pub(crate) refused_config: Option<pb::RefusedConfig>,
    /// What a file of declared state does not name, and what goes on all the same.
    pub(crate) undeclared: Option<pb::UndeclaredObjects>,
    /// Processes that are not let in.
    pub(crate) refused: Vec<RefusedView>,
    pub(crate) pools: Vec<PoolView>,
    /// What clients were answered lately before a pool was found; nothing if it is not told.
    pub(crate) unrouted: Option<RecentView>,
    pub(crate) backends: Vec<BackendView>,
    pub(crate) listeners: Vec<ObjectView>,
    pub(crate) routes: Vec<Route>,
    /// The time to which ages are told.
    pub(crate) now_unix_ms: u64,
}

impl Facts {
    /// Asks for all of it.
    pub(crate) async fn gather(session: &Session) -> Result<Self, Failure> {
        Ok(Self::with_status(session).await?.0)
    }

    /// The same, with what else the control plane tells of the fleet.
    pub(crate) async fn with_status(
        session: &Session,
    ) -> Result<(Self, pb::GetStatusResponse), Failure> {
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
        let now_unix_ms = clock::unix_ms();
        let here = UNIX_EPOCH + Duration::from_millis(now_unix_ms);
        let facts = Self {
            server: client.server().to_owned(),
            skew: date.map(|there: httpdate::HttpDate| apart(there.into(), here)),
            takes_writes: takes_writes(session).await,
            backends: get::backends(session, "").await?,
            listeners: get::objects(session, "listener").await?,
            // One that this build cannot read is of a newer control plane, which judges it.
            routes: get::routes(session).await?.into_iter().flatten().collect(),
            ..Self::of(&status, now_unix_ms)
        };
        Ok((facts, status))
    }

    /// What the status alone tells.
    pub(crate) fn of(status: &pb::GetStatusResponse, now_unix_ms: u64) -> Self {
        let proxies = status.proxies.iter().cloned().map(ProxyView::from);
        let mut proxies: Vec<ProxyView> = proxies.collect();
        proxies.sort_by(|a, b| natural_order(&a.id, &b.id));
        Self {
            server: String::new(),
            build_version: status.build_version.clone(),
            skew: None,
            takes_writes: None,
            refused_config: status.refused_config.clone(),
            undeclared: status.undeclared.clone(),
            proxies,
            refused: status.refused.iter().cloned().map(RefusedView::from).collect(),
            pools: status.pools.iter().cloned().map(PoolView::from).collect(),
            unrouted: status.recent_unrouted.clone().map(RecentView::from),
            backends: Vec::new(),
            listeners: Vec::new(),
            routes: Vec::new(),
            now_unix_ms,
        }
    }

    pub(crate) fn live_proxies(&self) -> impl Iterator<Item = &ProxyView> {
        self.proxies.iter().filter(|proxy| proxy.is_connected())
    }

    /// What answers while no backend of the pool can.
    pub(crate) fn instead(&self, pool: &str) -> Option<String> {
        let found = self.pools.iter().find(|found| found.name == pool);
        found?.instead(|other| self.serves(other))
    }

    /// The routes that lead to the pool.
    pub(crate) fn routes_to(&self, pool: &str) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(move |route| {
            let mut shares = route.pools.iter();
            shares.any(|(name, weight)| weight > 0 && name.as_str() == pool)
        })
    }

    /// Whether some backend of the pool gets requests.
    pub(crate) fn serves(&self, pool: &str) -> bool {
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
