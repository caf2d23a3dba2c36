//! What to do about a backend that is down, by the reason of the verdict.

use crate::{
    format,
    view::{BackendView, ReasonView, StandingView},
};

/// What a reason usually means, and a command that may help. Whoever passed this very check before, or
/// whose requests fail, too, is ill: a laxer check would only hide it.
pub(super) fn for_reason(code: &str, backend: &BackendView) -> Option<String> {
    let BackendView { id, pool, address, .. } = backend;
    let text = match code {
        "backend_timeout" | "backend_reset" | "backend_protocol_error" | "check_status"
            if backend.standing.ejection.is_some() || backend.kept.is_some() =>
        {
            format!(
                "its checks and its requests fail: look at the server at {address} and its log; \
                 'lbctl drain-backend {id}' takes it out"
            )
        }
        "backend_timeout" if backend.has_passed_a_check() => format!(
            "it passed this check before and hangs now: look at the server at {address} and its log; \
             'lbctl drain-backend {id}' takes it out"
        ),
        "backend_reset" | "backend_protocol_error" if backend.has_passed_a_check() => format!(
            "it passed this check before: look at the server at {address} and its log; 'lbctl \
             drain-backend {id}' takes it out"
        ),
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

/// The next step where all is well.
pub(super) const NOTHING: &str = "nothing to do";

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
        (_, "up") if backend.kept.is_some() => kept(backend),
        (_, "up") if backend.hanging().is_some() => hanging(backend),
        (_, "up") if backend.reason.code == "check_contradicted" => {
            for_reason(&backend.reason.code, backend).unwrap_or_default()
        }
        (_, "up") if backend.avoided_by().is_some() => {
            let by = backend.avoided_by().unwrap_or_default();
            format!(
                "see whether {address} can be reached from the machine of {by}, and look at the log of \
                 its server; it is tried again by itself",
                address = backend.address
            )
        }
        (_, "up") if !backend.standing.disagreements.is_empty() => seen_otherwise(backend),
        (_, "up") if backend.failing_checks().is_some() => {
            let address = &backend.address;
            let wait = || format!("it goes down if they go on: look at the server at {address}");
            for_reason(&present(backend).code, backend).unwrap_or_else(wait)
        }
        _ if backend.weight == 0 => {
            format!("it has weight 0; 'lbctl set-backend {id} --weight 1' sends it requests")
        }
        _ => NOTHING.to_owned(),
    }
}

/// The next step for a backend that is out for what its requests came to. Checks that fail too
/// tell more of the cause.
fn ejected(backend: &BackendView) -> String {
    let BackendView { address, traffic, .. } = backend;
    let cause = backend
        .failing_checks()
        .and_then(|checks| for_reason(&checks.last_result.code, backend))
        .unwrap_or_else(|| {
            let kinds = match traffic.failures_total {
                0 => String::new(),
                _ => format!(" (what failed so far: {})", traffic.failures.by_kind()),
            };
            format!("look at the log of the server at {address}{kinds}")
        });
    format!("{cause}; it is tried again by itself")
}

/// The next step for a backend that stays although its requests fail.
fn kept(backend: &BackendView) -> String {
    let BackendView { id, pool, address, .. } = backend;
    format!(
        "look at the server at {address} and its log; if others of pool {pool} can take its requests, \
         'lbctl disable-backend {id}' takes it out"
    )
}

/// The next step for a backend that answers none of the requests that it has.
pub(super) fn hanging(backend: &BackendView) -> String {
    let BackendView { id, pool, address, .. } = backend;
    format!(
        "look at the server at {address} and its log; 'lbctl set-pool {pool} --try-timeout 2s' has \
         requests that begin later and get no answer in that time tried elsewhere; 'lbctl \
         disable-backend {id}' takes it out"
    )
}

/// How a backend that is out for what its requests came to is brought back at once.
pub(super) fn bring_back(backend: &BackendView) -> Option<String> {
    let id = &backend.id;
    backend.standing.ejection.as_ref()?;
    Some(format!(
        "once its server is well: 'lbctl disable-backend {id}', then 'lbctl enable-backend {id}'"
    ))
}

/// The next step for a backend whose traffic goes otherwise than its verdict says.
fn seen_otherwise(backend: &BackendView) -> String {
    let BackendView { pool, address, .. } = backend;
    let mut proxies = backend.standing.disagreements.iter().filter_map(|d| d.proxy_id.as_deref());
    let proxy = match (proxies.next(), proxies.count()) {
        (None, _) => return format!("look at the server at {address} and its log"),
        (Some(only), 0) => only,
        (Some(_), _) if backend.health == "up" => {
            return format!(
                "look at the server at {address} and its log: several proxies fail at it"
            );
        }
        (Some(_), _) => {
            return format!("see whether {address} answers on the machines of those proxies");
        }
    };
    let mut step = format!(
        "on the machine of {proxy}, see whether {address} answers (curl http://{address}/)"
    );
    if backend.checks.is_none() {
        step += &format!("; checks are off in pool {pool}: 'lbctl set-pool {pool} --health tcp'");
    }
    step
}

