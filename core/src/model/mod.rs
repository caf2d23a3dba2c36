//! The domain: checked values, and the consistent whole that they form.
//!
//! Every limit is checked once, in a constructor that returns [`Invalid`]; later
//! code cannot hold a bad value.

mod address;
mod backend;
mod drain;
mod id;
mod invalid;
mod limits;
mod listener;
mod pool;
mod resilience;
mod resource;
mod route;
mod route_pools;
mod snapshot;
mod source;
mod standing;
mod status;

pub use self::{
    address::{Address, Host},
    backend::{AdminState, Backend, Incarnation, Labels, Weight},
    drain::{Drain, DrainWish},
    id::{
        BackendId, Epoch, InstanceId, ListenerName, PoolName, ProxyId, RouteName, Version,
        natural_order,
    },
    invalid::Invalid,
    limits::HttpLimits,
    listener::{ForwardedTrust, Listener, ListenerProtocol},
    pool::{Algorithm, BackendConnections, CheckProtocol, HealthPolicy, LeastConnections, Pool},
    resilience::{BreakerPolicy, OutlierPolicy, ResiliencePolicy, RetryPolicy},
    resource::{Key, Kind, Resource},
    route::{HostMatch, PathMatch, Route},
    route_pools::RoutePools,
    snapshot::{BackendEntry, PoolEntry, Rejected, Snapshot},
    source::Source,
    standing::{Disagreement, EjectedBy, Ejection, SlowStart, Standing},
    status::{BackendStatus, Health, Reason},
};
