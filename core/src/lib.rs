//! Pure decisions of the load balancer.
//!
//! Nothing here does I/O, reads a clock, draws ambient randomness, logs, or needs a
//! runtime: callers pass `now` and a seeded generator, and get data back. That is
//! why a test can walk through a week in a millisecond, and why both planes and
//! `lbctl` judge a configuration by the very same code.
//!
//! | module | decides |
//! |---|---|
//! | [`model`] | what a valid pool, backend, listener or route is, and what a consistent whole is |
//! | [`discovery`] | what the answers of a pool's sources change in its backends |
//! | [`routing`] | which route a request takes, and why not another |
//! | [`balance`] | which backend gets a request |
//! | [`health`] | when a probe's answers change a verdict |
//! | [`sync`] | which configuration goes to which proxy, and when it may be applied |
//! | [`client_address`] | whose address a request came from |
//! | [`cross_site`] | whether a request for management is sent by who it seems to be |
//! | [`backoff`] | when to try again |
//! | [`moment`] | how long ago something was, whatever the wall clock did since |
//! | [`log_filter`] | what `--log-level` understands |
//! | [`metrics`] | what metrics look like to Prometheus |
//! | [`stats`] | how counters and latencies add up over workers and proxies |

pub mod backoff;
pub mod balance;
pub mod client_address;
pub mod cross_site;
pub mod discovery;
pub mod health;
pub mod log_filter;
pub mod metrics;
pub mod model;
pub mod moment;
pub mod routing;
pub mod stats;
pub mod sync;
