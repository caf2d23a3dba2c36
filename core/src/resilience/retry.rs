//! Whether a request is sent once more, and when.
//!
//! | what happened | again? |
//! |---|---|
//! | nothing of it was written: no connection, a refused stream, a kept connection found dead | any method, at another backend, at once; nothing was sent twice, so no budget is needed |
//! | written, and no byte of a response came | idempotent methods, out of the budget |
//! | the same, on a kept connection, which its backend may just have closed | the same, at once, and over new connections only |
//! | a half response head, or none that is HTTP, and the client was told nothing | idempotent methods, out of the budget |
//! | an attempt's own timeout passed | the same |
//! | 502, 503 or 504 | the same |
//! | anything else: the client was told part of a response, the request's own time is up | never |
//!
//! What is sent again must still be all there: a body that has gone through the proxy's
//! replay buffer cannot be.

use std::time::Duration;

use crate::model::RetryPolicy;

/// Backends that one request tries at most, whatever the reason.
pub const ATTEMPTS_MAX: u32 = 32;

/// The longest wait before the first retry, as Envoy's.
const BACKOFF_BASE: Duration = Duration::from_millis(25);
/// The longest wait of all, as Envoy's and Caddy's.
const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// How an attempt ended that did not bring a response to the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Nothing of the request was written.
    NeverWritten,
    /// Something may have been written; no byte of a response came.
    Silent,
    /// The same on a connection that was kept: its backend may have closed it just then,
    /// which is no fault of its own. Or it died of the request.
    KeptEnded,
    /// Part of a response came, or one that is no HTTP, and the client was told nothing of it.
    Broken,
    /// The attempt's own timeout passed before a response.
    TryTimeout,
    /// A response came, and its status is this one.
    Status(u16),
    /// The client was told part of a response, or the request's time is up.
    Final,
}

/// What is known about a request whose attempt failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failed {
    /// How the attempt ended.
    pub fault: Fault,
    /// Whether sending it twice does what sending it once does (RFC 9110, 9.2.2).
    pub is_idempotent: bool,
    /// Whether all of its body is still at hand.
    pub is_replayable: bool,
    /// Attempts so far, this one included.
    pub attempts: u32,
    /// Attempts so far that were retries out of the budget.
    pub retries: u32,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Send it to another backend at once.
    Elsewhere,
    /// Take a permit of the budget, wait for [`backoff`], send it to another backend if
    /// there is one.
    Retry,
    /// Tell the client.
    GiveUp(Why),
}

/// Why a request is not sent again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// Such a fault is not for sending again.
    Fault,
    /// Sending it twice might do something twice.
    NotIdempotent,
    /// Its body is no longer all there.
    NotReplayable,
    /// It was sent as often as it may be.
    Exhausted,
}

/// Decides about a request whose attempt failed.
#[must_use]
pub fn decide(policy: &RetryPolicy, failed: &Failed) -> Decision {
    match failed.fault {
        Fault::NeverWritten if failed.attempts < ATTEMPTS_MAX => return Decision::Elsewhere,
        Fault::NeverWritten => return Decision::GiveUp(Why::Exhausted),
        Fault::Silent
        | Fault::KeptEnded
        | Fault::Broken
        | Fault::TryTimeout
        | Fault::Status(502..=504) => {}
        Fault::Status(_) | Fault::Final => return Decision::GiveUp(Why::Fault),
    }
    if !failed.is_idempotent {
        Decision::GiveUp(Why::NotIdempotent)
    } else if !failed.is_replayable {
        Decision::GiveUp(Why::NotReplayable)
    } else if failed.retries >= policy.retries || failed.attempts >= ATTEMPTS_MAX {
        Decision::GiveUp(Why::Exhausted)
    } else {
        Decision::Retry
    }
}

