//! How far a change got: in one line when it is live everywhere, and with the name of
//! every proxy that is not there yet when it is not.

use std::{collections::BTreeSet, time::Duration};

use lb_proto::duration::measured_text;

use crate::{
    exit::{Exit, Failure},
    format,
    view::{ProgressView, WriteView},
};

/// The last line of a change.
pub(super) fn summary(view: &WriteView) -> String {
    let revision = view.revision;
    if view.dry_run {
        return "dry run: nothing was changed".to_owned();
    }
    if !view.changed && view.progress.as_ref().is_none_or(|progress| progress.done) {
        return format!("unchanged (revision {revision})");
    }
    match &view.progress {
        None => format!(
            "stored as revision {revision}; not waiting for the proxies   \
             (lbctl wait revision/{revision})"
        ),
        Some(progress) => applied(progress),
    }
}

/// `applied 3/3 proxies in 38 ms (revision 118)`.
pub(super) fn applied(progress: &ProgressView) -> String {
    let ProgressView { revision, proxies, applied, elapsed_ms, .. } = progress;
    let lost = lost(progress);
    if *proxies == 0 {
        return format!("stored; no proxy connected (revision {revision}){lost}");
    }
    // A proxy that refuses an object acknowledges the revision without it.
    let refusing: BTreeSet<&str> =
        progress.rejections.iter().map(|refused| refused.proxy_id.as_str()).collect();
    if !refusing.is_empty() {
        return format!("refused by {}/{proxies} proxies (revision {revision})", refusing.len());
    }
    let took = measured_text(Duration::from_millis((*elapsed_ms).into()));
    format!("applied {applied}/{proxies} proxies in {took} (revision {revision}){lost}")
}

/// Who was lost before the change, and may go on serving without it.
fn lost(progress: &ProgressView) -> String {
    let [first, more @ ..] = progress.lost.as_slice() else { return String::new() };
    let id = &first.proxy_id;
    let serves = match first.applied_revision {
        0 => "its last state".to_owned(),
        revision => format!("revision {revision}"),
    };
    let others = match more.len() {
        0 => String::new(),
        more => format!(", {more} more too: 'lbctl get proxies'"),
    };
    format!(
        "; {id} is lost and may still serve {serves}{others} ('lbctl forget-proxy {id}' if it is \
         gone)"
    )
}

/// Why a change is not live everywhere, if it is not.
pub(super) fn failure(progress: &ProgressView, timeout: Duration) -> Option<Failure> {
    if !progress.rejections.is_empty() {
        return Some(rejected(progress));
    }
    if progress.done && progress.laggards.is_empty() {
        return None;
    }
    Some(late(progress, timeout))
}

fn rejected(progress: &ProgressView) -> Failure {
    let mut message = format!("revision {} was refused by a proxy", progress.revision);
    for refused in &progress.rejections {
        message += &format!("\n  {}: {}", refused.proxy_id, refused.rejection.sentence());
    }
    let whole = progress.rejections.iter().find(|refused| refused.rejection.kind == "state");
    match whole {
        Some(whole) => {
            message += &format!(
                "\nIt serves on by the state that it has.\nnext: lbctl describe proxy {}",
                whole.proxy_id
            );
        }
        None => {
            message += "\nA proxy that refuses an object keeps its former value and serves on; \
                        everything else is applied. Correct the object, or update that proxy if it \
                        is older than the control plane.";
        }
    }
    Failure::new(Exit::Rejected, message)
}

fn late(progress: &ProgressView, timeout: Duration) -> Failure {
    let revision = progress.revision;
    let missing = progress.laggards.len();
    let mut message = format!(
        "revision {revision} is stored, but {missing} of {} {} not applied it within {}",
        format::count(progress.proxies as usize, "proxy", "proxies"),
        if missing == 1 { "has" } else { "have" },
        format::duration(timeout),
    );
    for laggard in &progress.laggards {
        let seen = format::duration(Duration::from_millis(laggard.last_seen_ms));
        if laggard.state == "away" {
            message += &format!(
                "\n  {}: not back since the control plane was started {seen} ago",
                laggard.proxy_id
            );
            continue;
        }
        if let Some(refusal) = &laggard.refusal {
            message += &format!(
                "\n  {}: has not taken this store's state yet: {refusal}",
                laggard.proxy_id
            );
            continue;
        }
        message += &format!(
            "\n  {}: {} at revision {}, last heard of {seen} ago",
            laggard.proxy_id, laggard.state, laggard.applied_revision
        );
    }
    message += if progress.laggards.iter().all(|laggard| laggard.refusal.is_some()) {
        "\nIt serves on by the state that it has, and is asked again within 15s."
    } else {
        "\nIt is applied as soon as the proxy answers again; until then that proxy serves its \
         former state."
    };
    if let Some(first) = progress.laggards.first() {
        message += &format!(
            "\nnext: lbctl describe proxy {}, or lbctl wait revision/{revision} --timeout 1m",
            first.proxy_id
        );
    }
    Failure::new(Exit::TimedOut, message)
}

#[cfg(test)]
mod tests {
    use lb_proto::v1 as pb;

    use super::*;

