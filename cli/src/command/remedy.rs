//! What to do about a backend that is down, by the reason of the verdict.

use crate::view::{BackendView, ReasonView};

/// What a reason usually means, and a command that may help.
pub(super) fn for_reason(code: &str, backend: &BackendView) -> Option<String> {
    let BackendView { id, pool, address, .. } = backend;
    let text = match code {
        "check_status" if backend.has_passed_a_check() => format!(
            "it passed this check before: look at the server at {address} and its log first; if only \
             the page has moved, 'lbctl set-pool {pool} --health-path /PATH'"
        ),
        "check_status" => format!(
            "set another path with 'lbctl set-pool {pool} --health-path /', or only connect: \
             'lbctl set-pool {pool} --health tcp'"
        ),
        "backend_connect_refused" => format!(
            "nothing listens at {address}: start the server, or correct the address with \
             'lbctl set-backend {id} --address HOST:PORT'"
        ),
        "backend_connect_timeout" | "backend_unreachable" => format!(
            "no way to {address} from the control plane: look at the address, routes and firewalls"
        ),
        "backend_timeout" => format!(
            "the check got no answer in time: allow more with 'lbctl set-pool {pool} \
             --health-timeout 5s --health-interval 10s', or only connect: 'lbctl set-pool {pool} \
             --health tcp'"
        ),
        "backend_reset" | "backend_protocol_error" => format!(
            "what listens at {address} answers no HTTP: only connect with 'lbctl set-pool {pool} \
             --health tcp', or correct the address"
        ),
        "dns_failure" => format!(
            "the name in {address} cannot be resolved by the control plane: correct it with \
             'lbctl set-backend {id} --address HOST:PORT'"
        ),
        "flap_hold" => format!(
            "find out why its checks come and go ('lbctl watch' shows them); it comes back when it \
             has been still, or at once if {pool} needs it"
        ),
        "check_contradicted" => "look at the network between the control plane and it: proxies \
                                 reach it"
            .to_owned(),
        _ => return None,
    };
    Some(text)
}

/// Why a loopback address is wrong for proxies on other machines.
pub(super) fn loopback(address: &str, proxies: &[&str]) -> String {
    let first = proxies.first().copied().unwrap_or_default();
    let others = match proxies.len() {
        0 | 1 => String::new(),
        number => format!(" and {} more", number - 1),
    };
    format!(
        "warning: {address} means its own machine to each proxy, and {first}{others} runs on \
         another one than the control plane; give an address that all of them can reach"
    )
}

/// The next step for a backend in its present state.
pub(super) fn next_step(backend: &BackendView) -> String {
    let id = &backend.id;
    match (backend.admin_state, backend.health) {
        ("draining", _) if backend.drain.as_ref().is_some_and(|drain| !drain.drained) => format!(
            "'lbctl wait backend/{id} --for drained' waits for its end, 'lbctl enable-backend {id}' \
             ends it early"
        ),
        ("draining", _) => format!(
            "it is drained; take it away with 'lbctl remove-backend {id}', or serve again with \
             'lbctl enable-backend {id}'"
        ),
        ("disabled", _) => {
            format!("it is {}; serve again with 'lbctl enable-backend {id}'", backend.admin_state)
        }
        (_, "down") => for_reason(&present(backend).code, backend).unwrap_or_else(|| {
            format!("'lbctl wait backend/{id} --for healthy' once the cause is removed")
        }),
        (_, "unknown") => {
            format!("it gets traffic after its first passing check: 'lbctl wait backend/{id}'")
        }
        (_, "up") if backend.standing.ejection.is_some() => ejected(backend),
        (_, "up") if backend.reason.code == "check_contradicted" => {
            for_reason(&backend.reason.code, backend).unwrap_or_default()
        }
        (_, "up") if backend.avoided_by().is_some() => {
            let by = backend.avoided_by().unwrap_or_default();
            format!(
                "see what its requests through {by} fail with ('lbctl describe backend {id}'), and \
                 whether it can be reached from there; it is tried again by itself"
            )
        }
        (_, "up") if backend.failing_checks().is_some() => {
            let wait = || format!("it goes down if they go on: 'lbctl describe backend {id}'");
            for_reason(&present(backend).code, backend).unwrap_or_else(wait)
        }
        _ if backend.weight == 0 => {
            format!("it has weight 0; 'lbctl set-backend {id} --weight 1' sends it requests")
        }
        _ => format!("nothing to do; 'lbctl get backends --pool {}' compares it", backend.pool),
    }
}

