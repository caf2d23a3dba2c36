//! Backends that answer none of the requests that they have.

use super::*;
use crate::view::UnansweredView;

fn hanging(silent_ms: u64) -> Facts {
    let mut facts = facts(vec![proxy("p1", "synced")]);
    let backend = &mut facts.backends[0];
    backend.health = "up";
    backend.unanswered = Some(UnansweredView { requests: 6, silent_ms });
    facts
}

fn finding(facts: &Facts) -> Option<Finding> {
    judge(facts).into_iter().find(|finding| finding.check == "backend_answers")
}

#[test]
fn a_backend_that_hangs_while_its_check_passes_is_told() {
    let finding = finding(&hanging(12_300)).unwrap();
    assert_eq!(finding.level, Level::Warning);
    assert!(finding.is_trouble());
    insta::assert_snapshot!(finding.message, @"b1 localhost:8001: 6 requests in progress, none answered in the last 12s");
    insta::assert_snapshot!(finding.remedy.unwrap(), @"look at the server at localhost:8001 and its log; 'lbctl set-pool default --try-timeout 2s' has requests that begin later and get no answer in that time tried elsewhere; 'lbctl disable-backend b1' takes it out");
}

#[test]
fn neither_a_short_silence_nor_that_of_a_backend_that_is_out_of_use_is_told() {
    assert_eq!(finding(&hanging(9_000)), None);
    let mut disabled = hanging(12_300);
    disabled.backends[0].admin_state = "disabled";
    assert_eq!(finding(&disabled), None);
}
