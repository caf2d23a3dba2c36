//! Pure decisions of the load balancer.
//!
//! Nothing here does I/O, reads a clock, draws ambient randomness, logs, or needs a
//! runtime: callers pass `now` and a seeded generator, and get data back. That is
//! why a test can walk through a week in a millisecond, and why both planes and
//! `lbctl` judge a configuration by the very same code.
//!
//! | module | decides |
//! |---|---|
//! | [`model`] | what a valid pool, backend, listener, route or limit is, and what a consistent whole is |
//! | [`discovery`] | what the answers of a pool's sources change in its backends |
//! | [`drain`] | when the drain of a backend ends |
//! | [`routing`] | which route a request takes, and why not another |
//! | [`affinity`] | whether a client stays with its backend |
//! | [`balance`] | which backend gets a request |
//! | [`health`] | whether a backend is well, and which of a pool may be picked |
//! | [`resilience`] | what the fleet does about backends that fail |
//! | [`overload`] | what a proxy gives up first when it runs out of connections or memory |
//! | [`sync`] | which configuration goes to which proxy, and when it may be applied |
//! | [`lease`] | how much of a limit over the whole fleet each proxy may use |
//! | [`limit`] | whether a request is within a rate, or waits for a slot |
//! | [`client_address`] | whose address a request came from |
//! | [`cross_site`] | whether a request for management is sent by who it seems to be |
//! | [`backoff`] | when to try again |
//! | [`moment`] | how long ago something was, whatever the wall clock did since |
//! | [`size`] | how many bytes `64KiB` are |
//! | [`number`] | which whole numbers a setting takes, and what to say of others |
//! | [`departed`] | for how long something is kept of what is gone |
//! | [`listening`] | what to say of an address that cannot be listened on |
//! | [`log_filter`] | what `--log-level` understands |
//! | [`metrics`] | what metrics look like to Prometheus |
//! | [`stats`] | how counters and latencies add up over workers and proxies |

pub mod affinity;
pub mod backoff;
pub mod balance;
pub mod client_address;
pub mod cross_site;
pub mod departed;
pub mod discovery;
pub mod drain;
pub mod event_log;
pub mod health;
pub mod lease;
pub mod limit;
pub mod listening;
pub mod log_filter;
pub mod metrics;
pub mod model;
pub mod moment;
pub mod number;
pub mod overload;
pub mod resilience;
pub mod routing;
pub mod size;
pub mod state_dir;
pub mod stats;
pub mod sync;

/// Where a simulated clock begins.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the one epoch of a simulated clock")]
pub(crate) fn epoch() -> std::time::Instant {
    std::time::Instant::now()
}
