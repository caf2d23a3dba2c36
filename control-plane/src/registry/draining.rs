//! Drains as they are stored: how one begins, how far it has come, and what is told of it.
//!
//! How a drain goes is decided beside the registry (see `crate::drain`), which knows what
//! proxies have left. What came of it is stored with the backend, so that it holds over a
//! restart and proxies learn of it.

use lb_core::model::{Backend, Drain, DrainWish, Reason};
use lb_proto::document::unit::duration_text;

use super::WriteError;
use crate::events::EventType;

/// How far a drain has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DrainStep {
    /// Its deadline has passed, and this much is known to be left.
    Cutting {
        /// Requests and upgraded connections.
        left: u32,
    },
    /// Nothing is left; this much was cut.
    Ended {
        /// Requests and upgraded connections.
        cut: u32,
    },
}

/// Completes or refuses a backend that is to be put in place of `former`, which is the same
/// life of it. Nobody else can say how its drain goes.
pub(super) fn settle(
    backend: &mut Backend,
    former: Option<&Backend>,
    wish: DrainWish,
    now_unix_ms: u64,
) -> Result<(), WriteError> {
    if wish.removes()
        && let Some(source) = &backend.source
    {
        return Err(WriteError::Precondition(format!(
            "backend {} is discovered by {source} and would come back; drain it without removing \
             it, or take it out of the source's answers, which removes it here",
            backend.id
        )));
    }
    let under_way = former.and_then(|former| former.drain);
    backend.drain = Drain::settled(backend.admin_state, under_way, wish, now_unix_ms);
    Ok(())
}

/// The drain after a step.
pub(super) fn advanced(drain: Drain, step: DrainStep) -> Drain {
    match step {
        DrainStep::Cutting { left } => Drain { cutting: true, cut: left, ..drain },
        DrainStep::Ended { cut } => Drain { ended: true, cut, ..drain },
    }
}

/// What is worth telling of the drain of a backend that was `former` before.
pub(super) fn news(former: Option<&Backend>, backend: &Backend) -> Option<(EventType, Reason)> {
    let before = former.and_then(|former| former.drain);
    let drain = backend.drain?;
    let timeout = duration_text(drain.timeout);
    match before {
        None => {
            let then = if drain.remove { ", and is then removed" } else { "" };
            let message = format!("it drains for at most {timeout}{then}");
            Some((EventType::DrainStarted, Reason::new("drain_started", message)))
        }
        Some(before) if drain.ended && !before.ended => {
            let message = match drain.cut {
                0 => "nothing is left of it, and nothing was cut".to_owned(),
                cut => format!("nothing is left of it; {cut} cut at the deadline"),
            };
            Some((EventType::Drained, Reason::new("drained", message)))
        }
        Some(before) if drain.cutting && !before.cutting => {
            let message = format!(
                "{timeout} have passed; what is left is cut, {} as far as known",
                drain.cut
            );
            Some((EventType::DrainDeadline, Reason::new("drain_deadline", message)))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use lb_core::model::{AdminState, BackendId, Kind, PoolName, Resource, Weight};

    use super::*;
    use crate::{
        events::EventLog,
        registry::{Item, PutMode, Registry, WriteRequest},
        store::MemoryStore,
    };

    fn backend() -> Backend {
        Backend::new(BackendId::new("b").unwrap(), PoolName::default_pool(), "h:1".parse().unwrap())
    }

    fn put(backend: Backend) -> Item {
        let resource = Box::new(Resource::Backend(backend));
        Item::Put { resource, mode: PutMode::Upsert, assign_id: false }
    }

    fn set(state: AdminState, drain: DrainWish) -> Item {
        Item::SetState { id: "b".to_owned(), state, drain }
    }

    fn went(step: DrainStep) -> Item {
        Item::Drain { id: "b".to_owned(), step }
    }

    async fn write(registry: &Registry, item: Item) -> Backend {
        let request = WriteRequest { items: vec![item], ..WriteRequest::default() };
        registry.write(request).await.unwrap();
        registry.read(|view| view.catalog.backends().values().next().unwrap().value.clone())
    }

    async fn registry() -> (Registry, Arc<EventLog>) {
        let events = Arc::new(EventLog::new());
        let registry = Registry::start(Box::new(MemoryStore::new()), Arc::clone(&events)).unwrap();
        write(&registry, put(backend())).await;
        (registry, events)
    }

    #[tokio::test]
    async fn each_step_of_a_drain_is_stored_and_told() {
        let (registry, events) = registry().await;
        let wish = DrainWish::new(Some(Duration::from_secs(9)), true).unwrap();
        let begun = write(&registry, set(AdminState::Draining, wish)).await.drain.unwrap();
        assert!(begun.since_unix_ms > 0 && begun.remove && begun.timeout.as_secs() == 9);
        write(&registry, went(DrainStep::Cutting { left: 4 })).await;
        let ended = write(&registry, went(DrainStep::Ended { cut: 3 })).await.drain.unwrap();
        assert_eq!(ended, Drain { cutting: true, ended: true, cut: 3, ..begun });
        let told = events.reader(1000).next().await;
        let told: Vec<String> = told
            .into_iter()
            .filter(|event| event.reason.code.starts_with("drain"))
            .map(|event| format!("{}: {}", event.what.name(), event.reason.message))
            .collect();
        let expected = [
            "drain_started: it drains for at most 9s, and is then removed",
            "drain_deadline: 9s have passed; what is left is cut, 4 as far as known",
            "drained: nothing is left of it; 3 cut at the deadline",
        ];
        assert_eq!(told, expected);
    }

    #[tokio::test]
    async fn nobody_but_the_registry_says_how_a_drain_goes() {
        let (registry, _) = registry().await;
        let drained = write(&registry, set(AdminState::Draining, DrainWish::default())).await;
        let forged = drained.drain.map(|drain| Drain { ended: true, cut: 9, ..drain });
        let heavier = Backend { weight: Weight::new(7).unwrap(), drain: forged, ..drained.clone() };
        let after = write(&registry, put(heavier)).await;
        assert_eq!((after.weight.get(), after.drain), (7, drained.drain));
        let enabled = write(&registry, set(AdminState::Enabled, DrainWish::default())).await;
        assert_eq!(enabled.drain, None);
        // A step that was on its way meanwhile changes nothing.
        let late = write(&registry, went(DrainStep::Ended { cut: 1 })).await;
        assert_eq!(late, enabled);
    }

    #[tokio::test]
    async fn another_life_of_a_backend_does_not_inherit_a_drain() {
        let (registry, _) = registry().await;
        write(&registry, set(AdminState::Draining, DrainWish::default())).await;
        let cutting = write(&registry, went(DrainStep::Cutting { left: 1 })).await;
        let moved = Backend { address: "h:2".parse().unwrap(), ..cutting };
        let drain = write(&registry, put(moved)).await.drain.unwrap();
        assert!(!drain.cutting && drain.cut == 0);
        let item = Item::Delete { kind: Kind::Backend, name: "b".to_owned() };
        let request = WriteRequest { items: vec![item], ..WriteRequest::default() };
        registry.write(request).await.unwrap();
        let again = Backend { admin_state: AdminState::Draining, ..backend() };
        assert!(!write(&registry, put(again)).await.drain.unwrap().cutting);
    }
}