    fn progress(applied: u32, laggards: &[(&str, u64)]) -> pb::ApplyProgress {
        pb::ApplyProgress {
            revision: 118,
            proxies: 3,
            applied,
            elapsed_ms: 38,
            done: laggards.is_empty(),
            laggards: laggards
                .iter()
                .map(|(proxy, last_seen_ms)| pb::Laggard {
                    proxy_id: (*proxy).to_owned(),
                    applied_revision: 117,
                    state: "behind".to_owned(),
                    last_seen_ms: *last_seen_ms,
                    ..pb::Laggard::default()
                })
                .collect(),
            lost: Vec::new(),
            rejections: Vec::new(),
        }
    }

    fn written(changed: bool, progress: Option<pb::ApplyProgress>) -> WriteView {
        let wire = pb::WriteResponse {
            revision: 118,
            changed,
            objects: Vec::new(),
            progress,
            ..Default::default()
        };
        WriteView::read(wire, false)
    }

    #[test]
    fn a_change_that_is_live_everywhere_takes_one_line() {
        assert_eq!(
            summary(&written(true, Some(progress(3, &[])))),
            "applied 3/3 proxies in 38 ms (revision 118)"
        );
        let nobody = pb::ApplyProgress { proxies: 0, applied: 0, ..progress(0, &[]) };
        assert!(summary(&written(true, Some(nobody))).starts_with("stored; no proxy connected"));
        assert_eq!(summary(&written(false, None)), "unchanged (revision 118)");
    }

    #[test]
    fn a_lost_proxy_that_may_serve_an_older_revision_is_named() {
        let lost = |id: &str| pb::Laggard {
            proxy_id: id.to_owned(),
            applied_revision: 51,
            ..pb::Laggard::default()
        };
        let mut wire = progress(3, &[]);
        wire.lost = vec![lost("edge-2")];
        insta::assert_snapshot!(summary(&written(true, Some(wire.clone()))), @"applied 3/3 proxies in 38 ms (revision 118); edge-2 is lost and may still serve revision 51 ('lbctl forget-proxy edge-2' if it is gone)");
        assert!(failure(&wire.clone().into(), Duration::from_secs(1)).is_none());
        wire.lost.push(lost("edge-3"));
        assert!(summary(&written(true, Some(wire))).contains(", 1 more too: 'lbctl get proxies'"));
    }

    #[test]
    fn a_proxy_that_has_not_taken_the_store_yet_is_late_and_refuses_nothing() {
        let mut wire = progress(0, &[("edge-1", 9)]);
        "rejected".clone_into(&mut wire.laggards[0].state);
        "pool default has no backend there that can serve"
            .clone_into(&mut wire.laggards[0].refusal);
        let failure = failure(&wire.into(), Duration::from_secs(10)).unwrap();
        assert_eq!(failure.exit, Exit::TimedOut);
        insta::assert_snapshot!(failure.message, @r"
        revision 118 is stored, but 1 of 3 proxies has not applied it within 10s
          edge-1: has not taken this store's state yet: pool default has no backend there that can serve
        It serves on by the state that it has, and is asked again within 15s.
        next: lbctl describe proxy edge-1, or lbctl wait revision/118 --timeout 1m
        ");
    }

    #[test]
    fn a_late_proxy_is_named_with_its_revision_and_age() {
        let late = progress(2, &[("proxy-2", 9_600)]).into();
        let failure = failure(&late, Duration::from_secs(10)).unwrap();
        assert_eq!(failure.exit, Exit::TimedOut);
        insta::assert_snapshot!(failure.message, @r"
        revision 118 is stored, but 1 of 3 proxies has not applied it within 10s
          proxy-2: behind at revision 117, last heard of 9.6s ago
        It is applied as soon as the proxy answers again; until then that proxy serves its former state.
        next: lbctl describe proxy proxy-2, or lbctl wait revision/118 --timeout 1m
        ");
    }

    #[test]
    fn a_proxy_that_is_not_back_after_a_restart_is_named() {
        let mut late = progress(2, &[("proxy-2", 1_200)]);
        late.laggards[0].state = "away".to_owned();
        let message = failure(&late.into(), Duration::from_secs(10)).unwrap().message;
        let line = message.lines().nth(1).unwrap();
        insta::assert_snapshot!(line, @"  proxy-2: not back since the control plane was started 1.2s ago");
    }

    #[test]
    fn a_refusal_is_told_with_proxy_object_code_and_message() {
        let rejection = pb::Rejection {
            kind: "pool".to_owned(),
            name: "default".to_owned(),
            revision: 118,
            code: "unknown_algorithm".to_owned(),
            message: "unknown algorithm \"peak_ewma\"".to_owned(),
        };
        let mut refused = progress(2, &[]);
        refused.rejections =
            vec![pb::ProxyRejection { proxy_id: "proxy-3".to_owned(), rejection: Some(rejection) }];
        let progress = refused.into();
        assert_eq!(applied(&progress), "refused by 1/3 proxies (revision 118)");
        let failure = failure(&progress, Duration::from_secs(10)).unwrap();
        assert_eq!(failure.exit, Exit::Rejected);
        insta::assert_snapshot!(failure.message, @r#"
        revision 118 was refused by a proxy
          proxy-3: pool default: unknown algorithm "peak_ewma" (unknown_algorithm)
        A proxy that refuses an object keeps its former value and serves on; everything else is applied. Correct the object, or update that proxy if it is older than the control plane.
        "#);
    }

    #[test]
    fn no_news_is_no_success() {
        let unknown = pb::ApplyProgress { done: false, ..progress(2, &[]) };
        assert_eq!(failure(&unknown.into(), TEN).unwrap().exit, Exit::TimedOut);
    }

    const TEN: Duration = Duration::from_secs(10);
}
