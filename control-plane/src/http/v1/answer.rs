//! What is answered: objects as they are declared, with their revision and what is
//! observed of them.

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, ETAG, LOCATION},
    },
    response::{IntoResponse as _, Response},
};
use lb_core::{
    lease::QuantityKind,
    model::{
        AdminState, Backend, BackendStatus, Disagreement, Ejection, Health, Pool, PoolName, Reason,
        Resource,
    },
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    body::fields,
    collection::Collection,
    condition::etag,
    limits,
    plight::{DrainObserved, KeptObserved, PanicObserved},
    slots::SlotsObserved,
};
use crate::{
    clock::millis,
    fleet::Laggard,
    grpc::{Applied, Context},
    registry::{Catalog, Stored},
    stats::Totals,
};

/// Traffic, summed over all proxies since the control plane started.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Traffic {
    /// Requests given to backends.
    requests: u64,
    /// Answered with a status below 500.
    successes: u64,
    /// Answered with 5xx, or not at all.
    failures: u64,
    /// Requests that went on to another backend.
    retries: u64,
    /// Requests that wait for their answer now.
    in_flight: u32,
    /// Per second, over the last seconds.
    request_rate: f64,
    /// The mean, in milliseconds; 0 without requests.
    latency_ms: f64,
}

impl From<&Totals> for Traffic {
    fn from(totals: &Totals) -> Self {
        let counters = &totals.counters;
        Self {
            requests: counters.requests,
            successes: counters.successes,
            failures: counters.failures.total(),
            retries: counters.retries,
            in_flight: totals.in_flight,
            request_rate: totals.request_rate,
            latency_ms: counters.latency.mean_us().map_or(0.0, |us| us as f64 / 1000.0),
        }
    }
}

/// What is observed of a backend.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BackendObserved {
    /// `up`, `down` or `unknown`.
    verdict: &'static str,
    /// Why, for programs.
    reason_code: String,
    /// Why, for people.
    reason: String,
    /// When the verdict last changed; 0 before the first check.
    since_unix_ms: u64,
    /// What its name resolved to, or its address.
    addresses: Vec<String>,
    traffic: Traffic,
    /// Why it gets no requests although its checks pass; only while that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    ejection: Option<EjectionObserved>,
    /// Who sees it otherwise than the verdict says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    disagreements: Vec<DisagreementObserved>,
    /// Why its requests fail and it gets them all the same; only while that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<KeptObserved>,
    /// How its drain goes; only while it is draining.
    #[serde(skip_serializing_if = "Option::is_none")]
    drain: Option<DrainObserved>,
    /// Only where requests in progress are limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<SlotsObserved>,
}

/// A backend that is out for what its requests came to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EjectionObserved {
    /// `breaker` or `outlier`.
    by: &'static str,
    /// Whether one request of the fleet at a time tries it.
    half_open: bool,
    /// For how long it is out, from `since_unix_ms` on.
    open_for_ms: u64,
    /// Times in a row, this one included.
    times: u32,
    /// Why, for programs.
    reason_code: String,
    /// Why, for people.
    reason: String,
    since_unix_ms: u64,
}

/// One party that sees a backend otherwise than the verdict says.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DisagreementObserved {
    /// Nothing: the control plane's checks.
    proxy: Option<String>,
    /// What it sees, for programs.
    reason_code: String,
    /// What it sees, for people.
    reason: String,
}

impl From<Ejection> for EjectionObserved {
    fn from(ejection: Ejection) -> Self {
        Self {
            by: ejection.by.name(),
            half_open: ejection.is_half_open,
            open_for_ms: millis(ejection.open_for),
            times: ejection.times,
            reason_code: ejection.reason.code,
            reason: ejection.reason.message,
            since_unix_ms: ejection.since_unix_ms,
        }
    }
}

impl From<Disagreement> for DisagreementObserved {
    fn from(disagreement: Disagreement) -> Self {
        Self {
            proxy: disagreement.proxy.map(|proxy| proxy.to_string()),
            reason_code: disagreement.reason.code,
            reason: disagreement.reason.message,
        }
    }
}