/// How long to wait before a retry that was preceded by `retries` others: anything
/// between nothing and a ceiling that doubles, so that requests that failed together do
/// not come again together.
#[must_use]
pub fn backoff(retries: u32, rng: &mut fastrand::Rng) -> Duration {
    let doubled = 2_u32.checked_pow(retries).unwrap_or(u32::MAX);
    BACKOFF_BASE.saturating_mul(doubled).min(BACKOFF_MAX).mul_f64(rng.f64())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An idempotent request that is still all there, after its first attempt.
    fn first(fault: Fault) -> Failed {
        Failed { fault, is_idempotent: true, is_replayable: true, attempts: 1, retries: 0 }
    }

    #[test]
    fn what_was_never_written_goes_elsewhere_whatever_it_is() {
        let policy = RetryPolicy { retries: 0, ..RetryPolicy::default() };
        for (is_idempotent, is_replayable) in [(true, true), (false, true), (true, false)] {
            let failed = Failed { is_idempotent, is_replayable, ..first(Fault::NeverWritten) };
            assert_eq!(decide(&policy, &failed), Decision::Elsewhere);
            let last = Failed { attempts: ATTEMPTS_MAX, ..failed };
            assert_eq!(decide(&policy, &last), Decision::GiveUp(Why::Exhausted));
        }
    }

    #[test]
    fn what_was_written_is_sent_again_once_if_it_can_be() {
        let policy = RetryPolicy::default();
        let faults = [Fault::Silent, Fault::KeptEnded, Fault::Broken, Fault::TryTimeout]
            .into_iter()
            .chain((502..=504).map(Fault::Status));
        for fault in faults {
            let failed = first(fault);
            assert_eq!(decide(&policy, &failed), Decision::Retry);
            for (failed, why) in [
                (Failed { is_idempotent: false, ..failed }, Why::NotIdempotent),
                (Failed { is_replayable: false, ..failed }, Why::NotReplayable),
                (Failed { retries: 1, attempts: 2, ..failed }, Why::Exhausted),
                (Failed { attempts: ATTEMPTS_MAX, ..failed }, Why::Exhausted),
            ] {
                assert_eq!(decide(&policy, &failed), Decision::GiveUp(why), "{fault:?}");
            }
        }
    }

    #[test]
    fn an_answer_is_an_answer() {
        let policy = RetryPolicy { retries: 10, ..RetryPolicy::default() };
        for fault in [Fault::Final, Fault::Status(500), Fault::Status(501), Fault::Status(505)] {
            assert_eq!(decide(&policy, &first(fault)), Decision::GiveUp(Why::Fault));
        }
    }

    #[test]
    fn waits_spread_evenly_below_a_ceiling_that_doubles_to_its_end() {
        let mut rng = fastrand::Rng::with_seed(3);
        for (retries, ceiling) in [(0, 25), (1, 50), (2, 100), (3, 200), (4, 250), (99, 250)] {
            let waits: Vec<f64> =
                (0..4_000).map(|_| backoff(retries, &mut rng).as_secs_f64() * 1e3).collect();
            let ceiling = f64::from(ceiling);
            assert!(waits.iter().all(|wait| (0.0..=ceiling).contains(wait)));
            let mean = waits.iter().sum::<f64>() / 4_000.0;
            assert!((mean / ceiling - 0.5).abs() < 0.03, "{retries}: {mean}");
        }
    }

    proptest! {
        /// Whatever keeps failing in whatever ways ends, and spends no more than allowed.
        #[test]
        fn every_request_comes_to_an_end(
            kinds in prop::collection::vec(0_u8..6, 100),
            retries in 0_u32..=10,
        ) {
            let policy = RetryPolicy { retries, ..RetryPolicy::default() };
            let mut failed = first(Fault::Silent);
            let mut ended = false;
            for kind in kinds {
                failed.fault = [
                    Fault::NeverWritten,
                    Fault::Silent,
                    Fault::TryTimeout,
                    Fault::Status(503),
                    Fault::NeverWritten,
                    Fault::Broken,
                ][usize::from(kind)];
                match decide(&policy, &failed) {
                    Decision::Elsewhere => {}
                    Decision::Retry => failed.retries += 1,
                    Decision::GiveUp(_) => {
                        ended = true;
                        break;
                    }
                }
                failed.attempts += 1;
            }
            prop_assert!(ended && failed.retries <= retries && failed.attempts <= ATTEMPTS_MAX);
        }
    }
}
