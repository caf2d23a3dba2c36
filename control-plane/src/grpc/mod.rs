//! The gRPC services: thin shells that turn messages into calls and answers into
//! messages. Wire types do not get past them.

mod fleet;
mod greeting;
mod leases;
mod registry;
mod sessions;
mod stats;
mod status;
mod sync;
mod wire;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    middleware::{Next, from_fn},
};
use lb_core::{
    metrics::PerBackend,
    model::{InstanceId, PoolName, ProxyId},
    moment::Moment,
};
use lb_proto::v1::{
    fleet_server::FleetServer, leases_server::LeasesServer, registry_server::RegistryServer,
    sessions_server::SessionsServer, stats_server::StatsServer,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{service::Routes, transport::Server};

pub(crate) use self::sync::{Beats, Encoded};
use self::{
    fleet::FleetService,
    greeting::{PREFACE, greet},
    leases::LeasesService,
    registry::RegistryService,
    sessions::SessionsService,
    stats::StatsService,
    sync::SyncService,
};
use crate::{
    connections::{Connections, Handshake, Peer, Watched},
    declared::ConfigFile,
    discovery::Sources,
    drain::Drains,
    events::EventLog,
    fleet::{Fleet, ForgetError, ProxyView, WaitProgress, Waiter},
    leases::Leases,
    listen::{Endpoint, Listener},
    probe::Checks,
    registry::{Registry, WriteError, WriteRequest, Written},
    resilience::Resilience,
    session_keys::Rotation,
    stats::Statistics,
};

/// A proxy that held half of a large fleet's objects may send and get long messages.
const SYNC_MESSAGE_MAX: usize = 64 << 20;
/// Of a request to the registry.
const REGISTRY_MESSAGE_MAX: usize = 4 << 20;

/// Whole states that are on their way to proxies at once. Their bytes are shared; what each takes
/// is a part of them that is copied into its connection's buffers, and the network.
pub(crate) const SNAPSHOTS_MAX: usize = 32;

/// A connection that does not begin with HTTP/2's preface and a SETTINGS frame (RFC 9113, 3.4) in
/// this time is no client's.
const HANDSHAKE: Handshake = Handshake { bytes: PREFACE.len() + 9, limit: Duration::from_secs(5) };

/// What the services work on.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) registry: Registry,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) statistics: Arc<Statistics>,
    pub(crate) checks: Arc<Checks>,
    pub(crate) resilience: Arc<Resilience>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) drains: Drains,
    pub(crate) rotation: Rotation,
    /// How the file of declared state stands to what is in force.
    pub(crate) config_file: ConfigFile,
    pub(crate) events: Arc<EventLog>,
    /// Room for whole states on their way to proxies.
    pub(crate) snapshots: Arc<Semaphore>,
    /// What proxies are sent.
    pub(crate) encoded: Encoded,
    /// When they are sent heartbeats.
    pub(crate) beats: Beats,
    /// Where this process speaks HTTP.
    pub(crate) http: Endpoint,
    /// Names this process.
    pub(crate) server_id: String,
    pub(crate) started: Moment,
    pub(crate) heartbeat: Duration,
    pub(crate) lease: Duration,
    /// After how long the key that signs sessions is replaced; zero: never.
    pub(crate) session_key_age: Duration,
    pub(crate) metrics_per_backend: PerBackend,
    /// Ends streams.
    pub(crate) stop: CancellationToken,
    /// Owns the tasks behind streams.
    pub(crate) tracker: TaskTracker,
}

/// How far a change got, and in which time.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) progress: WaitProgress,
    pub(crate) elapsed: Duration,
}

impl Context {
    /// Changes the desired state; with a wait, returns when every proxy has applied the
    /// change or that time is up.
    pub(crate) async fn write(
        &self,
        request: WriteRequest,
        wait: Option<Duration>,
    ) -> Result<(Written, Option<Applied>), WriteError> {
        let dry_run = request.dry_run;
        let written = self.registry.write(request).await?;
        let applied = self.wait_applied(written.revision, wait.filter(|_| !dry_run)).await;
        Ok((written, applied))
    }

    /// Waits until every proxy has applied a revision, or the time is up; not at all without one.
    pub(crate) async fn wait_applied(
        &self,
        revision: u64,
        limit: Option<Duration>,
    ) -> Option<Applied> {
        let mut waiter = Waiter::new(Arc::clone(&self.fleet), revision, limit?);
        // A stopping control plane answers with how far it got.
        let progress = match self.stop.run_until_cancelled(waiter.finish()).await {
            Some(progress) => progress,
            None => self.fleet.progress(revision),
        };
        Some(Applied { progress, elapsed: waiter.elapsed() })
    }

    /// Forgets a proxy that is not connected, with all that was counted of it alone.
    pub(crate) fn forget_proxy(&self, id: &str, dry_run: bool) -> Result<ProxyView, ForgetError> {
        let view = self.fleet.forget(id, dry_run)?;
        if !dry_run {
            self.forget_figures(&view.info.id, Some(&view.info.instance));
        }
        Ok(view)
    }

    /// Drops what was counted of one proxy alone. Drains go on to wait for processes of it that go
    /// on, but not for one that has `ended`.
    pub(crate) fn forget_figures(&self, id: &ProxyId, ended: Option<&InstanceId>) {
        self.statistics.forget_proxy(id, ended, self.lease);
        self.resilience.forget(id);
    }

    /// Every pool of which something is counted by its name.
    pub(crate) fn counted_pools(&self) -> BTreeSet<PoolName> {
        let mut pools: BTreeSet<PoolName> = self.statistics.pools().into_keys().collect();
        pools.extend(self.statistics.answered_pools());
        pools.extend(self.statistics.sessions().into_keys());
        pools.extend(self.checks.pools().into_keys());
        pools.extend(self.resilience.transitions().into_keys().map(|transition| transition.pool));
        pools.extend(self.registry.counts().transitions.into_keys().map(|(pool, _)| pool));
        pools
    }