/// What is observed of a pool.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct PoolObserved {
    /// Enabled backends that are up.
    up: u32,
    /// Enabled backends that are down.
    down: u32,
    /// Enabled backends that were not yet checked.
    unknown: u32,
    /// Backends that finish what they have.
    draining: u32,
    /// Backends that get nothing.
    disabled: u32,
    /// Backends that get requests, by all that the fleet knows.
    serving: u32,
    /// Only while backends that are not well are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    panic: Option<PanicObserved>,
    traffic: Traffic,
    /// Only where requests in progress are limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<SlotsObserved>,
}

/// How far a change got.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AppliedAnswer {
    /// Live proxies.
    proxies: u32,
    /// Those that serve by the change.
    applied: u32,
    /// How long was waited.
    elapsed_ms: u64,
    /// Proxies that do not serve by it yet.
    laggards: Vec<LaggardAnswer>,
    /// Proxies that refused it.
    rejections: Vec<RejectionAnswer>,
    /// Proxies that were lost before: they are not waited for, and may still serve an older
    /// revision.
    lost: Vec<LaggardAnswer>,
}

/// A proxy that is behind.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LaggardAnswer {
    proxy: String,
    /// `behind`, `rejected` when it refuses the state, `lost` when it is not connected, or `away`
    /// when it is not back since the control plane was restarted.
    state: &'static str,
    /// What it serves by.
    applied_revision: u64,
    /// Why it refuses the whole state; empty when it does not. It is asked again by itself.
    refusal: String,
}

/// An object that a proxy refused.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RejectionAnswer {
    proxy: String,
    kind: String,
    name: String,
    /// Why, for programs.
    code: String,
    /// Why, for people.
    reason: String,
}

impl From<Applied> for AppliedAnswer {
    fn from(Applied { progress, elapsed }: Applied) -> Self {
        let told = |laggard: Laggard| LaggardAnswer {
            proxy: laggard.proxy.to_string(),
            state: laggard.state(),
            applied_revision: laggard.applied_revision,
            refusal: laggard.refusal.unwrap_or_default(),
        };
        let rejections = progress.rejections.into_iter().map(|(proxy, rejection)| {
            let (kind, name) = (rejection.key.kind.to_string(), rejection.key.name.to_string());
            let (code, reason) = (rejection.code, rejection.message);
            RejectionAnswer { proxy: proxy.to_string(), kind, name, code, reason }
        });
        Self {
            proxies: progress.proxies,
            applied: progress.applied,
            elapsed_ms: millis(elapsed),
            laggards: progress.laggards.into_iter().map(told).collect(),
            rejections: rejections.collect(),
            lost: progress.lost.into_iter().map(told).collect(),
        }
    }
}

/// An object and what the registry knows of it, copied out so that no lock is held while
/// the answer is written.
#[derive(Debug)]
pub(super) struct Found {
    stored: Stored<Resource>,
    observed: Observed,
}

#[derive(Debug)]
enum Observed {
    Nothing,
    Pool(PoolObserved),
    Backend(Option<BackendStatus>),
}

impl Found {
    pub(super) fn new(catalog: &Catalog, stored: Stored<Resource>) -> Self {
        let observed = match &stored.value {
            Resource::Pool(pool) => Observed::Pool(count(catalog, pool)),
            Resource::Backend(backend) => Observed::Backend(catalog.told_status(backend)),
            Resource::Listener(_)
            | Resource::Route(_)
            | Resource::Limit(_)
            | Resource::Status(_)
            | Resource::SessionKeys(_) => Observed::Nothing,
        };
        Self { stored, observed }
    }

    pub(super) fn revision(&self) -> u64 {
        self.stored.revision
    }

    pub(super) fn name(&self) -> &str {
        self.stored.value.name()
    }

