use bytes::Bytes;

use super::*;
use crate::{
    model::{Epoch, Key},
    sync::{Object, ObjectSet},
};

const EPOCH: Epoch = Epoch([1; 16]);

fn object(name: &str, revision: u64) -> Object {
    Object { key: Key::new("backend", name), revision, payload: Bytes::from_static(b"v") }
}

fn publisher() -> Publisher {
    let mut publisher = Publisher::new(Version { epoch: EPOCH, revision: 10 }, ObjectSet::new());
    publisher.commit(11, vec![object("a", 11)], vec![], 0);
    publisher
}

fn published(publisher: &Publisher) -> Held {
    Held { version: publisher.version(), digest: publisher.digest() }
}

fn held(epoch: Epoch, revision: u64) -> Held {
    Held { version: Version { epoch, revision }, digest: Digest::default() }
}

fn nonce(transmission: &Transmission) -> Nonce {
    match transmission {
        Transmission::Delta(delta) => delta.nonce,
        Transmission::Snapshot(state) => state.nonce,
    }
}

fn answer(nonce: Nonce, held: Held) -> Answer {
    Answer { nonce, held: Some(held), rejections: vec![], refused: None }
}

fn refusal(nonce: Nonce, held: Held, refusal: Refusal) -> Answer {
    Answer { refused: Some((refusal, "no".to_owned())), ..answer(nonce, held) }
}

/// A session whose proxy has everything.
fn synced(publisher: &Publisher) -> Session {
    let mut session = Session::open(publisher, Some(published(publisher)), vec![]);
    assert!(session.poll(publisher).is_none());
    session
}

#[test]
fn a_proxy_that_holds_everything_is_sent_nothing() {
    let publisher = publisher();
    let session = synced(&publisher);
    assert_eq!(session.applied_revision(), 11);
    assert_eq!((session.deltas_sent(), session.snapshots_sent()), (0, 0));
}

#[test]
fn a_proxy_that_was_away_for_a_while_resumes_with_a_delta() {
    let publisher = publisher();
    let mut session = Session::open(&publisher, Some(held(EPOCH, 10)), vec![]);
    assert_eq!(session.applied_revision(), 10);
    let Some(Transmission::Delta(delta)) = session.poll(&publisher) else { panic!() };
    assert_eq!((delta.from_revision, delta.to.revision), (10, 11));
    assert_eq!(session.sent_revision(), 11);
    let ack = answer(delta.nonce, published(&publisher));
    assert_eq!(session.on_answer(ack), AckOutcome::Applied(11));
    assert_eq!(session.applied_revision(), 11);
}

#[test]
fn whoever_cannot_resume_is_sent_a_snapshot() {
    let publisher = publisher();
    for (held, allow_empty) in
        [(None, true), (Some(held(EPOCH, 9)), true), (Some(held(Epoch([2; 16]), 11)), false)]
    {
        let mut session = Session::open(&publisher, held, vec![]);
        let Some(Transmission::Snapshot(state)) = session.poll(&publisher) else { panic!() };
        assert_eq!(state.allow_empty, allow_empty);
    }
}

#[test]
fn what_stands_refused_outlives_the_stream_on_which_it_was_told() {
    let publisher = publisher();
    let refused = Rejection {
        key: Key::new("backend", "a"),
        revision: 11,
        code: "invalid_value".to_owned(),
        message: "no".to_owned(),
    };
    let open = |held| Session::open(&publisher, Some(held), vec![refused.clone()]);
    let mut session = open(published(&publisher));
    assert_eq!(session.rejections(), std::slice::from_ref(&refused));
    assert!(session.poll(&publisher).is_none());
    assert_eq!(open(held(EPOCH, 10)).rejections(), std::slice::from_ref(&refused));
    assert!(open(held(Epoch([2; 16]), 11)).rejections().is_empty(), "of another store");

    // The next answer tells what stands then.
    let mut session = open(held(EPOCH, 10));
    let asked = nonce(&session.poll(&publisher).unwrap());
    session.on_answer(answer(asked, published(&publisher)));
    assert!(session.rejections().is_empty());
}

