//! The control plane: owns the desired state, judges the health of backends, and gives
//! both to any number of proxies.
//!
//! | module | does |
//! |---|---|
//! | [`registry`] | the desired state, changed by one writer |
//! | [`store`] | keeps it over restarts |
//! | `probe` | active checks, one prober for the whole fleet |
//! | [`fleet`] | which proxies there are, and what each has applied |
//! | [`stats`] | what the proxies report, added up |
//! | `leases` | lends the proxies their shares of what holds over the whole fleet |
//! | `drain` | carries drains of backends to their end |
//! | [`events`] | what happened lately |
//! | `declared` | the file of declared state that it is started with |
//! | `grpc`, `http` | shells |
//! | `app`, `process` | put the parts together and take them apart |
//!
//! Traffic does not depend on any of this being up: proxies go on with what they hold.

mod app;
pub mod args;
mod clock;
mod connections;
mod data_dir;
mod declared;
mod discovery;
mod drain;
pub mod events;
pub mod fleet;
mod grpc;
mod housekeeping;
mod http;
mod leases;
mod limit_events;
mod listen;
mod metrics;
mod probe;
mod process;
pub mod registry;
pub mod resilience;
mod session_keys;
mod session_timeout;
pub mod stats;
pub mod store;
mod telemetry;

pub use self::{
    app::{Config, RunError, Running, STOP_LIMIT, Storage, start},
    args::{Args, LogFormat},
    data_dir::DataDirError,
    declared::ConfigError,
    listen::{Endpoint, ListenError},
    process::run,
    session_timeout::SessionTimeoutError,
    telemetry::BadLogLevel,
};