    /// The whole object. `totals` are those of the pools.
    pub(super) fn into_fields(
        self,
        context: &Context,
        totals: &BTreeMap<PoolName, Totals>,
    ) -> Map<String, Value> {
        let mut fields = fields(&self.stored.value);
        fields.insert("revision".to_owned(), self.stored.revision.into());
        let status = match (self.observed, &self.stored.value) {
            (Observed::Pool(mut observed), Resource::Pool(pool)) => {
                observed.traffic = totals.get(&pool.name).map(Traffic::from).unwrap_or_default();
                let slots = context.leases.view(QuantityKind::Pool, pool.name.as_str(), 0);
                observed.slots = slots.map(SlotsObserved::from);
                serde_json::to_value(observed).ok()
            }
            (Observed::Backend(status), Resource::Backend(backend)) => {
                if let Some(source) = &backend.source {
                    fields.insert("source".to_owned(), source.to_string().into());
                }
                serde_json::to_value(observed(context, backend, self.stored.revision, status)).ok()
            }
            (_, Resource::Limit(limit)) => {
                serde_json::to_value(limits::observed(context, limit)).ok()
            }
            _ => None,
        };
        fields.extend(status.map(|status| ("status".to_owned(), status)));
        fields
    }

    /// The object as an answer. `location` is where a new one is.
    pub(super) fn into_response(
        self,
        context: &Context,
        status: StatusCode,
        applied: Option<Applied>,
        location: Option<&Collection>,
    ) -> Response {
        let tag = etag(self.stored.revision);
        let location = location.and_then(|collection| {
            HeaderValue::try_from(format!("/v1/{}/{}", collection.plural, self.name())).ok()
        });
        let mut fields = self.into_fields(context, &context.statistics.pools());
        let applied =
            applied.and_then(|applied| serde_json::to_value(AppliedAnswer::from(applied)).ok());
        fields.extend(applied.map(|applied| ("applied".to_owned(), applied)));
        let mut response = json(status, &fields);
        response.headers_mut().insert(ETAG, tag);
        if let Some(location) = location {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }
}

/// JSON that nobody keeps without asking again.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let mut response = (status, Json(body)).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// 304.
pub(super) fn not_modified(revision: u64) -> Response {
    (StatusCode::NOT_MODIFIED, [(ETAG, etag(revision))]).into_response()
}

fn count(catalog: &Catalog, pool: &Pool) -> PoolObserved {
    let picks = catalog.picks(pool);
    let mut counts = PoolObserved {
        serving: u32::try_from(picks.count()).unwrap_or(u32::MAX),
        panic: PanicObserved::of(&picks),
        ..PoolObserved::default()
    };
    for stored in catalog.backends_of(Some(&pool.name)) {
        let health = catalog.status(&stored.value).map(|status| status.health);
        *match (stored.value.admin_state, health.unwrap_or_default()) {
            (AdminState::Disabled, _) => &mut counts.disabled,
            (AdminState::Draining, _) => &mut counts.draining,
            (AdminState::Enabled, Health::Up) => &mut counts.up,
            (AdminState::Enabled, Health::Down) => &mut counts.down,
            (AdminState::Enabled, Health::Unknown) => &mut counts.unknown,
        } += 1;
    }
    counts
}

fn observed(
    context: &Context,
    backend: &Backend,
    revision: u64,
    status: Option<BackendStatus>,
) -> BackendObserved {
    let (totals, _) = context.statistics.backend(&backend.id, backend.incarnation);
    let traffic = Traffic::from(&totals);
    let drain = DrainObserved::of(context, backend, revision);
    let kept = context.resilience.kept_of(&backend.id).map(KeptObserved::from);
    let (id, incarnation) = (backend.id.as_str(), backend.incarnation.0);
    let slots = context.leases.view(QuantityKind::Backend, id, incarnation);
    let slots = slots.map(SlotsObserved::from);
    match status {
        Some(status) => BackendObserved {
            verdict: status.health.name(),
            reason_code: status.reason.code.clone(),
            reason: status.reason.message.clone(),
            since_unix_ms: status.since_unix_ms,
            addresses: status.addresses.iter().map(ToString::to_string).collect(),
            traffic,
            ejection: status.standing.ejection.map(EjectionObserved::from),
            disagreements: status
                .standing
                .disagreements
                .into_iter()
                .map(DisagreementObserved::from)
                .collect(),
            kept,
            drain,
            slots,
        },
        None => {
            let unchecked = Reason::not_checked(backend.admin_state);
            BackendObserved {
                verdict: Health::Unknown.name(),
                reason_code: unchecked.code,
                reason: unchecked.message,
                since_unix_ms: 0,
                addresses: Vec::new(),
                traffic,
                ejection: None,
                disagreements: Vec::new(),
                kept,
                drain,
                slots,
            }
        }
    }
}