#[test]
fn changes_merge_while_an_answer_is_due() {
    let mut publisher = publisher();
    let mut session = Session::open(&publisher, Some(held(EPOCH, 10)), vec![]);
    let first = session.poll(&publisher).unwrap();
    let then = published(&publisher);
    for revision in 12..20 {
        publisher.commit(revision, vec![object("b", revision)], vec![], 0);
        assert!(session.poll(&publisher).is_none());
    }
    assert_eq!(session.on_answer(answer(nonce(&first), then)), AckOutcome::Applied(11));
    let Some(Transmission::Delta(delta)) = session.poll(&publisher) else { panic!() };
    assert_eq!(delta.upserts, [object("b", 19)]);
    assert_eq!(session.deltas_sent(), 2);
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    let publisher = publisher();
    let mut earlier = Session::open(&publisher, Some(held(EPOCH, 10)), vec![]);
    let late = answer(nonce(&earlier.poll(&publisher).unwrap()), published(&publisher));
    let mut session = Session::open(&publisher, Some(held(EPOCH, 10)), vec![]);
    let asked = nonce(&session.poll(&publisher).unwrap());
    assert_eq!(session.on_answer(late), AckOutcome::Stale);
    assert_eq!(session.applied_revision(), 10);
    let ack = answer(asked, published(&publisher));
    assert_eq!(session.on_answer(ack.clone()), AckOutcome::Applied(11));
    assert_eq!(session.on_answer(ack), AckOutcome::Stale);
}

#[test]
fn a_refusal_never_counts_as_applied() {
    let publisher = publisher();
    let mut session = Session::open(&publisher, Some(held(EPOCH, 10)), vec![]);
    let asked = nonce(&session.poll(&publisher).unwrap());
    let refusal = refusal(asked, published(&publisher), Refusal::Resync);
    assert_eq!(session.on_answer(refusal), AckOutcome::Refused);
    assert_eq!(session.applied_revision(), 0);
    assert!(matches!(session.poll(&publisher), Some(Transmission::Snapshot(_))));
}

#[test]
fn another_digest_at_the_same_revision_is_healed_by_one_snapshot() {
    let publisher = publisher();
    let mut session = Session::open(&publisher, Some(held(EPOCH, 11)), vec![]);
    assert_eq!((session.divergences(), session.applied_revision()), (1, 0));
    let Some(Transmission::Snapshot(state)) = session.poll(&publisher) else { panic!() };
    session.on_answer(answer(state.nonce, published(&publisher)));
    assert!(session.poll(&publisher).is_none());

    // The proxy finds out by itself, says so twice, and is sent one more.
    let unasked = refusal(Nonce::default(), held(EPOCH, 11), Refusal::Resync);
    assert_eq!(session.on_answer(unasked.clone()), AckOutcome::Diverged);
    let asked = nonce(&session.poll(&publisher).unwrap());
    assert_eq!(session.on_answer(unasked), AckOutcome::Stale);
    assert!(session.poll(&publisher).is_none());
    let ack = answer(asked, published(&publisher));
    assert_eq!(session.on_answer(ack), AckOutcome::Applied(11));
    assert_eq!((session.divergences(), session.snapshots_sent()), (2, 2));
}

#[test]
fn a_digest_that_never_agrees_does_not_lead_to_endless_snapshots() {
    let mut publisher = publisher();
    let wrong = held(EPOCH, 11);
    for refused in [true, false] {
        let mut session = Session::open(&publisher, Some(wrong), vec![]);
        for _ in 0..20 {
            if let Some(transmission) = session.poll(&publisher) {
                let asked = nonce(&transmission);
                session.on_answer(if refused {
                    refusal(asked, wrong, Refusal::Resync)
                } else {
                    answer(asked, wrong)
                });
            }
            session.on_answer(refusal(Nonce::default(), wrong, Refusal::Resync));
        }
        assert_eq!(session.snapshots_sent(), u64::from(FAILED_SNAPSHOTS_MAX));
        assert_eq!(session.applied_revision(), 0);
    }
    let mut session = Session::open(&publisher, Some(wrong), vec![]);
    while let Some(transmission) = session.poll(&publisher) {
        session.on_answer(answer(nonce(&transmission), wrong));
    }
    publisher.commit(12, vec![], vec![], 0);
    assert!(session.poll(&publisher).is_some(), "a newer state is worth another");
}

