//! Pools and their health-check policy.

use std::time::Duration;

use lb_core::model::{
    Algorithm, BackendConnections, CheckProtocol, Concurrency, Fallback, HealthPolicy, Invalid,
    LeastConnections, MaxInFlight, Pool, PoolName, Source, StaticAnswer, shorten,
};

use super::{
    duration_or, millis,
    resilience::{resilience_from_wire, resilience_to_wire},
};
use crate::v1 as pb;

impl TryFrom<pb::Pool> for Pool {
    type Error = Invalid;

    fn try_from(wire: pb::Pool) -> Result<Self, Invalid> {
        let algorithm = algorithm(&wire)?;
        let mut pool = Self::new(PoolName::new(&wire.name)?).with_timeouts(
            duration_or(wire.connect_timeout_ms, Self::CONNECT_TIMEOUT),
            duration_or(wire.request_timeout_ms, Self::REQUEST_TIMEOUT),
        )?;
        pool.algorithm = algorithm;
        pool.connections = connections(&wire)?;
        pool.concurrency = concurrency(&wire)?;
        pool.resilience = resilience_from_wire(&wire)?;
        pool.fallback = fallback(&wire)?;
        pool.affinity = wire.affinity.unwrap_or_default().try_into()?;
        let sources = wire.sources.iter().map(|source| source.parse());
        pool.sources = Source::checked_list(sources.collect::<Result<_, _>>()?)?;
        pool.health = wire.health_check.unwrap_or_default().try_into()?;
        Ok(pool)
    }
}

fn connections(wire: &pb::Pool) -> Result<BackendConnections, Invalid> {
    let default = BackendConnections::default();
    BackendConnections {
        response_idle_timeout: duration_or(
            wire.response_idle_timeout_ms,
            default.response_idle_timeout,
        ),
        tunnel_idle_timeout: duration_or(wire.tunnel_idle_timeout_ms, default.tunnel_idle_timeout),
        keep_alive_timeout: duration_or(wire.keep_alive_timeout_ms, default.keep_alive_timeout),
        idle_max: wire.max_idle_connections.unwrap_or(default.idle_max),
        age_max: duration_or(wire.max_connection_age_ms, default.age_max),
    }
    .checked()
}

fn concurrency(wire: &pb::Pool) -> Result<Concurrency, Invalid> {
    let adaptive = wire.adaptive_concurrency.unwrap_or_default();
    Concurrency {
        max_in_flight: MaxInFlight::of_pool(wire.max_in_flight)?,
        is_adaptive: adaptive.enabled,
        adaptive_min: if adaptive.min == 0 { Concurrency::ADAPTIVE_MIN } else { adaptive.min },
        queue_length: wire.queue_length.unwrap_or(Concurrency::QUEUE_LENGTH),
        queue_timeout: duration_or(wire.queue_timeout_ms, Pool::QUEUE_TIMEOUT),
    }
    .checked()
}

fn fallback(wire: &pb::Pool) -> Result<Fallback, Invalid> {
    let pool = Some(&wire.fallback_pool).filter(|name| !name.is_empty());
    let answer = wire.fallback_answer.as_ref().map(|wire| {
        let status = if wire.status == 0 { StaticAnswer::STATUS.into() } else { wire.status };
        let content_type = Some(wire.content_type.as_str()).filter(|text| !text.is_empty());
        let content_type = content_type.unwrap_or(StaticAnswer::CONTENT_TYPE);
        if str::from_utf8(&wire.body).is_err() {
            return Err(Invalid::value(
                "pool.fallback_body",
                "pool.fallback_body is no UTF-8 text; let a backend of a fallback pool serve what \
                 is no text",
            ));
        }
        // Beyond what a status can be it is refused as such.
        let status = u16::try_from(status).unwrap_or(u16::MAX);
        StaticAnswer::new(status, content_type, wire.body.clone())
    });
    Ok(Fallback {
        pool: pool.map(|name| PoolName::new(name)).transpose()?,
        answer: answer.transpose()?,
    })
}

/// The parameters of an algorithm are checked whatever the algorithm is, and then
/// dropped if they belong to another: who reads a pool, changes its algorithm and
/// writes it back means no harm.
fn algorithm(wire: &pb::Pool) -> Result<Algorithm, Invalid> {
    let choices =
        if wire.choices == 0 { u32::from(LeastConnections::CHOICES) } else { wire.choices };
    let hold = wire
        .error_hold_ms
        .map_or(LeastConnections::ERROR_HOLD, |ms| Duration::from_millis(u64::from(ms)));
    let parameters = LeastConnections::new(choices, hold)?;
    if wire.algorithm.is_empty() {
        return Ok(Algorithm::default());
    }
    Ok(match wire.algorithm.parse()? {
        Algorithm::LeastConnections(_) => Algorithm::LeastConnections(parameters),
        other @ (Algorithm::RoundRobin | Algorithm::WeightedRoundRobin | Algorithm::IpHash) => {
            other
        }
    })
}

