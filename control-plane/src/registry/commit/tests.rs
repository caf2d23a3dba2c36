//! What becomes of commits that fail.

use std::sync::Arc;

use lb_core::model::Kind;

use crate::{
    events::{EventLog, EventType},
    registry::{
        Note, Registry, WriteError, WriteRequest,
        tests::{add, one},
    },
    store::{
        Store as _, StoreError,
        faulty::{Fault, Faulty},
    },
};

fn started(faulty: &Faulty) -> (Registry, Arc<EventLog>) {
    let events = Arc::new(EventLog::new());
    (Registry::start(Box::new(faulty.clone()), Arc::clone(&events)).unwrap(), events)
}

/// A write that can be repeated.
fn keyed(address: &str, key: &str) -> WriteRequest {
    WriteRequest { idempotency: Some((key.to_owned(), 7)), ..one(add("default", address)) }
}

/// The state that is shown, which must be the one that is stored.
fn backends(registry: &Registry, faulty: &Faulty) -> usize {
    let contents = faulty.held();
    registry.read(|view| {
        assert_eq!(view.publisher.version().revision, contents.revision);
        let stored = contents.objects.into_iter().collect::<lb_core::sync::ObjectSet>();
        assert_eq!(view.publisher.objects(), &stored);
        view.catalog.names(Kind::Backend).len()
    })
}

/// The types of the events that tell of the store.
async fn told(events: &EventLog, count: usize) -> Vec<&'static str> {
    let (mut reader, mut told) = (events.reader(1000), Vec::new());
    while told.len() < count {
        let of_store = reader.next().await.into_iter().filter(|event| event.kind == "store");
        told.extend(of_store.map(|event| event.what.name()));
    }
    told
}

/// Waits until writes are taken again; virtual time runs meanwhile.
async fn healed(registry: &Registry) {
    tokio::select! {
        () = registry.keep_store_open() => unreachable!("it ends with the registry"),
        outcome = async { registry.outages().wait_for(Option::is_none).await.map(drop) } => {
            outcome.unwrap();
        }
    }
}

#[tokio::test]
async fn a_write_that_is_not_stored_is_refused_and_the_next_one_taken() {
    let faulty = Faulty::new();
    let (registry, events) = started(&faulty);
    faulty.will(&[Fault::Commit]);
    let error = registry.write(one(add("default", "h:1"))).await.unwrap_err();
    assert!(matches!(error, WriteError::Store(StoreError::Failed { .. })), "{error}");
    assert!(error.to_string().contains("disk full"), "{error}");
    assert!(registry.takes_writes());
    assert_eq!(backends(&registry, &faulty), 0);
    registry.write(one(add("default", "h:1"))).await.unwrap();
    assert_eq!(backends(&registry, &faulty), 1);
    assert_eq!(told(&events, 2).await, ["store_failed", "store_recovered"]);
    assert_eq!(registry.counts().store_failures, 1);
}

