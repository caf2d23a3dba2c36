//! What is worth telling about a change of what traffic says of a backend.

use lb_core::model::{BackendStatus, EjectedBy, Ejection, Reason, Standing};

use crate::events::EventType;

/// Compares a status with the one before it.
pub(super) fn news(
    before: Option<&BackendStatus>,
    status: &BackendStatus,
) -> Vec<(EventType, Reason)> {
    let nothing = Standing::default();
    let before = before
        .filter(|before| before.incarnation == status.incarnation)
        .map_or(&nothing, |before| &before.standing);
    let after = &status.standing;
    let of_ejection = of_ejection(before.ejection.as_ref(), after.ejection.as_ref());
    let of_views = match (before.disagreements.as_slice(), after.disagreements.as_slice()) {
        ([], []) | ([_, ..], [_, ..]) => None,
        ([], [first, ..]) => {
            let who = first.proxy.as_ref().map_or("the control plane", |proxy| proxy.as_str());
            let rest = after.disagreements.len() - 1;
            let more = if rest > 0 { format!(" (and {rest} more)") } else { String::new() };
            let message = format!("{who}{more}: {}", first.reason.message);
            Some((EventType::ViewsDiffer, Reason::new(&first.reason.code, message)))
        }
        ([_, ..], []) => {
            Some((EventType::ViewsAgree, Reason::new("views_agree", "all see the same again")))
        }
    };
    of_ejection.into_iter().chain(of_views).collect()
}

fn of_ejection(before: Option<&Ejection>, after: Option<&Ejection>) -> Vec<(EventType, Reason)> {
    let ended = |ejection: &Ejection| {
        let what = match ejection.by {
            EjectedBy::Breaker => EventType::BreakerClosed,
            EjectedBy::Outlier => EventType::BackendRestored,
        };
        (what, Reason::new("restored", "it gets requests again"))
    };
    let began = |ejection: &Ejection| {
        let what = match (ejection.by, ejection.is_half_open) {
            (EjectedBy::Breaker, false) => EventType::BreakerOpened,
            (EjectedBy::Breaker, true) => EventType::BreakerHalfOpened,
            (EjectedBy::Outlier, _) => EventType::BackendEjected,
        };
        let times = ejection.times;
        let message = match (ejection.is_half_open, times) {
            (true, _) => "one request of the fleet at a time tries it".to_owned(),
            (false, 0 | 1) => {
                format!("{}; out for {:.1?}", ejection.reason.message, ejection.open_for)
            }
            (false, _) => format!(
                "{}; out for {:.1?}, the {times}. time in a row",
                ejection.reason.message, ejection.open_for
            ),
        };
        (what, Reason::new(&ejection.reason.code, message))
    };
    match (before, after) {
        (None, None) => Vec::new(),
        (None, Some(after)) => vec![began(after)],
        (Some(before), None) => vec![ended(before)],
        (Some(before), Some(after)) if before.by != after.by => vec![ended(before), began(after)],
        (Some(before), Some(after)) => {
            let same = before.is_half_open == after.is_half_open
                && before.since_unix_ms == after.since_unix_ms;
            if same { Vec::new() } else { vec![began(after)] }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lb_core::model::{BackendId, Disagreement, Health, Incarnation};

    use super::*;

    fn status(standing: Standing) -> BackendStatus {
        BackendStatus {
            backend: BackendId::new("b").unwrap(),
            incarnation: Incarnation(1),
            health: Health::Up,
            addresses: Vec::new(),
            reason: Reason::default(),
            since_unix_ms: 0,
            was_up: true,
            standing,
        }
    }

    fn breaker(is_half_open: bool, since_unix_ms: u64) -> Standing {
        let ejection = Ejection {
            by: EjectedBy::Breaker,
            is_half_open,
            open_for: Duration::from_secs(5),
            times: 2,
            reason: Reason::new("breaker_probe_failed", "it failed"),
            since_unix_ms,
        };
        Standing { ejection: Some(ejection), ..Standing::default() }
    }

    #[test]
    fn each_step_of_a_breaker_is_told_once() {
        let steps = [
            (Standing::default(), vec![]),
            (breaker(false, 1), vec![EventType::BreakerOpened]),
            (breaker(false, 1), vec![]),
            (breaker(true, 2), vec![EventType::BreakerHalfOpened]),
            (breaker(false, 3), vec![EventType::BreakerOpened]),
            (breaker(false, 4), vec![EventType::BreakerOpened]),
            (Standing::default(), vec![EventType::BreakerClosed]),
        ];
        let mut before: Option<BackendStatus> = None;
        for (standing, expected) in steps {
            let after = status(standing);
            let told: Vec<EventType> =
                news(before.as_ref(), &after).into_iter().map(|(what, _)| what).collect();
            assert_eq!(told, expected);
            before = Some(after);
        }
        let opened = news(None, &status(breaker(false, 1)));
        assert_eq!(opened[0].1.message, "it failed; out for 5.0s, the 2. time in a row");
    }

    #[test]
    fn views_that_differ_are_told_when_they_begin_to_and_when_they_end() {
        let reason = Reason::new("unreachable_from_proxy", "no answer");
        let disagreement = Disagreement { proxy: None, reason };
        let standing = Standing { disagreements: vec![disagreement; 3], ..Standing::default() };
        let (agree, differ) = (status(Standing::default()), status(standing));
        let told = news(Some(&agree), &differ);
        assert_eq!(told[0].0, EventType::ViewsDiffer);
        assert_eq!(told[0].1.message, "the control plane (and 2 more): no answer");
        assert_eq!(news(Some(&differ), &differ), []);
        assert_eq!(news(Some(&differ), &agree)[0].0, EventType::ViewsAgree);
    }
}
