//! Payloads as short texts, and two builds of proxies that read them.
//!
//! The first word says who understands the rest: everybody (`ok`), newer builds only
//! (`future`), or nobody (`broken`).

use lb_core::{
    model::{
        AdminState, Algorithm, Backend, BackendId, BackendStatus, Health, HostMatch, Incarnation,
        Invalid, Kind, LeastConnections, Limit, LimitName, LimitTarget, Listener, ListenerName,
        PathMatch, Pool, PoolName, Rate, Reason, Resource, Route, RouteName, RoutePools, Standing,
        Weight,
    },
    sync::Object,
};

/// Of an older build.
pub(crate) fn decode_old(object: &Object) -> Result<Resource, Invalid> {
    decode(object, false)
}

/// Of a newer build.
pub(crate) fn decode_new(object: &Object) -> Result<Resource, Invalid> {
    decode(object, true)
}

fn decode(object: &Object, knows_future: bool) -> Result<Resource, Invalid> {
    let kind = object.key.kind.parse()?;
    let text = std::str::from_utf8(&object.payload).expect("payloads of this test are text");
    let words: Vec<&str> = text.split(' ').collect();
    match words[0] {
        "ok" => {}
        "future" if knows_future => {}
        "future" => {
            return Err(Invalid::unknown("payload", "unknown_algorithm", "from the future"));
        }
        _ => return Err(Invalid::value("payload", "broken")),
    }
    let name = &*object.key.name;
    let number = |at: usize| words[at].parse::<u32>().expect("a number");
    Ok(match kind {
        Kind::Pool => {
            let mut pool = Pool::new(PoolName::new(name)?);
            pool.algorithm = match number(1) {
                0 => Algorithm::RoundRobin,
                1 => Algorithm::WeightedRoundRobin,
                2 => Algorithm::IpHash,
                _ => Algorithm::LeastConnections(LeastConnections::default()),
            };
            Resource::Pool(pool)
        }
        Kind::Backend => Resource::Backend(Backend {
            weight: Weight::new(number(2))?,
            admin_state: if number(4) == 0 { AdminState::Disabled } else { AdminState::Enabled },
            incarnation: Incarnation(number(3).into()),
            ..Backend::new(BackendId::new(name)?, PoolName::new(words[1])?, "10.0.0.1:80".parse()?)
        }),
        Kind::Status => Resource::Status(BackendStatus {
            backend: BackendId::new(name)?,
            incarnation: Incarnation(number(1).into()),
            health: if number(2) == 0 { Health::Down } else { Health::Up },
            addresses: vec![([10, 0, 0, 1], 80).into()],
            reason: Reason::default(),
            since_unix_ms: 0,
            was_up: true,
            standing: Standing::default(),
        }),
        Kind::Listener => {
            let mut listener = Listener::new(ListenerName::new(name)?);
            listener.requests_max = number(1);
            Resource::Listener(listener)
        }
        Kind::Route => Resource::Route(Route {
            name: RouteName::new(name)?,
            listener: ListenerName::new(words[1])?,
            host: HostMatch::Any,
            path: PathMatch::parse(words[3], "")?,
            pools: RoutePools::one(PoolName::new(words[2])?),
        }),
        Kind::Limit => {
            let mut limit = Limit::new(LimitName::new(name)?, Rate::per_second(number(2))?);
            limit.target = match words[1].starts_with('p') {
                true => LimitTarget::Pool(PoolName::new(words[1])?),
                false => LimitTarget::Route(RouteName::new(words[1])?),
            };
            Resource::Limit(limit)
        }
        // As a build that does not know the kind says.
        Kind::SessionKeys => return Err(Invalid::unknown("kind", "unknown_kind", "unknown")),
    })
}
