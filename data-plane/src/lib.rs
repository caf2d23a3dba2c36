//! The proxy of the load balancer, one process of the data plane.
//!
//! It follows a control plane, serves traffic from what it was told last, and never
//! needs the control plane in order to go on.
//!
//! | module | does |
//! |---|---|
//! | `app` | starts everything |
//! | `open` | opens addresses and the data directory |
//! | `stop` | ends everything in order |
//! | `takeover` | hands the listening sockets to a new process |
//! | `sync` | follows the control plane |
//! | `live` | compiles configuration into what workers serve from |
//! | `worker` | threads, timers, buffers |
//! | `h1` | HTTP/1 without I/O |
//! | `http` | HTTP on clients' connections |
//! | `upstream` | connections to backends |
//! | `access_log` | writes a line for each request |
//! | `leases` | this proxy's shares of what holds over the whole fleet |
//! | `stats` | counts and reports |
//! | `retry_budget` | says four times a second how many retries there may be |
//! | `overload` | sees connections or memory run out, and tells the workers what to give up |
//! | `memory` | how much of it there is, and how much is in use |
//! | `metrics` | tells Prometheus what was counted |
//! | `fuzzing` | what must hold of `h1` for any bytes; only in tests and fuzzers |

mod access_log;
mod admin;
mod app;
pub mod args;
mod clock;
mod data_dir;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod h1;
mod http;
mod keep;
mod last_good;
mod leases;
mod listen;
mod live;
mod memory;
mod metrics;
mod open;
mod overload;
mod process;
mod reason;
mod retry_budget;
mod seal;
mod serving;
mod stats;
mod status;
mod stop;
mod sync;
mod takeover;
mod telemetry;
mod upstream;
mod worker;

pub use self::{access_log::AccessLogTarget, app::run, error::RunError};