/// The next step for a backend that is out for what its requests came to.
fn ejected(backend: &BackendView) -> String {
    let BackendView { id, pool, .. } = backend;
    match &backend.standing.ejection {
        Some(ejection) if ejection.by == "outlier" => format!(
            "see what its requests fail with ('lbctl describe backend {id}'); it comes back by \
             itself, and 'lbctl set-pool {pool} --outlier-detection false' brings it back now"
        ),
        _ => format!(
            "see what its requests fail with (failures above, access log); it is tried again by \
             itself, and 'lbctl set-pool {pool} --breaker-failures 0 --breaker-ratio 0' switches \
             breakers off"
        ),
    }
}

/// Why it is down now. A verdict keeps the reason for which it was given; the last check
/// may have failed for another one, and that is what there is to be mended.
pub(super) fn present(backend: &BackendView) -> &ReasonView {
    backend.failing_checks().map_or(&backend.reason, |checks| &checks.last_result)
}

#[cfg(test)]
mod tests {
    use lb_proto::v1 as pb;

    use super::*;

    fn down(code: &str) -> BackendView {
        let backend = pb::Backend {
            id: "backend4".to_owned(),
            pool: "default".to_owned(),
            address: "localhost:8004".to_owned(),
            ..pb::Backend::default()
        };
        let status = pb::BackendStatus {
            health: pb::Health::Down.into(),
            reason: Some(pb::Reason { code: code.to_owned(), message: String::new() }),
            ..pb::BackendStatus::default()
        };
        BackendView::from(pb::BackendView {
            backend: Some(backend),
            status: Some(status),
            ..pb::BackendView::default()
        })
    }

    #[test]
    fn a_missing_health_page_is_everybodys_first_failure() {
        insta::assert_snapshot!(next_step(&down("check_status")), @"set another path with 'lbctl set-pool default --health-path /', or only connect: 'lbctl set-pool default --health tcp'");
    }

    #[test]
    fn the_remedy_is_for_what_the_last_check_saw() {
        let mut backend = down("backend_connect_refused");
        let report = pb::CheckReport {
            failures_in_a_row: 4,
            last_result: Some(pb::Reason {
                code: "check_status".to_owned(),
                message: "GET /health answered 500".to_owned(),
            }),
            ..pb::CheckReport::default()
        };
        backend.checks = Some(report.into());
        assert!(next_step(&backend).contains("--health-path"), "{}", next_step(&backend));
        assert_eq!(present(&backend).message, "GET /health answered 500");
    }

    #[test]
    fn a_backend_that_passed_before_is_looked_at_itself() {
        let mut backend = down("check_status");
        let report = pb::CheckReport {
            failures_in_a_row: 4,
            last_success_unix_ms: 1_795_384_331_000,
            last_result: Some(pb::Reason {
                code: "check_status".to_owned(),
                message: "GET /health answered 500".to_owned(),
            }),
            ..pb::CheckReport::default()
        };
        backend.checks = Some(report.into());
        insta::assert_snapshot!(next_step(&backend), @"it passed this check before: look at the server at localhost:8004 and its log first; if only the page has moved, 'lbctl set-pool default --health-path /PATH'");
    }

    #[test]
    fn an_unknown_reason_still_has_a_next_step() {
        assert!(next_step(&down("eaten_by_a_whale")).contains("lbctl wait backend/backend4"));
    }
}
