//! What the checks say after a change of what is checked.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Session, get, remedy};
use crate::{
    args::WriteArgs,
    exit::Failure,
    output,
    view::{BackendView, PoolView},
};

/// Before the first check, and for what comes with it.
const BEGINS_WITHIN: Duration = Duration::from_millis(1500);
/// The longest wait; a check may be allowed minutes.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Whether somebody is there to be told, and the change is made.
pub(super) fn are_told(session: &Session, args: &WriteArgs) -> bool {
    session.screen.is_for_people() && !args.dry_run && !args.no_wait
}

/// Waits until every backend of a pool was checked by what `revision` has changed, for a moment, and
/// says how many pass.
pub(super) async fn tell(session: &Session, pool: &PoolView, revision: u64) -> Result<(), Failure> {
    if pool.health == "none" {
        return Ok(());
    }
    let timeout = Duration::from_millis(pool.health_timeout_ms.into());
    let deadline = Instant::now() + (BEGINS_WITHIN + timeout).min(WAIT_MAX);
    loop {
        let mut backends = get::backends(session, &pool.name).await?;
        backends.retain(|backend| backend.admin_state != "disabled");
        let all = backends.iter().all(|backend| is_of(backend, revision));
        if all || Instant::now() >= deadline {
            // A control plane of before this message says nothing.
            let tells = backends.iter().any(|backend| is_of(backend, 1));
            return if tells { output::print(&outcome(&backends, revision)) } else { Ok(()) };
        }
        sleep(LOOK).await;
    }
}

fn is_of(backend: &BackendView, revision: u64) -> bool {
    backend.checks.as_ref().is_some_and(|checks| checks.checked_revision >= revision)
}

fn outcome(backends: &[BackendView], revision: u64) -> String {
    let total = backends.len();
    let checked: Vec<&BackendView> = backends.iter().filter(|b| is_of(b, revision)).collect();
    let failing = || checked.iter().filter(|backend| backend.failing_checks().is_some());
    let passing = checked.len() - failing().count();
    let mut text = format!("checks: {passing} of {total} backends pass now");
    if checked.len() < total {
        text += &format!(", {} not checked yet", total - checked.len());
    }
    let Some(worst) = failing().next() else { return text };
    let reason = remedy::present(worst);
    text += &format!(" ({}: {})", worst.id, reason.sentence());
    if let Some(next) = remedy::for_reason(&reason.code, worst) {
        text += &format!("\nnext: {next}");
    }
    text
}

#[cfg(test)]
mod tests {
    use lb_proto::v1 as pb;

    use super::*;

    fn checked(id: &str, revision: u64, failures: u64) -> BackendView {
        let last_result = pb::Reason {
            code: "check_status".to_owned(),
            message: "GET /wrong answered 404".to_owned(),
        };
        BackendView::from(pb::BackendView {
            backend: Some(pb::Backend {
                id: id.to_owned(),
                pool: "web".to_owned(),
                address: "a:1".to_owned(),
                ..pb::Backend::default()
            }),
            checks: Some(pb::CheckReport {
                failures_in_a_row: failures,
                last_result: Some(last_result),
                checked_revision: revision,
                ..pb::CheckReport::default()
            }),
            ..pb::BackendView::default()
        })
    }

    #[test]
    fn whoever_changes_a_check_hears_how_many_pass() {
        let failing = [checked("b1", 9, 1), checked("b2", 9, 2), checked("b3", 4, 0)];
        insta::assert_snapshot!(outcome(&failing, 9), @r"
        checks: 0 of 3 backends pass now, 1 not checked yet (b1: GET /wrong answered 404 (check_status))
        next: set another path with 'lbctl set-pool web --health-path /', or only connect: 'lbctl set-pool web --health tcp'
        ");
        let fine = [checked("b1", 9, 0)];
        insta::assert_snapshot!(outcome(&fine, 9), @"checks: 1 of 1 backends pass now");
    }
}
