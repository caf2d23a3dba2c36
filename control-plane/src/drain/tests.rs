//! Drains of a control plane in memory.

use lb_core::model::{AdminState, DrainWish, Resource};

use super::*;
use crate::{
    Config, Running,
    registry::{PutMode, Registry},
    start,
};

/// A control plane with a backend that is to be removed once it has drained.
async fn draining() -> (Running, Stored<Backend>) {
    let running = start(Config::in_memory()).await.unwrap();
    let registry = &running.context().registry;
    let pool = registry.read(|view| view.catalog.pools().values().next().unwrap().value.clone());
    let wire = lb_proto::v1::Backend {
        id: "b".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        pool: pool.name.to_string(),
        ..lb_proto::v1::Backend::default()
    };
    let resource = Box::new(Resource::Backend(wire.try_into().unwrap()));
    write(registry, Item::Put { resource, mode: PutMode::Create, assign_id: false }).await;
    let drain = DrainWish::new(None, true).unwrap();
    let item = Item::SetState { id: "b".into(), state: AdminState::Draining, drain };
    let Stored { value: Resource::Backend(value), revision } = write(registry, item).await else {
        panic!("a backend was put");
    };
    (running, Stored { value, revision })
}

async fn write(registry: &Registry, item: Item) -> Stored<Resource> {
    let request = WriteRequest { items: vec![item], ..WriteRequest::default() };
    registry.write(request).await.unwrap().objects.remove(0)
}

#[tokio::test]
async fn a_backend_that_somebody_else_has_removed_holds_nothing_up() {
    let (running, mut stored) = draining().await;
    stored.value.drain.as_mut().unwrap().ended = true;
    let context = running.context();
    let round = Round::new(context);
    // It may be removed by the task of the control plane just as well.
    let item = Item::Delete { kind: Kind::Backend, name: "b".to_owned() };
    let request = WriteRequest { items: vec![item], ..WriteRequest::default() };
    context.registry.write(request).await.ok();
    let (again, has_tried) = look(context, &round, &stored).await;
    assert!(has_tried && again == Some(LOOK), "{again:?}");
    let held_up = |(what, _): &(EventType, u64)| *what == EventType::DrainHeldUp;
    assert_eq!(context.events.counts().find(held_up).unwrap().1, 0);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_was_refused_rests_until_the_state_changes_or_its_time_is_over() {
    let (_running, Stored { value: backend, .. }) = draining().await;
    let drains = Drains::new(false, None, Duration::from_secs(5));
    drains.elapsed(&backend, &backend.drain.unwrap());
    assert_eq!(drains.rests(&backend.id, 7), None);
    assert!(drains.is_refused(&backend.id, "the disk is full", 7), "that is news");
    assert_eq!(drains.rests(&backend.id, 7), Some(RETRY));
    assert_eq!(drains.rests(&backend.id, 8), None, "the state has changed");
    tokio::time::advance(RETRY).await;
    assert_eq!(drains.rests(&backend.id, 7), None);
    assert!(!drains.is_refused(&backend.id, "the disk is full", 7), "it is told already");
    drains.goes_on(&backend.id);
    assert_eq!((drains.held_up(&backend.id), drains.rests(&backend.id, 7)), (None, None));
}
