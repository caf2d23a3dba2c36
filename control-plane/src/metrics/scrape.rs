//! One scrape: reads what is counted and writes the families.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use lb_core::{
    metrics::{BUILD_INFO, Exposition, Format, exposition},
    model::{
        AdminState, Backend, BackendId, EjectedBy, Ejection, Health, Incarnation, Kind, PoolName,
    },
    resilience::slow_start::Ramp,
};

use super::{self as names, fleet};
use crate::{
    clock::{now, unix_ms},
    fleet::{ProxyState, ProxyView},
    grpc::Context,
    process,
    registry::View,
    resilience::Kept,
};

/// Proxies that are told one by one.
const PROXIES_MAX: usize = 500;
/// What a backend can be.
const BACKEND_STATES: [&str; 7] =
    ["up", "kept", "ejected", "down", "unknown", "disabled", "draining"];
/// What a breaker can be.
const BREAKER_STATES: [&str; 3] = ["closed", "open", "half_open"];
/// What a proxy can be.
const PROXY_STATES: [ProxyState; 5] = [
    ProxyState::Synced,
    ProxyState::Behind,
    ProxyState::Rejected,
    ProxyState::Lost,
    ProxyState::Stopped,
];

/// A backend, as far as a scrape is concerned.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) pool: PoolName,
    pub(super) id: BackendId,
    pub(super) incarnation: Incarnation,
    state: &'static str,
    breaker: &'static str,
    /// 0 while it gets no requests.
    weight_effective: f64,
}

