//! The domain: checked values, and the consistent whole that they form.
//!
//! Every limit is checked once, in a constructor that returns [`Invalid`]; later
//! code cannot hold a bad value.

mod address;
mod affinity;
mod backend;
mod concurrency;
mod drain;
mod fallback;
mod id;
mod invalid;
mod limit;
mod limit_key;
mod limits;
mod listener;
mod pool;
mod rate;
mod resilience;
mod resource;
mod route;
mod route_pools;
mod session_keys;
mod snapshot;
mod source;
mod standing;
mod status;

pub use self::{
    address::{Address, Host},
    affinity::{Affinity, CookieAffinity, HeaderAffinity, SameSite, Secure},
    backend::{AdminState, Backend, Incarnation, Labels, Weight},
    concurrency::{Concurrency, MaxInFlight},
    drain::{Drain, DrainWish},
    fallback::{Fallback, Instead, StaticAnswer, check_fallbacks},
    id::{
        BackendId, Epoch, InstanceId, LimitName, ListenerName, PoolName, ProxyId, RouteName,
        Version, natural_order,
    },
    invalid::{Invalid, shorten},
    limit::{Limit, LimitScope, LimitTarget},
    limit_key::LimitKey,
    limits::HttpLimits,
    listener::{ForwardedTrust, Listener, ListenerProtocol},
    pool::{Algorithm, BackendConnections, CheckProtocol, HealthPolicy, LeastConnections, Pool},
    rate::Rate,
    resilience::{BreakerPolicy, OutlierPolicy, ResiliencePolicy, RetryPolicy},
    resource::{Key, Kind, Resource},
    route::{HostMatch, PathMatch, Route, Unmatched},
    route_pools::RoutePools,
    session_keys::SessionKeys,
    snapshot::{BackendEntry, Backends, PoolEntry, Rejected, Snapshot},
    source::Source,
    standing::{Disagreement, EjectedBy, Ejection, SlowStart, Standing},
    status::{BackendStatus, Health, Reason},
};
