//! How long a change is waited for, and what is said of the wait.

use std::time::Duration;

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
};
use lb_core::model::shorten;
use lb_proto::duration::measured_text;
use serde::Serialize;

use crate::{fleet::WaitProgress, grpc::Applied, http::problem::Problem};

/// Who disabled a backend expects the next request elsewhere. Proxies need milliseconds.
const DEFAULT: Duration = Duration::from_secs(2);

/// The longest wait: a proxy that passes the request on waits a little longer.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// `?wait=5s`
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Wait(pub(super) Duration);

impl<S: Sync> FromRequestParts<S> for Wait {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parse(parts.uri.query().unwrap_or_default())
            .map(Self)
            .map_err(|message| Problem::new(StatusCode::BAD_REQUEST, "invalid", message))
    }
}

fn parse(query: &str) -> Result<Duration, String> {
    let mut wait = DEFAULT;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let shown = shorten(pair);
        let Some(text) = pair.strip_prefix("wait=") else {
            return Err(format!("{shown:?} is not known here; there is wait, as in ?wait=5s"));
        };
        wait = humantime::parse_duration(text)
            .map_err(|_| {
                format!("{shown:?} is no duration; write for example wait=5s, or wait=0s")
            })?
            .min(WAIT_MAX);
    }
    Ok(wait)
}

/// How far a change got; part of the answer to it.
#[derive(Debug, Serialize)]
pub(super) struct Spread {
    /// Live proxies.
    proxies: u32,
    /// Those that serve by the change.
    applied_proxies: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

impl From<Applied> for Spread {
    fn from(Applied { progress, elapsed }: Applied) -> Self {
        let warning = warning(&progress, elapsed);
        Self { proxies: progress.proxies, applied_proxies: progress.applied, warning }
    }
}

fn warning(progress: &WaitProgress, elapsed: Duration) -> Option<String> {
    if let Some((proxy, rejection)) = progress.rejections.first() {
        return Some(format!(
            "stored, but {proxy} refused it and goes on with what it had: {}",
            rejection.message
        ));
    }
    let laggards: Vec<String> = progress
        .laggards
        .iter()
        .map(|laggard| {
            let state = laggard.state();
            format!("{} ({state})", laggard.proxy)
        })
        .collect();
    (!laggards.is_empty()).then(|| {
        format!(
            "stored, but not yet applied after {} by {}; lbctl get proxies shows how they are",
            measured_text(elapsed),
            laggards.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_duration() {
        assert_eq!(parse(""), Ok(DEFAULT));
        assert_eq!(parse("wait=5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse("wait=0s"), Ok(Duration::ZERO));
        assert_eq!(parse("wait=9999d"), Ok(WAIT_MAX));
        for bad in ["wait=5", "wait=", "wait", "wiat=5s", "wait=5s&x=1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
