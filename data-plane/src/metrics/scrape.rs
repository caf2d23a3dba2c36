//! One scrape: reads the counters and writes the families.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use lb_core::{
    affinity::Met,
    limit::MICROS,
    metrics::{
        BUILD_INFO, Exposition, Format, PerBackend, exposition,
        upstream::{BackendFamilies, PoolFamilies, Sample},
    },
    model::{PoolName, RouteName},
    stats::BackendCounters,
};
use tokio::sync::watch;

use crate::{
    live::{BackendState, Config, Ledger, PoolTotals, Sticky},
    metrics as names, process,
    reason::Reason,
    stats::{Answers, Sums, sum},
    status::Status,
    worker::{Fleet, WorkerHandle, now},
};

const POOLS: PoolFamilies = PoolFamilies {
    requests: names::UPSTREAM_REQUESTS,
    attempts: names::UPSTREAM_ATTEMPTS,
    retries: names::UPSTREAM_RETRIES,
    bytes: names::UPSTREAM_BYTES,
    in_flight: names::UPSTREAM_IN_FLIGHT,
    duration: names::UPSTREAM_DURATION,
};
const BACKENDS: BackendFamilies = BackendFamilies {
    selections: names::BACKEND_SELECTIONS,
    attempts: names::BACKEND_ATTEMPTS,
    bytes: Some(names::BACKEND_BYTES),
    duration: names::BACKEND_DURATION,
    in_flight: names::BACKEND_IN_FLIGHT,
};

/// Classes of statuses, in the order in which they are counted.
const CODE_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// For routes that are no route; no name of one has parentheses.
const NO_ROUTE: &str = "(none)";
const OTHER_ROUTES: &str = "(other)";

/// Where everything is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) status: Arc<Status>,
    pub(crate) fleet: Arc<Fleet>,
    /// The configuration in use.
    pub(crate) config: watch::Receiver<Arc<Config>>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) per_backend: PerBackend,
}

impl Metrics {
    /// What a scraper is answered.
    pub(crate) fn scrape(self: &Arc<Self>, format: Format) -> Result<String, fmt::Error> {
        let metrics = Arc::clone(self);
        Ok(format.of(exposition::encode(move |exposition| metrics.write(exposition))?))
    }

    fn write(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        exposition.family(&BUILD_INFO, |family| family.gauge(&[env!("CARGO_PKG_VERSION")], 1.0))?;
        process::figures().expose(exposition)?;
        self.write_process(exposition)?;
        let config = Arc::clone(&self.config.borrow());
        self.write_pools(exposition, &config)?;
        self.write_backends(exposition, &config)?;
        write_limits(exposition, &config)?;
        self.write_control(exposition)
    }

    fn write_process(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        let workers = &self.fleet.workers;
        let sums = sum(workers.iter().map(|worker| &*worker.shard));
        let ready = self.status.checks().iter().all(|check| check.passed);
        exposition.gauge(&names::READY, f64::from(u8::from(ready)))?;
        let running = self.fleet.running.load(Ordering::Relaxed);
        exposition.gauge(&names::WORKERS, running as f64)?;
        self.write_answers(exposition)?;
        write_requests(exposition, &sums)?;
        exposition.family(&names::CONNECTIONS, |family| {
            family.gauge(&["downstream", "open"], sums.connections as f64)?;
            family.gauge(&["upstream", "idle"], sums.idle as f64)
        })?;
        let max = self.fleet.admission.open_max();
        exposition.gauge(&names::CONNECTIONS_MAX, max as f64)?;
        exposition.family(&names::CONNECTIONS_OPENED, |family| {
            family.counter(&["downstream"], sums.opened)?;
            family.counter(&["upstream"], sums.connects)
        })?;
        exposition.family(&names::WORKER_CONNECTIONS, |family| {
            let count = |worker: &WorkerHandle| worker.connections.0.load(Ordering::Relaxed);
            workers.iter().enumerate().try_for_each(|(number, worker)| {
                family.gauge(&[&number.to_string()], count(worker) as f64)
            })
        })?;
        let standing = self.status.overload();
        exposition.gauge(&names::OVERLOAD_STAGE, f64::from(standing.stage as u8))?;
        exposition.counter(&names::OVERLOAD_CLOSED, sums.idle_closed)?;
        exposition.gauge(&names::MEMORY_USED, standing.memory.used as f64)?;
        exposition.gauge(&names::MEMORY_MAX, standing.memory.limit as f64)?;
        let dropped = self.fleet.access_log.as_ref().map_or(0, |log| log.dropped());
        exposition.counter(&names::ACCESS_LOG_DROPPED, dropped)
    }