#[test]
fn a_snapshot_that_would_empty_a_pool_waits_for_a_change() {
    let mut publisher = publisher();
    let other = held(Epoch([2; 16]), 40);
    let mut session = Session::open(&publisher, Some(other), vec![]);
    let asked = nonce(&session.poll(&publisher).unwrap());
    session.on_answer(refusal(asked, other, Refusal::WouldEmpty));
    assert_eq!((session.refusal(), session.held()), (Some("no"), Some(other)));
    assert!(session.poll(&publisher).is_none());
    publisher.commit(12, vec![object("b", 12)], vec![], 0);
    let asked = nonce(&session.poll(&publisher).unwrap());
    session.on_answer(answer(asked, published(&publisher)));
    assert_eq!((session.refusal(), session.applied_revision()), (None, 12));
}

#[test]
fn an_operator_may_consent_to_what_a_new_store_silences() {
    let mut publisher = publisher();
    let other = held(Epoch([2; 16]), 40);
    let mut session = Session::open(&publisher, Some(other), vec![]);
    assert!(!session.consent(), "nothing was refused yet");
    let asked = nonce(&session.poll(&publisher).unwrap());
    session.on_answer(refusal(asked, other, Refusal::WouldEmpty));
    assert!(session.awaits_consent() && session.poll(&publisher).is_none());
    assert!(session.consent());
    let Some(Transmission::Snapshot(state)) = session.poll(&publisher) else { panic!() };
    assert!(state.allow_empty);
    session.on_answer(answer(state.nonce, published(&publisher)));
    assert_eq!((session.refusal(), session.applied_revision()), (None, 11));
    assert!(!session.awaits_consent() && !session.consent());
    // The word holds for that time only, and for what is under way when it is said.
    let mut session = Session::open(&publisher, Some(other), vec![]);
    let asked = nonce(&session.poll(&publisher).unwrap());
    session.on_answer(refusal(asked, other, Refusal::WouldEmpty));
    publisher.commit(12, vec![object("b", 12)], vec![], 0);
    let asked = nonce(&session.poll(&publisher).unwrap());
    assert!(session.consent());
    session.on_answer(refusal(asked, other, Refusal::WouldEmpty));
    let Some(Transmission::Snapshot(state)) = session.poll(&publisher) else { panic!() };
    assert!(state.allow_empty);
}

#[test]
fn a_delta_that_is_too_large_for_a_message_goes_as_a_snapshot() {
    let mut publisher = publisher();
    let large = |name: &str, revision| Object {
        payload: Bytes::from(vec![0; DELTA_BYTES_MAX / 4]),
        ..object(name, revision)
    };
    let mut session = Session::open(&publisher, Some(published(&publisher)), vec![]);
    for (revision, name) in (12..).zip(["a", "b", "c"]) {
        publisher.commit(revision, vec![large(name, revision)], vec![], 0);
    }
    assert_eq!(session.due(&publisher), Some(Due::Delta(11)));
    publisher.commit(15, vec![large("d", 15)], vec![], 0);
    assert_eq!(session.due(&publisher), Some(Due::Snapshot));
    let Some(Transmission::Snapshot(state)) = session.poll(&publisher) else { panic!() };
    assert!(state.allow_empty && state.objects.len() == 4);
}

#[test]
fn refusals_to_empty_a_pool_do_not_use_up_the_tries() {
    let mut publisher = publisher();
    let other = held(Epoch([2; 16]), 40);
    let mut session = Session::open(&publisher, Some(other), vec![]);
    for revision in 12..20 {
        let asked = nonce(&session.poll(&publisher).unwrap());
        session.on_answer(refusal(asked, other, Refusal::WouldEmpty));
        publisher.commit(revision, vec![object("b", revision)], vec![], 0);
    }
    let asked = nonce(&session.poll(&publisher).unwrap());
    session.on_answer(refusal(asked, other, Refusal::Resync));
    assert!(session.poll(&publisher).is_some(), "a damaged snapshot is sent again");
}

#[test]
fn a_proxy_ahead_of_the_store_is_named_until_the_store_has_caught_up() {
    let mut publisher = publisher();
    let mut session = Session::open(&publisher, Some(held(EPOCH, 13)), vec![]);
    assert!(session.refusal().unwrap().contains("newer revision than this control plane's 11"));
    publisher.commit(12, vec![object("b", 12)], vec![], 0);
    assert!(session.poll(&publisher).is_none());
    publisher.commit(14, vec![object("b", 14)], vec![], 0);
    let Some(Transmission::Delta(delta)) = session.poll(&publisher) else { panic!() };
    assert_eq!(delta.from_revision, 13);
    assert_eq!(session.refusal(), None);
}