/// Why it is in the state that it is in.
pub(super) fn why(backend: &BackendView) -> String {
    let StandingView { ejection, disagreements, .. } = &backend.standing;
    let failing = backend.failing_checks();
    let too = || {
        let too = failing
            .map(|checks| format!("; its check fails too: {}", checks.last_result.sentence()));
        too.unwrap_or_default()
    };
    if let Some(ejection) = ejection {
        return ejection.reason.sentence() + &too();
    }
    if backend.health != "up" {
        return present(backend).sentence();
    }
    if let Some(kept) = &backend.kept {
        return kept.reason.sentence() + &too();
    }
    let seen = disagreements.first().map(|first| {
        let reason = first.reason.sentence();
        match disagreements.iter().filter(|other| other.proxy_id.is_some()).count() {
            0 | 1 => format!("{} sees it otherwise: {reason}", first.who()),
            many => format!("{many} proxies see it otherwise: {reason}"),
        }
    });
    let avoided = backend.avoided_by().map(|by| format!("avoided by {by}"));
    let checks = failing.filter(|_| disagreements.is_empty()).map(|checks| {
        let failed = format::count(
            usize::try_from(checks.failures_in_a_row).unwrap_or(usize::MAX),
            "check failed",
            "checks in a row failed",
        );
        format!("{failed}: {}", checks.last_result.sentence())
    });
    let amiss: Vec<String> = [seen, avoided, checks].into_iter().flatten().collect();
    if amiss.is_empty() { backend.reason.sentence() } else { amiss.join("; ") }
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

    /// Up by its verdict, and kept out by a breaker.
    fn broken(checks: Option<pb::CheckReport>) -> BackendView {
        let mut backend = down("check_passed");
        backend.health = "up";
        let ejection = pb::Ejection {
            by: "breaker".to_owned(),
            reason: Some(pb::Reason {
                code: "breaker_consecutive_failures".to_owned(),
                message: "5 requests in a row failed".to_owned(),
            }),
            ..pb::Ejection::default()
        };
        backend.standing.ejection = Some(ejection.into());
        backend.checks = checks.map(Into::into);
        backend
    }

    #[test]
    fn a_backend_whose_checks_fail_too_gets_their_remedy_and_not_the_breakers() {
        let refused = pb::CheckReport {
            failures_in_a_row: 1,
            last_result: Some(pb::Reason {
                code: "backend_connect_refused".to_owned(),
                message: "127.0.0.1:8004 refused the connection".to_owned(),
            }),
            ..pb::CheckReport::default()
        };
        let backend = broken(Some(refused));
        insta::assert_snapshot!(why(&backend), @"5 requests in a row failed (breaker_consecutive_failures); its check fails too: 127.0.0.1:8004 refused the connection (backend_connect_refused)");
        insta::assert_snapshot!(next_step(&backend), @"nothing listens at localhost:8004: start the server, or correct the address with 'lbctl set-backend backend4 --address HOST:PORT'; it is tried again by itself");
        insta::assert_snapshot!(next_step(&broken(None)), @"look at the log of the server at localhost:8004; it is tried again by itself");
    }

    #[test]
    fn a_laxer_check_is_no_remedy_for_a_server_that_is_ill() {
        for code in ["check_status", "backend_timeout", "backend_reset", "backend_protocol_error"] {
            let report = pb::CheckReport {
                failures_in_a_row: 4,
                last_result: Some(pb::Reason { code: code.to_owned(), message: String::new() }),
                ..pb::CheckReport::default()
            };
            // Its requests fail, too.
            let text = next_step(&broken(Some(report.clone())));
            assert!(text.contains("its checks and its requests fail"), "{code}: {text}");
            assert!(!text.contains("--health"), "{code}: {text}");
            // It passed before.
            let mut backend = down(code);
            let passed =
                pb::CheckReport { last_success_unix_ms: 1_795_384_331_000, ..report.clone() };
            backend.checks = Some(passed.into());
            let text = next_step(&backend);
            assert!(text.contains("it passed this check before"), "{code}: {text}");
            assert!(!text.contains("--health tcp"), "{code}: {text}");
            // Nothing is known but that it never passed.
            backend.checks = Some(report.into());
            assert!(next_step(&backend).contains("--health"), "{code}: {}", next_step(&backend));
        }
    }

    #[test]
    fn many_proxies_that_disagree_are_counted() {
        let mut backend = down("check_passed");
        backend.health = "up";
        let by = |number: u32| pb::Disagreement {
            proxy: format!("edge-{number}"),
            reason: Some(pb::Reason {
                code: "unreachable_from_proxy".to_owned(),
                message: "no answer".to_owned(),
            }),
        };
        let disagreements = (1..=8).map(by).collect();
        let mut status = pb::BackendStatus { disagreements, ..pb::BackendStatus::default() };
        backend.standing = StandingView::take(&mut status);
        insta::assert_snapshot!(why(&backend), @"8 proxies see it otherwise: no answer (unreachable_from_proxy)");
        insta::assert_snapshot!(next_step(&backend), @"look at the server at localhost:8004 and its log: several proxies fail at it");
    }

    #[test]
    fn what_a_proxy_sees_otherwise_has_a_remedy_where_it_is_seen() {
        let mut backend = down("checks_off");
        backend.health = "up";
        let by = pb::Disagreement { proxy: "edge-1".to_owned(), ..pb::Disagreement::default() };
        let mut status =
            pb::BackendStatus { disagreements: vec![by], ..pb::BackendStatus::default() };
        backend.standing = StandingView::take(&mut status);
        insta::assert_snapshot!(next_step(&backend), @"on the machine of edge-1, see whether localhost:8004 answers (curl http://localhost:8004/); checks are off in pool default: 'lbctl set-pool default --health tcp'");
        backend.checks = Some(pb::CheckReport::default().into());
        assert!(next_step(&backend).ends_with("(curl http://localhost:8004/)"));
    }

    #[test]
    fn an_unknown_reason_still_has_a_next_step() {
        assert!(next_step(&down("eaten_by_a_whale")).contains("lbctl wait backend/backend4"));
    }
}