    /// What clients were answered, by route.
    fn write_answers(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        let workers = self.fleet.workers.iter();
        let unrouted = Answers::of(workers.map(|worker| &worker.shard.unrouted));
        let config = Arc::clone(&self.config.borrow());
        let by_route = config.counters_places.by_route(&config.route_counters);
        let mut routes = vec![(NO_ROUTE, &unrouted)];
        routes.extend(by_route.iter().map(|(route, answers)| {
            (route.as_ref().map_or(OTHER_ROUTES, RouteName::as_str), answers)
        }));
        exposition.family(&names::REQUESTS, |family| {
            routes.iter().try_for_each(|(route, answers)| {
                let mut classes = CODE_CLASSES.into_iter().zip(answers.status_classes);
                classes.try_for_each(|(class, count)| family.counter(&[route, class], count))
            })
        })?;
        exposition.family(&names::REQUEST_DURATION, |family| {
            routes
                .iter()
                .try_for_each(|(route, answers)| family.histogram(&[route], &answers.durations))
        })
    }

    fn write_pools(&self, exposition: &mut Exposition<'_>, config: &Config) -> fmt::Result {
        let configured: HashSet<&PoolName> = config.pools.iter().map(|pool| &pool.name).collect();
        let pools: &[(PoolName, PoolTotals)] =
            &self.ledger.totals(|pool| configured.contains(pool));
        let labels: Vec<[&str; 1]> = pools.iter().map(|(pool, _)| [pool.as_str()]).collect();
        let samples = pools.iter().zip(&labels).map(|((_, totals), labels)| Sample {
            labels,
            counters: &totals.counters,
            in_flight: totals.in_flight,
        });
        POOLS.expose(exposition, &samples.collect::<Vec<_>>())
    }

    fn write_backends(&self, exposition: &mut Exposition<'_>, config: &Config) -> fmt::Result {
        exposition.family(&names::BACKENDS_CONFIGURED, |family| {
            config.pools.iter().try_for_each(|pool| {
                family.gauge(&[pool.name.as_str()], pool.backends.len() as f64)
            })
        })?;
        exposition.family(&names::POOL_PANIC, |family| {
            config.pools.iter().try_for_each(|pool| {
                let panics = f64::from(u8::from(pool.panic.is_some()));
                family.gauge(&[pool.name.as_str()], panics)
            })
        })?;
        exposition.family(&names::SESSION_REQUESTS, |family| {
            config.pools.iter().try_for_each(|pool| {
                let Some(cookie) = pool.sticky.as_deref().and_then(Sticky::cookie) else {
                    return Ok(());
                };
                let mut sums = Met::ALL.into_iter().zip(cookie.counts.sums());
                sums.try_for_each(|(met, count)| {
                    family.counter(&[pool.name.as_str(), met.name()], count)
                })
            })
        })?;
        exposition.family(&names::POOL_FALLBACKS, |family| {
            config.pools.iter().try_for_each(|pool| {
                let (name, fallen) = (pool.name.as_str(), &pool.fallen);
                family.counter(&[name, "pool"], fallen.to_pool.load(Ordering::Relaxed))?;
                family.counter(&[name, "answer"], fallen.to_answer.load(Ordering::Relaxed))
            })
        })?;
        exposition.family(&names::RETRY_BUDGET_REMAINING, |family| {
            config.pools.iter().try_for_each(|pool| {
                family.gauge(&[pool.name.as_str()], pool.retries.remaining_ratio())
            })
        })?;
        write_slots(exposition, config)?;
        let count = config.pools.iter().map(|pool| pool.backends.len()).sum();
        if !self.per_backend.applies_to(count) {
            return Ok(());
        }
        let states = config.pools.iter().flat_map(|pool| pool.backends.iter());
        let backends: Vec<(&BackendState, BackendCounters)> =
            states.map(|state| (&**state, state.counters())).collect();
        let labels: Vec<[&str; 2]> = backends
            .iter()
            .map(|(state, _)| [state.pool.as_str(), state.identity.id.as_str()])
            .collect();
        let samples = backends.iter().zip(&labels).map(|((state, counters), labels)| Sample {
            labels,
            counters,
            in_flight: state.in_flight(),
        });
        BACKENDS.expose(exposition, &samples.collect::<Vec<_>>())?;
        exposition.family(&names::BACKEND_AVOIDED, |family| {
            backends.iter().zip(&labels).try_for_each(|((state, _), labels)| {
                family.gauge(labels, f64::from(u8::from(state.is_avoided())))
            })
        })
    }

