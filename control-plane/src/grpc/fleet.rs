//! The fleet service: what is.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
};

use lb_core::{
    lease::QuantityKind,
    model::{
        AdminState, Backend, BackendId, BackendStatus, Health, Kind, Limit, Pool, PoolName,
        ProxyId, Reason,
    },
};
use lb_proto::{
    convert,
    document::missing,
    v1::{self as pb, fleet_server},
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{
    Context,
    registry::{existing_pool, wait_limit},
    status, wire,
};
use crate::{
    clock::told,
    drain,
    events::EVENTS_MAX,
    fleet::Waiter,
    registry::Stored,
    session_keys,
    stats::{Answers, RecentAnswers, Totals},
};

/// Messages that may wait for a reader of a stream.
const STREAM_BUFFER: usize = 16;

/// Answers who asks how things are.
#[derive(Debug)]
pub(super) struct FleetService {
    context: Arc<Context>,
}

impl FleetService {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    fn proxies(&self) -> Vec<pb::Proxy> {
        let views = self.context.fleet.list();
        let figures = |view: &crate::fleet::ProxyView| self.context.statistics.proxy(&view.info.id);
        let keys = session_keys::view(&self.context);
        views
            .into_iter()
            .map(|view| {
                let (figures, awaited) = (figures(&view), keys.awaited_of(&view.info.id));
                let mut proxy = wire::proxy(view, figures);
                proxy.awaited_session_key = awaited.unwrap_or_default();
                proxy.counted_since_unix_ms = told(self.context.started);
                proxy
            })
            .collect()
    }

    fn totals(&self, totals: Totals) -> pb::BackendTotals {
        wire::totals(totals, told(self.context.started))
    }

    fn refused(&self) -> Vec<pb::RefusedProxy> {
        self.context.fleet.refused().into_iter().map(wire::refused_proxy).collect()
    }

    fn limit_view(&self, stored: &Stored<Limit>) -> pb::LimitView {
        let limit = &stored.value;
        let (totals, proxies) = self.context.statistics.limit(&limit.name, limit.incarnation);
        let proxies = proxies.into_iter().map(|(proxy, totals)| {
            let share = totals.share.unwrap_or_default();
            pb::ProxyLimitTotals {
                proxy_id: proxy.to_string(),
                totals: Some(wire::limit_totals(&totals)),
                basis: share.basis.name().to_owned(),
                rate: share.rate,
                hot_keys: share.hot_keys,
            }
        });
        pb::LimitView {
            limit: Some(convert::told_limit(limit)),
            revision: stored.revision,
            totals: Some(wire::limit_totals(&totals)),
            proxies: proxies.collect(),
        }
    }

    fn pool_statuses(&self, recent: &RecentAnswers) -> Vec<pb::PoolStatus> {
        let mut totals = self.context.statistics.pools();
        let mut sessions = self.context.statistics.sessions();
        let nothing = Answers::default();
        self.context.registry.read(|view| {
            view.catalog
                .pools()
                .iter()
                .map(|(name, pool)| {
                    let mut status = pb::PoolStatus {
                        pool: Some((&pool.value).into()),
                        totals: Some(self.totals(totals.remove(name).unwrap_or_default())),
                        sources: self.source_statuses(&pool.value),
                        sessions: wire::words(&sessions.remove(name).unwrap_or_default()),
                        recent: Some(wire::recent(
                            recent.window,
                            recent.pools.get(name).unwrap_or(&nothing),
                        )),
                        slots: self.slots(QuantityKind::Pool, name.as_str(), 0),
                        ..pb::PoolStatus::default()
                    };
                    let picks = view.catalog.picks(&pool.value);
                    status.serving = u32::try_from(picks.count()).ok();
                    status.panic = wire::panic(&picks);
                    for stored in view.catalog.backends_of(Some(name)) {
                        let backend = &stored.value;
                        let known = view.catalog.status(backend);
                        let health = known.map(|status| status.health);
                        let is_up = backend.admin_state == AdminState::Enabled
                            && health == Some(Health::Up);
                        if is_up && known.is_some_and(|status| status.standing.ejection.is_some()) {
                            status.out += 1;
                        }
                        *match (backend.admin_state, health.unwrap_or_default()) {
                            (AdminState::Disabled, _) => &mut status.disabled,
                            (AdminState::Draining, _) => &mut status.draining,
                            (AdminState::Enabled, Health::Up) => &mut status.up,
                            (AdminState::Enabled, Health::Down) => &mut status.down,
                            (AdminState::Enabled, Health::Unknown) => &mut status.unknown,
                        } += 1;
                    }
                    status
                })
                .collect()
        })
    }

    fn source_statuses(&self, pool: &Pool) -> Vec<pb::SourceStatus> {
        let reports = &self.context.sources;
        let status = |source| wire::source(source, reports.report(&pool.name, source));
        pool.sources.iter().map(status).collect()
    }

    fn backend_view(
        &self,
        backend: &Backend,
        revision: u64,
        known: Option<BackendStatus>,
    ) -> pb::BackendView {
        let statistics = &self.context.statistics;
        let (totals, shares) = statistics.backend(&backend.id, backend.incarnation);
        pb::BackendView {
            backend: Some(backend.into()),
            revision,
            status: Some(known.map_or_else(|| unchecked(backend), |status| (&status).into())),
            checks: self.context.checks.report(&backend.id).map(wire::check_report),
            totals: Some(self.totals(totals)),
            proxies: shares
                .into_iter()
                .map(|(proxy, share)| pb::ProxyBackendTotals {
                    proxy_id: proxy.to_string(),
                    totals: Some(self.totals(share.totals)),
                    avoided: share.avoided,
                })
                .collect(),
            drain: drain::report(&self.context, backend, revision).map(wire::drain),
            slots: self.slots(QuantityKind::Backend, backend.id.as_str(), backend.incarnation.0),
            picked: None,
            kept: None,
            unanswered: statistics
                .unanswered(&backend.id, backend.incarnation)
                .map(wire::unanswered),
        }
    }

    fn slots(&self, kind: QuantityKind, name: &str, incarnation: u64) -> Option<pb::SlotsReport> {
        self.context.leases.view(kind, name, incarnation).map(wire::slots)
    }
}

/// What is to be said of a backend before its first check.
fn unchecked(backend: &Backend) -> pb::BackendStatus {
    pb::BackendStatus {
        backend: backend.id.to_string(),
        incarnation: backend.incarnation.0,
        health: pb::Health::Unknown.into(),
        addresses: Vec::new(),
        reason: Some(Reason::not_checked(backend.admin_state).into()),
        ..pb::BackendStatus::default()
    }
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl fleet_server::Fleet for FleetService {
    async fn list_proxies(
        &self,
        _: Request<pb::ListProxiesRequest>,
    ) -> Result<Response<pb::ListProxiesResponse>, Status> {
        let store_revision = self.context.registry.revision();
        let (proxies, refused) = (self.proxies(), self.refused());
        Ok(Response::new(pb::ListProxiesResponse { proxies, store_revision, refused }))
    }

    async fn adopt_store(
        &self,
        message: Request<pb::AdoptStoreRequest>,
    ) -> Result<Response<pb::AdoptStoreResponse>, Status> {
        let pb::AdoptStoreRequest { proxy_id } = message.into_inner();
        let only = Some(proxy_id).filter(|id| !id.is_empty());
        let only = only.map(|id| ProxyId::new(&id)).transpose();
        let only = only.map_err(|invalid| status::of_invalid(&invalid))?;
        let revision = self.context.registry.revision();
        let Some(adopting) = self.context.fleet.adopt(only.as_ref()) else {
            let id = only.map(|id| id.to_string()).unwrap_or_default();
            let views = self.context.fleet.list();
            let known: Vec<&str> = views.iter().map(|view| view.info.id.as_str()).collect();
            return Err(Status::not_found(missing("proxy", &id, &known)));
        };
        let proxies = adopting.iter().map(ProxyId::to_string).collect();
        Ok(Response::new(pb::AdoptStoreResponse { proxies, revision }))
    }

    async fn forget_proxy(
        &self,
        message: Request<pb::ForgetProxyRequest>,
    ) -> Result<Response<pb::ForgetProxyResponse>, Status> {
        let pb::ForgetProxyRequest { id, dry_run } = message.into_inner();
        let forgotten = self.context.forget_proxy(&id, dry_run);
        let view = forgotten.map_err(|error| status::of_forget(&error))?;
        let proxy = Some(wire::proxy(view, None));
        Ok(Response::new(pb::ForgetProxyResponse { proxy }))
    }

    async fn list_backends(
        &self,
        message: Request<pb::ListBackendsRequest>,
    ) -> Result<Response<pb::ListBackendsResponse>, Status> {
        let pb::ListBackendsRequest { pool, id } = message.into_inner();
        let (stored, picked, store_revision) = self.context.registry.read(|view| {
            let pool = existing_pool(&view.catalog, &pool)?;
            let mut backends = Vec::new();
            if id.is_empty() {
                backends = view.catalog.backends_of(pool.as_ref());
            } else {
                let found =
                    BackendId::new(&id).ok().and_then(|id| view.catalog.backends().get(&id));
                let in_pool =
                    found.filter(|s| pool.as_ref().is_none_or(|pool| s.value.pool == *pool));
                backends.push(in_pool.ok_or_else(|| {
                    let all = view.catalog.backends_of(pool.as_ref());
                    let names: Vec<&str> = all.iter().map(|s| s.value.id.as_str()).collect();
                    Status::not_found(missing("backend", &id, &names))
                })?);
            }
            let names: BTreeSet<&PoolName> = backends.iter().map(|s| &s.value.pool).collect();
            let pools = names.into_iter().filter_map(|name| view.catalog.pools().get(name));
            let picked: BTreeSet<BackendId> =
                pools.flat_map(|pool| view.catalog.picked(&pool.value)).collect();
            let with_status = |stored: &Stored<Backend>| {
                (stored.clone(), view.catalog.told_status(&stored.value))
            };
            let backends: Vec<_> = backends.into_iter().map(with_status).collect();
            Ok::<_, Status>((backends, picked, view.publisher.version().revision))
        })?;
        // The other locks are taken only now, one after the other.
        let mut kept = self.context.resilience.kept();
        let backends = stored
            .into_iter()
            .map(|(stored, status)| {
                let id = &stored.value.id;
                pb::BackendView {
                    picked: Some(picked.contains(id)),
                    kept: kept.remove(id).map(wire::kept),
                    ..self.backend_view(&stored.value, stored.revision, status)
                }
            })
            .collect();
        Ok(Response::new(pb::ListBackendsResponse { backends, store_revision }))
    }

    async fn list_limits(
        &self,
        message: Request<pb::ListLimitsRequest>,
    ) -> Result<Response<pb::ListLimitsResponse>, Status> {
        let name = message.into_inner().name;
        let (stored, store_revision) = self.context.registry.read(|view| {
            let limits = view.catalog.limits();
            let wanted =
                |stored: &&Stored<Limit>| name.is_empty() || stored.value.name.as_str() == name;
            let stored: Vec<Stored<Limit>> = limits.values().filter(wanted).cloned().collect();
            if stored.is_empty() && !name.is_empty() {
                let known = view.catalog.names(Kind::Limit);
                return Err(Status::not_found(missing("limit", &name, &known)));
            }
            Ok((stored, view.publisher.version().revision))
        })?;
        let limits = stored.iter().map(|stored| self.limit_view(stored)).collect();
        Ok(Response::new(pb::ListLimitsResponse { limits, store_revision }))
    }

    type WaitAppliedStream = ResponseStream<pb::ApplyProgress>;

    async fn wait_applied(
        &self,
        message: Request<pb::WaitAppliedRequest>,
    ) -> Result<Response<Self::WaitAppliedStream>, Status> {
        let pb::WaitAppliedRequest { revision, timeout_ms } = message.into_inner();
        let newest = self.context.registry.revision();
        if revision > newest {
            return Err(Status::out_of_range(format!(
                "revision {revision} does not exist yet; the newest is {newest}"
            )));
        }
        // 0 means the newest.
        let target = if revision == 0 { newest } else { revision };
        let fleet = Arc::clone(&self.context.fleet);
        let mut waiter = Waiter::new(Arc::clone(&fleet), target, wait_limit(timeout_ms));
        let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
        let stop = self.context.stop.clone();
        self.context.tracker.spawn(async move {
            let report = async {
                let mut told = None;
                while let Some(progress) = waiter.next().await {
                    told = Some(progress.done);
                    let message = wire::apply_progress(progress, waiter.elapsed());
                    if sender.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
                // The time is up: once more, with who is still missing now.
                if told == Some(false) {
                    let last = wire::apply_progress(fleet.progress(target), waiter.elapsed());
                    sender.send(Ok(last)).await.ok();
                }
            };
            tokio::select! {
                () = report => {}
                () = sender.closed() => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type WatchStream = ResponseStream<pb::Event>;

    async fn watch(
        &self,
        message: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let pb::WatchRequest { past, past_only } = message.into_inner();
        let past = usize::try_from(past).unwrap_or(usize::MAX);
        let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
        let (events, stop) = (Arc::clone(&self.context.events), self.context.stop.clone());
        self.context.tracker.spawn(async move {
            let mut reader = events.reader(past.min(EVENTS_MAX));
            let follow = async {
                let mut news = reader.so_far();
                loop {
                    for event in news {
                        if sender.send(Ok(wire::event(event))).await.is_err() {
                            return;
                        }
                    }
                    if past_only {
                        return;
                    }
                    news = reader.next().await;
                }
            };
            tokio::select! {
                () = follow => {}
                () = sender.closed() => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_stats(
        &self,
        _: Request<pb::GetStatsRequest>,
    ) -> Result<Response<pb::GetStatsResponse>, Status> {
        let statistics = &self.context.statistics;
        // Pools without traffic are listed too, with zeros.
        let mut pools: BTreeMap<PoolName, Totals> = self.context.registry.read(|view| {
            view.catalog.pools().keys().map(|n| (n.clone(), Totals::default())).collect()
        });
        pools.extend(statistics.pools());
        Ok(Response::new(pb::GetStatsResponse {
            totals: Some(self.totals(statistics.all())),
            pools: pools
                .into_iter()
                .map(|(pool, totals)| pb::PoolTotals {
                    pool: pool.to_string(),
                    totals: Some(self.totals(totals)),
                })
                .collect(),
            process: Some(wire::process(&statistics.process())),
        }))
    }

    async fn get_status(
        &self,
        _: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        // In this order: whoever sees a backend up and the proxies at this version may
        // conclude that they serve from it.
        let recent = self.context.statistics.recent();
        let pools = self.pool_statuses(&recent);
        let config_file = &self.context.config_file;
        let (version, digest, last_change, undeclared) = self.context.registry.read(|view| {
            let publisher = &view.publisher;
            let undeclared = config_file.undeclared(&view.catalog);
            (publisher.version(), publisher.digest(), view.committed, undeclared)
        });
        Ok(Response::new(pb::GetStatusResponse {
            server_id: self.context.server_id.clone(),
            build_version: env!("CARGO_PKG_VERSION").to_owned(),
            version: Some(convert::sync::version_to_wire(version)),
            digest: convert::sync::digest_to_wire(digest),
            started_unix_ms: told(self.context.started),
            last_change_unix_ms: told(last_change),
            proxies: self.proxies(),
            pools,
            totals: Some(self.totals(self.context.statistics.all())),
            process: Some(wire::process(&self.context.statistics.process())),
            refused: self.refused(),
            recent: Some(wire::recent(recent.window, &recent.all)),
            recent_unrouted: Some(wire::recent(recent.window, &recent.unrouted)),
            recent_own_answers: wire::words(&recent.own_answers),
            last_event: self.context.events.latest(),
            refused_config: config_file.refused().map(wire::refused_config),
            undeclared: undeclared.as_ref().map(wire::undeclared),
        }))
    }
}
