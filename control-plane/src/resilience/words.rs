//! Says why a backend is out.

use std::time::Duration;

use lb_core::{
    health::verdict,
    model::{Disagreement, Reason},
    resilience::{breaker::Cause, ejection::Refused, outlier::Outlier},
};

/// Why a breaker opened.
pub(super) fn of_cause(cause: Cause, window: Duration) -> Reason {
    let message = match cause {
        Cause::Consecutive { failures } => {
            format!("{failures} requests in a row failed, counted over all proxies")
        }
        Cause::Ratio { failures, requests } => {
            format!("{failures} of {requests} requests failed within {window:?}")
        }
        Cause::ProbeFailed => "the request that tried it failed, too".to_owned(),
        Cause::ProbeLost => "the proxy whose request tried it was lost before it ended".to_owned(),
    };
    Reason::new(code_of_cause(cause), message)
}

/// The word for why a breaker opened.
pub(super) fn code_of_cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Consecutive { .. } => "breaker_consecutive_failures",
        Cause::Ratio { .. } => "breaker_failure_ratio",
        Cause::ProbeFailed => "breaker_probe_failed",
        Cause::ProbeLost => "breaker_probe_lost",
    }
}

/// Why an outlier is one.
pub(super) fn of_outlier(outlier: Outlier) -> Reason {
    match outlier {
        Outlier::SuccessRate { rate, threshold } => Reason::new(
            "outlier_success_rate",
            format!(
                "{:.1} % of its requests succeed, where its pool makes at least {:.1} % expected",
                100.0 * rate,
                100.0 * threshold
            ),
        ),
        Outlier::FailurePercentage { percent } => Reason::new(
            "outlier_failure_percentage",
            format!("{percent:.1} % of its requests fail"),
        ),
        Outlier::Latency { mean, median } => Reason::new(
            "outlier_latency",
            format!("it takes {mean:.1?} where the others take {median:.1?}"),
        ),
    }
}

/// Why a backend is not out although there is a reason.
pub(super) fn of_refusal(why: &Reason, refused: Refused) -> Reason {
    Reason::new("ejection_refused", format!("{}, but it stays: {refused}", why.message))
}

/// Why a backend that stayed although there was a reason to take it out does so no longer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ended {
    /// The operator took it out.
    NotWanted,
    /// Its pool can spare it.
    Out,
    /// Its checks took it down.
    Down,
    /// There is no reason any more.
    Well,
}

/// The same in words.
pub(super) fn of_end(ended: Ended) -> Reason {
    match ended {
        Ended::NotWanted => Reason::new("not_wanted", "it was disabled, or is being drained"),
        Ended::Out => Reason::new("taken_out", "it is out now: its pool can spare it"),
        Ended::Down => Reason::new("check_failed", "it is down now, by its checks"),
        Ended::Well => {
            Reason::new("no_longer_failing", "there is no reason any more to take it out")
        }
    }
}

/// Why a backend is held down.
pub(super) fn of_hold(score: f64, lasts: Duration, below: &Reason) -> Reason {
    let seconds = lasts.as_secs();
    let message = format!(
        "its verdict comes and goes (score {score:.1}), so it stays down for {seconds} s whatever its \
         checks say; the last one: {}",
        below.message
    );
    Reason::new("flap_hold", message)
}

/// Who sees it otherwise, for its status.
pub(super) fn of_disagreement(told: &verdict::Disagreement, shown_up: bool) -> Vec<Disagreement> {
    let mut all = Vec::new();
    if shown_up && !told.check_passes {
        let reason = Reason::new("check_failing", "the control plane's checks cannot reach it");
        all.push(Disagreement { proxy: None, reason });
    }
    if !shown_up && told.check_passes {
        let reason = Reason::new("check_passing", "the control plane's checks pass");
        all.push(Disagreement { proxy: None, reason });
    }
    let (proxies, reason) = if shown_up {
        (&told.failing, Reason::new("unreachable_from_proxy", "its requests get no answer from it"))
    } else {
        (&told.serving, Reason::new("reachable_from_proxy", "its requests are answered by it"))
    };
    let proxies = proxies.iter().cloned().map(Some);
    all.extend(proxies.map(|proxy| Disagreement { proxy, reason: reason.clone() }));
    all.truncate(lb_core::model::Standing::DISAGREEMENTS_MAX);
    all
}