    fn write_control(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        let following = self.status.following();
        let revision = self.status.version().map_or(0, |version| version.revision);
        exposition.family(&names::CONFIG_REVISION, |family| {
            family.gauge(&["applied"], revision as f64)
        })?;
        exposition.family(&names::CONFIG_APPLY_DURATION, |family| {
            family.histogram(&[], &following.applies)
        })?;
        exposition.family(&names::CONFIG_REJECTIONS, |family| {
            family.counter(&["configuration"], following.refusals)?;
            family.counter(&["object"], following.rejections)
        })?;
        let rejected = following.rejected_objects;
        exposition.gauge(&names::CONFIG_REJECTED_OBJECTS, rejected as f64)?;
        let connected = self.status.is_connected();
        exposition.gauge(&names::CONTROL_CONNECTED, f64::from(u8::from(connected)))?;
        exposition.counter(&names::CONTROL_SESSIONS, following.sessions)?;
        let stale = self.status.stale_since().map_or(Duration::ZERO, |since| since.age(now()));
        exposition.gauge(&names::CONTROL_STALENESS, stale.as_secs_f64())
    }
}

/// What is limited, and who waits for it.
fn write_slots(exposition: &mut Exposition<'_>, config: &Config) -> fmt::Result {
    let capped: Vec<_> = config
        .pools
        .iter()
        .filter_map(|pool| Some((pool.name.as_str(), pool.caps.as_ref()?)))
        .collect();
    exposition.family(&names::QUEUE_DEPTH, |family| {
        capped
            .iter()
            .try_for_each(|(pool, caps)| family.gauge(&[pool], caps.line().waiting() as f64))
    })?;
    exposition.family(&names::QUEUE_WAITS, |family| {
        capped.iter().try_for_each(|(pool, caps)| family.counter(&[pool], caps.line().waits().0))
    })?;
    exposition.family(&names::QUEUE_WAIT_SECONDS, |family| {
        capped.iter().try_for_each(|(pool, caps)| {
            family.seconds(&[pool], caps.line().waits().1.as_secs_f64())
        })
    })?;
    exposition.family(&names::SLOTS, |family| {
        capped.iter().flat_map(|(_, caps)| caps.all()).try_for_each(|cap| {
            let (kind, name) = (cap.quantity.kind.name(), &*cap.quantity.name);
            family.gauge(&[kind, name, "used"], cap.taken() as f64)?;
            family.gauge(&[kind, name, "free"], cap.free() as f64)
        })
    })
}

fn write_limits(exposition: &mut Exposition<'_>, config: &Config) -> fmt::Result {
    let now = now();
    let all = config.limits.as_deref().map(|limits| limits.all()).unwrap_or_default();
    let told = all.iter().map(|limit| (limit, limit.sums(), limit.gauges(now)));
    let told: Vec<_> = told.collect();
    exposition.family(&names::RATELIMIT_DECISIONS, |family| {
        told.iter().try_for_each(|(limit, sums, _)| {
            let name = limit.limit.name.as_str();
            let refused = if limit.limit.shadow { "shadow_refused" } else { "refused" };
            family.counter(&[name, "admitted"], sums.admitted)?;
            family.counter(&[name, refused], sums.refused)
        })
    })?;
    exposition.family(&names::RATELIMIT_LEASE_TOKENS, |family| {
        told.iter().try_for_each(|(limit, _, gauges)| {
            family.gauge(&[limit.limit.name.as_str()], gauges.rate as f64 / MICROS as f64)
        })
    })?;
    exposition.family(&names::RATELIMIT_HOT_KEYS, |family| {
        told.iter().try_for_each(|(limit, _, gauges)| {
            family.gauge(&[limit.limit.name.as_str()], gauges.hot_keys as f64)
        })
    })?;
    exposition.family(&names::RATELIMIT_FORGIVEN_KEYS, |family| {
        told.iter().try_for_each(|(limit, sums, _)| {
            family.counter(&[limit.limit.name.as_str()], sums.forgiven)
        })
    })
}

fn write_requests(exposition: &mut Exposition<'_>, sums: &Sums) -> fmt::Result {
    exposition.counter(&names::REQUESTS_RECEIVED, sums.requests)?;
    exposition.family(&names::OWN_ANSWERS, |family| {
        let reasons = Reason::ALL.into_iter().filter(|reason| reason.is_of_an_answer());
        reasons.into_iter().try_for_each(|reason| family.counter(&[reason.name()], sums.of(reason)))
    })?;
    exposition.counter(&names::CLIENT_ABORTS, sums.of(Reason::ClientAbort))?;
    exposition.family(&names::RETRIES, |family| {
        let reasons = Reason::ALL.into_iter().filter(|reason| reason.is_of_a_backend());
        reasons
            .into_iter()
            .try_for_each(|reason| family.counter(&[reason.name()], sums.retries(reason)))
    })?;
    exposition.family(&names::RETRIES_REFUSED, |family| {
        let mut reasons = Reason::ALL.into_iter().filter(|reason| reason.is_of_a_retry());
        reasons
            .try_for_each(|reason| family.counter(&[reason.name()], sums.retries_refused(reason)))
    })
}