#[tokio::test]
async fn a_write_that_is_stored_although_its_commit_failed_has_happened() {
    let faulty = Faulty::new();
    let (registry, _) = started(&faulty);
    faulty.will(&[Fault::Late]);
    let written = registry.write(keyed("h:1", "k")).await.unwrap();
    assert_eq!((written.revision, registry.revision()), (2, 2));
    assert_eq!(backends(&registry, &faulty), 1);
    assert_eq!(registry.write(keyed("h:1", "k")).await.unwrap(), written);
    // What stores no more than an answer has no revision by which it could be told.
    let same = registry.read(|view| view.catalog.backends().values().next().unwrap().clone());
    let put = |key: &str| WriteRequest {
        items: vec![crate::registry::Item::Put {
            resource: Box::new(lb_core::model::Resource::Backend(same.value.clone())),
            mode: crate::registry::PutMode::Upsert,
            assign_id: false,
        }],
        idempotency: Some((key.to_owned(), 8)),
        ..WriteRequest::default()
    };
    faulty.will(&[Fault::Late]);
    assert!(!registry.write(put("l")).await.unwrap().changed);
    faulty.will(&[Fault::Commit]);
    registry.write(put("m")).await.unwrap_err();
    assert!(registry.answered("l".to_owned(), 8).await.unwrap().is_some());
    assert!(registry.answered("m".to_owned(), 8).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn without_room_nothing_is_written_until_there_is_some() {
    let faulty = Faulty::new();
    let (registry, events) = started(&faulty);
    faulty.will(&[Fault::Commit, Fault::Room, Fault::Room, Fault::Reopen, Fault::Room]);
    let error = registry.write(one(add("default", "h:1"))).await.unwrap_err();
    assert!(matches!(error, WriteError::Store(StoreError::Failed { .. })), "{error}");
    assert!(!registry.takes_writes());
    assert_eq!(registry.outages().borrow().as_deref(), Some("no room"));
    let again = registry.write(one(add("default", "h:2"))).await.unwrap_err();
    assert!(again.to_string().contains("no room"), "{again}");
    healed(&registry).await;
    registry.write(one(add("default", "h:3"))).await.unwrap();
    assert_eq!(backends(&registry, &faulty), 1);
    assert_eq!(told(&events, 2).await, ["store_failed", "store_recovered"], "once each");
    assert!(faulty.has_met_all());
}

#[tokio::test(start_paused = true)]
async fn a_write_in_doubt_is_shown_once_the_store_can_be_read_and_holds_it() {
    for (fault, expected) in [(Fault::Late, 1), (Fault::Commit, 0)] {
        let faulty = Faulty::new();
        let (registry, events) = started(&faulty);
        faulty.will(&[fault, Fault::Reopen, Fault::Reopen]);
        let error = registry.write(keyed("h:1", "k")).await.unwrap_err();
        assert!(matches!(error, WriteError::Store(StoreError::InDoubt { .. })), "{error}");
        assert!(error.to_string().contains("look before you repeat it"), "{error}");
        assert_eq!(registry.read(|view| view.catalog.names(Kind::Backend).len()), 0);
        assert_eq!(registry.revision(), 1);
        healed(&registry).await;
        assert_eq!(backends(&registry, &faulty), expected, "{fault:?}");
        assert_eq!(events.counts().find(|(what, _)| *what == EventType::StoreFailed).unwrap().1, 1);
        registry.write(keyed("h:1", "k")).await.unwrap();
        assert_eq!(backends(&registry, &faulty), 1, "repeated with its key, it is there once");
        registry.write(one(add("default", "h:2"))).await.unwrap();
        let ids = registry.read(|view| view.catalog.names(Kind::Backend).join(","));
        assert_eq!(ids, "backend1,backend2");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_to_a_store_that_was_put_in_its_place() {
    let faulty = Faulty::new();
    let (registry, _) = started(&faulty);
    faulty.will(&[Fault::Commit, Fault::Replaced, Fault::Replaced]);
    registry.write(one(add("default", "h:1"))).await.unwrap_err();
    let why = registry.outages().borrow().clone().unwrap();
    assert!(why.contains("replaced") && why.contains("restart"), "{why}");
    healed(&registry).await;
    assert_eq!(backends(&registry, &faulty), 0, "the former file came back");
}

#[tokio::test(start_paused = true)]
async fn a_note_that_fails_breaks_no_later_write() {
    let faulty = Faulty::new();
    let (registry, _) = started(&faulty);
    faulty.will(&[Fault::Note, Fault::Room]);
    assert!(!registry.note(Note::Holders(Vec::new())).await);
    assert!(!registry.takes_writes());
    assert!(!registry.note(Note::Holders(Vec::new())).await);
    healed(&registry).await;
    assert!(registry.note(Note::Holders(Vec::new())).await);
    registry.write(one(add("default", "h:1"))).await.unwrap();
    assert_eq!(backends(&registry, &faulty), 1);
}

#[tokio::test(start_paused = true)]
async fn a_term_that_could_not_be_stored_is_stored_once_the_store_can_be_written() {
    let mut faulty = Faulty::new();
    faulty.begin_term(u64::MAX / 2).unwrap();
    started(&faulty);
    faulty.will(&[Fault::Term, Fault::Room]);
    let (registry, events) = started(&faulty);
    assert_eq!(registry.term(), u64::MAX / 2 + 2, "above the last one, though it is not stored");
    assert_eq!(faulty.held().term, u64::MAX / 2 + 1);
    assert!(!registry.takes_writes());
    healed(&registry).await;
    assert_eq!(faulty.held().term, registry.term());
    assert_eq!(told(&events, 2).await, ["store_failed", "store_recovered"]);
    assert!(registry.note(Note::Proxies(Default::default())).await);
    assert_eq!(faulty.held().proxies, Some(Default::default()));
    assert!(registry.note(Note::Term(u64::MAX / 2 + 9)).await);
    assert_eq!(faulty.held().proxies, Some(Default::default()), "it is the same term");
    let (next, _) = started(&faulty);
    assert_eq!(next.term(), u64::MAX / 2 + 10);
}