impl From<&Pool> for pb::Pool {
    fn from(pool: &Pool) -> Self {
        let (choices, error_hold_ms) = match pool.algorithm {
            Algorithm::LeastConnections(parameters) => {
                let hold = u32::try_from(parameters.error_hold().as_millis()).unwrap_or(u32::MAX);
                (u32::try_from(parameters.choices()).unwrap_or(u32::MAX), Some(hold))
            }
            Algorithm::RoundRobin | Algorithm::WeightedRoundRobin | Algorithm::IpHash => (0, None),
        };
        let mut wire = Self {
            name: pool.name.to_string(),
            algorithm: pool.algorithm.name().to_owned(),
            choices,
            error_hold_ms,
            health_check: Some((&pool.health).into()),
            connect_timeout_ms: millis(pool.connect_timeout),
            request_timeout_ms: millis(pool.request_timeout),
            response_idle_timeout_ms: millis(pool.connections.response_idle_timeout),
            tunnel_idle_timeout_ms: millis(pool.connections.tunnel_idle_timeout),
            keep_alive_timeout_ms: millis(pool.connections.keep_alive_timeout),
            max_idle_connections: Some(pool.connections.idle_max),
            max_connection_age_ms: millis(pool.connections.age_max),
            affinity: Some((&pool.affinity).into()),
            max_in_flight: pool.concurrency.max_in_flight.map_or(0, MaxInFlight::get),
            queue_length: Some(pool.concurrency.queue_length),
            adaptive_concurrency: Some(pb::AdaptiveConcurrency {
                enabled: pool.concurrency.is_adaptive,
                min: pool.concurrency.adaptive_min,
            }),
            queue_timeout_ms: millis(pool.concurrency.queue_timeout),
            fallback_pool: pool.fallback.pool.as_ref().map(ToString::to_string).unwrap_or_default(),
            fallback_answer: pool.fallback.answer.as_ref().map(|answer| pb::StaticAnswer {
                status: answer.status().into(),
                content_type: answer.content_type().to_owned(),
                body: answer.body().clone(),
            }),
            sources: pool.sources.iter().map(ToString::to_string).collect(),
            ..Self::default()
        };
        resilience_to_wire(&pool.resilience, &mut wire);
        wire
    }
}

impl TryFrom<pb::HealthCheck> for HealthPolicy {
    type Error = Invalid;

    fn try_from(wire: pb::HealthCheck) -> Result<Self, Invalid> {
        let protocol = match wire.protocol.as_str() {
            "" | "http" => {
                let path = if wire.path.is_empty() { Self::PATH } else { &wire.path };
                CheckProtocol::Http { path: path.into() }
            }
            "tcp" => CheckProtocol::Tcp,
            "none" => CheckProtocol::None,
            other => {
                let shown = shorten(other);
                return Err(Invalid::unknown(
                    "pool.health",
                    "unknown_protocol",
                    format!("unknown health check {shown:?}; known are http, tcp, none"),
                ));
            }
        };
        Self::new(
            protocol,
            duration_or(wire.interval_ms, Self::INTERVAL),
            duration_or(wire.edge_interval_ms, Self::EDGE_INTERVAL),
            duration_or(wire.timeout_ms, Self::TIMEOUT),
            if wire.rise == 0 { Self::RISE } else { wire.rise },
            if wire.fall == 0 { Self::FALL } else { wire.fall },
        )
    }
}

impl From<&HealthPolicy> for pb::HealthCheck {
    fn from(policy: &HealthPolicy) -> Self {
        let (protocol, path) = match policy.protocol() {
            CheckProtocol::Http { path } => ("http", path.to_string()),
            CheckProtocol::Tcp => ("tcp", String::new()),
            CheckProtocol::None => ("none", String::new()),
        };
        Self {
            protocol: protocol.to_owned(),
            path,
            interval_ms: millis(policy.interval()),
            edge_interval_ms: millis(policy.edge_interval()),
            timeout_ms: millis(policy.timeout()),
            rise: policy.rise(),
            fall: policy.fall(),
        }
    }
}