/// The desired state, copied as far as it is told, so that its lock is held shortly.
#[derive(Debug)]
struct Desired {
    revision: u64,
    objects: [(&'static str, usize); 5],
    pools: Vec<PoolName>,
    members: Vec<Member>,
}

impl Desired {
    fn of(view: &View, kept: &BTreeMap<BackendId, Kept>) -> Self {
        let catalog = &view.catalog;
        let (now, unix_ms) = (now(), unix_ms());
        let member = |backend: &Backend| {
            let status = catalog.status(backend);
            let health = status.map_or(Health::Unknown, |status| status.health);
            let standing = status.map(|status| &status.standing);
            let ejection = standing.and_then(|standing| standing.ejection.as_ref());
            let state = match (backend.admin_state, health) {
                (AdminState::Disabled, _) => "disabled",
                (AdminState::Draining, _) => "draining",
                (AdminState::Enabled, Health::Up) if ejection.is_some() => "ejected",
                (AdminState::Enabled, Health::Up) if kept.contains_key(&backend.id) => "kept",
                (AdminState::Enabled, health) => health.name(),
            };
            let breaker = match ejection {
                Some(Ejection { by: EjectedBy::Breaker, is_half_open: true, .. }) => "half_open",
                Some(Ejection { by: EjectedBy::Breaker, .. }) => "open",
                _ => "closed",
            };
            let ramp = standing.and_then(|standing| standing.slow_start).map(|start| {
                let age = Duration::from_millis(unix_ms.saturating_sub(start.since_unix_ms));
                Ramp::new(age, now, start.duration).factor(now)
            });
            let weight = match state {
                "up" | "kept" => f64::from(backend.weight.get()) * f64::from(ramp.unwrap_or(1.0)),
                _ => 0.0,
            };
            Member {
                pool: backend.pool.clone(),
                id: backend.id.clone(),
                incarnation: backend.incarnation,
                state,
                breaker,
                weight_effective: weight,
            }
        };
        Self {
            revision: view.publisher.version().revision,
            objects: [
                (Kind::Pool.name(), catalog.pools().len()),
                (Kind::Backend.name(), catalog.backends().len()),
                (Kind::Listener.name(), catalog.listeners().len()),
                (Kind::Route.name(), catalog.routes().len()),
                (Kind::Limit.name(), catalog.limits().len()),
            ],
            pools: catalog.pools().keys().cloned().collect(),
            members: catalog.backends().values().map(|stored| member(&stored.value)).collect(),
        }
    }
}

/// What a scraper is answered. Takes a while when there are very many backends.
pub(crate) fn scrape(context: &Arc<Context>, format: Format) -> Result<String, fmt::Error> {
    let context = Arc::clone(context);
    Ok(format.of(exposition::encode(move |exposition| write(&context, exposition))?))
}

fn write(context: &Context, exposition: &mut Exposition<'_>) -> fmt::Result {
    exposition.family(&BUILD_INFO, |family| family.gauge(&[env!("CARGO_PKG_VERSION")], 1.0))?;
    process::figures().expose(exposition)?;
    let ready = context.registry.takes_writes() && !context.stop.is_cancelled();
    exposition.gauge(&names::READY, f64::from(u8::from(ready)))?;
    let kept = context.resilience.kept();
    let desired = context.registry.read(|view| Desired::of(view, &kept));
    write_registry(context, &desired, exposition)?;
    write_proxies(context, &desired, exposition)?;
    write_streams(context, exposition)?;
    write_health(context, &desired, exposition)?;
    fleet::write_sums(context, exposition)?;
    if !context.metrics_per_backend.applies_to(desired.members.len()) {
        return Ok(());
    }
    exposition.family(&names::BACKEND_UP, |family| {
        desired.members.iter().try_for_each(|member| {
            let up = f64::from(u8::from(matches!(member.state, "up" | "kept")));
            family.gauge(&[member.pool.as_str(), member.id.as_str()], up)
        })
    })?;
    write_states(&desired.members, exposition)?;
    fleet::write_backends(context, &desired.members, exposition)
}

fn write_states(members: &[Member], exposition: &mut Exposition<'_>) -> fmt::Result {
    let mut one_of = |definition, states: &[&str], is: fn(&Member) -> &'static str| {
        exposition.family(definition, |family| {
            members.iter().try_for_each(|member| {
                states.iter().try_for_each(|state| {
                    let is_it = f64::from(u8::from(is(member) == *state));
                    family.gauge(&[member.pool.as_str(), member.id.as_str(), state], is_it)
                })
            })
        })
    };
    one_of(&names::BACKEND_STATE, &BACKEND_STATES, |member| member.state)?;
    one_of(&names::BREAKER_STATE, &BREAKER_STATES, |member| member.breaker)?;
    exposition.family(&names::BACKEND_WEIGHT_EFFECTIVE, |family| {
        members.iter().try_for_each(|member| {
            family.gauge(&[member.pool.as_str(), member.id.as_str()], member.weight_effective)
        })
    })
}

fn write_registry(
    context: &Context,
    desired: &Desired,
    exposition: &mut Exposition<'_>,
) -> fmt::Result {
    exposition.family(&names::CONFIG_REVISION, |family| {
        family.gauge(&["committed"], desired.revision as f64)
    })?;
    exposition.family(&names::OBJECTS, |family| {
        desired.objects.iter().try_for_each(|(kind, count)| family.gauge(&[kind], *count as f64))
    })?;
    let counts = context.registry.counts();
    exposition.family(&names::WRITES, |family| {
        family.counter(&["stored"], counts.stored)?;
        family.counter(&["unchanged"], counts.unchanged)?;
        family.counter(&["refused"], counts.refused)
    })?;
    exposition.counter(&names::STORE_FAILURES, counts.store_failures)?;
    exposition.family(&names::COMMIT_DURATION, |family| family.histogram(&[], &counts.commits))?;
    exposition.family(&names::EVENTS, |family| {
        let mut events = context.events.counts();
        events.try_for_each(|(what, count)| family.counter(&[what.name()], count))
    })
}

fn write_proxies(
    context: &Context,
    desired: &Desired,
    exposition: &mut Exposition<'_>,
) -> fmt::Result {
    let mut proxies = context.fleet.list();
    exposition.family(&names::PROXIES, |family| {
        PROXY_STATES.into_iter().try_for_each(|state| {
            let count = proxies.iter().filter(|proxy| proxy.state == state).count();
            family.gauge(&[state.name()], count as f64)
        })
    })?;
    let behind =
        |proxy: &ProxyView| desired.revision.saturating_sub(proxy.progress.applied_revision);
    let live = proxies.iter().filter(|proxy| proxy.state.is_connected());
    let most = live.map(behind).max().unwrap_or_default();
    exposition.gauge(&names::PROXIES_BEHIND_MAX, most as f64)?;
    // Nobody cares how far one was that serves nobody.
    proxies.retain(|proxy| proxy.state != ProxyState::Stopped);
    let told = &proxies[..proxies.len().min(PROXIES_MAX)];
    exposition.family(&names::PROXY_REVISION, |family| {
        told.iter().try_for_each(|proxy| {
            let (id, progress) = (proxy.info.id.as_str(), &proxy.progress);
            family.gauge(&[id, "sent"], progress.sent_revision as f64)?;
            family.gauge(&[id, "applied"], progress.applied_revision as f64)
        })
    })?;
    exposition.family(&names::PROXY_BEHIND, |family| {
        told.iter()
            .try_for_each(|proxy| family.gauge(&[proxy.info.id.as_str()], behind(proxy) as f64))
    })?;
    exposition.family(&names::PROXY_LAG, |family| {
        told.iter()
            .try_for_each(|proxy| family.gauge(&[proxy.info.id.as_str()], proxy.lag.as_secs_f64()))
    })?;
    exposition.family(&names::PROXY_REJECTED, |family| {
        told.iter().try_for_each(|proxy| {
            let rejected = proxy.progress.rejections.len();
            family.gauge(&[proxy.info.id.as_str()], rejected as f64)
        })
    })
}

fn write_streams(context: &Context, exposition: &mut Exposition<'_>) -> fmt::Result {
    let live = context.fleet.live().len();
    exposition.gauge(&names::SYNC_STREAMS, live as f64)?;
    exposition.counter(&names::SYNC_STREAMS_OPENED, context.fleet.streams_opened())?;
    let sent = context.fleet.sent();
    let kinds = [("snapshot", sent.snapshots.totals()), ("delta", sent.deltas.totals())];
    exposition.family(&names::SYNC_SENT, |family| {
        kinds.iter().try_for_each(|(kind, (count, _))| family.counter(&[kind], *count))
    })?;
    exposition.family(&names::SYNC_SENT_BYTES, |family| {
        kinds.iter().try_for_each(|(kind, (_, bytes))| family.counter(&[kind], *bytes))
    })?;
    let reports = context.statistics.reports();
    exposition.family(&names::STATS_REPORTS, |family| {
        family.counter(&["counted"], reports.counted)?;
        family.counter(&["repeated"], reports.repeated)?;
        family.counter(&["lost"], reports.lost)
    })
}

fn write_health(
    context: &Context,
    desired: &Desired,
    exposition: &mut Exposition<'_>,
) -> fmt::Result {
    let mut states: BTreeMap<(&PoolName, &str), usize> = BTreeMap::new();
    for member in &desired.members {
        *states.entry((&member.pool, member.state)).or_default() += 1;
    }
    exposition.family(&names::BACKENDS, |family| {
        desired.pools.iter().try_for_each(|pool| {
            BACKEND_STATES.into_iter().try_for_each(|state| {
                let count = states.get(&(pool, state)).copied().unwrap_or_default();
                family.gauge(&[pool.as_str(), state], count as f64)
            })
        })
    })?;
    fleet::write_drains(context, exposition)?;
    exposition.family(&names::BACKEND_TRANSITIONS, |family| {
        let transitions = context.registry.counts().transitions;
        transitions
            .iter()
            .try_for_each(|((pool, to), count)| family.counter(&[pool.as_str(), to], *count))
    })?;
    exposition.family(&names::BREAKER_TRANSITIONS, |family| {
        let transitions = context.resilience.transitions();
        transitions.iter().try_for_each(|(it, count)| {
            family.counter(&[it.pool.as_str(), it.from, it.to, it.reason], *count)
        })
    })?;
    let checks = context.checks.pools();
    exposition.family(&names::BACKEND_CHECKS, |family| {
        checks.iter().try_for_each(|(pool, checks)| {
            family.counter(&[pool.as_str(), "passed"], checks.passed)?;
            family.counter(&[pool.as_str(), "failed"], checks.failed)
        })
    })?;
    exposition.family(&names::BACKEND_CHECK_DURATION, |family| {
        checks
            .iter()
            .try_for_each(|(pool, checks)| family.histogram(&[pool.as_str()], &checks.durations))
    })
}