    /// Drops what is counted of these pools by their names.
    pub(crate) fn forget_pools(&self, pools: &[PoolName]) {
        if pools.is_empty() {
            return;
        }
        self.statistics.forget_pools(pools);
        self.checks.forget_pools(pools);
        self.resilience.forget_pools(pools);
        self.registry.forget_pools(pools);
    }

    /// How often proxies report, so that a large fleet's reports stay a small part of a
    /// core: 250 ms up to a hundred proxies, and in proportion beyond.
    fn stats_period(&self) -> Duration {
        let proxies = self.fleet.live().len();
        Duration::from_micros(2500) * u32::try_from(proxies.max(100)).unwrap_or(u32::MAX)
    }

    /// Proxies that join or leave together move everybody's place only once: after 50 ms up to a
    /// hundred proxies, and in proportion beyond, since all of them are told.
    fn tune_delay(&self) -> Duration {
        let proxies = self.fleet.live().len();
        Duration::from_micros(500) * u32::try_from(proxies.max(100)).unwrap_or(u32::MAX)
    }
}

/// Serves until the context is stopped and all connections are closed.
pub(crate) async fn serve(
    listener: Listener,
    connections_max: usize,
    context: Arc<Context>,
) -> Result<(), tonic::transport::Error> {
    let registry = RegistryServer::new(RegistryService::new(Arc::clone(&context)))
        .max_decoding_message_size(REGISTRY_MESSAGE_MAX);
    let fleet = FleetServer::new(FleetService::new(Arc::clone(&context)));
    let sessions = SessionsServer::new(SessionsService::new(Arc::clone(&context)));
    let stats = StatsServer::new(StatsService::new(Arc::clone(&context)))
        .max_decoding_message_size(SYNC_MESSAGE_MAX);
    let leases = LeasesServer::new(LeasesService::new(Arc::clone(&context)));
    let sync = SyncService::new(Arc::clone(&context));

    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_serving::<RegistryServer<RegistryService>>().await;
    health_reporter.set_serving::<FleetServer<FleetService>>().await;
    health_reporter.set_serving::<SessionsServer<SessionsService>>().await;
    health_reporter.set_serving::<StatsServer<StatsService>>().await;
    health_reporter.set_serving::<LeasesServer<LeasesService>>().await;
    health_reporter.set_serving::<SyncService>().await;
    let watched = Arc::clone(&context);
    context.tracker.spawn(async move {
        let mut outage = watched.registry.outages();
        outage.mark_changed();
        while let Some(Ok(())) = watched.stop.run_until_cancelled(outage.changed()).await {
            // Without its store it goes on telling what it holds, but nothing can be changed.
            let takes_writes = outage.borrow_and_update().is_none();
            if takes_writes {
                health_reporter.set_serving::<RegistryServer<RegistryService>>().await;
            } else {
                health_reporter.set_not_serving::<RegistryServer<RegistryService>>().await;
            }
        }
    });
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(lb_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    const READABLE: &str = "descriptors made by the build can be read";
    let reflection = descriptors().build_v1().expect(READABLE);
    let reflection_alpha = descriptors().build_v1alpha().expect(READABLE);

    let routes = Routes::new(health)
        .add_service(reflection)
        .add_service(reflection_alpha)
        .add_service(registry)
        .add_service(fleet)
        .add_service(sessions)
        .add_service(stats)
        .add_service(leases)
        .add_service(sync)
        .into_axum_router()
        .layer(from_fn(note_request));
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(2)))
        .add_routes(Routes::from(routes))
        .serve_with_incoming_shutdown(
            incoming(listener, connections_max, &context),
            context.stop.clone().cancelled_owned(),
        )
        .await
}

/// The connections that find a place, until the context is stopped.
fn incoming(
    listener: Listener,
    connections_max: usize,
    context: &Arc<Context>,
) -> impl Stream<Item = Result<Watched, Infallible>> + use<> {
    let (sender, receiver) = mpsc::channel(1);
    let context = Arc::clone(context);
    let tracker = context.tracker.clone();
    tracker.spawn(async move {
        let connections = Connections::new("grpc", connections_max);
        let accept = async {
            while !sender.is_closed() {
                let connection = connections.next(&listener, HANDSHAKE).await;
                let (sender, context) = (sender.clone(), Arc::clone(&context));
                // One that is slow to begin keeps nobody waiting; there are no more of these
                // tasks than places.
                context.tracker.clone().spawn(async move {
                    let greeted = async {
                        if let Some(connection) = greet(connection, &context.http).await {
                            // Nobody takes it any more when everything stops.
                            drop(sender.send(Ok(connection)).await);
                        }
                    };
                    context.stop.run_until_cancelled(greeted).await
                });
            }
        };
        context.stop.run_until_cancelled(accept).await
    });
    ReceiverStream::new(receiver)
}

/// Has the request's connection keep its place as long as it is in progress.
async fn note_request(request: axum::extract::Request, next: Next) -> axum::response::Response {
    let (mut head, body) = request.into_parts();
    let Some(peer) = head.extensions.remove::<Peer>() else {
        return next.run(axum::extract::Request::from_parts(head, body)).await;
    };
    if let Some(tcp) = &peer.tcp {
        head.extensions.insert(tcp.clone());
    }
    let (body, begun) = peer.begin(body, None);
    let request = axum::extract::Request::from_parts(head, Body::new(body));
    begun.answer(next.run(request).await)
}
